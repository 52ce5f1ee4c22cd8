//! Makes sets of Ingresses from a seed: hosts with overlapping paths, patterns, rewrites and redirects.

use super::echo::{NAMESPACES, SERVICES_PER_NAMESPACE, service_name};
use super::model::{IngressSet, PathType, TestIngress, TestPath, Tls};
use super::random::Random;

/// A set of 1 to 4 hosts with 1 to 6 Ingresses.
pub(crate) fn set(seed: u64) -> IngressSet {
    let mut random = Random::new(seed);
    let domain = format!("set{seed}.example");
    let mut hosts: Vec<String> = (0..random.between(1, 3)).map(|index| format!("h{index}.{domain}")).collect();
    if random.percent(35) {
        hosts.push(format!("*.{domain}"));
    }
    let count = random.between(hosts.len().min(6), 6);
    let mut generator = Generator { random, backends: 0, seed };
    // Each host has an Ingress; further Ingresses share a host with them.
    let ingresses = (0..count).map(|index| {
        let host = if index < hosts.len() { &hosts[index] } else { generator.random.pick(&hosts) };
        let host = Some(host.clone());
        generator.ingress(index, host)
    });
    let ingresses = ingresses.collect();
    IngressSet { seed, domain, ingresses }
}

/// A set with rules for all hosts, and perhaps an Ingress that only has a default backend. A configuration can have one
/// such set.
pub(crate) fn set_for_all_hosts(seed: u64) -> IngressSet {
    let random = Random::new(seed ^ 0xd1f7_0000);
    let mut generator = Generator { random, backends: 0, seed };
    let mut ingresses: Vec<_> =
        (0..generator.random.between(1, 3)).map(|index| generator.ingress(index, None)).collect();
    if generator.random.percent(40) {
        let mut catch_all = generator.ingress(ingresses.len(), None);
        catch_all.paths.clear();
        catch_all.default_backend = Some(generator.backend());
        ingresses.push(catch_all);
    }
    // A host of the same configuration takes its requests away from the rules for all hosts.
    let domain = format!("set{seed}.example");
    let host = Some(format!("h0.{domain}"));
    let with_host = generator.ingress(ingresses.len(), host);
    ingresses.push(with_host);
    IngressSet { seed, domain, ingresses }
}

struct Generator {
    random: Random,
    /// Number of Services so far. Each path has a Service of its own, which shows the chosen path.
    backends: usize,
    seed: u64,
}

impl Generator {
    fn ingress(&mut self, index: usize, host: Option<String>) -> TestIngress {
        let namespace = self.random.choose(&NAMESPACES).to_owned();
        // Equal ages are frequent, because the name decides then.
        let created = 1_700_000_000 + i64::try_from(self.random.below(4)).expect("the number is small");
        let name = format!("set{}-{}{index}", self.seed, self.random.choose(&["a", "m", "z"]));
        let is_regex = self.random.percent(30);
        let rewrites = self.random.percent(30);
        let mut paths = Vec::new();
        for _ in 0..self.random.between(1, 4) {
            let is_pattern = is_regex || rewrites && self.random.percent(50);
            paths.push(self.path(is_pattern));
        }
        let annotations = self.annotations(is_regex, rewrites, &paths);
        // Hosts with TLS mostly redirect, so most hosts have none.
        let tls = if self.random.percent(75) {
            Tls::None
        } else {
            self.random.choose(&[Tls::MissingSecret, Tls::NoSecret, Tls::OtherHost])
        };
        let default_backend = self.random.percent(15).then(|| self.backend());
        TestIngress { namespace, name, created, host, tls, annotations, paths, default_backend }
    }

