//! Compares the router with a reference that checks every route and computes each rank as one number.

use std::cmp::Reverse;

use fastrand::Rng;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;
use crate::request_target::RequestHost;
use crate::snapshot::regex::RegexLimit;
use crate::snapshot::regex_steps::RegexSteps;
use crate::snapshot::router::TieBreaker;
use crate::snapshot::rule::{Action, Filters, RouteFailure, RouteRule, RuleId};

pub(super) fn rule(name: &str) -> Arc<RouteRule> {
    let id = RuleId { route: "Ingress/default/a".into(), rule: name.into() };
    Arc::new(RouteRule {
        id,
        filters: Filters::default(),
        plugins: None,
        action: Action::Fail(RouteFailure::NoService),
        options: None,
    })
}

/// Parses a route written as words: paths begin with `/`, `=/`, `~/`, or `!/` for refused expressions, methods are in
/// capitals, headers begin with `x-`, server names begin with `sni:`, `#1` is the regex priority, `@1` the creation
/// time in seconds, `last` marks a default backend, and all other words are hosts.
fn route(name: &str, text: &str) -> ConditionRoute {
    let tie_breaker = TieBreaker { created: Some(9), route: name.into(), rule: 0, index: 0 };
    let mut route = ConditionRoute::new(tie_breaker, rule(name));
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match word {
            "last" => route.is_default_backend = true,
            _ if word.starts_with('/') => route.paths.push(PathCondition::prefix(word)),
            _ if word.starts_with('=') => route.paths.push(PathCondition::exact(&word[1..])),
            _ if word.starts_with('~') => route.paths.push(PathCondition::regex(&word[1..]).unwrap()),
            _ if word.starts_with('!') => route.paths.push(PathCondition::refused(&word[1..], &word[1..])),
            _ if word.starts_with('#') => route.regex_priority = word[1..].parse().unwrap(),
            _ if word.starts_with('@') => route.tie_breaker.created = word[1..].parse().ok(),
            _ if word.starts_with("sni:") => append(&mut route.server_names, HostName::parse(&word[4..]).unwrap()),
            _ if word.starts_with("x-") && word.contains(':') => {
                let (name, values) = word.split_once(':').unwrap();
                let name: HeaderName = name.parse().unwrap();
                append(
                    &mut route.headers,
                    HeaderCondition::parse(name, values.split('|'), RegexLimit::MEMORY_ONLY).unwrap(),
                );
            }
            _ if word.bytes().all(|byte| byte.is_ascii_uppercase()) => {
                route.methods.push(Method::from_bytes(word.as_bytes()).unwrap());
            }
            _ => route.hosts.push(HostCondition::parse(word).unwrap()),
        }
    }
    route
}

fn append<T: Clone>(list: &mut Arc<[T]>, item: T) {
    *list = list.iter().cloned().chain([item]).collect();
}

/// A request, parsed from `METHOD host path`, followed by headers, `sni:name`, `tls` and `on:port`.
struct TestRequest {
    method: Method,
    host: String,
    authority: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    server_name: Option<String>,
    scheme: Scheme,
    /// That of the scheme, unless the request names another one.
    listener_port: Option<u16>,
}

impl TestRequest {
    fn parse(text: &str) -> Self {
        let mut words = text.split(' ');
        let method = words.next().unwrap().parse().unwrap();
        let authority = words.next().unwrap().to_owned();
        let host = RequestHost::parse(authority.parse().unwrap()).unwrap().name().into_owned();
        let target = words.next().unwrap();
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query.into())));
        let mut request = TestRequest {
            method,
            host,
            authority,
            path: path.into(),
            query,
            headers: HeaderMap::new(),
            server_name: None,
            scheme: Scheme::Http,
            listener_port: None,
        };
        for word in words {
            if word == "tls" {
                request.scheme = Scheme::Https;
            } else if let Some(port) = word.strip_prefix("on:") {
                request.listener_port = Some(port.parse().unwrap());
            } else if let Some(name) = word.strip_prefix("sni:") {
                (request.scheme, request.server_name) = (Scheme::Https, Some(name.into()));
            } else {
                let (name, value) = word.split_once(':').unwrap();
                request.headers.append(name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap());
            }
        }
        request
    }

    fn routing_request(&self) -> RoutingRequest<'_> {
        RoutingRequest {
            path: &self.path,
            raw_path: &self.path,
            query: self.query.as_deref(),
            method: &self.method,
            headers: &self.headers,
            forwarded: None,
            authority: self.authority.as_bytes(),
            listener_port: self.listener_port.unwrap_or(self.scheme.port()),
            scheme: self.scheme,
            server_name: self.server_name.as_deref(),
            regex_steps: RegexSteps::default(),
        }
    }
}

