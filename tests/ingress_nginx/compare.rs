//! Outcomes of requests, their comparison, and the report of differences.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::model::{IngressSet, TestIngress};
use super::requests::Request;

/// What a client and the backend see of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Zero if there is no response.
    pub(crate) status: u16,
    /// The header `Location` of the response.
    pub(crate) location: Option<String>,
    /// Namespace and name of the Service with the backend, if a backend responded.
    pub(crate) service: Option<String>,
    /// The target of the request that the backend received.
    pub(crate) target: Option<String>,
    /// The header `Host` that the backend received.
    pub(crate) host: Option<String>,
    /// The header `X-Forwarded-Prefix` that the backend received.
    pub(crate) prefix: Option<String>,
    /// Number and path of the location that nginx has chosen. Only for the report.
    pub(crate) nginx_location: Option<String>,
    pub(crate) error: Option<String>,
}

impl Outcome {
    fn is_same(&self, other: &Outcome) -> bool {
        let compared = |outcome: &Outcome| Outcome { nginx_location: None, ..outcome.clone() };
        // An error of both is one of the test.
        self.error.is_none() && compared(self) == compared(other)
    }

    /// The fields that differ, as a key that groups differences with the same cause.
    fn kind(&self, other: &Outcome) -> String {
        let mut kind = format!("{} and {}", self.status, other.status);
        let fields = [
            ("location", self.location != other.location),
            ("service", self.service != other.service),
            ("target", self.target != other.target),
            ("host", self.host != other.host),
            ("prefix", self.prefix != other.prefix),
            ("error", self.error != other.error),
        ];
        for (name, _) in fields.iter().filter(|(_, differs)| *differs) {
            kind += ", ";
            kind += name;
        }
        kind
    }
}

/// One line, without absent parts.
impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.status)?;
        let parts = [
            ("location", &self.location),
            ("service", &self.service),
            ("target", &self.target),
            ("host", &self.host),
            ("prefix", &self.prefix),
            ("nginx location", &self.nginx_location),
            ("error", &self.error),
        ];
        for (name, value) in parts {
            if let Some(value) = value {
                write!(formatter, " | {name} {value}")?;
            }
        }
        Ok(())
    }
}

/// A difference that is intended.
struct Allowed {
    name: &'static str,
    reason: &'static str,
    applies: fn(&Request, nginx: &Outcome, portico: &Outcome) -> bool,
}

const ALLOWED: &[Allowed] = &[
    Allowed {
        name: "path above the root",
        reason: "nginx refuses such a path with 400, and Portico finds no location for it",
        applies: |request, nginx, portico| {
            let path = request.target.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
            let is_above = path.replace("%2e", ".").contains("..");
            is_above && nginx.status == 400 && portico.status == 404 && portico.service.is_none()
        },
    },
    Allowed {
        name: "fragment in the target",
        reason: "RFC 9112 has no fragment in a request target, so Portico refuses it with 400",
        applies: |request, _, portico| request.target.contains('#') && portico.status == 400,
    },
    Allowed {
        name: "empty path after a rewrite",
        reason: "nginx responds with 500, and Portico sends the path `/`",
        applies: |_, nginx, portico| {
            let is_root = portico.target.as_deref().is_some_and(|target| target == "/" || target.starts_with("/?"));
            nginx.status == 500 && (is_root || portico.status == 404 && portico.service.is_none())
        },
    },
];

/// The result of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Number of requests sent to each of the two.
    pub(crate) requests: usize,
    /// Requests with an intended difference, by its name.
    pub(crate) allowed: BTreeMap<&'static str, usize>,
    /// Differences by kind, with the first cases of each as text.
    pub(crate) differences: BTreeMap<String, Differences>,
    /// Requests to nginx by status, so that a run whose requests all fail is noticed.
    pub(crate) statuses: BTreeMap<u16, usize>,
}

#[derive(Debug, Default)]
pub(crate) struct Differences {
    pub(crate) count: usize,
    pub(crate) cases: Vec<String>,
}

