//! HTTP Digest authentication (RFC 2617) with MD5 and `qop=auth`: the users of a file of `htdigest`, and the nonces
//! that clients have to use.
//!
//! Nothing is stored about a nonce: it contains its time, and a code that only processes with the same users can
//! compute. Therefore all replicas accept it, and a changed file ends all.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;

use crate::md5;

/// The users of a realm.
pub struct DigestUsers {
    realm: Box<str>,
    /// The hashes of users, realms and passwords, as hexadecimal digits.
    hashes: BTreeMap<Box<str>, [u8; 32]>,
    /// Of the codes in nonces.
    key: hmac::Key,
}

/// A line of the file that cannot be used. Its text is not part of the error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct InvalidDigestLine {
    /// Beginning at 1.
    pub line: usize,
    problem: &'static str,
}

/// What the credentials of a request are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DigestOutcome {
    /// Those of this user.
    Verified(String),
    /// Right, but for a nonce that is too old, or of other users.
    Stale,
    Wrong,
}

impl DigestUsers {
    /// The users in lines of `USERNAME:REALM:HASH`, as `htdigest` writes them. Empty lines and those that begin with
    /// `#` are skipped.
    pub fn parse(realm: &str, text: &str) -> (Self, Vec<InvalidDigestLine>) {
        let (mut hashes, mut invalid) = (BTreeMap::new(), Vec::new());
        for (index, line) in text.lines().map(str::trim_end).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let problem = match parse_line(line, realm) {
                Ok((username, _)) if hashes.contains_key(username) => "an earlier line has the same username",
                Ok((username, hash)) => {
                    hashes.insert(username.into(), hash);
                    continue;
                }
                Err(problem) => problem,
            };
            invalid.push(InvalidDigestLine { line: index + 1, problem });
        }
        // A client that knows the file can log in without a nonce of this process.
        let secret = [b"portico digest 1", realm.as_bytes(), b"\n", text.as_bytes()].concat();
        let key = hmac::Key::new(hmac::HMAC_SHA256, digest(&SHA256, &secret).as_ref());
        (DigestUsers { realm: realm.into(), hashes, key }, invalid)
    }

    /// A nonce for a client, which is valid for a minute.
    pub fn nonce(&self, now: SystemTime) -> String {
        self.nonce_of(seconds(now))
    }

    fn nonce_of(&self, seconds: u32) -> String {
        let code = hmac::sign(&self.key, &seconds.to_be_bytes());
        let mut start = [0; 16];
        start.copy_from_slice(&code.as_ref()[..16]);
        let digits = md5::digits(start);
        format!("{seconds:08x}{}", std::str::from_utf8(&digits).unwrap_or_default())
    }

    fn is_current(&self, nonce: &[u8], now: SystemTime) -> bool {
        let time = nonce.get(..8).and_then(|time| std::str::from_utf8(time).ok());
        let Some(time) = time.and_then(|time| u32::from_str_radix(time, 16).ok()) else { return false };
        // The clock of another replica may be ahead.
        let is_in_time = seconds(now).saturating_sub(time) < NONCE_SECONDS;
        is_in_time && verify_slices_are_equal(self.nonce_of(time).as_bytes(), nonce).is_ok()
    }

    /// Checks the credentials of a request, without the name of the scheme. `target`: as the client has sent it.
    pub fn check(&self, credentials: &[u8], method: &str, target: &str, now: SystemTime) -> DigestOutcome {
        let fields = if credentials.len() <= MAX_CREDENTIALS { DigestFields::parse(credentials) } else { None };
        let Some(fields) = fields.filter(|fields| fields.are_for(&self.realm, target)) else {
            return DigestOutcome::Wrong;
        };
        let Ok(username) = std::str::from_utf8(&fields.username) else { return DigestOutcome::Wrong };
        let Some(hash) = self.hashes.get(username) else { return DigestOutcome::Wrong };
        let of_request = md5::md5_digits(&[method.as_bytes(), b":", target.as_bytes()]);
        let expected = md5::md5_digits(&[
            hash,
            b":",
            &fields.nonce,
            b":",
            &fields.count,
            b":",
            &fields.client_nonce,
            b":auth:",
            &of_request,
        ]);
        match verify_slices_are_equal(&expected, &fields.response.to_ascii_lowercase()) {
            Err(_) => DigestOutcome::Wrong,
            Ok(()) if self.is_current(&fields.nonce, now) => DigestOutcome::Verified(username.to_owned()),
            Ok(()) => DigestOutcome::Stale,
        }
    }
}

