//! The content codings that a client accepts, and the choice between those that the plugin offers.

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plugin_kit::weighted_list::weighted_members;

/// A content coding that the plugin produces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Coding {
    /// Zstandard (RFC 8878): fast, and nearly as small as Brotli.
    Zstd,
    /// Brotli (RFC 7932): small, and slower.
    Br,
    /// The coding that every client knows.
    Gzip,
}

impl Coding {
    pub(super) const ALL: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];

    pub(super) fn name(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Br => "br",
            Coding::Gzip => "gzip",
        }
    }
}

/// The weights of `Accept-Encoding` in thousandths; 0 is what the client does not accept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Accepted {
    /// In the order of [`Coding::ALL`].
    codings: [u16; 3],
    identity: u16,
}

impl Accepted {
    /// Without the field, a client may accept anything (RFC 9110, section 12.5.3), but many that do not send it cannot
    /// decode. So nothing is accepted then.
    pub(super) fn from_headers(headers: &HeaderMap) -> Accepted {
        if !headers.contains_key(ACCEPT_ENCODING) {
            return Accepted::default();
        }
        let members = weighted_members(headers.get_all(ACCEPT_ENCODING));
        let weight_of = |names: &[&str]| {
            let weights = members.iter().filter(|(member, _)| names.contains(&member.as_str()));
            weights.map(|(_, weight)| *weight).max()
        };
        let rest = weight_of(&["*"]);
        let weight = |names: &[&str]| weight_of(names).or(rest).unwrap_or(0);
        Accepted {
            codings: Coding::ALL.map(|coding| match coding {
                Coding::Gzip => weight(&["gzip", "x-gzip"]),
                other => weight(&[other.name()]),
            }),
            // Acceptable unless it is excluded, but only preferred if the client says so.
            identity: weight_of(&["identity"]).unwrap_or(0),
        }
    }

    /// The offered coding with the highest weight, the first of several. `None` if the client prefers none.
    pub(super) fn best(&self, offered: &[Coding]) -> Option<Coding> {
        let weight = |coding: Coding| {
            let index = Coding::ALL.iter().position(|other| *other == coding);
            index.map_or(0, |index| self.codings[index])
        };
        let best = offered.iter().map(|coding| weight(*coding)).max().filter(|weight| *weight > 0)?;
        if self.identity > best {
            return None;
        }
        offered.iter().copied().find(|coding| weight(*coding) == best)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    // RFC 9110, section 12.5.3
    #[test]
    fn the_best_coding_is_chosen() {
        let (zstd, br, gzip) = (Some(Coding::Zstd), Some(Coding::Br), Some(Coding::Gzip));
        for (value, expected) in [
            ("gzip", gzip),
            ("x-gzip", gzip),
            ("GZIP, deflate, br", br),
            ("gzip, deflate, br, zstd", zstd),
            ("br;q=0.5, gzip;q=0.8", gzip),
            ("*", zstd),
            ("*;q=0.1, zstd;q=0", br),
            ("gzip;q=0", None),
            ("*;q=0", None),
            ("gzip;q=0, *", zstd),
            ("identity", None),
            ("identity;q=0", None),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip", gzip),
            ("identity;q=0.5, gzip;q=0.5", gzip),
            ("", None),
            ("deflate, compress", None),
            ("gzip;q=yes, ;;;, \u{7f}", None),
            ("gzipgzip, gz ip", None),
        ] {
            let mut headers = HeaderMap::new();
            headers
                .insert(ACCEPT_ENCODING, HeaderValue::from_bytes(value.replace('\u{7f}', "-/-/").as_bytes()).unwrap());
            assert_eq!(Accepted::from_headers(&headers).best(&Coding::ALL), expected, "{value}");
        }
        assert_eq!(Accepted::from_headers(&HeaderMap::new()).best(&Coding::ALL), None);
    }

    #[test]
    fn lines_are_one_list_and_the_offer_limits_the_choice() {
        let mut headers = HeaderMap::new();
        for line in ["gzip;q=0.9", "br"] {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_static(line));
        }
        let accepted = Accepted::from_headers(&headers);
        assert_eq!(accepted.best(&[Coding::Gzip, Coding::Br]), Some(Coding::Br));
        assert_eq!(accepted.best(&[Coding::Gzip, Coding::Zstd]), Some(Coding::Gzip));
        assert_eq!(accepted.best(&[Coding::Zstd]), None);
    }
}