impl Report {
    pub(crate) fn add(&mut self, set: &IngressSet, request: &Request, nginx: &Outcome, portico: &Outcome) {
        self.requests += 1;
        *self.statuses.entry(nginx.status).or_default() += 1;
        if nginx.is_same(portico) {
            return;
        }
        if let Some(allowed) = ALLOWED.iter().find(|allowed| (allowed.applies)(request, nginx, portico)) {
            *self.allowed.entry(allowed.name).or_default() += 1;
            return;
        }
        let differences = self.differences.entry(nginx.kind(portico)).or_default();
        differences.count += 1;
        if differences.cases.len() < CASES_PER_KIND {
            differences.cases.push(case(set, request, nginx, portico));
        }
    }

    pub(crate) fn is_same(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count: usize = self.differences.values().map(|differences| differences.count).sum();
        writeln!(formatter, "{} requests, {count} unexplained differences", self.requests)?;
        writeln!(formatter, "status of nginx and number of requests: {:?}", self.statuses)?;
        for (name, count) in &self.allowed {
            let reason = ALLOWED.iter().find(|allowed| allowed.name == *name).map_or("", |allowed| allowed.reason);
            writeln!(formatter, "{count} times {name}: {reason}")?;
        }
        for (kind, differences) in &self.differences {
            writeln!(formatter, "\n{} times: nginx and Portico {kind}", differences.count)?;
            for case in &differences.cases {
                writeln!(formatter, "{case}")?;
            }
        }
        Ok(())
    }
}

/// The text of a difference: all that is needed to repeat it.
fn case(set: &IngressSet, request: &Request, nginx: &Outcome, portico: &Outcome) -> String {
    let mut text = format!("seed {}: {request}\n  nginx:   {nginx}\n  Portico: {portico}\n", set.seed);
    for ingress in set.ingresses.iter().filter(|ingress| is_relevant(ingress, request)) {
        for line in ingress.to_yaml().lines() {
            writeln!(text, "  {line}").expect("a string accepts all text");
        }
    }
    text
}

/// Whether the Ingress can apply to the host of the request, directly or by a wildcard.
fn is_relevant(ingress: &TestIngress, request: &Request) -> bool {
    let host = request.host.to_ascii_lowercase();
    let host = host.split(':').next().unwrap_or_default().trim_end_matches('.');
    match ingress.rule_host() {
        None => true,
        Some(rule) => rule == host || rule.strip_prefix('*').is_some_and(|rest| host.ends_with(rest)),
    }
}

const CASES_PER_KIND: usize = 2;

#[cfg(test)]
mod tests {
    use super::super::generator;
    use super::*;

    #[test]
    fn differences_are_grouped_and_have_the_ingresses() {
        let set = generator::set(3);
        let host = set.ingresses[0].host.clone().unwrap();
        let request = Request { method: "GET", host, target: "/a".into() };
        let nginx = Outcome { status: 200, service: Some("one/s1".into()), ..Outcome::default() };
        let portico = Outcome { service: Some("one/s2".into()), ..nginx.clone() };
        let mut report = Report::default();
        report.add(&set, &request, &nginx, &nginx);
        for _ in 0..3 {
            report.add(&set, &request, &nginx, &portico);
        }
        let text = report.to_string();
        assert!(text.starts_with("4 requests, 3 unexplained differences\n"), "{text}");
        assert!(
            text.contains("\n3 times: nginx and Portico 200 and 200, service\nseed 3: GET /a with Host: "),
            "{text}"
        );
        assert!(text.contains("  kind: Ingress\n"), "{text}");
    }

    #[test]
    fn a_refusal_may_have_another_status_but_not_reach_a_backend() {
        let set = generator::set(3);
        let request = Request { method: "GET", host: "h".into(), target: "/../a".into() };
        let outcome = |status, service: Option<&str>| Outcome {
            status,
            service: service.map(str::to_owned),
            ..Outcome::default()
        };
        for (portico, is_same) in [(outcome(404, None), true), (outcome(404, Some("one/s0")), false)] {
            let mut report = Report::default();
            report.add(&set, &request, &outcome(400, None), &portico);
            assert_eq!(report.is_same(), is_same, "{report}");
        }
    }
}