/// The name of the matching rule, and its path match.
fn find(router: &ConditionsRouter, request: &TestRequest) -> Option<(String, String)> {
    let matched = router.find(&request.host, &request.routing_request())?;
    Some((matched.rule.id.rule.to_string(), matched.path.to_string()))
}

/// Checks which rule serves a request, if any, for several orders of the routes.
fn check(flavor: RouterFlavor, routes: &[(&str, &str)], request: &str, expected: Option<&str>) {
    for rotation in 0..routes.len() {
        let mut routes: Vec<ConditionRoute> = routes.iter().map(|(name, text)| route(name, text)).collect();
        routes.rotate_left(rotation);
        let found = find(&ConditionsRouter::build(flavor, routes), &TestRequest::parse(request)).map(|(name, _)| name);
        assert_eq!(found.as_deref(), expected, "{flavor:?} {request}");
    }
}

const TRADITIONAL: RouterFlavor = RouterFlavor::TraditionalCompatible;
const EXPRESSIONS: RouterFlavor = RouterFlavor::Expressions;

// docs/kong-compatibility.md, 3.4
// docs/kong-compatibility.md, 7.9
#[test]
fn route_conditions() {
    // (route, request, whether it matches)
    let cases = [
        ("a.example /x", "GET a.example /x/y", true),
        ("a.example /x", "GET a.example /xy", true),
        ("a.example /x", "GET b.example /x", false),
        ("a.example =/x", "GET a.example /x/", false),
        ("a.example b.example /", "GET b.example /", true),
        ("", "GET anything /", true),
        ("*.example /", "GET a.b.example /", true),
        ("*.example /", "GET example /", false),
        ("*.example /", "GET a..example /", false),
        ("a.* /", "GET a.b.c /", true),
        ("a.* /", "GET a /", false),
        ("a.* *.c /", "GET x.c /", true),
        // The port of a request matters only if the route names one; it defaults to the port of the listener.
        ("a.example /", "GET a.example:81 /", true),
        ("a.example:81 /", "GET a.example:81 /", true),
        ("a.example:81 /", "GET a.example /", false),
        ("a.example:81 a.example:82 /", "GET a.example:82 /", true),
        ("a.example:80 /", "GET a.example /", true),
        ("a.example:443 /", "GET a.example / tls", true),
        ("a.example:80 /", "GET a.example / on:8000", false),
        ("a.example:8000 /", "GET a.example / on:8000", true),
        ("a.example:8000 /", "GET a.example:80 / on:8000", false),
        ("[::1] /", "GET [::1] /", true),
        ("[::1] /", "GET [::1]:654 /", true),
        ("::1 /", "GET [::1]:654 /", true),
        ("[::1] /", "GET [::2] /", false),
        ("[::1]:321 /", "GET [::1]:321 /", true),
        ("[::1]:321 /", "GET [::1] / on:321", true),
        ("[::1]:321 /", "GET [::1]:654 /", false),
        ("*.example:81 /", "GET a.example:82 /", false),
        ("POST PUT", "PUT a /", true),
        ("POST PUT", "GET a /", false),
        ("x-a:1|2 x-b:~*^v", "GET a / x-a:2 x-b:V1", true),
        ("x-a:1|2 x-b:~*^v", "GET a / x-a:2", false),
        // Server names apply to TLS only.
        ("sni:a.example /", "GET x / sni:a.example", true),
        ("sni:a.example /", "GET x / sni:b.example", false),
        ("sni:a.example /", "GET x / tls", false),
        ("sni:a.example /", "GET x /", true),
        ("sni:*.example /", "GET x / sni:b.example", true),
        ("~/a/[0-9]+", "GET x /a/1/b", true),
        ("~/a/[0-9]+$", "GET x /a/1/b", false),
        ("~/a", "GET x /b/a", false),
    ];
    for (text, request, expected) in cases {
        for flavor in [TRADITIONAL, EXPRESSIONS] {
            check(flavor, &[("it", text)], request, expected.then_some("it"));
        }
    }
}

