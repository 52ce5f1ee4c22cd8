//! Generates tables of matches and requests for them, from few words so that matches overlap often.

use fastrand::Rng;

use super::oracle::{OracleMatch, OraclePath, OracleRequest, OracleValue, Pattern, Piece, Repetition};

/// The matches of a few routes on one listener, in no particular order.
pub(crate) fn table(rng: &mut Rng) -> Vec<OracleMatch> {
    let mut names: Vec<&str> = ROUTES.to_vec();
    rng.shuffle(&mut names);
    let mut table: Vec<OracleMatch> = Vec::new();
    for route in &names[..rng.usize(2..=5)] {
        let created = choose(rng, &[None, Some(-5), Some(1_000), Some(1_000), Some(2_000)]);
        let hosts: Vec<&str> = (0..rng.usize(1..=2)).map(|_| choose(rng, &HOST_PATTERNS)).collect();
        for rule in 0..rng.u16(1..=3) {
            for index in 0..rng.u16(1..=3) {
                let mut new = OracleMatch {
                    host: String::new(),
                    path: path(rng),
                    method: chance(rng, 40).then(|| choose(rng, &METHODS).to_owned()),
                    headers: random_items(rng, 3, header),
                    query: random_items(rng, 3, parameter),
                    created,
                    route: (*route).to_owned(),
                    rule,
                    index,
                };
                // Many matches differ from an earlier one in at most one condition, so that the later steps of
                // precedence decide.
                if !table.is_empty() && chance(rng, 60) {
                    let earlier = table[rng.usize(..table.len())].clone();
                    new = variation_of(rng, new, earlier);
                }
                table.extend(hosts.iter().map(|host| OracleMatch { host: (*host).to_owned(), ..new.clone() }));
            }
        }
    }
    rng.shuffle(&mut table);
    table
}

/// The new match with the conditions of the old one, of which some come from the new match, are duplicated or extended.
fn variation_of(rng: &mut Rng, new: OracleMatch, mut old: OracleMatch) -> OracleMatch {
    match rng.u8(0..10) {
        0 => old.path = new.path,
        1 => old.method = new.method,
        2 => old.headers = new.headers,
        3 => old.query = new.query,
        4 => (old.headers, old.query) = (new.headers, new.query),
        5 => {
            let duplicate = old.headers.first().map(|(name, _)| (name.clone(), value(rng, &HEADER_VALUES)));
            old.headers.extend(duplicate);
        }
        6 => {
            let duplicate = old.query.first().map(|(name, _)| (name.clone(), value(rng, &PARAMETER_VALUES)));
            old.query.extend(duplicate);
        }
        7 => {
            if let OraclePath::Regex(pattern) = &mut old.path {
                let piece = choose(rng, &[Piece::Char('a'), Piece::Char('é')]);
                pattern.alternatives.iter_mut().for_each(|pieces| pieces.push((piece, Repetition::Maybe)));
            }
        }
        _ => {}
    }
    OracleMatch { path: old.path, method: old.method, headers: old.headers, query: old.query, ..new }
}

/// A request for one match of the table, sometimes with a deviation.
pub(crate) fn request(rng: &mut Rng, table: &[OracleMatch]) -> OracleRequest {
    let target = &table[rng.usize(..table.len())];
    let other = Some(&table[rng.usize(..table.len())]).filter(|_| chance(rng, 40));
    let mut headers = Vec::new();
    for (name, value) in target.headers.iter().chain(other.into_iter().flat_map(|other| &other.headers)) {
        if !chance(rng, 4) {
            send_header(rng, name, value, &mut headers);
        }
    }
    for (name, value) in random_items(rng, 1, header) {
        send_header(rng, &name, &value, &mut headers);
    }
    let mut query = Vec::new();
    for (name, value) in target.query.iter().chain(other.into_iter().flat_map(|other| &other.query)) {
        if !chance(rng, 4) {
            send_parameter(rng, name, value, &mut query);
        }
    }
    for (name, value) in random_items(rng, 1, parameter) {
        send_parameter(rng, &name, &value, &mut query);
    }
    let method = target.method.clone().filter(|_| !chance(rng, 10));
    OracleRequest {
        host: request_host(rng, &target.host, table),
        path: request_path(rng, &target.path),
        query: (!query.is_empty() || chance(rng, 10)).then(|| query.join("&")),
        method: method.unwrap_or_else(|| choose(rng, &METHODS).to_owned()),
        headers,
    }
}

