//! Compares the router with a slow reference matcher on many generated tables and requests.
//!
//! A failure prints the seed, and the table and the request without the parts that do not affect the failure.
//! `ROUTER_SEED=n cargo test --workspace --test library router::` starts from another seed.

mod generate;
mod oracle;

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use oracle::{Bug, Oracle, OracleMatch, OraclePath, OracleRequest, OracleValue};
use portico::snapshot::host::{HostMap, HostPattern};
use portico::snapshot::router::{
    HeaderMatch, HostRouter, PathMatch, QueryMatch, RouteMatch, RoutingRequest, TieBreaker, ValueMatch, compile_regex,
};
use portico::snapshot::rule::{Action, Filters, RouteFailure, RouteRule, RuleId};
use portico::snapshot::rule_options::UnmatchedStyle;
use portico::snapshot::{HttpListener, Routes};

#[test]
fn router_agrees_with_the_oracle() {
    let oracle = Oracle { bug: None };
    let (mut cases, mut matched, mut fell_through, mut wildcards, mut ties, mut regexes) = (0, 0, 0, 0, 0, 0);
    for seed in seeds() {
        let mut rng = Rng::with_seed(seed);
        let table = generate::table(&mut rng);
        let listener = listener(&table);
        for _ in 0..REQUESTS_PER_TABLE {
            let request = generate::request(&mut rng, &table);
            let expected = oracle.evaluate(&table, &request);
            if find(&listener, &request) != expected.winner {
                panic!("seed {seed}: {}", smallest_difference(oracle, table, request));
            }
            cases += 1;
            matched += usize::from(expected.winner.is_some());
            fell_through += usize::from(expected.fell_through);
            wildcards += usize::from(expected.overlapping_wildcards);
            ties += usize::from(expected.tie);
            regexes += usize::from(expected.regex);
        }
    }
    println!(
        "{cases} cases: {matched} matched, {fell_through} fell through, {wildcards} with overlapping wildcards, \
         {ties} ties, {regexes} with regular expressions"
    );
    assert!(cases >= 100_000);
    for (what, count) in [
        ("matched", matched),
        ("not matched", cases - matched),
        ("fall through", fell_through),
        ("overlapping wildcards", wildcards),
        ("ties", ties),
        ("regular expressions", regexes),
    ] {
        assert!(count * 10 >= cases, "{what}: only {count} of {cases} cases, expected a tenth");
    }
}

/// If the requests do not reveal a bug of the oracle, they would not reveal the same bug of the router either.
#[test]
fn every_planted_bug_is_found() {
    let mut unnoticed: Vec<Bug> = Bug::ALL.to_vec();
    let mut tables_needed = BTreeMap::new();
    for (earlier_tables, seed) in seeds().enumerate() {
        let mut rng = Rng::with_seed(seed);
        let table = generate::table(&mut rng);
        let listener = listener(&table);
        for _ in 0..REQUESTS_PER_TABLE {
            let request = generate::request(&mut rng, &table);
            let winner = find(&listener, &request);
            unnoticed.retain(|bug| {
                let agrees = Oracle { bug: Some(*bug) }.winner(&table, &request) == winner;
                if !agrees {
                    tables_needed.insert(format!("{bug:?}"), earlier_tables + 1);
                }
                agrees
            });
        }
        if unnoticed.is_empty() {
            break;
        }
    }
    println!("tables needed: {tables_needed:?}");
    assert!(unnoticed.is_empty(), "unnoticed: {unnoticed:?}");
}

fn seeds() -> impl Iterator<Item = u64> {
    let first = std::env::var("ROUTER_SEED").map_or(1, |seed| seed.parse().expect("ROUTER_SEED is a number"));
    (0..TABLES).map(move |table| first + table)
}