// docs/kong-compatibility.md, 3.4
// docs/kong-compatibility.md, 7.8
#[test]
fn traditional_order() {
    // (winner, loser, a request that matches both)
    let cases = [
        // More kinds of conditions.
        ("GET a.b /", "a.b /long/path", "GET a.b /long/path"),
        ("GET /", "=/x", "GET a.b /x"),
        // Hosts that are all without wildcard, before hosts of which one has a wildcard.
        ("a.b /", "*.b /long/path", "GET a.b /long/path"),
        ("a.b /", "a.b *.b /long/path", "GET a.b /long/path"),
        // More headers, then an exact path or a regular expression. These two rank alike: by priority, not by length.
        ("x-a:1 x-b:1 /", "x-a:1 =/x", "GET a /x x-a:1 x-b:1"),
        ("~/x", "/x/longer", "GET a /x/longer"),
        ("!/x", "/x/longer", "GET a /x/longer"),
        ("!/x #1", "~/x/longer", "GET a /x/longer"),
        ("=/x", "/x", "GET a /x"),
        ("~/x #1 @2", "~/x/longer @1", "GET a /x/longer"),
        ("~/x #1 @2", "=/x/longer @1", "GET a /x/longer"),
        ("=/x/longer #-1", "~/x #-2 @1", "GET a /x/longer"),
        // The longer prefix; the priority does not count.
        ("/x/longer @2", "/x #9 @1", "GET a /x/longer"),
        // Two wildcards are equal, regardless of length.
        ("*.b /x", "*.a.b /", "GET c.a.b /x"),
        // A host with a port, and hosts before methods, whatever the age.
        ("a.*:80 @2", "a.* @1", "GET a.b:80 /"),
        ("a.b:80 @2", "a.b @1", "GET a.b:80 /"),
        ("a.* @2", "GET @1", "GET a.b /"),
        // The older route.
        ("/x @1", "/x @2", "GET a /x"),
        ("~/x @1", "~/x/longer @2", "GET a /x/longer"),
        // Each path ranks separately.
        ("~/y /x/long", "/x", "GET a /x/long"),
        ("/y/very/long /x/a", "~/z /x", "GET a /x/a"),
        // An expression of which no text is known comes after every prefix of others.
        ("a.b / @2", "a.b !/ @1", "GET a.b /x"),
        ("a.b /x @2", "a.b !/ #9 @1", "GET a.b /x"),
        // A default backend comes last.
        ("/ @2", "/ last @1", "GET a /"),
    ];
    for (winner, loser, request) in cases {
        check(TRADITIONAL, &[("winner", winner), ("loser", loser)], request, Some("winner"));
        check(TRADITIONAL, &[("loser", loser)], request, Some("loser"));
    }
}

// docs/kong-compatibility.md, 3.4
// docs/kong-compatibility.md, 7.10
#[test]
fn expressions_order() {
    // (winner, loser, a request that matches both)
    let cases = [
        ("GET a.b /", "a.b /long/path", "GET a.b /long/path"),
        // Headers rank before hosts without wildcard here.
        ("*.b / x-a:1 x-b:1", "a.b / x-a:1", "GET a.b / x-a:1 x-b:1"),
        ("a.b /", "*.b /long/path", "GET a.b /long/path"),
        ("~/x", "/x/longer", "GET a /x/longer"),
        // Regular expressions rank by length, without a priority.
        ("~/x/longer @2", "~/x #1 @1", "GET a /x/longer"),
        // All paths of a route have the rank of its best path.
        ("/x ~/y", "/x/longer", "GET a /x/longer"),
        ("/x /y/very/long", "/x/long", "GET a /x/long"),
        ("/x @1", "/x @2", "GET a /x"),
        ("a.b / @2", "a.b !/ @1", "GET a.b /x"),
        ("/ @2", "/ last @1", "GET a /"),
    ];
    for (winner, loser, request) in cases {
        check(EXPRESSIONS, &[("winner", winner), ("loser", loser)], request, Some("winner"));
        check(EXPRESSIONS, &[("loser", loser)], request, Some("loser"));
    }
}

