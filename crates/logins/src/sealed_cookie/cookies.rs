//! A sealed cookie in the headers of requests and responses. A long value is divided into several cookies.

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

use super::attributes::CookieAttributes;
use super::sealing_keys::SealingKeys;

/// A cookie with sealed values.
#[derive(Debug)]
pub struct SealedCookie {
    attributes: CookieAttributes,
    /// What the values are bound to in addition to the name.
    context: Box<[u8]>,
}

/// How many cookies contain the value that a request has sent: 0 if it has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CookieParts(u8);

/// The value is too long for the cookies that browsers store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session of {0} bytes is too long for cookies, which may have {MAX_SEALED_BYTES}")]
pub struct CookieTooLarge(usize);

impl SealedCookie {
    /// `context` separates the values from those of other uses of the same key, for example by the id of a client.
    pub fn new(attributes: CookieAttributes, context: &str) -> Self {
        let context = format!("{}\n{context}", attributes.name).into_bytes().into();
        SealedCookie { attributes, context }
    }

    pub fn name(&self) -> &str {
        &self.attributes.name
    }

    /// What values are bound to.
    pub fn context(&self) -> &[u8] {
        &self.context
    }

    /// The names of all cookies that may contain a value.
    pub fn names(&self) -> impl Iterator<Item = Box<str>> {
        (1..=MAX_PARTS).map(|part| part_name(self.name(), part).into())
    }

    /// The value in the cookies of a request, and in how many of them it is. `None` without a valid one.
    pub fn open(&self, keys: &SealingKeys, headers: &HeaderMap) -> (Option<Vec<u8>>, CookieParts) {
        let mut most_parts = CookieParts(0);
        // A site above this one can add a cookie of the same name, so the first one need not be the right one.
        for first in cookie_values(headers, self.name()).take(MAX_CANDIDATES) {
            let Some((count, sealed)) = split_count(first) else {
                most_parts.0 = most_parts.0.max(1);
                continue;
            };
            most_parts.0 = most_parts.0.max(count);
            let mut sealed = sealed.to_vec();
            for part in 2..=count {
                sealed.extend_from_slice(
                    cookie_values(headers, &part_name(self.name(), part)).next().unwrap_or_default(),
                );
            }
            if let Some(text) = keys.open(&self.context, &sealed) {
                return (Some(text), most_parts);
            }
        }
        (None, most_parts)
    }

    /// Sets the value, and removes the cookies of a longer former one. `max_age`: in seconds; `None` for cookies that
    /// end with the browser.
    pub fn set(
        &self,
        keys: &SealingKeys,
        response: &mut HeaderMap,
        text: &[u8],
        max_age: Option<u64>,
        former: CookieParts,
        is_secure: bool,
    ) -> Result<(), CookieTooLarge> {
        let sealed = keys.seal(&self.context, text);
        let count = sealed.len().div_ceil(MAX_PART_BYTES);
        let Some(count) = u8::try_from(count).ok().filter(|count| *count <= MAX_PARTS) else {
            return Err(CookieTooLarge(sealed.len()));
        };
        for (part, chunk) in (1..).zip(sealed.as_bytes().chunks(MAX_PART_BYTES)) {
            let chunk = std::str::from_utf8(chunk).expect("base64 is ASCII");
            let value = if part == 1 { format!("{count}.{chunk}") } else { chunk.to_owned() };
            self.append(response, part, &value, max_age, is_secure);
        }
        self.clear_parts(response, count + 1, former, is_secure);
        Ok(())
    }

    /// In how many cookies of a request a value may be, valid or not. Needs no keys, unlike [`SealedCookie::open`].
    pub(crate) fn parts_in(&self, request: &HeaderMap) -> CookieParts {
        let is_sent = |part: &u8| cookie_values(request, &part_name(self.name(), *part)).next().is_some();
        CookieParts((1..=MAX_PARTS).rev().find(is_sent).unwrap_or_default())
    }

    /// How many bytes the cookies have in a request.
    pub fn bytes_in(&self, request: &HeaderMap) -> usize {
        let of_part = |part: u8| {
            let name = part_name(self.name(), part);
            cookie_values(request, &name).map(|value| name.len() + value.len()).sum::<usize>()
        };
        (1..=MAX_PARTS).map(of_part).sum()
    }

