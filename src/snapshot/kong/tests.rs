//! The router against the plain reading of Kong's order: every route looked at, ranks as one number each.

use std::cmp::Reverse;

use fastrand::Rng;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;
use crate::snapshot::router::{Age, QueryMatch, ValueMatch};
use crate::snapshot::rule::{Action, Failure, Filters, Rule, RuleId};

fn rule(name: &str) -> Arc<Rule> {
    let id = RuleId { route: "Ingress/default/a".into(), rule: name.into() };
    Arc::new(Rule {
        id,
        filters: Filters::default(),
        plugins: None,
        action: Action::Fail(Failure::NoService),
        kong: None,
    })
}

/// Written as words: hosts have no slash, paths begin with `/`, `=/` or `~/`, methods are in capitals, headers have a colon,
/// server names begin with `sni:`, `#1` is the regex priority, `@1` the age in seconds, `last` says so.
fn route(name: &str, text: &str) -> Route {
    let age = Age { created: Some(9), route: name.into(), rule: 0, index: 0 };
    let mut route = Route::new(Source::Ingress, age, rule(name));
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match word {
            "last" => route.is_last = true,
            "HTTPRoute" => route.source = Source::HttpRoute,
            "GRPCRoute" => route.source = Source::GrpcRoute,
            _ if word.starts_with('/') => route.paths.push(Path::prefix(word)),
            _ if word.starts_with('=') => route.paths.push(Path::exact(&word[1..])),
            _ if word.starts_with('~') => route.paths.push(Path::regex(&word[1..]).unwrap()),
            _ if word.starts_with('#') => route.regex_priority = word[1..].parse().unwrap(),
            _ if word.starts_with('@') => route.age.created = word[1..].parse().ok(),
            _ if word.starts_with("sni:") => route.server_names.push(HostName::parse(&word[4..]).unwrap()),
            _ if word.starts_with('?') => {
                let (name, value) = word[1..].split_once('=').unwrap();
                route.query.push(QueryMatch { name: name.into(), value: ValueMatch::Exact(value.into()) });
            }
            _ if word.contains(": ") || word.contains(':') && word.starts_with("x-") => {
                let (name, values) = word.split_once(':').unwrap();
                let name: HeaderName = name.parse().unwrap();
                route.headers.push(Header::parse(name, values.split('|')).unwrap());
            }
            _ if word.bytes().all(|byte| byte.is_ascii_uppercase()) => {
                route.methods.push(Method::from_bytes(word.as_bytes()).unwrap());
            }
            _ => route.hosts.push(Host::parse(word).unwrap()),
        }
    }
    route
}

/// `METHOD host path`, then headers, `sni:name` and `tls`.
struct Request {
    method: Method,
    host: String,
    authority: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    server_name: Option<String>,
    scheme: Scheme,
}

impl Request {
    fn of(text: &str) -> Self {
        let mut words = text.split(' ');
        let method = words.next().unwrap().parse().unwrap();
        let authority = words.next().unwrap().to_owned();
        let host = authority.split(':').next().unwrap().to_owned();
        let target = words.next().unwrap();
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query.into())));
        let mut request = Request {
            method,
            host,
            authority,
            path: path.into(),
            query,
            headers: HeaderMap::new(),
            server_name: None,
            scheme: Scheme::Http,
        };
        for word in words {
            if word == "tls" {
                request.scheme = Scheme::Https;
            } else if let Some(name) = word.strip_prefix("sni:") {
                (request.scheme, request.server_name) = (Scheme::Https, Some(name.into()));
            } else {
                let (name, value) = word.split_once(':').unwrap();
                request.headers.append(name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap());
            }
        }
        request
    }

    fn question(&self) -> Question<'_> {
        Question {
            path: &self.path,
            query: self.query.as_deref(),
            method: &self.method,
            headers: &self.headers,
            authority: self.authority.as_bytes(),
            scheme: self.scheme,
            server_name: self.server_name.as_deref(),
        }
    }
}

/// Name of the rule, and how the path was matched.
fn find(router: &Router, request: &Request) -> Option<(String, String)> {
    let matched = router.find(&request.host, &request.question())?;
    Some((matched.rule.id.rule.to_string(), matched.path.to_string()))
}

