//! For which requests a stored response was chosen (RFC 9111, section 4.1).

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use http::{HeaderMap, HeaderName};

use crate::plugin_api::header_spoofing::is_alike;

/// The fields that `Vary` names, with the values that the request had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vary(Box<[VaryingField]>);

/// A field, and the value that the request had.
pub(crate) type VaryingField = (HeaderName, Option<Box<[u8]>>);

impl Vary {
    /// `None` if the response varies by anything, or by more fields than are kept. A response with a coding varies by
    /// the codings that the client accepts, also if it does not say so: others may not be able to read it.
    pub(crate) fn new(request: &HeaderMap, response: &HeaderMap) -> Option<Vary> {
        let is_coded = |coding: &[u8]| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity");
        let mut codings =
            response.get_all(CONTENT_ENCODING).iter().flat_map(|codings| codings.as_bytes().split(is_comma));
        let coded = codings.any(|coding| is_coded(coding.trim_ascii()));
        let mut names: Vec<HeaderName> = coded.then_some(ACCEPT_ENCODING).into_iter().collect();
        for value in response.get_all(VARY) {
            for name in value.as_bytes().split(is_comma).map(<[u8]>::trim_ascii) {
                if !name.is_empty() {
                    // `*` is no name of a field that a request may have.
                    names.push(HeaderName::from_bytes(name).ok().filter(|name| name != "*")?);
                }
            }
        }
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        (names.len() <= MAX_FIELDS).then(|| {
            Vary(
                names
                    .into_iter()
                    .map(|name| {
                        let value = value_of(request, &name);
                        (name, value)
                    })
                    .collect(),
            )
        })
    }

    /// What these fields of a request have.
    pub(crate) fn of_request(names: Vec<HeaderName>, request: &HeaderMap) -> Vary {
        let names = names.into_iter().take(MAX_FIELDS);
        Vary(names.map(|name| (value_of(request, &name), name)).map(|(value, name)| (name, value)).collect())
    }

    pub(crate) fn from_fields(fields: Vec<VaryingField>) -> Vary {
        Vary(fields.into())
    }

    pub(crate) fn fields(&self) -> &[VaryingField] {
        &self.0
    }

    /// Whether the request has the same values.
    pub(crate) fn matches(&self, request: &HeaderMap) -> bool {
        self.0.iter().all(|(name, value)| value_of(request, name) == *value)
    }

    /// The memory that the values take.
    pub(crate) fn bytes(&self) -> usize {
        self.0
            .iter()
            .map(|(name, value)| name.as_str().len() + value.as_ref().map_or(0, |value| value.len()) + 64)
            .sum()
    }
}

/// All values of a field as one list, without spaces around its commas, which have no meaning in lists (RFC 9111,
/// section 4.1), and those of fields with underscores, which a backend may read as the one with hyphens. A field that
/// is absent differs from an empty one.
fn value_of(headers: &HeaderMap, name: &HeaderName) -> Option<Box<[u8]>> {
    let mut values = headers.get_all(name).iter().peekable();
    let mut others = headers.iter().filter(|(other, _)| *other != name && is_alike(other, name)).peekable();
    if values.peek().is_none() && others.peek().is_none() {
        return None;
    }
    let mut joined = Vec::new();
    for member in values.flat_map(|value| value.as_bytes().split(is_comma)) {
        joined.extend_from_slice(member.trim_ascii());
        joined.push(b',');
    }
    for (other, value) in others {
        // No value has one.
        joined.push(b'\n');
        joined.extend_from_slice(other.as_str().as_bytes());
        joined.push(b':');
        joined.extend_from_slice(value.as_bytes());
        joined.push(b',');
    }
    Some(joined.into())
}

fn is_comma(byte: &u8) -> bool {
    *byte == b','
}

/// More fields than any response has for a reason.
const MAX_FIELDS: usize = 16;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn named_fields_select_the_response() {
        let vary = |request: &[_], names: &[&str]| {
            let names: Vec<_> = names.iter().map(|names| ("vary", *names)).collect();
            Vary::new(&fields(request), &fields(&names))
        };
        let german = vary(&[("accept-language", "de")], &["Accept-Language, accept-language", "X-B"]).unwrap();
        assert!(german.matches(&fields(&[("accept-language", "de"), ("x-c", "1")])));
        let lists = vary(&[("accept-language", "de, en")], &["accept-language"]).unwrap();
        assert!(lists.matches(&fields(&[("accept-language", "de"), ("accept-language", "en ")])));
        assert!(!lists.matches(&fields(&[("accept-language", "deen")])));
        for other in [&[][..], &[("accept-language", "en")], &[("accept-language", "de"), ("x-b", "")]] {
            assert!(!german.matches(&fields(other)), "{other:?}");
        }
        let spelled = [("accept-language", "de"), ("accept_language", "en")];
        assert!(!german.matches(&fields(&spelled)), "a backend may read the other field");
        assert!(vary(&spelled, &["accept-language"]).unwrap().matches(&fields(&spelled)));
        assert!(vary(&[], &[]).unwrap().matches(&fields(&[("a", "b")])));
        assert_eq!(vary(&[], &["a, *"]), None);
        assert_eq!(vary(&[], &["a b"]), None, "no name of a field");
        let coded = |coding| {
            let request = fields(&[("accept-encoding", "gzip")]);
            Vary::new(&request, &fields(&[("content-encoding", coding)])).unwrap()
        };
        for (coding, is_for_all) in [("gzip", false), ("identity, br", false), ("Identity", true), ("", true)] {
            for other in [&[][..], &[("accept-encoding", "identity")], &[("accept-encoding", "gzip;q=0")]] {
                assert_eq!(coded(coding).matches(&fields(other)), is_for_all, "RFC 9110, section 12.5.3: {coding}");
            }
            assert!(coded(coding).matches(&fields(&[("accept-encoding", "gzip")])), "{coding}");
        }
        let many = (0..17).map(|number| format!("x-{number}")).collect::<Vec<_>>().join(",");
        assert_eq!(vary(&[], &[&many]), None);
    }
}
