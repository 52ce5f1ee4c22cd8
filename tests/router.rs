//! Compares the router with a slow reference matcher on many generated tables and requests.
//!
//! A failure prints the seed and the smallest table and request that still fail; `ROUTER_SEED=n cargo test --workspace
//! --test library router::` starts from another seed.

mod generate;
mod oracle;

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use oracle::{Bug, Oracle, OracleMatch, OraclePath, OracleRequest, OracleValue};
use portico::snapshot::host::{HostMap, HostPattern};
use portico::snapshot::router::{
    Candidate, HeaderMatch, HostRouter, PathMatch, QueryMatch, RouteAge, RoutingRequest, ValueMatch, compile_regex,
};
use portico::snapshot::rule::{Action, Filters, RouteFailure, RouteRule, RuleId};
use portico::snapshot::{HttpListener, Routes};

#[test]
fn router_agrees_with_the_oracle() {
    let right = Oracle { bug: None };
    let (mut cases, mut matched, mut fell_through, mut wildcards, mut ties, mut regexes) = (0, 0, 0, 0, 0, 0);
    for seed in seeds() {
        let mut rng = Rng::with_seed(seed);
        let table = generate::table(&mut rng);
        let listener = listener(&table);
        for _ in 0..REQUESTS_PER_TABLE {
            let request = generate::request(&mut rng, &table);
            let expected = right.evaluate(&table, &request);
            if find(&listener, &request) != expected.winner {
                panic!("seed {seed}: {}", smallest_difference(right, table, request));
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
        assert!(count * 10 >= cases, "{what}: only {count} of {cases} cases");
    }
}

/// A bug that this test does not find in the oracle would not be found in the router either.
#[test]
fn every_planted_bug_is_found() {
    let mut living: Vec<Bug> = Bug::ALL.to_vec();
    let mut found_after = BTreeMap::new();
    for (tables, seed) in seeds().enumerate() {
        let mut rng = Rng::with_seed(seed);
        let table = generate::table(&mut rng);
        let listener = listener(&table);
        for _ in 0..REQUESTS_PER_TABLE {
            let request = generate::request(&mut rng, &table);
            let found = find(&listener, &request);
            living.retain(|bug| {
                let alive = Oracle { bug: Some(*bug) }.winner(&table, &request) == found;
                if !alive {
                    found_after.insert(format!("{bug:?}"), tables + 1);
                }
                alive
            });
        }
        if living.is_empty() {
            break;
        }
    }
    println!("tables needed: {found_after:?}");
    assert!(living.is_empty(), "unnoticed: {living:?}");
}

fn seeds() -> impl Iterator<Item = u64> {
    let first = std::env::var("ROUTER_SEED").map_or(1, |seed| seed.parse().expect("ROUTER_SEED is a number"));
    (0..TABLES).map(move |table| first + table)
}

/// The index of the winning match, according to the router.
fn find(listener: &HttpListener, request: &OracleRequest) -> Option<usize> {
    let headers: HeaderMap = request
        .headers
        .iter()
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
        .collect();
    let method: Method = request.method.parse().unwrap();
    let question = RoutingRequest::plaintext(&request.path, request.query.as_deref(), &method, &headers);
    let matched = listener.find(&request.host, &question)?;
    Some(matched.rule.id.rule.parse().unwrap())
}

/// The listener for a table: each match is a rule of its own, named by its index.
fn listener(table: &[OracleMatch]) -> HttpListener {
    let mut hosts: BTreeMap<HostPattern, Vec<Candidate>> = BTreeMap::new();
    for (at, entry) in table.iter().enumerate() {
        let host = HostPattern::parse(Some(&entry.host));
        hosts.entry(host).or_default().push(candidate(at, entry));
    }
    let hosts: HostMap<_> =
        hosts.into_iter().map(|(host, candidates)| (host, Arc::new(HostRouter::build(candidates)))).collect();
    HttpListener { gateway: "default/test".into(), name: "http".into(), port: 80, routes: Routes::Gateway(hosts) }
}

fn candidate(at: usize, entry: &OracleMatch) -> Candidate {
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
    let id = RuleId { route: entry.route.as_str().into(), rule: at.to_string().into() };
    Candidate {
        path,
        method: entry.method.as_ref().map(|method| method.parse().unwrap()),
        headers: headers.collect(),
        query: query.collect(),
        server_names: Arc::default(),
        age: RouteAge {
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
            kong: None,
        }),
    }
}

fn value_match<T>(value: &OracleValue, exact: impl Fn(&str) -> T) -> ValueMatch<T> {
    match value {
        OracleValue::Exact(text) => ValueMatch::Exact(exact(text)),
        OracleValue::Regex(pattern) => ValueMatch::Regex(compile_regex(&pattern.text()).unwrap()),
    }
}

/// Removes everything that the difference does not need, and describes the rest.
fn smallest_difference(oracle: Oracle, mut table: Vec<OracleMatch>, mut request: OracleRequest) -> String {
    let differ = |table: &[OracleMatch], request: &OracleRequest| {
        find(&listener(table), request) != oracle.winner(table, request)
    };
    for at in (0..table.len()).rev() {
        let mut fewer = table.clone();
        fewer.remove(at);
        if differ(&fewer, &request) {
            table = fewer;
        }
    }
    for at in (0..request.headers.len()).rev() {
        let mut fewer = request.clone();
        fewer.headers.remove(at);
        if differ(&table, &fewer) {
            request = fewer;
        }
    }
    let without_query = OracleRequest { query: None, ..request.clone() };
    if differ(&table, &without_query) {
        request = without_query;
    }
    format!(
        "the router found {:?}, expected {:?}, for {request:#?} in {table:#?}",
        find(&listener(&table), &request),
        oracle.winner(&table, &request)
    )
}

const TABLES: u64 = 1_200;
const REQUESTS_PER_TABLE: u32 = 100;
