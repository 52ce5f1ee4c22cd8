//! A slow, simple implementation of the precedence rules: filter all matches, sort them, take the first.
//!
//! It shares no code with the router, not even a regular expression engine. A test can plant one bug at a time in it.

use std::cmp::Reverse;

/// One match of one rule on one of its route's hosts, as configured.
#[derive(Clone, Debug)]
pub(crate) struct OracleMatch {
    /// `a.example`, `*.a.example`, or empty for any host.
    pub host: String,
    pub path: OraclePath,
    pub method: Option<String>,
    pub headers: Vec<(String, OracleValue)>,
    pub query: Vec<(String, OracleValue)>,
    pub created: Option<i64>,
    pub route: String,
    pub rule: u16,
    pub index: u16,
}

#[derive(Clone, Debug)]
pub(crate) enum OraclePath {
    Exact(String),
    Prefix(String),
    Regex(Pattern),
}

#[derive(Clone, Debug)]
pub(crate) enum OracleValue {
    Exact(String),
    Regex(Pattern),
}

/// A regular expression as a tree, so that the oracle needs no parser.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    pub alternatives: Vec<Vec<(Piece, Repetition)>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Piece {
    Char(char),
    /// One of these characters.
    OneOf(&'static str),
    /// Any character.
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repetition {
    Once,
    /// `?`
    Maybe,
    /// `*`
    Many,
    /// `+`
    Some,
}

#[derive(Clone, Debug)]
pub(crate) struct OracleRequest {
    /// In lower case.
    pub host: String,
    pub path: String,
    pub query: Option<String>,
    pub method: String,
    pub headers: Vec<(String, String)>,
}

/// Declares the bugs, and lists them.
macro_rules! bugs {
    ($($bug:ident,)*) => {
        /// Bugs that the oracle can have. If it never differs from the router with one of them, the generated requests
        /// are not diverse enough.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Bug { $($bug,)* }

        impl Bug {
            pub(crate) const ALL: &[Bug] = &[$(Bug::$bug,)*];
        }
    };
}

bugs! {
    // Hosts.
    HostRankIgnored,
    NoFallThrough,
    WildcardBeforeExactHost,
    ShorterWildcardFirst,
    AnyHostFirst,
    WildcardMatchesBareDomain,
    WildcardMatchesOnlyOneLabel,
    WildcardMatchesPartOfLabel,
    HostPatternCaseKept,
    // Paths.
    RegexBeforeExact,
    PrefixBeforeRegex,
    PrefixBeforeExact,
    ShorterPrefixFirst,
    ShorterRegexFirst,
    RegexLengthInBytes,
    PrefixMatchesPartOfSegment,
    PrefixKeepsTrailingSlash,
    ExactIgnoresTrailingSlash,
    PathCaseIgnored,
    RegexStartsAnywhere,
    RegexEndsAnywhere,
    // Other conditions.
    MethodNotCompared,
    MethodRankIgnored,
    HeaderCountIgnored,
    QueryCountIgnored,
    HeadersBeforeMethod,
    QueryBeforeHeaders,
    // Ties.
    CreatedIgnored,
    NewerFirst,
    MissingCreationIsNewest,
    NameBeforeCreated,
    NameReversed,
    RuleBeforeName,
    RuleReversed,
    MatchBeforeRule,
    MatchReversed,
    // Duplicate names in one match.
    DuplicateHeadersCounted,
    DuplicateHeadersCompared,
    LastDuplicateHeader,
    DuplicateHeaderCaseMatters,
    DuplicateQueryCounted,
    DuplicateQueryCompared,
    LastDuplicateQuery,
    DuplicateQueryCaseIgnored,
    // Values of a request.
    HeaderNameCaseMatters,
    HeaderValueCaseIgnored,
    FirstRepeatedHeader,
    RepeatedHeadersJoinedWithoutSpace,
    QueryNameCaseIgnored,
    QueryNameNotDecoded,
    QueryValueNotDecoded,
    PlusNotDecoded,
    LastRepeatedParameter,
}

/// The reference matcher, optionally with one bug.
#[derive(Clone, Copy)]
pub(crate) struct Oracle {
    pub bug: Option<Bug>,
}

/// The result, and which special cases were involved.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct OracleResult {
    /// Position in the table.
    pub winner: Option<usize>,
    /// A more specific host in the table had no match for the request.
    pub fell_through: bool,
    /// More than one wildcard in the table covers the host.
    pub overlapping_wildcards: bool,
    /// The two best matches are equally specific, so creation time, name or order decided.
    pub tie: bool,
    /// A matching entry has a regular expression.
    pub regex: bool,
}