    fn path(&mut self, is_pattern: bool) -> TestPath {
        let backend = self.backend();
        if is_pattern && self.random.percent(75) {
            let (path, _) = self.random.choose(PATTERNS);
            // The running controller accepts patterns of all types.
            let types = [Some(PathType::ImplementationSpecific), None, Some(PathType::Prefix), Some(PathType::Exact)];
            let weighted = [types[0], types[0], types[0], types[1], types[2], types[3]];
            return TestPath { path: path.to_owned(), path_type: self.random.choose(&weighted), backend };
        }
        let choices = if self.random.percent(12) { UNUSUAL_PATHS } else { PATHS };
        let types = [
            None,
            Some(PathType::Exact),
            Some(PathType::Prefix),
            Some(PathType::Prefix),
            Some(PathType::ImplementationSpecific),
        ];
        let path = self.random.choose(choices).to_owned();
        // The API server only accepts an empty path for ImplementationSpecific.
        let path_type = if path.is_empty() { types[4] } else { self.random.choose(&types) };
        TestPath { path, path_type, backend }
    }

    fn annotations(&mut self, is_regex: bool, rewrites: bool, paths: &[TestPath]) -> Vec<(String, String)> {
        let mut annotations = Vec::new();
        let mut add = |name: &str, value: &str| annotations.push((name.to_owned(), value.to_owned()));
        if is_regex {
            add("use-regex", self.random.choose(&["true", "true", "1", "T", "yes"]));
        }
        if rewrites {
            // A target that is equal to the path has no effect. With a lone `$`, nginx would refuse the configuration.
            let same = paths[0].path.as_str();
            let is_same = self.random.percent(15) && !same.contains('$');
            let target = match paths {
                _ if is_same => same,
                // The only pattern whose capture begins with a slash. An empty target is an error of nginx.
                [path] if path.path == "/svc(/.*)" => "$1",
                _ => self.random.choose(TARGETS),
            };
            add("rewrite-target", target);
            if self.random.percent(40) {
                add("x-forwarded-prefix", self.random.choose(&["/prefix", "/$1", "/a/b"]));
            }
        } else if self.random.percent(5) {
            add("x-forwarded-prefix", "/unused");
        }
        if self.random.percent(10) {
            add("app-root", self.random.choose(&["/app", "/app/", "/a/b", "relative", "https://other.example/x"]));
        }
        // Most hosts with a certificate would only have redirects otherwise.
        if self.random.percent(70) {
            add("ssl-redirect", self.random.choose(&["false", "false", "false", "true", "no"]));
        }
        if self.random.percent(8) {
            add("force-ssl-redirect", self.random.choose(&["true", "false", "on"]));
        }
        if self.random.percent(15) {
            add("preserve-trailing-slash", self.random.choose(&["true", "true", "false"]));
        }
        if self.random.percent(6) {
            add("permanent-redirect", self.random.choose(REDIRECTS));
        }
        if self.random.percent(6) {
            add("permanent-redirect-code", self.random.choose(&["301", "308", "303", "307", "404", "200"]));
        }
        if self.random.percent(6) {
            add(
                "temporal-redirect",
                self.random.choose(&["https://temporal.example/t?a=b&c=d", "http://t.example", "ftp://t"]),
            );
        }
        if self.random.percent(6) {
            add("temporal-redirect-code", self.random.choose(&["302", "307", "303", "308", "500"]));
        }
        annotations
    }

    fn backend(&mut self) -> String {
        self.backends += 1;
        service_name((self.backends - 1) % SERVICES_PER_NAMESPACE)
    }
}

/// Literal paths that overlap.
const PATHS: &[&str] = &[
    "/",
    "",
    "/foo",
    "/foo",
    "/foo/",
    "/foo/bar",
    "/foo/bar/",
    "/foo/bar/bar",
    "/foobar",
    "/Foo",
    "/FOO/Bar",
    "/api",
    "/api/v1",
    "/api/v1/",
    "/api/v1.0",
    "/a.b",
    "/a.b/c",
    "/v1",
    "/v1/x",
    "/something",
    "/static/app.js",
    "/.well-known/acme-challenge/token",
    "/.well-known/acme-challenge",
    "/healthz",
    "/x-y_z~",
];

