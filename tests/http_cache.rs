//! The public tests of HTTP caches, <https://cache-tests.fyi>, and scripts of varnishtest against `proxy-cache` with
//! `mode: rfc9111`. `make cache-tests` runs all of them, and prints the results next to those of other caches.

mod other_caches;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::harness::objects::GATEWAY;
use crate::harness::ports::free_port;
use crate::harness::program::{Program, node_packages, root, run};
use crate::harness::site::Site;
use other_caches::OtherCache;

/// These take 13 s, most of which is waiting.
const SUITES: &[&str] =
    &["cc-freshness", "cc-request", "age-parse", "vary", "invalidation", "update304", "conditional-inm"];

#[test]
fn responses_are_stored_and_sent_again_as_the_public_tests_require() {
    run_tests(SUITES).check();
}

#[test]
#[ignore = "only in make test-full: all suites take a minute, with packages that nothing else needs"]
fn all_public_tests_have_the_expected_results() {
    let results = run_tests(&[]);
    let here = [OtherCache::nginx as Start, OtherCache::varnish].map(run_tests_of);
    println!("{}", results.table(&here));
    results.check();
    let own = results.passed();
    for (name, other) in results.others.iter().map(|(name, other)| (name, results.passed_of(other))) {
        assert!(own.0 > other.0 && own.1 > other.1, "{name} passes as many: {other:?}");
    }
}

#[test]
#[ignore = "only in make test-full: it needs the package of Varnish, as nothing else does"]
fn scripts_of_varnishtest_pass() {
    let (_site, _portico, gateway, origin) = start_portico(r#"{"strategy": "memory", "mode": "rfc9111"}"#);
    let mut scripts: Vec<_> = fs::read_dir(root().join("tests/http_cache/varnishtest")).unwrap().collect();
    scripts.sort_by_key(|script| script.as_ref().unwrap().path());
    assert!(!scripts.is_empty());
    for script in scripts {
        let mut test = Command::new("varnishtest");
        test.args(["-t", "120", "-D", &format!("origin=127.0.0.1:{origin}"), "-D", &format!("portico={gateway}")]);
        let output = test.arg(script.unwrap().path()).stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|error| panic!("varnishtest: {error}; `scripts/setup.sh full` installs it"));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        print!(
            "{}",
            text.lines().filter(|line| line.contains(" TEST ")).map(|line| format!("{line}\n")).collect::<String>()
        );
    }
}

/// The results of a run.
#[derive(Deserialize)]
struct Results {
    tests: Vec<PublicTest>,
    /// Those of other caches, which the package has, by name and test. A result is true for a test that passed.
    others: BTreeMap<String, BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
struct PublicTest {
    id: String,
    suite: String,
    kind: Kind,
    result: Value,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Required,
    /// What a good cache does, but need not.
    Optimal,
    /// What caches do differently, of which neither is wrong.
    Check,
}

/// Runs these suites, or all.
fn run_tests(suites: &[&str]) -> Results {
    // It also stores responses with cookies, because tests read these.
    let config = r#"{"strategy": "memory", "mode": "rfc9111", "cache_set_cookie": true}"#;
    let (_site, _portico, gateway, origin) = start_portico(config);
    run_tests_at(&gateway, origin, suites)
}

/// Starts another cache with its port and that of the origin.
type Start = fn(&Site, u16, u16) -> OtherCache;

/// Runs all suites with another cache.
fn run_tests_of(start: Start) -> (String, Results) {
    let (site, [port, origin]) = (Site::new(), [(); 2].map(|()| free_port([127, 0, 0, 1])));
    let cache = start(&site, port, origin);
    (cache.name.clone(), run_tests_at(&format!("127.0.0.1:{port}"), origin, &[]))
}

/// Runs suites with a cache at an address, which requests responses from a port.
fn run_tests_at(cache: &str, origin: u16, suites: &[&str]) -> Results {
    let folder = node_packages("tests/http_cache");
    let mut tests = Command::new(format!("{folder}/node"));
    tests.arg(root().join("tests/http_cache/run.mjs")).args([&folder, &origin.to_string(), &format!("http://{cache}")]);
    let output = tests.args(suites).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Starts Portico with a route to an origin, whose plugin has this configuration. Returns the address of the Gateway
/// and the port of the origin.
fn start_portico(config: &str) -> (Site, Program, String, u16) {
    let (site, origin) = (Site::new(), free_port([127, 0, 0, 1]));
    site.save("manifests/gateway.yaml", GATEWAY);
    site.save("manifests/cache.yaml", &manifests(origin, config));
    let portico = run(&site, &["--access-log", "off"]);
    portico.wait_started();
    let gateway = site.address_of("port");
    (site, portico, gateway, origin)
}

fn manifests(origin: u16, config: &str) -> String {
    let plugin = json!({
        "apiVersion": "configuration.konghq.com/v1", "kind": "KongPlugin", "metadata": { "name": "cache" },
        "plugin": "proxy-cache", "config": serde_json::from_str::<Value>(config).unwrap(),
    });
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": "origin", "annotations": { "konghq.com/plugins": "cache" } },
        "spec": {
            "parentRefs": [{ "name": "good" }],
            "rules": [{ "backendRefs": [{ "name": "origin", "port": origin }] }],
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "origin", "annotations": { "portico.dev/address": "127.0.0.1" } },
        "spec": { "ports": [{ "port": origin }] },
    });
    [plugin, route, service].map(|object| object.to_string()).join("\n---\n")
}