/// The position in the table of the match that the router selects.
fn find(listener: &HttpListener, request: &OracleRequest) -> Option<usize> {
    let headers: HeaderMap = request
        .headers
        .iter()
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
        .collect();
    let method: Method = request.method.parse().unwrap();
    let routing_request = RoutingRequest::plaintext(&request.path, request.query.as_deref(), &method, &headers);
    let matched = listener.route(&request.host, &routing_request).ok()?;
    Some(matched.rule.id.rule.parse().unwrap())
}

/// The listener for a table: each match is a separate rule, named by its position.
fn listener(table: &[OracleMatch]) -> HttpListener {
    let mut hosts: BTreeMap<HostPattern, Vec<RouteMatch>> = BTreeMap::new();
    for (position, entry) in table.iter().enumerate() {
        let host = HostPattern::parse(Some(&entry.host));
        hosts.entry(host).or_default().push(candidate(position, entry));
    }
    let hosts: HostMap<_> =
        hosts.into_iter().map(|(host, candidates)| (host, Arc::new(HostRouter::build(candidates)))).collect();
    HttpListener {
        gateway: "default/test".into(),
        name: "http".into(),
        port: 80,
        routes: Routes::ByHost(hosts),
        unmatched: UnmatchedStyle::default(),
    }
}

fn candidate(position: usize, entry: &OracleMatch) -> RouteMatch {
    let path = match &entry.path {
        OraclePath::Exact(text) => PathMatch::Exact(text.as_str().into()),
        OraclePath::Prefix(text) => PathMatch::Prefix(text.as_str().into()),
        OraclePath::Regex(pattern) => PathMatch::Regex(pattern.text().into()),
    };
    let headers = entry.headers.iter().map(|(name, value)| HeaderMatch {
        name: name.parse().unwrap(),
        value: value_match(value, |text| HeaderValue::from_str(text).unwrap()),
    });
    let query = entry
        .query
        .iter()
        .map(|(name, value)| QueryMatch { name: name.as_str().into(), value: value_match(value, |text| text.into()) });
    let id = RuleId { route: entry.route.as_str().into(), rule: position.to_string().into() };
    RouteMatch {
        path,
        method: entry.method.as_ref().map(|method| method.parse().unwrap()),
        headers: headers.collect(),
        query: query.collect(),
        call: None,
        server_names: Arc::default(),
        tie_breaker: TieBreaker {
            created: entry.created,
            route: entry.route.as_str().into(),
            rule: entry.rule,
            index: entry.index,
        },
        rule: Arc::new(RouteRule {
            id,
            filters: Filters::default(),
            plugins: None,
            action: Action::Fail(RouteFailure::NoBackends),
            options: None,
        }),
    }
}

fn value_match<T>(value: &OracleValue, exact: impl Fn(&str) -> T) -> ValueMatch<T> {
    match value {
        OracleValue::Exact(text) => ValueMatch::Exact(exact(text)),
        OracleValue::Regex(pattern) => ValueMatch::Regex(compile_regex(&pattern.text()).unwrap()),
    }
}

/// Removes matches, headers and the query while the router still differs from the oracle. Describes what is left.
fn smallest_difference(oracle: Oracle, mut table: Vec<OracleMatch>, mut request: OracleRequest) -> String {
    let differ = |table: &[OracleMatch], request: &OracleRequest| {
        find(&listener(table), request) != oracle.winner(table, request)
    };
    for index in (0..table.len()).rev() {
        let mut fewer = table.clone();
        fewer.remove(index);
        if differ(&fewer, &request) {
            table = fewer;
        }
    }
    for index in (0..request.headers.len()).rev() {
        let mut fewer = request.clone();
        fewer.headers.remove(index);
        if differ(&table, &fewer) {
            request = fewer;
        }
    }
    let without_query = OracleRequest { query: None, ..request.clone() };
    if differ(&table, &without_query) {
        request = without_query;
    }
    format!(
        "the router selects {:?}, the oracle {:?}, for {request:#?} in {table:#?}",
        find(&listener(&table), &request),
        oracle.winner(&table, &request)
    )
}

const TABLES: u64 = 1_200;
const REQUESTS_PER_TABLE: u32 = 100;