fn parse_line<'l>(line: &'l str, realm: &str) -> Result<(&'l str, [u8; 32]), &'static str> {
    let mut parts = line.splitn(3, ':');
    let (Some(username), Some(own), Some(hash)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("is not USERNAME:REALM:HASH");
    };
    let hash = hash.split(':').next().unwrap_or_default().to_ascii_lowercase();
    match md5::parse_digits(hash.as_bytes()) {
        _ if username.is_empty() => Err("is not USERNAME:REALM:HASH"),
        _ if own != realm => Err("the realm is not that of the annotation auth-realm"),
        None => Err("the hash does not have 32 hexadecimal digits"),
        Some(hash) => Ok((username, md5::digits(hash))),
    }
}

/// The parameters of credentials.
#[derive(Default)]
struct DigestFields<'h> {
    username: Cow<'h, [u8]>,
    realm: Cow<'h, [u8]>,
    nonce: Cow<'h, [u8]>,
    target: Cow<'h, [u8]>,
    response: Cow<'h, [u8]>,
    algorithm: Cow<'h, [u8]>,
    quality: Cow<'h, [u8]>,
    count: Cow<'h, [u8]>,
    client_nonce: Cow<'h, [u8]>,
}

impl<'h> DigestFields<'h> {
    /// `None` if the parameters cannot be parsed, or one of them is repeated.
    fn parse(credentials: &'h [u8]) -> Option<Self> {
        let mut fields = DigestFields::default();
        let mut rest = credentials.trim_ascii();
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (rest[..end].trim_ascii(), rest[end + 1..].trim_ascii_start());
            let (value, after) = match value.split_first() {
                Some((b'"', quoted)) => quoted_text(quoted)?,
                _ => {
                    let end = value.iter().position(|byte| *byte == b',').unwrap_or(value.len());
                    (Cow::Borrowed(value[..end].trim_ascii_end()), &value[end..])
                }
            };
            if let Some(field) = fields.field(name) {
                if !field.is_empty() {
                    return None;
                }
                *field = value;
            }
            rest = match after.trim_ascii_start().split_first() {
                None => &[],
                Some((b',', more)) => more.trim_ascii_start(),
                Some(_) => return None,
            };
        }
        Some(fields)
    }

    fn field(&mut self, name: &[u8]) -> Option<&mut Cow<'h, [u8]>> {
        Some(match &*name.to_ascii_lowercase() {
            b"username" => &mut self.username,
            b"realm" => &mut self.realm,
            b"nonce" => &mut self.nonce,
            b"uri" => &mut self.target,
            b"response" => &mut self.response,
            b"algorithm" => &mut self.algorithm,
            b"qop" => &mut self.quality,
            b"nc" => &mut self.count,
            b"cnonce" => &mut self.client_nonce,
            _ => return None,
        })
    }

    /// Whether they are complete, and for this realm and target.
    fn are_for(&self, realm: &str, target: &str) -> bool {
        let is_count = self.count.len() == 8
            && self.count.iter().all(u8::is_ascii_hexdigit)
            && self.count.iter().any(|digit| *digit != b'0');
        *self.realm == *realm.as_bytes()
            && *self.target == *target.as_bytes()
            && self.quality.eq_ignore_ascii_case(b"auth")
            && (self.algorithm.is_empty() || self.algorithm.eq_ignore_ascii_case(b"md5"))
            && is_count
            && !self.client_nonce.is_empty()
    }
}

/// The text of a quoted string, and what follows it.
fn quoted_text(quoted: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let end = quoted.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    if quoted[end] == b'"' {
        return Some((Cow::Borrowed(&quoted[..end]), &quoted[end + 1..]));
    }
    let mut text = quoted[..end].to_vec();
    let mut rest = &quoted[end..];
    loop {
        match rest {
            [b'"', after @ ..] => return Some((Cow::Owned(text), after)),
            [b'\\', byte, after @ ..] | [byte, after @ ..] => {
                text.push(*byte);
                rest = after;
            }
            [] => return None,
        }
    }
}

fn seconds(now: SystemTime) -> u32 {
    let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since_1970.as_secs()).unwrap_or(u32::MAX)
}