impl Oracle {
    pub(crate) fn winner(self, table: &[OracleMatch], request: &OracleRequest) -> Option<usize> {
        self.matching(table, request).first().copied()
    }

    pub(crate) fn evaluate(self, table: &[OracleMatch], request: &OracleRequest) -> OracleResult {
        let positions = self.matching(table, request);
        let winner = positions.first().copied();
        let hosts = || table.iter().filter(|entry| self.host_matches(&entry.host, &request.host));
        let mut wildcards: Vec<&str> = hosts().map(|entry| &*entry.host).filter(|host| host.starts_with('*')).collect();
        wildcards.sort_unstable();
        wildcards.dedup();
        let specificity = |position: usize| self.specificity(&table[position]);
        OracleResult {
            winner,
            fell_through: winner.is_some_and(|position| {
                hosts().any(|entry| self.host_rank(&entry.host) < self.host_rank(&table[position].host))
            }),
            overlapping_wildcards: wildcards.len() > 1,
            tie: positions.len() > 1 && specificity(positions[0]) == specificity(positions[1]),
            regex: positions.iter().any(|position| table[*position].has_regex()),
        }
    }

    /// The positions of all matching entries, the winner first.
    fn matching(self, table: &[OracleMatch], request: &OracleRequest) -> Vec<usize> {
        let mut positions: Vec<usize> =
            (0..table.len()).filter(|position| self.host_matches(&table[*position].host, &request.host)).collect();
        if self.has(Bug::NoFallThrough) {
            let best_rank = positions.iter().map(|position| self.host_rank(&table[*position].host)).min();
            positions.retain(|position| Some(self.host_rank(&table[*position].host)) == best_rank);
        }
        positions.retain(|position| self.matches(&table[*position], request));
        positions.sort_by_cached_key(|position| {
            (self.specificity(&table[*position]), self.tie_breakers(&table[*position]), *position)
        });
        positions
    }

    fn matches(self, entry: &OracleMatch, request: &OracleRequest) -> bool {
        self.path_matches(&entry.path, &request.path)
            && (self.has(Bug::MethodNotCompared) || entry.method.iter().all(|method| *method == request.method))
            && self.headers_compared(entry).iter().all(|(name, value)| self.header_matches(name, value, request))
            && self.query_compared(entry).iter().all(|(name, value)| self.parameter_matches(name, value, request))
    }

    fn has(self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}

/// Rank of the host; kind and length of the path; presence of a method, numbers of headers and query parameters.
/// Smaller values win.
type Specificity = ((u8, Reverse<usize>), u8, Reverse<usize>, [Reverse<usize>; 3]);

impl Oracle {
    fn specificity(self, entry: &OracleMatch) -> Specificity {
        let host = if self.has(Bug::HostRankIgnored) { (0, Reverse(0)) } else { self.host_rank(&entry.host) };
        let (kind, length) = match &entry.path {
            OraclePath::Exact(_) => (if self.has(Bug::PrefixBeforeExact) { 9 } else { 1 }, 0),
            OraclePath::Regex(pattern) => {
                let text = pattern.text();
                let length = if self.has(Bug::RegexLengthInBytes) { text.len() } else { text.chars().count() };
                let length = if self.has(Bug::ShorterRegexFirst) { usize::MAX - length } else { length };
                (if self.has(Bug::RegexBeforeExact) { 0 } else { 2 }, length)
            }
            OraclePath::Prefix(text) => {
                let length = text.trim_end_matches('/').chars().count();
                let length = if self.has(Bug::ShorterPrefixFirst) { usize::MAX - length } else { length };
                (if self.has(Bug::PrefixBeforeRegex) { 1 } else { 3 }, length)
            }
        };
        let method = usize::from(entry.method.is_some() && !self.has(Bug::MethodRankIgnored));
        let with_duplicates = self.has(Bug::DuplicateHeadersCounted);
        let headers = if with_duplicates { entry.headers.len() } else { self.headers_compared(entry).len() };
        let headers = if self.has(Bug::DuplicateHeadersCompared) { self.distinct_headers(entry) } else { headers };
        let headers = if self.has(Bug::HeaderCountIgnored) { 0 } else { headers };
        let with_duplicates = self.has(Bug::DuplicateQueryCounted);
        let query = if with_duplicates { entry.query.len() } else { self.query_compared(entry).len() };
        let query = if self.has(Bug::DuplicateQueryCompared) { self.distinct_query(entry) } else { query };
        let query = if self.has(Bug::QueryCountIgnored) { 0 } else { query };
        let counts = match self.bug {
            Some(Bug::HeadersBeforeMethod) => [headers, method, query],
            Some(Bug::QueryBeforeHeaders) => [method, query, headers],
            _ => [method, headers, query],
        };
        (host, kind, Reverse(length), counts.map(Reverse))
    }

