//! The values of the schema keyword `format` that the API server validates. It ignores other values, and so does
//! Portico.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use regex::Regex;

use super::syntax::DNS_NAME;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SchemaFormat {
    Int32,
    Int64,
    Float,
    Double,
    DateTime,
    Date,
    Duration,
    Byte,
    Ipv4,
    Ipv6,
    Cidr,
    Hostname,
    Uri,
    Uuid,
}

/// Timestamps of RFC 3339, which allows less than ISO 8601: years have four digits, offsets a colon.
static DATE_TIME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$").expect("a constant pattern")
});

/// The syntax of Go's `time.ParseDuration`.
static DURATION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[+-]?(0|(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$").expect("a constant pattern")
});

static UUID: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("^(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$").expect("a constant pattern")
});

static URI: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^([A-Za-z][A-Za-z0-9+.-]*:|/)[^\s\x00-\x1f]*$").expect("a constant pattern"));

impl SchemaFormat {
    pub(super) fn from_name(name: &str) -> Option<SchemaFormat> {
        Some(match name {
            "int32" => SchemaFormat::Int32,
            "int64" => SchemaFormat::Int64,
            "float" => SchemaFormat::Float,
            "double" => SchemaFormat::Double,
            "date-time" => SchemaFormat::DateTime,
            "date" => SchemaFormat::Date,
            "duration" => SchemaFormat::Duration,
            "byte" => SchemaFormat::Byte,
            "ipv4" => SchemaFormat::Ipv4,
            "ipv6" => SchemaFormat::Ipv6,
            "cidr" => SchemaFormat::Cidr,
            "hostname" => SchemaFormat::Hostname,
            "uri" => SchemaFormat::Uri,
            "uuid" => SchemaFormat::Uuid,
            _ => return None,
        })
    }

    /// Whether a text has this format. Numeric formats accept every text, since a port may be a number or a name.
    pub(super) fn accepts_text(self, text: &str) -> bool {
        match self {
            SchemaFormat::Int32 | SchemaFormat::Int64 | SchemaFormat::Float | SchemaFormat::Double => true,
            // The pattern checks the syntax, and the parser checks that the date exists.
            SchemaFormat::DateTime => {
                DATE_TIME.is_match(text) && text.to_ascii_uppercase().parse::<jiff::Timestamp>().is_ok()
            }
            SchemaFormat::Date => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
            SchemaFormat::Duration => DURATION.is_match(text),
            // The API server's base64 decoder ignores line breaks.
            SchemaFormat::Byte => {
                let bytes: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
                BASE64_STANDARD.decode(bytes).is_ok()
            }
            SchemaFormat::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            SchemaFormat::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            SchemaFormat::Cidr => is_cidr(text),
            SchemaFormat::Hostname => (DNS_NAME.accepts)(&text.to_ascii_lowercase()),
            SchemaFormat::Uri => URI.is_match(text),
            SchemaFormat::Uuid => UUID.is_match(text),
        }
    }

    /// The smallest and greatest integer of this format.
    pub(super) fn integer_range(self) -> Option<(i64, i64)> {
        match self {
            SchemaFormat::Int32 => Some((i64::from(i32::MIN), i64::from(i32::MAX))),
            SchemaFormat::Int64 => Some((i64::MIN, i64::MAX)),
            _ => None,
        }
    }

    /// A noun for a text of this format, and an example.
    pub(super) fn noun_and_example(self) -> (&'static str, &'static str) {
        match self {
            SchemaFormat::Int32 => ("a whole number of 32 bits", "8080"),
            SchemaFormat::Int64 => ("a whole number of 64 bits", "8080"),
            SchemaFormat::Float | SchemaFormat::Double => ("a number", "0.5"),
            SchemaFormat::DateTime => ("an RFC 3339 timestamp", "2026-01-31T12:00:00Z"),
            SchemaFormat::Date => ("a date", "2026-01-31"),
            SchemaFormat::Duration => ("a duration", "1m30s"),
            SchemaFormat::Byte => ("base64", "aGVsbG8="),
            SchemaFormat::Ipv4 => ("an IPv4 address", "192.0.2.1"),
            SchemaFormat::Ipv6 => ("an IPv6 address", "2001:db8::1"),
            SchemaFormat::Cidr => ("an address range", "192.0.2.0/24"),
            SchemaFormat::Hostname => ("a host name", "www.example.com"),
            SchemaFormat::Uri => ("a URI", "https://example.com/path"),
            SchemaFormat::Uuid => ("a UUID", "6f1b2c9e-0d7a-4c55-9c7e-0a1b2c3d4e5f"),
        }
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let is_number = !bits.is_empty() && bits.len() <= 3 && bits.bytes().all(|byte| byte.is_ascii_digit());
    // A leading zero is rejected, since some parsers read it as octal.
    if !is_number || (bits.len() > 1 && bits.starts_with('0')) {
        return false;
    }
    match (address.parse::<IpAddr>(), bits.parse::<u32>()) {
        (Ok(IpAddr::V4(_)), Ok(bits)) => bits <= 32,
        (Ok(IpAddr::V6(_)), Ok(bits)) => bits <= 128,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_accept_and_reject() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            (
                "date-time",
                &["2026-02-28T23:59:59Z", "2026-01-01t00:00:00.123456789+02:00"],
                &["2026-02-30T00:00:00Z", "2026-01-01", "2026-01-01 00:00:00Z", "2026-01-01T00:00:00", "now", ""],
            ),
            ("date", &["2024-02-29"], &["2026-02-29", "2026-2-2", ""]),
            ("duration", &["0", "1h30m", "-1.5s", "10µs", ".5s"], &["", "1", "1d", "5 s", "s"]),
            ("byte", &["", "aGk=", "aG\nk="], &["aGk", "a b=", "*"]),
            ("ipv4", &["10.0.0.1"], &["10.0.0.01", "10.0.0", "::1", "10.0.0.1/8"]),
            ("ipv6", &["::1", "::ffff:1.2.3.4"], &["1.2.3.4", "fe80::1%eth0", ":::"]),
            ("cidr", &["10.0.0.0/8", "::/0"], &["10.0.0.0", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/+8", "::/129"]),
            ("hostname", &["Example.com"], &["-a", "a_b"]),
            ("uri", &["https://a/b", "/a"], &["", "a b", "://"]),
            ("uuid", &[], &["6f1b2c9e"]),
        ];
        for (name, good, bad) in cases {
            let format = SchemaFormat::from_name(name).unwrap();
            assert!(format.accepts_text(format.noun_and_example().1), "example of {name}");
            for text in *good {
                assert!(format.accepts_text(text), "{text:?} is {name}");
            }
            for text in *bad {
                assert!(!format.accepts_text(text), "{text:?} is not {name}");
            }
        }
        assert_eq!(SchemaFormat::from_name("made-up"), None);
        assert_eq!(SchemaFormat::Int32.integer_range(), Some((-2_147_483_648, 2_147_483_647)));
    }
}
