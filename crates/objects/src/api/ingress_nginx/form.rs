//! Values with a grammar: URLs, references to objects, and lists.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::characters::CharacterSet;
use super::value::{BadValue, characters, items, without_spaces, wrong_form, wrong_type};

pub(super) fn server_name(value: &str) -> Result<(), BadValue> {
    // A line break around a name would be in the value that nginx gets, so only spaces are trimmed.
    characters(CharacterSet::Regex, value.trim_matches(' '))
}

pub(super) fn absolute_path(value: &str) -> Result<(), BadValue> {
    characters(CharacterSet::Captures, value)?;
    if value.starts_with('/') {
        return Ok(());
    }
    Err(wrong_form("write a path that begins with a slash, such as /app"))
}

pub(super) fn redirect_url(value: &str) -> Result<(), BadValue> {
    characters(CharacterSet::Url, value)?;
    let wrong = || wrong_form("write a URL that begins with http:// or https://");
    let (scheme, rest) = scheme(value).ok_or_else(wrong)?;
    // ingress-nginx looks at these four letters only, in any case.
    let begins = scheme.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("http"));
    if begins && rest.strip_prefix("//").is_none_or(|rest| name_of(authority(rest)).is_some()) {
        return Ok(());
    }
    Err(wrong())
}

pub(super) fn absolute_url(value: &str) -> Result<(), BadValue> {
    characters(CharacterSet::UrlAndVariables, &without_spaces(value))?;
    let host = scheme(value.trim_matches(' ')).and_then(|(_, rest)| rest.strip_prefix("//")).map(authority);
    let plausible = host.is_some_and(|host| {
        let name = name_of(host);
        name.is_some_and(|name| !name.is_empty()) && !host.contains("..") && !host.contains([' ', ','])
    });
    if plausible {
        return Ok(());
    }
    Err(wrong_form("write a URL with scheme and host, such as http://auth.example.com/verify"))
}

/// The scheme of a URL, and what follows its colon.
fn scheme(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once(':')?;
    let begins = scheme.starts_with(|first: char| first.is_ascii_alphabetic());
    let valid = scheme.chars().all(|character| character.is_ascii_alphanumeric() || "+-.".contains(character));
    (begins && valid).then_some((scheme, rest))
}

/// Host and port of what follows `//` in a URL.
fn authority(rest: &str) -> &str {
    rest.split(['/', '?']).next().unwrap_or_default()
}