    /// The tie-breakers, in order.
    fn tie_breakers(self, entry: &OracleMatch) -> [(Option<i64>, String); 4] {
        let numeric = |number: Option<i64>| (number, String::new());
        let created = numeric(match self.bug {
            Some(Bug::CreatedIgnored) => None,
            Some(Bug::NewerFirst) => entry.created.map(|seconds| -seconds),
            Some(Bug::MissingCreationIsNewest) => Some(entry.created.unwrap_or(i64::MAX)),
            _ => entry.created,
        });
        // Sorts in the reverse order.
        let mirrored = || entry.route.bytes().map(|byte| char::from(255 - byte)).collect();
        let name = (None, if self.has(Bug::NameReversed) { mirrored() } else { entry.route.clone() });
        let rule = numeric(Some(i64::from(entry.rule) * if self.has(Bug::RuleReversed) { -1 } else { 1 }));
        let index = numeric(Some(i64::from(entry.index) * if self.has(Bug::MatchReversed) { -1 } else { 1 }));
        match self.bug {
            Some(Bug::NameBeforeCreated) => [name, created, rule, index],
            Some(Bug::RuleBeforeName) => [created, rule, name, index],
            Some(Bug::MatchBeforeRule) => [created, name, index, rule],
            _ => [created, name, rule, index],
        }
    }

    fn host_rank(self, pattern: &str) -> (u8, Reverse<usize>) {
        let length =
            |text: &str| if self.has(Bug::ShorterWildcardFirst) { usize::MAX - text.len() } else { text.len() };
        match pattern {
            "" => (if self.has(Bug::AnyHostFirst) { 0 } else { 9 }, Reverse(0)),
            wildcard if wildcard.starts_with('*') => (2, Reverse(length(wildcard))),
            exact => (if self.has(Bug::WildcardBeforeExactHost) { 3 } else { 1 }, Reverse(exact.len())),
        }
    }

    fn host_matches(self, pattern: &str, host: &str) -> bool {
        let pattern = if self.has(Bug::HostPatternCaseKept) { pattern.to_owned() } else { pattern.to_lowercase() };
        if pattern.is_empty() {
            return true;
        }
        let Some(domain) = pattern.strip_prefix("*.") else { return pattern == host };
        if self.has(Bug::WildcardMatchesBareDomain) && host == domain {
            return true;
        }
        if self.has(Bug::WildcardMatchesPartOfLabel) && host.len() > domain.len() && host.ends_with(domain) {
            return true;
        }
        // From the right, the host has all labels of the domain and at least one more. The label left of the domain is
        // not empty.
        let mut labels = host.rsplit('.');
        if !domain.rsplit('.').all(|label| labels.next() == Some(label)) {
            return false;
        }
        let additional: Vec<&str> = labels.collect();
        let is_right_count =
            if self.has(Bug::WildcardMatchesOnlyOneLabel) { additional.len() == 1 } else { !additional.is_empty() };
        is_right_count && !additional[0].is_empty()
    }

