//! The public tests of HTTP caches, <https://cache-tests.fyi>, against `proxy-cache` with `mode: rfc9111`. `make
//! cache-tests` runs all of them, and prints the results beside those of other caches that the package has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::harness::objects::GATEWAY;
use crate::harness::program::{node_packages, root, run};
use crate::harness::site::{Site, free_port};

/// These take 13 s, most of which is waiting.
const SUITES: &[&str] =
    &["cc-freshness", "cc-request", "age-parse", "vary", "invalidation", "update304", "conditional-inm"];

#[test]
fn responses_are_stored_and_sent_again_as_the_public_tests_require() {
    run_tests(SUITES).check();
}

#[test]
#[ignore = "only in make test-full: the other suites, some of which depend on lifetimes of seconds"]
fn all_public_tests_have_the_expected_results() {
    let results = run_tests(&[]);
    println!("{}", results.table());
    results.check();
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
    let folder = node_packages("tests/http_cache");
    let site = Site::new();
    let origin = free_port([127, 0, 0, 1].into());
    site.save("manifests/gateway.yaml", GATEWAY);
    site.save("manifests/cache.yaml", &manifests(origin));
    let portico = run(&site, &["--access-log", "off"]);
    portico.wait_started();
    let mut tests = Command::new(format!("{folder}/node"));
    tests.arg(root().join("tests/http_cache/run.mjs")).args([&folder, &origin.to_string()]);
    tests.arg(format!("http://{}", site.address_of("port"))).args(suites).stdin(Stdio::null());
    let output = tests.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A route to the origin with the plugin, which also stores responses with cookies, because tests read these.
fn manifests(origin: u16) -> String {
    let plugin = json!({
        "apiVersion": "configuration.konghq.com/v1", "kind": "KongPlugin", "metadata": { "name": "cache" },
        "plugin": "proxy-cache", "config": { "strategy": "memory", "mode": "rfc9111", "cache_set_cookie": true },
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
    /// Every test has the result that `failures.tsv` says: the tests in it fail, for the reason there, and no others.
    fn check(&self) {
        let listed = include_str!("http_cache/failures.tsv").lines().filter(|line| !line.starts_with('#'));
        let listed: BTreeMap<&str, &str> = listed.map(|line| line.split_once('\t').unwrap()).collect();
        let is_judged = |test: &&PublicTest| test.kind != Kind::Check;
        let failed: BTreeMap<&str, &Value> = { self.tests.iter().filter(is_judged) }
            .filter(|test| test.result != true)
            .map(|test| (&*test.id, &test.result))
            .collect();
        let unexpected: Vec<_> = failed.iter().filter(|(id, _)| !listed.contains_key(*id)).collect();
        let run: BTreeSet<&str> = self.tests.iter().map(|test| &*test.id).collect();
        let passed: Vec<_> = listed.keys().filter(|id| run.contains(*id) && !failed.contains_key(*id)).collect();
        assert!(unexpected.is_empty() && passed.is_empty(), "failed: {unexpected:#?}; passed, but listed: {passed:?}");
    }

    /// How many tests passed, by cache and kind.
    fn table(&self) -> String {
        let own = self.tests.iter().map(|test| (test.id.clone(), test.result.clone())).collect();
        let mut table = String::from("cache          required   optimal\n");
        for (name, results) in [("portico", &own)].into_iter().chain(self.others.iter().map(|(name, r)| (&**name, r))) {
            let passed = |kind| {
                let of_kind: Vec<_> = self.tests.iter().filter(|test| test.kind == kind).collect();
                let passed = of_kind.iter().filter(|test| results.get(&test.id).is_some_and(|result| *result == true));
                format!("{} of {}", passed.count(), of_kind.len())
            };
            writeln!(table, "{name:<14} {:<10} {}", passed(Kind::Required), passed(Kind::Optimal)).unwrap();
        }
        for test in self.tests.iter().filter(|test| test.kind != Kind::Check && test.result != true) {
            writeln!(table, "failed: {} {} {}", test.suite, test.id, test.result).unwrap();
        }
        table
    }
}
