//! The formats of strings and numbers that are checked. Other formats describe a value without restricting it.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Number;

use super::pattern::SchemaPattern;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Date,
    DateTime,
    Duration,
    Email,
    Hostname,
    Int32,
    Int64,
    Ipv4,
    Ipv6,
    JsonPointer,
    Regex,
    RelativeJsonPointer,
    Time,
    Uri,
    UriReference,
    Uuid,
}

const NAMES: &[(&str, Format)] = &[
    ("date", Format::Date),
    ("date-time", Format::DateTime),
    ("duration", Format::Duration),
    ("email", Format::Email),
    ("hostname", Format::Hostname),
    ("int32", Format::Int32),
    ("int64", Format::Int64),
    ("ipv4", Format::Ipv4),
    ("ipv6", Format::Ipv6),
    ("json-pointer", Format::JsonPointer),
    ("regex", Format::Regex),
    ("relative-json-pointer", Format::RelativeJsonPointer),
    ("time", Format::Time),
    ("uri", Format::Uri),
    ("uri-reference", Format::UriReference),
    ("uuid", Format::Uuid),
];

impl Format {
    pub(super) fn find(name: &str) -> Option<Format> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
    }

    pub(super) fn name(self) -> &'static str {
        NAMES.iter().find(|(_, format)| *format == self).map_or("", |(name, _)| name)
    }

    pub(super) fn matches_number(self, number: &Number) -> bool {
        match self {
            Format::Int32 => number.as_i64().is_some_and(|value| i32::try_from(value).is_ok()),
            Format::Int64 => {
                number.is_i64() || number.as_f64().is_some_and(|value| value.abs() < 9.2e18 && !number.is_u64())
            }
            _ => true,
        }
    }

    pub(super) fn matches_text(self, text: &str) -> bool {
        match self {
            Format::Int32 | Format::Int64 => true,
            Format::Date => is_date(text),
            Format::Time => is_time(text),
            Format::DateTime => {
                text.is_char_boundary(10)
                    && text.len() > 11
                    && is_date(&text[..10])
                    && matches!(text.as_bytes()[10], b'T' | b't')
                    && is_time(&text[11..])
            }
            Format::Duration => is_duration(text),
            Format::Email => is_email(text),
            Format::Hostname => is_hostname(text),
            Format::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Format::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Format::JsonPointer => is_json_pointer(text),
            Format::RelativeJsonPointer => is_relative_json_pointer(text),
            Format::Regex => text.len() <= MAX_REGEX && SchemaPattern::compile(text).is_ok(),
            Format::Uri => is_uri_reference(text) && has_scheme(text),
            Format::UriReference => is_uri_reference(text),
            Format::Uuid => is_uuid(text),
        }
    }
}

/// The longest expression in a value in bytes: each is compiled to check it.
const MAX_REGEX: usize = 256;