/// How long a nonce is valid.
const NONCE_SECONDS: u32 = 60;
/// Longer credentials are wrong. They contain the target of the request.
const MAX_CREDENTIALS: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const REALM: &str = "testrealm@host.com";
    const USERS: &str = "Mufasa:testrealm@host.com:939E7578ed9e3c518a452acee763bce9\n";
    /// Of RFC 2617, section 3.5.
    const EXAMPLE: &str = "username=\"Mufasa\", realm=\"testrealm@host.com\", \
                           nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", uri=\"/dir/index.html\", qop=auth, \
                           nc=00000001, cnonce=\"0a4f113b\", response=\"6629fae49393a05397450978507c4ef1\", \
                           opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_764_542_000)
    }

    fn check(credentials: &str, target: &str) -> DigestOutcome {
        DigestUsers::parse(REALM, USERS).0.check(credentials.as_bytes(), "GET", target, now())
    }

    /// The response to a nonce of these users.
    fn response(nonce: &str) -> String {
        let of_request = md5::md5_digits(&[b"GET:/dir/index.html"]);
        let hash = b"939e7578ed9e3c518a452acee763bce9";
        let response = md5::md5_digits(&[hash, b":", nonce.as_bytes(), b":00000001:0a4f113b:auth:", &of_request]);
        String::from_utf8(response.into()).unwrap()
    }

    #[test]
    fn example_of_the_rfc_is_right_for_another_nonce() {
        assert_eq!(check(EXAMPLE, "/dir/index.html"), DigestOutcome::Stale);
        assert_eq!(check(EXAMPLE, "/dir/other.html"), DigestOutcome::Wrong);
        for (part, other) in [
            ("Mufasa", "Scar"),
            ("testrealm@", "realm@"),
            ("dcd98b", "dcd98c"),
            ("/dir/index", "/dir/other"),
            ("qop=auth", "qop=auth-int"),
            ("qop=auth, ", ""),
            ("qop=auth", "algorithm=SHA-256, qop=auth"),
            ("nc=00000001", "nc=00000000"),
            ("nc=00000001", "nc=1"),
            ("nc=00000001", "nc=00000001, nc=00000001"),
            ("0a4f113b", ""),
            ("6629", "6628"),
            ("\", opaque", "\" opaque"),
            ("e41\"", "e41"),
        ] {
            let changed = EXAMPLE.replace(part, other);
            assert_ne!(changed, EXAMPLE, "{part}");
            assert_eq!(check(&changed, "/dir/index.html"), DigestOutcome::Wrong, "{part} {other}");
        }
        for credentials in ["", "username", "username=\"", "=", ",", "a=b", &"x".repeat(MAX_CREDENTIALS + 1)] {
            assert_eq!(check(credentials, "/dir/index.html"), DigestOutcome::Wrong, "{credentials}");
        }
    }

    #[test]
    fn quoted_texts_may_have_escapes() {
        for (text, expected) in
            [("a\"b", Some(("a", "b"))), ("a\\\"b\\\\\",c", Some(("a\"b\\", ",c"))), ("a", None), ("a\\", None)]
        {
            let found = quoted_text(text.as_bytes());
            let expected = expected.map(|(text, rest)| (Cow::Borrowed(text.as_bytes()), rest.as_bytes()));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn nonces_are_valid_for_a_minute_with_the_same_users() {
        let (users, invalid) = DigestUsers::parse(REALM, USERS);
        assert_eq!(invalid, []);
        let nonce = users.nonce(now());
        let credentials = |nonce: &str| {
            EXAMPLE
                .replace("dcd98b7102dd2f0e8b11d0f600bfb0c093", nonce)
                .replace("6629fae49393a05397450978507c4ef1", &response(nonce))
        };
        let check = |users: &DigestUsers, nonce: &str, seconds| {
            let now = now() + Duration::from_secs(seconds);
            users.check(credentials(nonce).as_bytes(), "GET", "/dir/index.html", now)
        };
        for (seconds, is_valid) in [(0, true), (59, true), (60, false)] {
            let expected = if is_valid { DigestOutcome::Verified("Mufasa".to_owned()) } else { DigestOutcome::Stale };
            assert_eq!(check(&users, &nonce, seconds), expected, "{seconds}");
        }
        // Another replica has the same users.
        let (same, _) = DigestUsers::parse(REALM, USERS);
        assert_eq!(check(&same, &nonce, 1), DigestOutcome::Verified("Mufasa".to_owned()));
        let (others, _) = DigestUsers::parse(REALM, &format!("{USERS}Scar:{REALM}:{}\n", "0".repeat(32)));
        assert_eq!(check(&others, &nonce, 1), DigestOutcome::Stale);
        // A client cannot change the time of one.
        let later = format!("{:08x}{}", seconds(now()) + 30, &nonce[8..]);
        assert_eq!(check(&users, &later, 1), DigestOutcome::Stale);
    }

    #[test]
    fn each_line_is_used_or_reported() {
        let hash = "939e7578ed9e3c518a452acee763bce9";
        let text = format!(
            "# staff\n\nanna:Shop:{hash}\nanna:Shop:{hash}\nbob:Other:{hash}\neve:{hash}\n:Shop:{hash}\nx:Shop:y\n"
        );
        let (users, invalid) = DigestUsers::parse("Shop", &text);
        assert_eq!(users.hashes.keys().map(|name| &**name).collect::<Vec<_>>(), ["anna"]);
        assert_eq!(invalid.iter().map(|line| line.line).collect::<Vec<_>>(), [4, 5, 6, 7, 8]);
        assert!(!format!("{}", invalid[4]).contains('y'), "no text of the file: {}", invalid[4]);
    }
}
