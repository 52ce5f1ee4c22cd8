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
                // Differs from an earlier match in one part, or in none, to exercise the later steps of precedence.
                if !table.is_empty() && chance(rng, 60) {
                    let like = table[rng.usize(..table.len())].clone();
                    new = variation_of(rng, new, like);
                }
                table.extend(hosts.iter().map(|host| OracleMatch { host: (*host).to_owned(), ..new.clone() }));
            }
        }
    }
    rng.shuffle(&mut table);
    table
}

/// The old match with one part of the new one, or with duplicates of its own conditions.
fn variation_of(rng: &mut Rng, new: OracleMatch, mut old: OracleMatch) -> OracleMatch {
    match rng.u8(0..10) {
        0 => old.path = new.path,
        1 => old.method = new.method,
        2 => old.headers = new.headers,
        3 => old.query = new.query,
        4 => (old.headers, old.query) = (new.headers, new.query),
        5 => {
            let again = old.headers.first().map(|(name, _)| (name.clone(), value(rng, &HEADER_VALUES)));
            old.headers.extend(again);
        }
        6 => {
            let again = old.query.first().map(|(name, _)| (name.clone(), value(rng, &PARAMETER_VALUES)));
            old.query.extend(again);
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
    let meant = &table[rng.usize(..table.len())];
    let rival = Some(&table[rng.usize(..table.len())]).filter(|_| chance(rng, 40));
    let mut headers = Vec::new();
    for (name, value) in meant.headers.iter().chain(rival.into_iter().flat_map(|rival| &rival.headers)) {
        if !chance(rng, 4) {
            send_header(rng, name, value, &mut headers);
        }
    }
    for (name, value) in random_items(rng, 1, header) {
        send_header(rng, &name, &value, &mut headers);
    }
    let mut query = Vec::new();
    for (name, value) in meant.query.iter().chain(rival.into_iter().flat_map(|rival| &rival.query)) {
        if !chance(rng, 4) {
            send_parameter(rng, name, value, &mut query);
        }
    }
    for (name, value) in random_items(rng, 1, parameter) {
        send_parameter(rng, &name, &value, &mut query);
    }
    let method = meant.method.clone().filter(|_| !chance(rng, 10));
    OracleRequest {
        host: request_host(rng, &meant.host, table),
        path: request_path(rng, &meant.path),
        query: (!query.is_empty() || chance(rng, 10)).then(|| query.join("&")),
        method: method.unwrap_or_else(|| choose(rng, &METHODS).to_owned()),
        headers,
    }
}

fn path(rng: &mut Rng) -> OraclePath {
    match rng.u8(0..10) {
        0..2 => OraclePath::Exact(segments(rng, 1)),
        2..7 => {
            let least = usize::from(!chance(rng, 30));
            OraclePath::Prefix(segments(rng, least))
        }
        _ => OraclePath::Regex(pattern(rng, true)),
    }
}

/// Sometimes with a trailing slash; `/` if there are no segments.
fn segments(rng: &mut Rng, least: usize) -> String {
    let mut path: String = (0..rng.usize(least..=3)).map(|_| format!("/{}", choose(rng, &SEGMENTS))).collect();
    if path.is_empty() || chance(rng, 25) {
        path.push('/');
    }
    path
}

fn pattern(rng: &mut Rng, of_path: bool) -> Pattern {
    let alternatives = if chance(rng, 20) { 2 } else { 1 };
    let alternative = |rng: &mut Rng| {
        let mut pieces = Vec::new();
        if of_path {
            pieces.push((Piece::Char('/'), Repetition::Once));
        }
        for _ in 0..rng.usize(1..=3) {
            let piece = if of_path { choose(rng, &PATH_PIECES) } else { choose(rng, &VALUE_PIECES) };
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
        OracleValue::Regex(pattern(rng, false))
    } else {
        OracleValue::Exact(choose(rng, values).to_owned())
    }
}

fn request_host(rng: &mut Rng, pattern: &str, table: &[OracleMatch]) -> String {
    let domain = pattern.trim_start_matches("*.").to_lowercase();
    match rng.u8(0..20) {
        0..15 if pattern.is_empty() || pattern.starts_with('*') => {
            // A more specific name from another match: the request may have to fall through.
            let names = table.iter().map(|other| other.host.to_lowercase().replace('*', "c"));
            let below: Vec<String> = names.filter(|name| name.ends_with(&domain) && *name != domain).collect();
            if below.is_empty() || chance(rng, 10) {
                return format!("{}.{domain}", choose(rng, &["a", "b", "c.b", "c.b.a", ""]));
            }
            below[rng.usize(..below.len())].clone()
        }
        15 => format!("{}{domain}", choose(rng, &["x", "."])),
        16..18 => choose(rng, &REQUEST_HOSTS).to_owned(),
        _ => domain,
    }
}

fn request_path(rng: &mut Rng, rule: &OraclePath) -> String {
    let mut path = match rule {
        OraclePath::Exact(text) => text.clone(),
        OraclePath::Prefix(text) => text.trim_end_matches('/').to_owned(),
        OraclePath::Regex(pattern) => sample(rng, pattern),
    };
    match (rng.u8(0..20), rule) {
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
    for (piece, times) in &pattern.alternatives[rng.usize(..pattern.alternatives.len())] {
        let times = match times {
            Repetition::Once => 1,
            Repetition::Maybe => rng.usize(0..=1),
            Repetition::Many => rng.usize(0..=2),
            Repetition::Some => rng.usize(1..=2),
        };
        for _ in 0..times {
            text.push(match piece {
                Piece::Char(one) => *one,
                Piece::OneOf(any) => {
                    let any: Vec<char> = any.chars().collect();
                    choose(rng, &any)
                }
                Piece::Any => choose(rng, &['a', 'b', '1']),
            });
        }
    }
    text
}

fn text_for(rng: &mut Rng, value: &OracleValue) -> String {
    match value {
        OracleValue::Exact(text) => text.clone(),
        OracleValue::Regex(pattern) => sample(rng, pattern),
    }
}

/// Adds one line or several, with the name in any case.
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

/// Adds a parameter with varying encodings.
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
    for one in text.chars() {
        match one {
            ' ' if chance(rng, 50) => encoded.push('+'),
            one if one.is_ascii_alphanumeric() && !chance(rng, 10) => encoded.push(one),
            one => one.to_string().bytes().for_each(|byte| encoded.push_str(&format!("%{byte:02X}"))),
        }
    }
    encoded
}

fn random_items<T>(rng: &mut Rng, most: usize, one: impl Fn(&mut Rng) -> T) -> Vec<T> {
    let count = if chance(rng, 55) { 0 } else { rng.usize(1..=most) };
    (0..count).map(|_| one(rng)).collect()
}

fn choose<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
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