/// The rules and which of them a request gets, both written out.
fn check(flavor: Flavor, routes: &[(&str, &str)], request: &str, expected: Option<&str>) {
    for rotation in 0..routes.len() {
        let mut routes: Vec<Route> = routes.iter().map(|(name, text)| route(name, text)).collect();
        routes.rotate_left(rotation);
        let found = find(&Router::build(flavor, routes), &Request::of(request)).map(|(name, _)| name);
        assert_eq!(found.as_deref(), expected, "{flavor:?} {request}");
    }
}

const OLD: Flavor = Flavor::TraditionalCompatible;
const NEW: Flavor = Flavor::Expressions;

// kong-compat §3.4
// kong-compat §7.9
#[test]
fn what_a_route_asks_for() {
    // (route, request, whether it gets it)
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
        // The port of a request matters only where a route names one; without one it is that of the scheme.
        ("a.example /", "GET a.example:81 /", true),
        ("a.example:81 /", "GET a.example:81 /", true),
        ("a.example:81 /", "GET a.example /", false),
        ("a.example:81 a.example:82 /", "GET a.example:82 /", true),
        ("a.example:80 /", "GET a.example /", true),
        ("a.example:443 /", "GET a.example / tls", true),
        ("*.example:81 /", "GET a.example:82 /", false),
        ("POST PUT", "PUT a /", true),
        ("POST PUT", "GET a /", false),
        ("x-a:1|2 x-b:~*^v", "GET a / x-a:2 x-b:V1", true),
        ("x-a:1|2 x-b:~*^v", "GET a / x-a:2", false),
        // Server names are asked of TLS only.
        ("sni:a.example /", "GET x / sni:a.example", true),
        ("sni:a.example /", "GET x / sni:b.example", false),
        ("sni:a.example /", "GET x / tls", false),
        ("sni:a.example /", "GET x /", true),
        ("sni:*.example /", "GET x / sni:b.example", true),
        ("~/a/[0-9]+", "GET x /a/1/b", true),
        ("~/a/[0-9]+$", "GET x /a/1/b", false),
        ("~/a", "GET x /b/a", false),
        ("HTTPRoute /a ?q=1", "GET x /a?q=1", true),
        ("HTTPRoute /a ?q=1", "GET x /a?q=2", false),
    ];
    for (text, request, expected) in cases {
        for flavor in [OLD, NEW] {
            check(flavor, &[("it", text)], request, expected.then_some("it"));
        }
    }
}

// kong-compat §3.4
// kong-compat §7.8
#[test]
fn traditional_order() {
    // (what wins, what loses, a request that both would take)
    let cases = [
        // More kinds of conditions, whatever they are.
        ("GET a.b /", "a.b /long/path", "GET a.b /long/path"),
        ("GET /", "=/x", "GET a.b /x"),
        // All hosts plain.
        ("a.b /", "*.b /long/path", "GET a.b /long/path"),
        ("a.b /", "a.b *.b /long/path", "GET a.b /long/path"),
        // More headers, then a regular expression, whose priority counts, and not its length.
        ("x-a:1 x-b:1 /", "x-a:1 =/x", "GET a /x x-a:1 x-b:1"),
        ("~/x", "/x/longer", "GET a /x/longer"),
        ("=/x", "/x", "GET a /x"),
        ("~/x #1 @2", "~/x/longer @1", "GET a /x/longer"),
        ("~/x #1 @2", "=/x/longer @1", "GET a /x/longer"),
        ("=/x/longer #-1", "~/x #-2 @1", "GET a /x/longer"),
        // The longer prefix; no priority counts there.
        ("/x/longer @2", "/x #9 @1", "GET a /x/longer"),
        // Two wildcards are equal, however long.
        ("*.b /x", "*.a.b /", "GET c.a.b /x"),
        // The older.
        ("/x @1", "/x @2", "GET a /x"),
        ("~/x @1", "~/x/longer @2", "GET a /x/longer"),
        // Each path for itself.
        ("~/y /x/long", "/x", "GET a /x/long"),
        ("/y/very/long /x/a", "~/z /x", "GET a /x/a"),
        // A default backend comes last.
        ("/ @2", "/ last @1", "GET a /"),
        // The kind of object does not count.
        ("HTTPRoute a.b /x", "a.b /", "GET a.b /x"),
    ];
    for (winner, loser, request) in cases {
        check(OLD, &[("winner", winner), ("loser", loser)], request, Some("winner"));
        check(OLD, &[("loser", loser)], request, Some("loser"));
    }
}