/// Two digits.
fn two(text: &str) -> Option<u32> {
    (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// `full-date` of RFC 3339.
fn is_date(text: &str) -> bool {
    let date = || {
        if text.len() != 10 || !text.is_ascii() || text.as_bytes()[4] != b'-' || text.as_bytes()[7] != b'-' {
            return None;
        }
        let year = two(&text[..2])? * 100 + two(&text[2..4])?;
        let (month, day) = (two(&text[5..7])?, two(&text[8..])?);
        let is_leap_year = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 if is_leap_year => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        (1..=days).contains(&day).then_some(())
    };
    date().is_some()
}

/// `full-time` of RFC 3339. The second 60 is valid only at the end of a day in UTC.
fn is_time(text: &str) -> bool {
    let time = || {
        if !text.is_ascii() || text.len() < 9 {
            return None;
        }
        let bytes = text.as_bytes();
        if bytes[2] != b':' || bytes[5] != b':' {
            return None;
        }
        let (hour, minute, second) = (two(&text[..2])?, two(&text[3..5])?, two(&text[6..8])?);
        let mut rest = &text[8..];
        if let Some(fraction) = rest.strip_prefix('.') {
            let end = fraction.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(fraction.len());
            if end == 0 {
                return None;
            }
            rest = &fraction[end..];
        }
        let offset = match rest.as_bytes() {
            [b'Z' | b'z'] => 0_i64,
            [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
                let (hours, minutes) = (two(&rest[1..3])?, two(&rest[4..6])?);
                if hours > 23 || minutes > 59 {
                    return None;
                }
                let offset = i64::from(hours * 60 + minutes);
                if *sign == b'+' { offset } else { -offset }
            }
            _ => return None,
        };
        let minute_in_utc = (i64::from(hour * 60 + minute) - offset).rem_euclid(24 * 60);
        let max_second = if minute_in_utc == 24 * 60 - 1 { 60 } else { 59 };
        (hour <= 23 && minute <= 59 && second <= max_second).then_some(())
    };
    time().is_some()
}

/// `duration` of RFC 3339, appendix A.
fn is_duration(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('P') else { return false };
    let (date, time) = match rest.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (rest, None),
    };
    // Units are in order, and without a gap between the first and the last.
    let has_units = |text: &str, units: &str| {
        let mut rest = text;
        let mut last: Option<usize> = None;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let Some(unit) = rest[digits..].chars().next().and_then(|unit| units.find(unit)) else { return false };
            if digits == 0 || last.is_some_and(|last| unit != last + 1) {
                return false;
            }
            last = Some(unit);
            rest = &rest[digits + 1..];
        }
        last.is_some()
    };
    match (date, time) {
        (date, None) => has_units(date, "YMD") || has_units(date, "W"),
        ("", Some(time)) => has_units(time, "HMS"),
        (date, Some(time)) => has_units(date, "YMD") && has_units(time, "HMS"),
    }
}

/// `Mailbox` of RFC 5321, section 4.1.2, without address literals of other than IP addresses.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let is_atom = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
    let is_local = match local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => {
            let mut escaped = false;
            let is_valid = quoted.bytes().all(|byte| {
                let valid = (32..=126).contains(&byte) && (escaped || byte != b'"');
                escaped = byte == b'\\' && !escaped;
                valid
            });
            is_valid && !escaped
        }
        None => local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atom)),
    };
    let is_domain = match domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(literal) => match literal.strip_prefix("IPv6:") {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => literal.parse::<Ipv4Addr>().is_ok(),
        },
        None => is_hostname(domain),
    };
    is_local && is_domain
}

/// RFC 1123, section 2.1.
fn is_hostname(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
            // Such labels are reserved, except those of internationalized names.
            && (label.get(2..4) != Some("--") || label[..2].eq_ignore_ascii_case("xn"))
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_json_pointer(text: &str) -> bool {
    let mut pieces = text.split('~');
    let starts = text.is_empty() || text.starts_with('/');
    pieces.next();
    starts && pieces.all(|piece| piece.starts_with(['0', '1']))
}

fn is_relative_json_pointer(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    let is_number = number == "0" || digits > 0 && !number.starts_with('0');
    is_number && (rest == "#" || is_json_pointer(rest))
}

fn has_scheme(text: &str) -> bool {
    let Some((scheme, _)) = text.split_once(':') else { return false };
    scheme.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// RFC 3986: only its characters, with complete escapes, one fragment, and brackets only around an IP address.
fn is_uri_reference(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte);
    let is_hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = text.as_bytes();
    let has_escapes = bytes
        .iter()
        .enumerate()
        .all(|(index, byte)| *byte != b'%' || is_hex(bytes.get(index + 1)) && is_hex(bytes.get(index + 2)));
    if !bytes.iter().copied().all(is_allowed) || !has_escapes || text.matches('#').count() > 1 {
        return false;
    }
    let rest = if has_scheme(text) { text.split_once(':').map_or(text, |(_, rest)| rest) } else { text };
    // A colon in the first segment of a relative reference would end a scheme.
    if !has_scheme(text) && text.split(['/', '?', '#']).next().is_some_and(|segment| segment.contains(':')) {
        return false;
    }
    let Some(rest) = rest.strip_prefix("//") else { return !text.contains(['[', ']']) };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (host, port) = match host.strip_prefix('[') {
        Some(literal) => match literal.split_once(']') {
            Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() || address.starts_with('v') => ("", port),
            _ => return false,
        },
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    is_port && ![user, host, path].iter().any(|part| part.contains(['[', ']']))
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}