/// `strip-path` removes the matched bytes.
#[test]
fn length_of_the_matched_path() {
    let cases = [
        ("/a", "/a/b", 2),
        ("=/a/b", "/a/b", 4),
        ("~/a/[0-9]+", "/a/12/b", 5),
        ("~/a/[0-9]+ /a", "/a/12/b", 5),
        ("", "/a", 0),
    ];
    for (text, path, length) in cases {
        let router = ConditionsRouter::build(TRADITIONAL, [route("it", text)]);
        let headers = HeaderMap::new();
        let matched = router.find("a", &RoutingRequest::plaintext(path, None, &Method::GET, &headers)).unwrap();
        assert_eq!(matched.path.length(path), length, "{text} on {path}");
    }
    let router = ConditionsRouter::build(TRADITIONAL, [route("it", "~/(?<who>[a-z]+)/x")]);
    let headers = HeaderMap::new();
    let matched = router.find("a", &RoutingRequest::plaintext("/ann/x/y", None, &Method::GET, &headers)).unwrap();
    assert_eq!(matched.path.captures("/ann/x/y").named_group("who"), Some("ann"));
}

// docs/kong-compatibility.md, 3.5
#[test]
fn path_is_normalized_before_it_is_matched() {
    let router = ConditionsRouter::build(TRADITIONAL, [route("it", "=/a/b%2F")]);
    let headers = HeaderMap::new();
    for (path, normalized) in [("/a/b%2F", None), ("//a///b%2f", Some("/a/b%2F"))] {
        let matched = router.find("a", &RoutingRequest::plaintext(path, None, &Method::GET, &headers)).unwrap();
        assert_eq!(matched.normalized.as_deref(), normalized, "{path}");
    }
}

#[test]
fn overlong_hostname_matches_only_routes_without_hosts() {
    let long = format!("{}b", "a.".repeat(200));
    let router = ConditionsRouter::build(TRADITIONAL, [route("wild", "*.b /"), route("any", "/")]);
    let request = TestRequest::parse(&format!("GET {long} /"));
    assert_eq!(find(&router, &request).unwrap().0, "any");
}

#[test]
fn thousands_of_routes_on_different_hosts() {
    let routes =
        (0..5_000).map(|number| route(&number.to_string(), &format!("h{number}.example /p{number} ~/q{number}")));
    let router = ConditionsRouter::build(TRADITIONAL, routes);
    assert_eq!(router.entries().len(), 10_000);
    for (request, expected) in [
        ("GET h4321.example /p4321/x", Some("4321")),
        ("GET h77.example /q77", Some("77")),
        ("GET h77.example /p78", None),
        ("GET h5000.example /", None),
    ] {
        assert_eq!(find(&router, &TestRequest::parse(request)).map(|found| found.0).as_deref(), expected, "{request}");
    }
}

/// The reference: checks every route and path, and returns the matching one of the highest priority.
fn reference(flavor: RouterFlavor, routes: &[ConditionRoute], request: &TestRequest) -> Option<(String, String)> {
    type Ranked = (u128, Reverse<(TieBreaker, usize)>);
    let mut best: Option<(Ranked, (String, String))> = None;
    for route in routes {
        let hosts: Vec<Option<&HostCondition>> = match route.hosts.len() {
            0 => vec![None],
            _ => route.hosts.iter().map(Some).collect(),
        };
        for host in &hosts {
            let host_matches = host.is_none_or(|host| {
                let text = host.name.to_string();
                let name_matches = match (text.strip_prefix('*'), text.strip_suffix('*')) {
                    (Some(suffix), _) => request.host.ends_with(suffix) && request.host.len() > suffix.len(),
                    (_, Some(prefix)) => request.host.starts_with(prefix) && request.host.len() > prefix.len(),
                    _ => request.host == text,
                };
                name_matches && host.port.is_none_or(|port| request.routing_request().port() == port)
            });
            let other_conditions_match = (route.methods.is_empty() || route.methods.contains(&request.method))
                && route.headers.iter().all(|header| header.matches(&request.headers, &RegexSteps::default()))
                && (route.server_names.is_empty()
                    || request.scheme == Scheme::Http
                    || route.server_names.iter().any(|name| Some(name.to_string()) == request.server_name));
            if !host_matches || !other_conditions_match {
                continue;
            }
            let paths: Vec<Option<&PathCondition>> = match route.paths.len() {
                0 => vec![None],
                _ => route.paths.iter().map(Some).collect(),
            };
            for (path_index, path) in paths.iter().enumerate() {
                let matches = match path {
                    None => true,
                    Some(PathCondition::Exact(text)) => **text == *request.path,
                    Some(PathCondition::Prefix(text) | PathCondition::Refused { prefix: text, .. }) => {
                        request.path.starts_with(&**text)
                    }
                    Some(PathCondition::Regex(regex)) => regex.matched_length(&request.path).is_some(),
                };
                if !matches {
                    continue;
                }
                let priority = match flavor {
                    TRADITIONAL => traditional_priority(route, *path),
                    EXPRESSIONS => expressions_priority(route),
                };
                let order = Reverse((route.tie_breaker.clone(), path_index));
                let found = (route.rule.id.rule.to_string(), MatchedPath::ByConditions(*path).to_string());
                if best.as_ref().is_none_or(|(rank, _)| *rank < (priority, order.clone())) {
                    best = Some(((priority, order), found));
                }
            }
        }
    }
    best.map(|(_, found)| found)
}