    /// Removes the cookies from the browser.
    pub fn clear(&self, response: &mut HeaderMap, former: CookieParts, is_secure: bool) {
        self.clear_parts(response, 1, former, is_secure);
    }

    fn clear_parts(&self, response: &mut HeaderMap, first: u8, former: CookieParts, is_secure: bool) {
        for part in first..=former.0 {
            self.append(response, part, "", Some(0), is_secure);
        }
    }

    fn append(&self, response: &mut HeaderMap, part: u8, value: &str, max_age: Option<u64>, is_secure: bool) {
        let text = self.attributes.set_cookie(&part_name(self.name(), part), value, max_age, is_secure);
        let mut value = HeaderValue::try_from(text).expect("names, attributes and base64 are valid in headers");
        value.set_sensitive(true);
        response.append(SET_COOKIE, value);
    }

    /// Removes the cookies from a request, so that the endpoint does not get them.
    pub fn remove_from(&self, request: &mut HeaderMap) {
        remove_cookies(request, |name| is_part(name, self.name()));
    }
}

/// The values of all cookies with this name.
fn cookie_values<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h [u8]> {
    cookies(headers).filter(move |(cookie, _)| *cookie == name.as_bytes()).map(|(_, value)| value)
}

/// The names and values of all cookies.
pub fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = headers.get_all(COOKIE).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).filter_map(|pair| {
        let equals_sign = memchr::memchr(b'=', pair)?;
        Some((pair[..equals_sign].trim_ascii(), pair[equals_sign + 1..].trim_ascii()))
    })
}

/// Removes the `unwanted` cookies from a request. The others keep their order.
pub fn remove_cookies(request: &mut HeaderMap, unwanted: impl Fn(&[u8]) -> bool) {
    if !cookies(request).any(|(name, _)| unwanted(name)) {
        return;
    }
    let mut kept = Vec::new();
    for line in request.get_all(COOKIE) {
        for pair in line.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
            let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
            if !pair.is_empty() && !unwanted(name) {
                kept.push(pair.to_vec());
            }
        }
    }
    request.remove(COOKIE);
    if !kept.is_empty() {
        let line = HeaderValue::from_bytes(&kept.join(&b"; "[..])).expect("parts of valid values are valid");
        request.insert(COOKIE, line);
    }
}

/// The number of cookies and the first part of the sealed value.
fn split_count(first: &[u8]) -> Option<(u8, &[u8])> {
    let [digit, b'.', sealed @ ..] = first else { return None };
    let count = digit.checked_sub(b'0').filter(|count| (1..=MAX_PARTS).contains(count))?;
    Some((count, sealed))
}

/// The first cookie has the configured name, and the others have numbers.
fn part_name(name: &str, part: u8) -> String {
    if part == 1 { name.to_owned() } else { format!("{name}_{part}") }
}

fn is_part(cookie: &[u8], name: &str) -> bool {
    match cookie.strip_prefix(name.as_bytes()) {
        Some([]) => true,
        Some([b'_', digit]) => (b'2'..=b'0' + MAX_PARTS).contains(digit),
        _ => false,
    }
}

/// Browsers store at least 4096 bytes of a cookie with its name and attributes (RFC 6265, section 6.1).
const MAX_PART_BYTES: usize = 3600;
/// All cookies together fit into the head of a request.
const MAX_PARTS: u8 = 6;
const MAX_SEALED_BYTES: usize = MAX_PART_BYTES * MAX_PARTS as usize;
/// How many cookies of the same name are tried.
const MAX_CANDIDATES: usize = 4;

#[cfg(test)]
mod tests {
    use super::super::attributes::{CookieSameSite, CookieSettings};
    use super::*;

    fn cookie() -> SealedCookie {
        let settings = CookieSettings {
            name: "session",
            path: "/",
            domain: None,
            same_site: CookieSameSite::Lax,
            http_only: true,
            secure: None,
        };
        SealedCookie::new(CookieAttributes::validate(&settings, "name", "").unwrap(), "test")
    }

    fn keys() -> SealingKeys {
        SealingKeys::derive(b"secret", None, "test")
    }

    /// The Cookie header that a browser without other cookies sends after a response.
    fn sent_back(response: &HeaderMap) -> HeaderMap {
        let pairs: Vec<String> = response
            .get_all(SET_COOKIE)
            .iter()
            .map(|value| value.to_str().unwrap().split(';').next().unwrap().to_owned())
            .collect();
        HeaderMap::from_iter([(COOKIE, HeaderValue::try_from(pairs.join("; ")).unwrap())])
    }