/// Paths with characters that a configuration or a URL has to escape.
const UNUSUAL_PATHS: &[&str] = &[
    "/a b",
    "/caf\u{e9}",
    "/quo\"te",
    "/semi;colon",
    "/a'b",
    "/a,b=c&d",
    "/foo/*",
    "/a+b",
    "/foo$",
    "/pct%20x",
    "/at@x",
    "/hash#x",
    "/foo/bar?",
    "/back\\.slash",
];

/// Patterns, each with paths that match it or nearly do.
pub(crate) const PATTERNS: &[(&str, &[&str])] = &[
    ("/something(/|$)(.*)", &["/something", "/something/", "/something/x/y", "/somethingelse", "/SOMETHING/a%20b"]),
    ("/foo(/|$)(.*)", &["/foo", "/foo/", "/foo/bar", "/foobar", "/Foo/Bar/bar"]),
    ("/svc(/.*)", &["/svc", "/svc/", "/svc/a/b", "/svc//a"]),
    ("/v[0-9]+/x", &["/v1/x", "/v22/x/y", "/v/x", "/V1/X"]),
    ("/api/(?!internal)", &["/api/", "/api/v1", "/api/internal", "/api/Internal/x"]),
    ("/api/(v[0-9]+)/(.*)", &["/api/v1/", "/api/v12/users/1", "/api/vx/users"]),
    ("/foo/bar/[a-z]{3}", &["/foo/bar/bar", "/foo/bar/ba", "/foo/bar/BARX", "/foo/bar/123"]),
    ("/(.*)", &["/", "/foo", "/a/b/c", "/a%2Fb"]),
    ("/.*", &["/", "/foo/bar"]),
    ("/foo|/other", &["/foo", "/other", "/x/other", "/other/y"]),
    ("/(foo|api)/(.+)\\.(js|css)$", &["/foo/app.js", "/api/x/y.CSS", "/foo/appxjs", "/foo/app.js/z"]),
    ("/a.b$", &["/a.b", "/axb", "/a.b/", "/a/b"]),
    ("/id/(?<id>\\d+)", &["/id/42", "/id/x", "/id/42/z"]),
    ("/[^/]+/end", &["/x/end", "/x/y/end", "/end"]),
    ("/foo/?$", &["/foo", "/foo/", "/foo/bar"]),
    ("/(?i)case", &["/case", "/CASE", "/cas"]),
    ("/word\\b", &["/word", "/word/x", "/words"]),
];

const TARGETS: &[&str] = &[
    "/$2",
    "/$2",
    "/$1",
    "/$1/$2",
    "/",
    "/new",
    "/new/$2",
    "/new/",
    "/foo",
    "/x/$1$2$3",
    "/a b",
    "/new?x=y",
    "https://target.example/$2",
    "http://target.example/base",
    "https://target.example",
    "/$9",
    "/with:colon~$1",
];

const REDIRECTS: &[&str] = &[
    "https://permanent.example/p",
    "https://permanent.example/p?a=b&c=d,e",
    "/login",
    "http://permanent.example",
    "//scheme-relative.example/x",
    "relative",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_set() {
        assert_eq!(set(5).ingresses, set(5).ingresses);
        assert_ne!(set(5).ingresses, set(6).ingresses);
    }

    #[test]
    fn names_are_unique_and_annotations_vary() {
        let sets: Vec<_> = (0..300).map(set).collect();
        for set in &sets {
            assert!((1..=6).contains(&set.ingresses.len()));
            let mut names: Vec<_> = set.ingresses.iter().map(TestIngress::key).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), set.ingresses.len());
        }
        for name in ["use-regex", "rewrite-target", "app-root", "permanent-redirect", "temporal-redirect"] {
            let count = sets.iter().flat_map(|set| &set.ingresses).filter(|one| one.annotation(name).is_some()).count();
            assert!(count > 20, "{name}: {count}");
        }
    }
}