// kong-compat §3.4
// kong-compat §7.10
#[test]
fn order_of_expressions() {
    let cases = [
        // An Ingress before an HTTPRoute before a GRPCRoute.
        ("/", "HTTPRoute GET a.b =/x x-a:1", "GET a.b /x x-a:1"),
        ("HTTPRoute /", "GRPCRoute GET a.b =/x", "GET a.b /x"),
        ("GET a.b /", "a.b /long/path", "GET a.b /long/path"),
        // Headers count before plain hosts here.
        ("*.b / x-a:1 x-b:1", "a.b / x-a:1", "GET a.b / x-a:1 x-b:1"),
        ("a.b /", "*.b /long/path", "GET a.b /long/path"),
        ("~/x", "/x/longer", "GET a /x/longer"),
        // Regular expressions by length, and without a priority.
        ("~/x/longer @2", "~/x #1 @1", "GET a /x/longer"),
        // All paths of a route have the rank of its best.
        ("/x ~/y", "/x/longer", "GET a /x/longer"),
        ("/x /y/very/long", "/x/long", "GET a /x/long"),
        ("/x @1", "/x @2", "GET a /x"),
        ("/ @2", "/ last @1", "GET a /"),
        ("GRPCRoute /", "/ last", "GET a /"),
        // Routes of the Gateway API: host, kind of path, length, method, headers, query.
        ("HTTPRoute a.b /", "HTTPRoute *.b =/x", "GET a.b /x"),
        ("HTTPRoute *.a.b /", "HTTPRoute *.b =/x", "GET c.a.b /x"),
        // Host by host: here only the wildcard matches, so only that one counts.
        ("HTTPRoute *.b /x", "HTTPRoute z.z *.b /", "GET a.b /x"),
        ("HTTPRoute =/x", "HTTPRoute ~/x.*", "GET a /x"),
        ("HTTPRoute ~/x", "HTTPRoute /x/longer", "GET a /x/longer"),
        ("HTTPRoute /x/longer", "HTTPRoute GET /x", "GET a /x/longer"),
        ("HTTPRoute GET /x", "HTTPRoute x-a:1 /x", "GET a /x x-a:1"),
        ("HTTPRoute x-a:1 /x", "HTTPRoute ?q=1 ?r=1 /x", "GET a /x?q=1&r=1 x-a:1"),
        ("HTTPRoute ?q=1 ?r=1 /x @2", "HTTPRoute ?q=1 /x @1", "GET a /x?q=1&r=1"),
    ];
    for (winner, loser, request) in cases {
        check(NEW, &[("winner", winner), ("loser", loser)], request, Some("winner"));
        check(NEW, &[("loser", loser)], request, Some("loser"));
    }
}

/// How much was matched is what `strip-path` takes away.
#[test]
fn how_much_of_the_path_was_matched() {
    let cases = [
        ("/a", "/a/b", 2),
        ("=/a/b", "/a/b", 4),
        ("~/a/[0-9]+", "/a/12/b", 5),
        ("~/a/[0-9]+ /a", "/a/12/b", 5),
        ("", "/a", 0),
    ];
    for (text, path, length) in cases {
        let router = Router::build(OLD, [route("it", text)]);
        let headers = HeaderMap::new();
        let matched = router.find("a", &Question::plain(path, None, &Method::GET, &headers)).unwrap();
        assert_eq!(matched.path.length(path), length, "{text} on {path}");
    }
    let router = Router::build(OLD, [route("it", "~/(?<who>[a-z]+)/x")]);
    let headers = HeaderMap::new();
    let matched = router.find("a", &Question::plain("/ann/x/y", None, &Method::GET, &headers)).unwrap();
    assert_eq!(matched.path.captures("/ann/x/y").name("who"), Some("ann"));
}