    #[test]
    fn long_values_are_divided() {
        let (cookie, keys) = (cookie(), keys());
        for (length, parts) in [(0, 1), (2600, 1), (2700, 2), (16_000, 6)] {
            let text = vec![b'x'; length];
            let mut response = HeaderMap::new();
            cookie.set(&keys, &mut response, &text, None, CookieParts(0), false).unwrap();
            assert_eq!(response.get_all(SET_COOKIE).iter().count(), parts, "{length}");
            assert!(response.values().all(|value| value.len() < 4096 && value.is_sensitive()), "{length}");
            let request = sent_back(&response);
            let (opened, found) = cookie.open(&keys, &request);
            assert_eq!((opened, usize::from(found.0)), (Some(text), parts), "{length}");
        }
        let long = cookie.set(&keys, &mut HeaderMap::new(), &[0; 17_000], None, CookieParts(0), false);
        assert!(long.unwrap_err().to_string().contains("too long for cookies"));
    }

    #[test]
    fn parts_of_a_former_value_are_removed() {
        let (cookie, keys) = (cookie(), keys());
        let mut response = HeaderMap::new();
        cookie.set(&keys, &mut response, b"short", None, CookieParts(3), false).unwrap();
        let values: Vec<&str> = response.values().map(|value| value.to_str().unwrap()).collect();
        assert!(values[0].starts_with("session=1."), "{values:?}");
        assert_eq!(
            values[1..],
            [
                "session_2=; Path=/; SameSite=Lax; HttpOnly; Max-Age=0",
                "session_3=; Path=/; SameSite=Lax; HttpOnly; Max-Age=0",
            ]
        );
    }

    #[test]
    fn all_parts_of_a_request_are_removed() {
        for (line, expected) in [
            ("a=b", &[][..]),
            ("session=1.x", &["session"]),
            ("session_2=y; session=2.x; session_1=z; session_7=z", &["session", "session_2"]),
            ("session_3=y", &["session", "session_2", "session_3"]),
        ] {
            let request = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static(line))]);
            let mut response = HeaderMap::new();
            cookie().clear(&mut response, cookie().parts_in(&request), false);
            let names = response.values().map(|value| value.to_str().unwrap().split('=').next().unwrap());
            assert_eq!(names.collect::<Vec<_>>(), expected, "{line}");
            assert!(response.values().all(|value| value.to_str().unwrap().ends_with("; Max-Age=0")), "{line}");
        }
    }

    #[test]
    fn cookies_of_the_same_name_do_not_hide_the_valid_one() {
        let (cookie, keys) = (cookie(), keys());
        let mut response = HeaderMap::new();
        cookie.set(&keys, &mut response, b"text", None, CookieParts(0), false).unwrap();
        let valid = sent_back(&response)[COOKIE].to_str().unwrap().to_owned();
        for (line, expected) in [
            (format!("session=evil; session=2.evil; {valid}"), true),
            (format!("a=b; {valid}; session=evil"), true),
            (format!("session=1.; session=9.x; session=; session=0.x; {valid}"), false),
            ("session=1.AAAA".to_owned(), false),
            (valid.replace("session", "Session"), false),
        ] {
            let request = HeaderMap::from_iter([(COOKIE, HeaderValue::try_from(line.clone()).unwrap())]);
            assert_eq!(cookie.open(&keys, &request).0.is_some(), expected, "{line}");
        }
    }

    #[test]
    fn endpoints_do_not_get_sealed_cookies() {
        for (line, expected) in [
            ("session=1.x", None),
            ("a=b; session=1.x; session_2=y; c=d", Some("a=b; c=d")),
            (
                "session_7=a; session_1=b; sessions=c; xsession=d",
                Some("session_7=a; session_1=b; sessions=c; xsession=d"),
            ),
            ("a=b", Some("a=b")),
            ("session=1.x; flag; =v", Some("flag; =v")),
        ] {
            let mut request = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static(line))]);
            cookie().remove_from(&mut request);
            assert_eq!(request.get(COOKIE).map(|value| value.to_str().unwrap()), expected, "{line}");
        }
    }
}