/// The name in host and port. `None` if the port is not a number.
fn name_of(authority: &str) -> Option<&str> {
    let (name, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
    digits(port).then_some(name)
}

pub(super) fn error_page(value: &str) -> Result<(), BadValue> {
    let compact = without_spaces(value);
    let valid = match compact.strip_prefix('@') {
        Some(location) => !location.is_empty() && CharacterSet::Identifier.first_outside(location).is_none(),
        None => is_page(&compact),
    };
    if valid {
        return Ok(());
    }
    Err(wrong_type("write a URL, a host with a path, a path such as /denied, or @ and the name of a location"))
}

fn is_page(page: &str) -> bool {
    let absolute = page.strip_prefix("https://").or_else(|| page.strip_prefix("http://"));
    let rest = absolute.unwrap_or(page);
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (name, port) = match host.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let needs_name = absolute.is_some() || port.is_some();
    let is_host = (!name.is_empty() || !needs_name)
        && name.chars().all(|character| character.is_ascii_alphanumeric() || "-.".contains(character))
        && port.is_none_or(|port| !port.is_empty() && digits(port));
    let path = path.strip_suffix('/').unwrap_or(path);
    let is_path = path.is_empty()
        || path.strip_prefix('/').is_some_and(|path| {
            path.split('/')
                .all(|segment| !segment.is_empty() && CharacterSet::FileName.first_outside(segment).is_none())
        });
    is_host && is_path
}

pub(super) fn reference(value: &str, qualified: bool) -> Result<(), BadValue> {
    characters(CharacterSet::Basic, &without_spaces(value))?;
    let parts = || value.split('/').map(str::trim);
    let count = parts().count();
    if parts().all(|part| !part.is_empty()) && if qualified { count == 2 } else { count <= 2 } {
        return Ok(());
    }
    Err(wrong_form(match qualified {
        true => "write namespace/name",
        false => "write a name or namespace/name",
    }))
}

pub(super) fn service_name(value: &str) -> Result<(), BadValue> {
    let valid = value.len() <= 63
        && value.starts_with(|first: char| first.is_ascii_lowercase())
        && !value.ends_with('-')
        && value.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if valid {
        return Ok(());
    }
    Err(wrong_type("write the name of a Service in this namespace"))
}

pub(super) fn header_names(value: &str) -> Result<(), BadValue> {
    characters(CharacterSet::HeaderNames, value)?;
    if items(value).all(|name| CharacterSet::Identifier.first_outside(name).is_none()) {
        return Ok(());
    }
    Err(wrong_form("write names of headers with commas between them, such as X-User, X-Email"))
}

pub(super) fn origins(value: &str) -> Result<(), BadValue> {
    match value.split(',').map(without_spaces).find(|entry| entry != "*" && !has_parts_of_origins(entry)) {
        None => Ok(()),
        Some(entry) => Err(wrong_type(format!(
            "write origins such as https://app.example.com or https://*.example.com with commas between them, not {}",
            shown(&entry)
        ))),
    }
}

/// Whether an entry consists of schemes, names and ports, in any order: that is all that ingress-nginx checks before
/// it looks at single entries.
fn has_parts_of_origins(entry: &str) -> bool {
    let mut rest = entry;
    let mut after_letter = false;
    while let Some(byte) = rest.bytes().next() {
        let length = if is_host_byte(byte) {
            1
        } else if rest.starts_with("*.") {
            2
        } else if after_letter && rest.starts_with("://") {
            3
        } else if byte == b':' && rest[1..].starts_with(|next: char| next.is_ascii_digit()) {
            2
        } else {
            return false;
        };
        after_letter = byte.is_ascii_lowercase();
        rest = &rest[length..];
    }
    true
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.'
}

pub(super) fn status_codes(value: &str) -> Result<(), BadValue> {
    let compact = without_spaces(value);
    let codes = compact.strip_suffix(',').unwrap_or(&compact);
    if codes.split(',').all(|code| code.len() == 3 && code.starts_with(['4', '5']) && digits(code)) {
        return Ok(());
    }
    Err(wrong_type("write status codes from 400 to 599 with commas between them, such as 404,503"))
}

pub(super) fn addresses(value: &str) -> Result<(), BadValue> {
    match value.split(',').map(str::trim).find(|entry| !is_address_or_network(entry)) {
        None => Ok(()),
        Some(entry) => Err(wrong_type(format!(
            "write addresses or networks with commas between them, such as 10.0.0.0/8,2001:db8::1, not {}",
            shown(entry)
        ))),
    }
}

fn is_address_or_network(entry: &str) -> bool {
    let Some((address, bits)) = entry.split_once('/') else { return entry.parse::<IpAddr>().is_ok() };
    let most = match address.parse() {
        Ok(IpAddr::V4(_)) => Ipv4Addr::BITS,
        Ok(IpAddr::V6(_)) => Ipv6Addr::BITS,
        Err(_) => return false,
    };
    digits(bits) && bits.parse::<u32>().is_ok_and(|bits| bits <= most)
}

pub(super) fn cache_durations(value: &str) -> Result<(), BadValue> {
    characters(CharacterSet::Extended, value)?;
    if items(value).all(is_cache_duration) {
        return Ok(());
    }
    Err(wrong_form("write status codes and a duration, such as 200 202 5m, with commas between several of these"))
}

/// For how many seconds responses with a status are cached, in the order in which the entries are consulted.
pub fn cache_seconds(value: &str) -> Vec<(u16, u64)> {
    let mut found = Vec::new();
    for entry in items(value) {
        let words: Vec<&str> = entry.split(' ').filter(|word| !word.is_empty()).collect();
        let Some(seconds) = words.last().and_then(|word| seconds_of(word)) else { continue };
        let statuses: Vec<u16> =
            words.iter().filter(|word| is_status(word)).filter_map(|word| word.parse().ok()).collect();
        // Without statuses, nginx caches these.
        let statuses = if statuses.is_empty() { vec![200, 301, 302] } else { statuses };
        found.extend(statuses.into_iter().map(|status| (status, seconds)));
    }
    found
}

fn seconds_of(duration: &str) -> Option<u64> {
    let number = duration.trim_end_matches(|character: char| !character.is_ascii_digit());
    let amount: u64 = number.parse().ok()?;
    let seconds = match &duration[number.len()..] {
        "ms" => return Some(amount / 1000),
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        "M" => 2_592_000,
        "y" => 31_536_000,
        _ => return None,
    };
    Some(amount.saturating_mul(seconds).min(MAX_CACHE_SECONDS))
}

/// A year.
const MAX_CACHE_SECONDS: u64 = 31_536_000;

/// Status codes, then at least one duration.
fn is_cache_duration(entry: &str) -> bool {
    let mut words = entry.split(' ').filter(|word| !word.is_empty()).skip_while(|word| is_status(word)).peekable();
    words.peek().is_some() && words.all(is_duration)
}

fn is_status(word: &str) -> bool {
    word.len() == 3 && digits(word)
}

fn is_duration(word: &str) -> bool {
    const UNITS: [&str; 8] = ["ms", "s", "m", "h", "d", "w", "M", "y"];
    let number = word.trim_end_matches(|character: char| !character.is_ascii_digit());
    !number.is_empty() && digits(number) && UNITS.contains(&&word[number.len()..])
}

pub(super) fn cookie_domain(value: &str) -> Result<(), BadValue> {
    let mut parts = value.split([' ', '\t']).filter(|part| !part.is_empty());
    let valid = match (parts.next(), parts.next(), parts.next()) {
        (Some(from), Some(to), None) => {
            [from, to].iter().all(|part| CharacterSet::Basic.first_outside(part).is_none()) && value.trim() == value
        }
        _ => value == "off",
    };
    if valid {
        return Ok(());
    }
    Err(wrong_type("write off, or the domain to replace, a space and the new domain"))
}

pub(super) fn ciphers(value: &str) -> Result<(), BadValue> {
    let compact = without_spaces(value);
    let mut parts = compact.split('@');
    let first = parts.next().is_some_and(is_cipher_text);
    let commands = parts.all(|part| {
        let level =
            || part.strip_prefix("SECLEVEL=").and_then(|rest| rest.strip_prefix(['0', '1', '2', '3', '4', '5']));
        part.strip_prefix("STRENGTH").or_else(level).is_some_and(is_cipher_text)
    });
    if first && commands {
        return Ok(());
    }
    Err(wrong_type("write a list of OpenSSL ciphers with colons between them, such as ECDHE-RSA-AES128-GCM-SHA256"))
}

fn is_cipher_text(text: &str) -> bool {
    CharacterSet::Ciphers.first_outside(text).is_none()
}

pub(super) fn subject_pattern(value: &str) -> Result<(), BadValue> {
    if value.starts_with("CN=") && !value.contains(['\r', '\n', '\0']) {
        return Ok(());
    }
    Err(wrong_type("write CN= and a regular expression, such as CN=client-[a-z]+"))
}

fn digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The start of a part of a value, quoted: values come from users and may be long.
fn shown(text: &str) -> String {
    const MOST: usize = 40;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
