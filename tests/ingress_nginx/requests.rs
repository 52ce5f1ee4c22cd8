//! Requests for a set of Ingresses: its hosts and neighbors of them, its paths and variants of them.

use std::fmt::{self, Write};

use super::generator::PATTERNS;
use super::model::{IngressSet, TestIngress};
use super::random::Random;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) host: String,
    /// The path as sent, with the query.
    pub(crate) target: String,
}

impl fmt::Display for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} with Host: {}", self.method, self.target, self.host)
    }
}

/// The requests of a set. More of them begin with the same ones.
pub(crate) fn requests(set: &IngressSet, count: usize) -> Vec<Request> {
    let mut random = Random::new(set.seed ^ 0x0007_e9e5);
    (0..count).map(|_| request(set, &mut random)).collect()
}

fn request(set: &IngressSet, random: &mut Random) -> Request {
    let ingress = random.pick(&set.ingresses);
    let host = host(set, ingress, random);
    let method = random.choose(&["GET", "GET", "GET", "GET", "GET", "HEAD", "POST"]);
    let mut target = path(set, ingress, random);
    if random.percent(60) {
        target = varied(&target, random);
    }
    if random.percent(30) {
        target += random.choose(QUERIES);
    }
    Request { method, host, target }
}

fn host(set: &IngressSet, ingress: &TestIngress, random: &mut Random) -> String {
    let domain = &set.domain;
    let host = match ingress.host.as_deref() {
        None => format!("any{}.{domain}", random.below(3)),
        Some(host) => match host.strip_prefix('*') {
            Some(rest) => format!("{}{rest}", random.choose(&["w", "w-1", "W_x", "h9"])),
            None => host.to_owned(),
        },
    };
    match random.below(20) {
        0 => host.to_ascii_uppercase(),
        1 => format!("{host}:8080"),
        2 => format!("{host}."),
        3 => format!("two.labels.{domain}"),
        4 => domain.clone(),
        _ => host,
    }
}

/// A path for a rule: mostly of this Ingress, otherwise of another one of the set.
fn path(set: &IngressSet, ingress: &TestIngress, random: &mut Random) -> String {
    let chosen = if random.percent(80) { ingress } else { random.pick(&set.ingresses) };
    if chosen.paths.is_empty() || random.percent(6) {
        return random.choose(OTHER_PATHS).to_owned();
    }
    let rule = random.pick(&chosen.paths).path.as_str();
    let samples = PATTERNS.iter().find(|(pattern, _)| *pattern == rule).map(|(_, samples)| *samples);
    match samples {
        Some(samples) => random.choose(samples).to_owned(),
        None if rule.is_empty() => "/".to_owned(),
        None => encoded(rule),
    }
}

/// The path of a rule as a client sends it.
fn encoded(path: &str) -> String {
    let mut encoded = String::new();
    for byte in path.bytes() {
        // These would end the path, or are not allowed in it.
        if byte.is_ascii_graphic() && !b"\"#%?\\^`{|}<>".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02x}").expect("a string accepts all text");
        }
    }
    encoded
}

fn varied(path: &str, random: &mut Random) -> String {
    // A position inside the path, after which a part is inserted. All paths are ASCII here.
    let at = random.below(path.len()) + 1;
    let (before, after) = path.split_at(at);
    match random.below(19) {
        0 => format!("{path}/"),
        1 => path.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(path).to_owned(),
        2 | 3 => format!("{}/{}", path.trim_end_matches('/'), random.choose(&["x", "a/b.c", "bar", "%20", "a%2Fb"])),
        4 => format!("{path}{}", random.choose(&["bar", "x", ".html", "%20", ";p=1"])),
        5 => path.to_ascii_uppercase(),
        6 => path.to_ascii_lowercase(),
        7 | 8 => format!("{before}{}", encoded_first(after)),
        9 => path.replacen('/', "%2F", 2).replacen("%2F", "/", 1),
        10 => path.replacen('/', "//", 1),
        11 => format!("{path}//x//"),
        12 => path.replacen('/', "/./", 1),
        13 => format!("/zzz/..{path}"),
        14 => format!("{path}/../{}", random.choose(&["foo", "api", "", "x/"])),
        15 => format!("{path}/%2e%2e/foo"),
        16 => format!("/..{path}"),
        17 => format!("{before}{}{after}", random.choose(&["%", "%zz", "%00", "%0a", "%e9"])),
        _ => format!("{path}{}", random.choose(&["#part", "/.", "/..", "/%2E", "%3Fa", "%23", "%25", "+", "'", "\\x"])),
    }
}

/// The first character percent-encoded.
fn encoded_first(text: &str) -> String {
    match text.split_at_checked(1) {
        Some((first, rest)) if first != "%" => format!("%{:02X}{rest}", first.as_bytes()[0]),
        _ => text.to_owned(),
    }
}

const QUERIES: &[&str] = &["?", "?a=b", "?a=b&c=%2F", "?a=/", "?x=1?y=2", "?/../x//", "?q=%zz", "?$1=$2"];
const OTHER_PATHS: &[&str] = &["/", "/healthz", "/healthz/x", "/unknown", "/unknown/", "/favicon.ico", "/foo/bar/baz"];

#[cfg(test)]
mod tests {
    use super::super::generator;
    use super::*;

    #[test]
    fn a_seed_repeats_its_requests() {
        let set = generator::set(9);
        assert_eq!(requests(&set, 20), requests(&set, 30)[..20]);
    }

    #[test]
    fn requests_are_one_line_and_begin_with_a_slash() {
        for seed in 0..200 {
            let set = generator::set(seed);
            for request in requests(&set, 50) {
                assert!(request.target.starts_with('/'), "{request}");
                assert!(request.target.bytes().all(|byte| byte.is_ascii_graphic()), "{request}");
                let host = request.host.to_ascii_lowercase();
                assert!(host.contains(&set.domain), "{request}");
            }
        }
    }
}