#[test]
fn names_longer_than_dns_allows_find_only_what_takes_all() {
    let long = format!("{}b", "a.".repeat(200));
    let router = Router::build(OLD, [route("wild", "*.b /"), route("any", "/")]);
    let request = Request::of(&format!("GET {long} /"));
    assert_eq!(find(&router, &request).unwrap().0, "any");
}

#[test]
fn thousands_of_routes_on_hosts_of_their_own() {
    let routes =
        (0..5_000).map(|number| route(&number.to_string(), &format!("h{number}.example /p{number} ~/q{number}")));
    let router = Router::build(OLD, routes);
    assert_eq!(router.entries().len(), 10_000);
    for (request, expected) in [
        ("GET h4321.example /p4321/x", Some("4321")),
        ("GET h77.example /q77", Some("77")),
        ("GET h77.example /p78", None),
        ("GET h5000.example /", None),
    ] {
        assert_eq!(find(&router, &Request::of(request)).map(|found| found.0).as_deref(), expected, "{request}");
    }
}

/// The plain reading: each route and path that matches, and of these the one with the greatest number.
fn reference(flavor: Flavor, routes: &[Route], request: &Request) -> Option<(String, String)> {
    type Ranked = (u128, Reverse<(Age, usize, usize)>);
    let mut best: Option<(Ranked, (String, String))> = None;
    for route in routes {
        let hosts: Vec<Option<&Host>> = match route.hosts.len() {
            0 => vec![None],
            _ => route.hosts.iter().map(Some).collect(),
        };
        for (host_at, host) in hosts.iter().enumerate() {
            let fits = host.is_none_or(|host| {
                let text = host.name.to_string();
                let name = match (text.strip_prefix('*'), text.strip_suffix('*')) {
                    (Some(suffix), _) => request.host.ends_with(suffix) && request.host.len() > suffix.len(),
                    (_, Some(prefix)) => request.host.starts_with(prefix) && request.host.len() > prefix.len(),
                    _ => request.host == text,
                };
                name && host.port.is_none_or(|port| request.question().port() == port)
            });
            let others = (route.methods.is_empty() || route.methods.contains(&request.method))
                && route.headers.iter().all(|header| header.fits(&request.headers))
                && (route.server_names.is_empty()
                    || request.scheme == Scheme::Http
                    || route.server_names.iter().any(|name| Some(name.to_string()) == request.server_name));
            if !fits || !others {
                continue;
            }
            let paths: Vec<Option<&Path>> = match route.paths.len() {
                0 => vec![None],
                _ => route.paths.iter().map(Some).collect(),
            };
            for (path_at, path) in paths.iter().enumerate() {
                let matches = match path {
                    None => true,
                    Some(Path::Exact(text)) => **text == *request.path,
                    Some(Path::Prefix(text)) => request.path.starts_with(&**text),
                    Some(Path::Regex(regex)) => regex.matched(&request.path).is_some(),
                };
                if !matches {
                    continue;
                }
                let number = match flavor {
                    OLD => kong_number(route, *path),
                    NEW => controller_number(route, *path, *host),
                };
                let by_host = flavor == NEW && route.source != Source::Ingress;
                let order = Reverse((route.age.clone(), if by_host { host_at } else { 0 }, path_at));
                let found = (route.rule.id.rule.to_string(), MatchedPath::Kong(*path).to_string());
                if best.as_ref().is_none_or(|(rank, _)| *rank < (number, order.clone())) {
                    best = Some(((number, order), found));
                }
            }
        }
    }
    best.map(|(_, found)| found)
}

fn is_regex(path: &Path) -> bool {
    !matches!(path, Path::Prefix(_))
}

fn bit(value: bool, shift: u32) -> u128 {
    u128::from(value) << shift
}

fn kinds(route: &Route) -> u128 {
    let Route { hosts, paths, methods, headers, server_names, .. } = route;
    bit(!hosts.is_empty(), 0)
        + bit(!paths.is_empty(), 0)
        + bit(!methods.is_empty(), 0)
        + bit(!headers.is_empty(), 0)
        + bit(!server_names.is_empty(), 0)
}

fn plain(route: &Route) -> bool {
    !route.hosts.is_empty() && route.hosts.iter().all(|host| !host.name.to_string().contains('*'))
}