fn ranks_as_regex(path: &PathCondition) -> bool {
    !matches!(path, PathCondition::Prefix(_))
}

fn bit(value: bool, shift: u32) -> u128 {
    u128::from(value) << shift
}

fn condition_kinds(route: &ConditionRoute) -> u128 {
    let ConditionRoute { hosts, paths, methods, headers, server_names, .. } = route;
    bit(!hosts.is_empty(), 0)
        + bit(!paths.is_empty(), 0)
        + bit(!methods.is_empty(), 0)
        + bit(!headers.is_empty(), 0)
        + bit(!server_names.is_empty(), 0)
}

fn has_only_exact_hosts(route: &ConditionRoute) -> bool {
    !route.hosts.is_empty() && route.hosts.iter().all(|host| !host.name.to_string().contains('*'))
}

/// A priority in the bit layout of Kong, with bit 80 for routes other than default backends, and five lower bits for
/// what Kong's router `traditional` compares in addition. Regex priorities are shifted by 1000, because they may be
/// negative.
fn traditional_priority(route: &ConditionRoute, path: Option<&PathCondition>) -> u128 {
    let regex = path.is_some_and(ranks_as_regex);
    let regex_priority = if regex { u128::try_from(route.regex_priority + 1_000).unwrap() } else { 0 };
    let length = path.filter(|_| !regex).map_or(0, |path| path.to_string()["Prefix ".len()..].len());
    let priority = bit(!route.is_default_backend, 80)
        | condition_kinds(route) << 61
        | bit(has_only_exact_hosts(route), 60)
        | (route.headers.len() as u128) << 52
        | bit(regex, 51)
        | regex_priority << 19
        | length as u128;
    priority << 5
        | bit(route.hosts.iter().any(|host| host.port.is_some()), 4)
        | bit(!route.hosts.is_empty(), 3)
        | bit(!route.headers.is_empty(), 2)
        | bit(!route.paths.is_empty(), 1)
        | bit(!route.methods.is_empty(), 0)
}

/// A priority in the bit layout of Kong's ingress controller, with bit 80 for routes other than default backends.
fn expressions_priority(route: &ConditionRoute) -> u128 {
    let length =
        |path: &PathCondition| path.to_string().split_once(' ').unwrap().1.trim_start_matches('~').len() as u128;
    bit(!route.is_default_backend, 80)
        | condition_kinds(route) << 41
        | (route.headers.len() as u128) << 33
        | bit(has_only_exact_hosts(route), 32)
        | bit(route.paths.iter().any(ranks_as_regex), 16)
        | route.paths.iter().map(length).max().unwrap_or_default()
}

