//! Outcomes that the specification names, as a table in `cases`. nginx is checked against it, so that the configuration
//! of this test is what the text means; Portico can be checked against the same table.

use super::cases;
use super::compare::Outcome;
use super::model::{PathType, TestIngress, TestPath, Tls};
use super::requests::Request;

/// Ingresses of one host, and requests with their outcomes. `@` stands for the host.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) ingresses: Vec<TestIngress>,
    /// A request as `METHOD TARGET`, or `METHOD TARGET HOST`, and the outcome.
    pub(crate) requests: &'static [(&'static str, &'static str)],
}

/// An Ingress whose rules are texts as `/path Prefix service`. The type `-` is
/// ImplementationSpecific.
pub(crate) fn ingress(name: &str, host: &str, annotations: &[(&str, &str)], rules: &[&str]) -> TestIngress {
    let path = |rule: &&str| {
        let mut parts = rule.rsplitn(3, ' ');
        let mut part = || parts.next().expect("a rule has three parts").to_owned();
        let (backend, path_type, path) = (part(), part(), part());
        let path_type = match path_type.as_str() {
            "Exact" => Some(PathType::Exact),
            "Prefix" => Some(PathType::Prefix),
            _ => Some(PathType::ImplementationSpecific),
        };
        TestPath { path, path_type, backend }
    };
    TestIngress {
        namespace: "one".to_owned(),
        name: name.to_owned(),
        created: 1_700_000_000,
        host: Some(host.to_owned()),
        tls: Tls::None,
        annotations: annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        paths: rules.iter().map(path).collect(),
        default_backend: None,
    }
}

/// The cases, each with a host of its own, so that one configuration has all.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = cases::all();
    for (index, case) in cases.iter_mut().enumerate() {
        for (number, ingress) in case.ingresses.iter_mut().enumerate() {
            let host = ingress.host.take().expect("each case has a host");
            ingress.host = Some(host.replace('@', &host_of(index)));
            ingress.name = format!("{}-{index}-{number}", ingress.name);
        }
    }
    cases
}

/// The host of a case.
pub(crate) fn host_of(index: usize) -> String {
    format!("h.case{index}.example")
}

/// Sends all requests of the cases and returns the differences from the expected outcomes.
pub(crate) fn differences(send: impl Fn(&Request) -> Outcome) -> Vec<String> {
    let mut differences = Vec::new();
    for (index, case) in cases().iter().enumerate() {
        let host = host_of(index);
        for (request, expected) in case.requests {
            let request = request.replace('@', &host);
            let mut parts = request.split(' ');
            let method = if parts.next() == Some("HEAD") { "HEAD" } else { "GET" };
            let target = parts.next().expect("a request has a target").to_owned();
            let request = Request { method, host: parts.next().unwrap_or(&host).to_owned(), target };
            let outcome = summary(&send(&request));
            if outcome != expected.replace('@', &host) {
                differences.push(format!("{}: {request}\n  expected {expected}\n  received {outcome}", case.name));
            }
        }
    }
    differences
}

/// Status, and Location or the Service with the target and the prefix that the backend received.
fn summary(outcome: &Outcome) -> String {
    let mut summary = outcome.status.to_string();
    let service = outcome.service.as_deref().map(|service| service.trim_start_matches("one/"));
    let parts = [outcome.location.as_deref(), service, outcome.target.as_deref(), outcome.prefix.as_deref()];
    for part in parts.into_iter().flatten().chain(outcome.error.as_deref()) {
        summary = summary + " " + part;
    }
    summary
}
