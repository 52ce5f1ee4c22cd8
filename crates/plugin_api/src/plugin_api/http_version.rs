//! The names of the versions of HTTP in logs, traces and signatures, which write them in several notations.

use http::Version;

/// A version in each notation.
struct VersionNames {
    /// `1.1`, `2`
    number: &'static str,
    /// `1.1`, `2.0`
    decimal: &'static str,
    /// `HTTP/1.1`, `HTTP/2`
    protocol: &'static str,
    /// `HTTP/1.1`, `HTTP/2.0`
    decimal_protocol: &'static str,
}

/// The versions that a message can have. Code that depends on all of them matches this type, so that no version is
/// taken for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    Http09,
    Http10,
    Http11,
    Http2,
    Http3,
}

impl From<Version> for HttpVersion {
    fn from(version: Version) -> Self {
        match version {
            Version::HTTP_09 => HttpVersion::Http09,
            Version::HTTP_10 => HttpVersion::Http10,
            Version::HTTP_2 => HttpVersion::Http2,
            Version::HTTP_3 => HttpVersion::Http3,
            // `Version` has no other one.
            _ => HttpVersion::Http11,
        }
    }
}

fn names(version: Version) -> VersionNames {
    let [number, decimal, protocol, decimal_protocol] = match HttpVersion::from(version) {
        HttpVersion::Http09 => ["0.9", "0.9", "HTTP/0.9", "HTTP/0.9"],
        HttpVersion::Http10 => ["1.0", "1.0", "HTTP/1.0", "HTTP/1.0"],
        HttpVersion::Http11 => ["1.1", "1.1", "HTTP/1.1", "HTTP/1.1"],
        HttpVersion::Http2 => ["2", "2.0", "HTTP/2", "HTTP/2.0"],
        HttpVersion::Http3 => ["3", "3.0", "HTTP/3", "HTTP/3.0"],
    };
    VersionNames { number, decimal, protocol, decimal_protocol }
}

/// `1.1`, `2`
pub fn version_number(version: Version) -> &'static str {
    names(version).number
}

/// `1.1`, `2.0`
pub fn decimal_version(version: Version) -> &'static str {
    names(version).decimal
}

/// `HTTP/1.1`, `HTTP/2`
pub fn protocol_name(version: Version) -> &'static str {
    names(version).protocol
}

/// `HTTP/1.1`, `HTTP/2.0`
pub fn decimal_protocol_name(version: Version) -> &'static str {
    names(version).decimal_protocol
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_a_name_in_each_notation() {
        for (version, expected) in [
            (Version::HTTP_09, ["0.9", "0.9", "HTTP/0.9", "HTTP/0.9"]),
            (Version::HTTP_10, ["1.0", "1.0", "HTTP/1.0", "HTTP/1.0"]),
            (Version::HTTP_11, ["1.1", "1.1", "HTTP/1.1", "HTTP/1.1"]),
            (Version::HTTP_2, ["2", "2.0", "HTTP/2", "HTTP/2.0"]),
            (Version::HTTP_3, ["3", "3.0", "HTTP/3", "HTTP/3.0"]),
        ] {
            let functions = [version_number, decimal_version, protocol_name, decimal_protocol_name];
            assert_eq!(functions.map(|name| name(version)), expected);
        }
    }
}