// docs/kong-compatibility.md, 3.4
#[test]
fn router_agrees_with_the_reference() {
    let (mut matched, mut unmatched) = (0, 0);
    for seed in 0..ROUTE_SETS {
        let mut rng = Rng::with_seed(seed);
        let texts: Vec<String> = (0..rng.usize(1..14)).map(|_| random_route(&mut rng)).collect();
        let routes: Vec<ConditionRoute> =
            (0..).zip(&texts).map(|(index, text)| route(&format!("{index:02}"), text)).collect();
        for flavor in [TRADITIONAL, EXPRESSIONS] {
            let mut shuffled = routes.clone();
            rng.shuffle(&mut shuffled);
            // All routes at once, or one after the other, with others that are removed again.
            let router =
                if seed % 2 == 0 { ConditionsRouter::build(flavor, shuffled) } else { edited(flavor, shuffled) };
            for _ in 0..REQUESTS_PER_ROUTE_SET {
                let text = random_request(&mut rng);
                let request = TestRequest::parse(&text);
                let expected = reference(flavor, &routes, &request);
                assert_eq!(find(&router, &request), expected, "{flavor:?}, seed {seed}: {text} in {texts:#?}");
                if expected.is_some() {
                    matched += 1;
                } else {
                    unmatched += 1;
                }
            }
        }
    }
    let all = matched + unmatched;
    assert!(
        matched * 4 > all && unmatched * 20 > all,
        "{matched} requests matched and {unmatched} did not: the sample needs more of the rarer kind"
    );
}

/// A router to which each route was added separately, and from which as many others were removed.
fn edited(flavor: RouterFlavor, routes: Vec<ConditionRoute>) -> ConditionsRouter {
    let mut router = ConditionsRouter::build(flavor, Vec::<ConditionRoute>::new());
    let mut removed: Vec<Arc<ConditionRoute>> = Vec::new();
    for route in routes {
        let extra = Arc::new(ConditionRoute { rule: rule("removed"), ..route.clone() });
        router = router.with_routes(&removed, &[Arc::new(route), Arc::clone(&extra)]);
        removed = vec![extra];
    }
    router.with_routes(&removed, &[])
}

fn random_route(rng: &mut Rng) -> String {
    const HOSTS: [&str; 8] = ["a.x", "b.a.x", "*.x", "*.a.x", "a.*", "b.a.*", "a.x:81", "*.x:81"];
    const PATHS: [&str; 14] =
        ["/", "/a", "/a/", "/ab", "/a/b", "/a/b/c", "=/a", "=/a/b", "=/", "~/a", "~/[ab]/b", "~/a/b$", "!/a", "!/a/b"];
    const OTHERS: [&str; 11] =
        ["GET", "POST", "x-a:1", "x-a:1|2", "x-b:~*^v", "sni:a.x", "#1", "#-1", "@1", "@2", "last"];
    let mut words: Vec<&str> = Vec::new();
    let mut add_words = |rng: &mut Rng, all: &[&'static str], max_count: usize| {
        let count = rng.usize(0..=max_count);
        words.extend((0..count).map(|_| all[rng.usize(..all.len())]));
    };
    add_words(rng, &HOSTS, 2);
    add_words(rng, &PATHS, 3);
    add_words(rng, &OTHERS, 3);
    // Each word is kept once: with two equal paths, the result would not show which of them matched.
    let mut kept: Vec<&str> = Vec::new();
    for word in words {
        if !kept.contains(&word) {
            kept.push(word);
        }
    }
    kept.join(" ")
}

fn random_request(rng: &mut Rng) -> String {
    const HOSTS: [&str; 7] = ["a.x", "b.a.x", "c.b.a.x", "a.y", "x", "a.x:81", "c.x:81"];
    const PATHS: [&str; 11] = ["/", "/a", "/a/", "/ab", "/a/b", "/a/b/", "/a/b/c/d", "/b/b", "/abc", "/a/bc", "/z"];
    const OTHERS: [&str; 6] = ["x-a:1", "x-a:2", "x-b:V", "sni:a.x", "sni:b.x", "tls"];
    let mut pick = |all: &[&'static str]| all[rng.usize(..all.len())];
    let mut text = format!("{} {} {}", pick(&["GET", "POST"]), pick(&HOSTS), pick(&PATHS));
    for _ in 0..3 {
        let other = pick(&OTHERS);
        text.push(' ');
        text.push_str(other);
    }
    text
}

/// How many sets of random routes are compared.
const ROUTE_SETS: u64 = 1_500;
const REQUESTS_PER_ROUTE_SET: u32 = 40;