/// The layout of Kong's own number, but for the room that a priority below 0 needs.
fn kong_number(route: &Route, path: Option<&Path>) -> u128 {
    let regex = path.is_some_and(is_regex);
    let priority = if regex { u128::try_from(route.regex_priority + 1_000).unwrap() } else { 0 };
    let length = path.filter(|_| !regex).map_or(0, |path| path.to_string()["Prefix ".len()..].len());
    bit(!route.is_last, 80)
        | kinds(route) << 61
        | bit(plain(route), 60)
        | (route.headers.len() as u128) << 52
        | bit(regex, 51)
        | priority << 19
        | length as u128
}

/// The layouts of the ingress controller.
fn controller_number(route: &Route, path: Option<&Path>, host: Option<&Host>) -> u128 {
    let length = |path: &Path| path.to_string().split_once(' ').unwrap().1.trim_start_matches('~').len() as u128;
    let first = bit(!route.is_last, 80);
    match route.source {
        Source::Ingress => {
            first
                | 3 << 44
                | kinds(route) << 41
                | (route.headers.len() as u128) << 33
                | bit(plain(route), 32)
                | bit(route.paths.iter().any(is_regex), 16)
                | route.paths.iter().map(length).max().unwrap_or_default()
        }
        source => {
            first
                | (if source == Source::HttpRoute { 2 } else { 1 }) << 44
                | bit(host.is_some_and(|host| host.name.is_exact()), 43)
                | host.map_or(0, |host| host.name.to_string().len() as u128) << 35
                | bit(matches!(path, Some(Path::Exact(_))), 34)
                | bit(matches!(path, Some(Path::Regex(_))), 33)
                | path.map_or(0, length) << 23
                | bit(!route.methods.is_empty(), 22)
                | (route.headers.len() as u128) << 17
                | (route.query.len() as u128) << 12
        }
    }
}

// kong-compat §3.4
#[test]
fn the_router_finds_what_looking_at_every_route_finds() {
    let (mut found, mut lost) = (0, 0);
    for seed in 0..TABLES {
        let mut rng = Rng::with_seed(seed);
        let texts: Vec<String> = (0..rng.usize(1..14)).map(|_| random_route(&mut rng)).collect();
        let routes: Vec<Route> = (0..).zip(&texts).map(|(at, text)| route(&format!("{at:02}"), text)).collect();
        for flavor in [OLD, NEW] {
            let mut shuffled = routes.clone();
            rng.shuffle(&mut shuffled);
            let router = Router::build(flavor, shuffled);
            for _ in 0..QUESTIONS {
                let text = random_request(&mut rng);
                let request = Request::of(&text);
                let expected = reference(flavor, &routes, &request);
                assert_eq!(find(&router, &request), expected, "{flavor:?}, seed {seed}: {text} in {texts:#?}");
                *if expected.is_some() { &mut found } else { &mut lost } += 1;
            }
        }
    }
    let all = found + lost;
    assert!(found * 4 > all && lost * 20 > all, "{found} found and {lost} not: the tables say little");
}

fn random_route(rng: &mut Rng) -> String {
    const HOSTS: [&str; 8] = ["a.x", "b.a.x", "*.x", "*.a.x", "a.*", "b.a.*", "a.x:81", "*.x:81"];
    const PATHS: [&str; 12] =
        ["/", "/a", "/a/", "/ab", "/a/b", "/a/b/c", "=/a", "=/a/b", "=/", "~/a", "~/[ab]/b", "~/a/b$"];
    const OTHERS: [&str; 12] =
        ["GET", "POST", "x-a:1", "x-a:1|2", "x-b:~*^v", "sni:a.x", "#1", "#-1", "@1", "@2", "last", "HTTPRoute"];
    let mut words: Vec<&str> = Vec::new();
    let mut some = |rng: &mut Rng, all: &[&'static str], most: usize| {
        let count = rng.usize(0..=most);
        words.extend((0..count).map(|_| all[rng.usize(..all.len())]));
    };
    some(rng, &HOSTS, 2);
    some(rng, &PATHS, 3);
    some(rng, &OTHERS, 3);
    if rng.u8(..8) == 0 {
        words.push("GRPCRoute");
    }
    // Each path once, else which of two equal ones matched cannot be told.
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

const TABLES: u64 = 1_500;
const QUESTIONS: u32 = 40;