fn path(rng: &mut Rng) -> OraclePath {
    match rng.u8(0..10) {
        0..2 => OraclePath::Exact(segments(rng, 1)),
        2..7 => {
            let min_segments = usize::from(!chance(rng, 30));
            OraclePath::Prefix(segments(rng, min_segments))
        }
        _ => OraclePath::Regex(pattern(rng, Subject::Path)),
    }
}

/// A path of up to three segments, sometimes with a trailing slash. Without segments it is `/`.
fn segments(rng: &mut Rng, min_segments: usize) -> String {
    let mut path: String = (0..rng.usize(min_segments..=3)).map(|_| format!("/{}", choose(rng, &SEGMENTS))).collect();
    if path.is_empty() || chance(rng, 25) {
        path.push('/');
    }
    path
}

/// What a regular expression is compared with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Path,
    /// The value of a header or query parameter.
    Value,
}

fn pattern(rng: &mut Rng, subject: Subject) -> Pattern {
    let alternatives = if chance(rng, 20) { 2 } else { 1 };
    let alternative = |rng: &mut Rng| {
        let mut pieces = Vec::new();
        if subject == Subject::Path {
            pieces.push((Piece::Char('/'), Repetition::Once));
        }
        for _ in 0..rng.usize(1..=3) {
            let piece = match subject {
                Subject::Path => choose(rng, &PATH_PIECES),
                Subject::Value => choose(rng, &VALUE_PIECES),
            };
            pieces.push((
                piece,
                choose(
                    rng,
                    &[Repetition::Once, Repetition::Once, Repetition::Maybe, Repetition::Many, Repetition::Some],
                ),
            ));
        }
        if chance(rng, 40) {
            pieces.push((Piece::Any, Repetition::Many));
        }
        pieces
    };
    Pattern { alternatives: (0..alternatives).map(|_| alternative(rng)).collect() }
}

fn header(rng: &mut Rng) -> (String, OracleValue) {
    (choose(rng, &HEADERS).to_owned(), value(rng, &HEADER_VALUES))
}

fn parameter(rng: &mut Rng) -> (String, OracleValue) {
    (choose(rng, &PARAMETERS).to_owned(), value(rng, &PARAMETER_VALUES))
}

fn value(rng: &mut Rng, values: &[&str]) -> OracleValue {
    if chance(rng, 15) {
        OracleValue::Regex(pattern(rng, Subject::Value))
    } else {
        OracleValue::Exact(choose(rng, values).to_owned())
    }
}

fn request_host(rng: &mut Rng, pattern: &str, table: &[OracleMatch]) -> String {
    let domain = pattern.trim_start_matches("*.").to_lowercase();
    match rng.u8(0..20) {
        0..15 if pattern.is_empty() || pattern.starts_with('*') => {
            // A more specific host of another match: if that match has other conditions, the request falls through to
            // this one.
            let hosts = table.iter().map(|other| other.host.to_lowercase().replace('*', "c"));
            let more_specific: Vec<String> = hosts.filter(|host| host.ends_with(&domain) && *host != domain).collect();
            if more_specific.is_empty() || chance(rng, 10) {
                return format!("{}.{domain}", choose(rng, &["a", "b", "c.b", "c.b.a", ""]));
            }
            more_specific[rng.usize(..more_specific.len())].clone()
        }
        15 => format!("{}{domain}", choose(rng, &["x", "."])),
        16..18 => choose(rng, &REQUEST_HOSTS).to_owned(),
        _ => domain,
    }
}

fn request_path(rng: &mut Rng, condition: &OraclePath) -> String {
    let mut path = match condition {
        OraclePath::Exact(text) => text.clone(),
        OraclePath::Prefix(text) => text.trim_end_matches('/').to_owned(),
        OraclePath::Regex(pattern) => sample(rng, pattern),
    };
    match (rng.u8(0..20), condition) {
        (0, _) => path.push_str(choose(rng, &SEGMENTS)),
        (1, _) => path.push('/'),
        (2, _) => path = path.trim_end_matches('/').to_owned(),
        (3, _) => path = path.to_uppercase(),
        (4, _) => path.insert_str(0, choose(rng, &["/", "/a", "/x"])),
        (5..14, OraclePath::Prefix(_)) => path.push_str(&segments(rng, 0)),
        _ => {}
    }
    if !path.starts_with('/') {
        path.insert(0, '/');
    }
    path
}