    fn path_matches(self, condition: &OraclePath, path: &str) -> bool {
        let cased = |text: &str| if self.has(Bug::PathCaseIgnored) { text.to_lowercase() } else { text.to_owned() };
        match condition {
            OraclePath::Exact(text) if self.has(Bug::ExactIgnoresTrailingSlash) => {
                text.trim_end_matches('/') == path.trim_end_matches('/')
            }
            OraclePath::Exact(text) => cased(text) == cased(path),
            OraclePath::Prefix(text) => {
                let (text, path) = (cased(text), cased(path));
                if self.has(Bug::PrefixKeepsTrailingSlash) && text.ends_with('/') {
                    return path.starts_with(&text);
                }
                if self.has(Bug::PrefixMatchesPartOfSegment) {
                    return path.starts_with(text.trim_end_matches('/'));
                }
                if text.trim_end_matches('/').is_empty() {
                    return true;
                }
                let wanted: Vec<&str> = text.trim_end_matches('/').split('/').collect();
                let given: Vec<&str> = path.split('/').collect();
                given.len() >= wanted.len() && given[..wanted.len()] == wanted[..]
            }
            OraclePath::Regex(pattern) => self.pattern_matches(pattern, path),
        }
    }

    fn pattern_matches(self, pattern: &Pattern, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let last_start = if self.has(Bug::RegexStartsAnywhere) { text.len() } else { 0 };
        let may_end_early = self.has(Bug::RegexEndsAnywhere);
        let matches_from = |start: usize| {
            pattern.alternatives.iter().any(|pieces| pieces_match(pieces, &text[start..], may_end_early))
        };
        (0..=last_start).any(matches_from)
    }

    fn value_matches(self, wanted: &OracleValue, given: &str, case_ignored: bool) -> bool {
        match wanted {
            OracleValue::Exact(text) if case_ignored => text.to_lowercase() == given.to_lowercase(),
            OracleValue::Exact(text) => text == given,
            OracleValue::Regex(pattern) => self.pattern_matches(pattern, given),
        }
    }

    fn header_matches(self, name: &str, value: &OracleValue, request: &OracleRequest) -> bool {
        let is_name = |given: &str| {
            if self.has(Bug::HeaderNameCaseMatters) { given == name } else { given.eq_ignore_ascii_case(name) }
        };
        let lines: Vec<&str> =
            request.headers.iter().filter(|(given, _)| is_name(given)).map(|(_, line)| line.as_str()).collect();
        let given = match self.bug {
            Some(Bug::FirstRepeatedHeader) => lines.first().copied().unwrap_or_default().to_owned(),
            Some(Bug::RepeatedHeadersJoinedWithoutSpace) => lines.join(","),
            _ => lines.join(", "),
        };
        !lines.is_empty() && self.value_matches(value, &given, self.has(Bug::HeaderValueCaseIgnored))
    }

    fn parameter_matches(self, name: &str, value: &OracleValue, request: &OracleRequest) -> bool {
        let Some(query) = &request.query else { return false };
        let mut given: Vec<(String, String)> = Vec::new();
        for parameter in query.split('&') {
            let (key, value) = match parameter.find('=') {
                Some(at) => (&parameter[..at], &parameter[at + 1..]),
                None => (parameter, ""),
            };
            let key = if self.has(Bug::QueryNameNotDecoded) { key.to_owned() } else { self.decoded(key) };
            let value = if self.has(Bug::QueryValueNotDecoded) { value.to_owned() } else { self.decoded(value) };
            given.push((key, value));
        }
        if self.has(Bug::LastRepeatedParameter) {
            given.reverse();
        }
        let is_name =
            |key: &str| key == name || (self.has(Bug::QueryNameCaseIgnored) && key.eq_ignore_ascii_case(name));
        let case_ignored = false;
        given
            .iter()
            .find(|(key, _)| is_name(key))
            .is_some_and(|(_, given)| self.value_matches(value, given, case_ignored))
    }