impl Results {
    /// Every test has the result that the page says: the tests in its table fail, for the reason there, and no others.
    fn check(&self) {
        let page = fs::read_to_string(root().join("docs/http-cache-tests.md")).unwrap();
        let rows = page.lines().filter(|line| line.starts_with("| `"));
        let names = rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2));
        let listed: BTreeSet<&str> = names.collect();
        let is_judged = |test: &&PublicTest| test.kind != Kind::Check;
        let failed: BTreeMap<&str, &Value> = { self.tests.iter().filter(is_judged) }
            .filter(|test| test.result != true)
            .map(|test| (&*test.id, &test.result))
            .collect();
        let unexpected: Vec<_> = failed.iter().filter(|(id, _)| !listed.contains(*id)).collect();
        let run: BTreeSet<&str> = self.tests.iter().map(|test| &*test.id).collect();
        let passed: Vec<_> = listed.iter().filter(|id| run.contains(*id) && !failed.contains_key(*id)).collect();
        assert!(unexpected.is_empty() && passed.is_empty(), "failed: {unexpected:#?}; passed, but listed: {passed:?}");
    }

    /// How many required and optimal tests have passed.
    fn passed(&self) -> (usize, usize) {
        self.passed_of(&self.tests.iter().map(|test| (test.id.clone(), test.result.clone())).collect())
    }

    /// The same for the results of another cache.
    fn passed_of(&self, results: &BTreeMap<String, Value>) -> (usize, usize) {
        let count = |kind| {
            let of_kind = self.tests.iter().filter(|test| test.kind == kind);
            of_kind.filter(|test| results.get(&test.id).is_some_and(|result| *result == true)).count()
        };
        (count(Kind::Required), count(Kind::Optimal))
    }

    /// How many tests passed, by cache and kind: Portico and the caches that ran here, then the results of the package.
    fn table(&self, here: &[(String, Results)]) -> String {
        let total = |kind| self.tests.iter().filter(|test| test.kind == kind).count();
        let (required, optimal) = (total(Kind::Required), total(Kind::Optimal));
        let mut table = format!("{:<36} {:>8} {:>8}\n", "cache", "required", "optional");
        writeln!(table, "{:<36} {required:>8} {optimal:>8}", "all tests").unwrap();
        let own = [("Portico, here".to_owned(), self.passed())].into_iter();
        let here = here.iter().map(|(name, results)| (format!("{name}, here"), results.passed()));
        let others = self.others.iter().map(|(name, other)| (format!("{name}, of the package"), self.passed_of(other)));
        for (name, (required, optimal)) in own.chain(here).chain(others) {
            writeln!(table, "{name:<36} {required:>8} {optimal:>8}").unwrap();
        }
        for test in self.tests.iter().filter(|test| test.kind != Kind::Check && test.result != true) {
            writeln!(table, "failed: {} {} {}", test.suite, test.id, test.result).unwrap();
        }
        table
    }
}