/// A text that the pattern matches.
fn sample(rng: &mut Rng, pattern: &Pattern) -> String {
    let mut text = String::new();
    for (piece, repetition) in &pattern.alternatives[rng.usize(..pattern.alternatives.len())] {
        let count = match repetition {
            Repetition::Once => 1,
            Repetition::Maybe => rng.usize(0..=1),
            Repetition::Many => rng.usize(0..=2),
            Repetition::Some => rng.usize(1..=2),
        };
        for _ in 0..count {
            text.push(match piece {
                Piece::Char(character) => *character,
                Piece::OneOf(characters) => {
                    let characters: Vec<char> = characters.chars().collect();
                    choose(rng, &characters)
                }
                Piece::Any => choose(rng, &['a', 'b', '1']),
            });
        }
    }
    text
}

/// A text that fulfills the condition.
fn text_for(rng: &mut Rng, value: &OracleValue) -> String {
    match value {
        OracleValue::Exact(text) => text.clone(),
        OracleValue::Regex(pattern) => sample(rng, pattern),
    }
}

/// Adds the header in one field line or two, with varying case.
fn send_header(rng: &mut Rng, name: &str, value: &OracleValue, headers: &mut Vec<(String, String)>) {
    let mut text = text_for(rng, value);
    if chance(rng, 5) {
        text = text.to_uppercase();
    }
    let name = if chance(rng, 30) { name.to_uppercase() } else { name.to_lowercase() };
    match text.split_once(", ") {
        Some((first, second)) if chance(rng, 50) => {
            headers.push((name.clone(), first.to_owned()));
            headers.push((name, second.to_owned()));
        }
        _ => headers.push((name.clone(), text)),
    }
}

/// Adds the query parameter with varying case and percent-encoding.
fn send_parameter(rng: &mut Rng, name: &str, value: &OracleValue, query: &mut Vec<String>) {
    let text = text_for(rng, value);
    let name = if chance(rng, 5) { name.to_uppercase() } else { name.to_owned() };
    if text.is_empty() && chance(rng, 50) {
        query.push(encoded(rng, &name));
    } else {
        query.push(format!("{}={}", encoded(rng, &name), encoded(rng, &text)));
    }
}

fn encoded(rng: &mut Rng, text: &str) -> String {
    let mut encoded = String::new();
    for character in text.chars() {
        match character {
            ' ' if chance(rng, 50) => encoded.push('+'),
            _ if character.is_ascii_alphanumeric() && !chance(rng, 10) => encoded.push(character),
            _ => character.to_string().bytes().for_each(|byte| encoded.push_str(&format!("%{byte:02X}"))),
        }
    }
    encoded
}

/// No items in about half of the cases, otherwise up to `max`.
fn random_items<T>(rng: &mut Rng, max: usize, item: impl Fn(&mut Rng) -> T) -> Vec<T> {
    let count = if chance(rng, 55) { 0 } else { rng.usize(1..=max) };
    (0..count).map(|_| item(rng)).collect()
}

fn choose<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}

fn chance(rng: &mut Rng, percent: u8) -> bool {
    rng.u8(..100) < percent
}

const ROUTES: [&str; 6] = ["a/a", "a/b", "a-b/a", "b/a", "b/aa", "A/z"];
const METHODS: [&str; 3] = ["GET", "POST", "PURGE"];
const SEGMENTS: [&str; 5] = ["a", "b", "ab", "A", "x"];
const HEADERS: [&str; 4] = ["x-a", "X-A", "x-b", "x-c"];
const HEADER_VALUES: [&str; 4] = ["1", "a", "1, a", "1,a"];
const PARAMETERS: [&str; 4] = ["q", "Q", "r s", "t"];
const PARAMETER_VALUES: [&str; 5] = ["1", "", "a b", "a+b", "é"];
const PATH_PIECES: [Piece; 5] =
    [Piece::Char('a'), Piece::Char('/'), Piece::Char('é'), Piece::OneOf("ab/"), Piece::OneOf("abx")];
const VALUE_PIECES: [Piece; 4] = [Piece::Char('1'), Piece::Char('a'), Piece::OneOf("1ab"), Piece::OneOf("a ,+")];
const HOST_PATTERNS: [&str; 14] = [
    "",
    "",
    "",
    "*.example",
    "*.example",
    "*.example",
    "*.a.example",
    "*.A.example",
    "*.b.a.example",
    "a.example",
    "b.a.example",
    "c.b.a.example",
    "C.b.a.EXAMPLE",
    "example",
];
const REQUEST_HOSTS: [&str; 12] = [
    "c.b.a.example",
    "c.b.a.example",
    "b.b.a.example",
    "b.a.example",
    "b.a.example",
    "x.b.a.example",
    "a.example",
    "x.a.example",
    "example",
    "y.x.example",
    "other",
    "",
];