    /// Decodes a name or value. The result is UTF-8, because the generator encodes all bytes of a character.
    fn decoded(self, text: &str) -> String {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((first, more)) = rest.split_first() {
            rest = more;
            match first {
                b'+' if !self.has(Bug::PlusNotDecoded) => bytes.push(b' '),
                b'%' if more.len() >= 2 => {
                    let digits = std::str::from_utf8(&more[..2]).unwrap();
                    bytes.push(u8::from_str_radix(digits, 16).unwrap());
                    rest = &more[2..];
                }
                other => bytes.push(*other),
            }
        }
        String::from_utf8(bytes).unwrap()
    }

    /// The header conditions of a match: of several for one name, the first.
    fn headers_compared(self, entry: &OracleMatch) -> Vec<(String, OracleValue)> {
        if self.has(Bug::DuplicateHeadersCompared) {
            return entry.headers.clone();
        }
        let key = |name: &str| {
            if self.has(Bug::DuplicateHeaderCaseMatters) { name.to_owned() } else { name.to_lowercase() }
        };
        one_per_name(&entry.headers, key, self.has(Bug::LastDuplicateHeader))
    }

    /// The query conditions of a match: of several for one name, the first.
    fn query_compared(self, entry: &OracleMatch) -> Vec<(String, OracleValue)> {
        if self.has(Bug::DuplicateQueryCompared) {
            return entry.query.clone();
        }
        let key = |name: &str| {
            if self.has(Bug::DuplicateQueryCaseIgnored) { name.to_lowercase() } else { name.to_owned() }
        };
        one_per_name(&entry.query, key, self.has(Bug::LastDuplicateQuery))
    }

    fn distinct_headers(self, entry: &OracleMatch) -> usize {
        one_per_name(&entry.headers, str::to_lowercase, false).len()
    }

    fn distinct_query(self, entry: &OracleMatch) -> usize {
        one_per_name(&entry.query, str::to_owned, false).len()
    }
}

fn one_per_name(
    items: &[(String, OracleValue)],
    key: impl Fn(&str) -> String,
    keep_last: bool,
) -> Vec<(String, OracleValue)> {
    let mut kept: Vec<(String, OracleValue)> = Vec::new();
    for (name, value) in items {
        match kept.iter_mut().find(|(earlier, _)| key(earlier) == key(name)) {
            Some(earlier) if keep_last => earlier.1 = value.clone(),
            Some(_) => {}
            None => kept.push((name.clone(), value.clone())),
        }
    }
    kept
}

/// Backtracks: for every possible repetition of the first piece, matches the other pieces with the rest of the text.
fn pieces_match(pieces: &[(Piece, Repetition)], text: &[char], may_end_early: bool) -> bool {
    let Some(((piece, repetition), others)) = pieces.split_first() else { return text.is_empty() || may_end_early };
    let min = usize::from(matches!(repetition, Repetition::Once | Repetition::Some));
    let max = if matches!(repetition, Repetition::Once | Repetition::Maybe) { 1 } else { text.len() };
    let available = text.iter().take_while(|given| piece.matches(**given)).count().min(max);
    (min..=available).any(|taken| pieces_match(others, &text[taken..], may_end_early))
}

impl Piece {
    fn matches(self, given: char) -> bool {
        match self {
            Piece::Char(wanted) => given == wanted,
            Piece::OneOf(wanted) => wanted.contains(given),
            Piece::Any => true,
        }
    }
}

impl Pattern {
    /// In the syntax that the router parses.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (index, pieces) in self.alternatives.iter().enumerate() {
            text.push_str(if index > 0 { "|" } else { "" });
            for (piece, repetition) in pieces {
                match piece {
                    Piece::Char(character) => text.push(*character),
                    Piece::OneOf(characters) => text.push_str(&format!("[{characters}]")),
                    Piece::Any => text.push('.'),
                }
                text.push_str(match repetition {
                    Repetition::Once => "",
                    Repetition::Maybe => "?",
                    Repetition::Many => "*",
                    Repetition::Some => "+",
                });
            }
        }
        text
    }
}

impl OracleMatch {
    fn has_regex(&self) -> bool {
        let is_regex = |(_, value): &(String, OracleValue)| matches!(value, OracleValue::Regex(_));
        matches!(self.path, OraclePath::Regex(_))
            || self.headers.iter().any(is_regex)
            || self.query.iter().any(is_regex)
    }
}
