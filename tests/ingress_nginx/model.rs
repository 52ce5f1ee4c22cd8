//! Ingresses of a test: the part of the object that the test varies, and its YAML.

use std::fmt::Write;
use std::hash::{DefaultHasher, Hasher};

/// An Ingress with at most one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TestIngress {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Seconds since 1970. The oldest Ingress has precedence; equal times are decided by the name.
    pub(crate) created: i64,
    /// None is a rule for all hosts.
    pub(crate) host: Option<String>,
    pub(crate) tls: Tls,
    /// Names without the prefix `nginx.ingress.kubernetes.io/`.
    pub(crate) annotations: Vec<(String, String)>,
    /// Without paths, the Ingress has no rule.
    pub(crate) paths: Vec<TestPath>,
    /// Name of a Service.
    pub(crate) default_backend: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TestPath {
    /// Can be empty, which means `/`.
    pub(crate) path: String,
    pub(crate) path_type: Option<PathType>,
    /// Name of a Service in the namespace of the Ingress.
    pub(crate) backend: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathType {
    Exact,
    Prefix,
    ImplementationSpecific,
}

/// The section `tls`. All but `None` give the hosts of the Ingress a certificate, at least the default one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    None,
    /// Lists the host, with a Secret that does not exist.
    MissingSecret,
    /// Lists the host without a Secret.
    NoSecret,
    /// Lists another host, with a Secret that does not exist.
    OtherHost,
}

/// Ingresses whose hosts belong to no other set, so that many sets can be served at once.
#[derive(Clone, Debug)]
pub(crate) struct IngressSet {
    pub(crate) seed: u64,
    /// The hosts of the set are below this name.
    pub(crate) domain: String,
    pub(crate) ingresses: Vec<TestIngress>,
}

impl TestIngress {
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The host of the rule.
    pub(crate) fn rule_host(&self) -> Option<&str> {
        self.host.as_deref().filter(|_| !self.paths.is_empty())
    }

    /// The value of an annotation, if it is not empty: the original takes empty values as absent.
    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        let value = self.annotations.iter().find(|(key, _)| key == name)?.1.as_str();
        Some(value).filter(|value| !value.is_empty())
    }

    /// A YAML document that begins with `---`.
    pub(crate) fn to_yaml(&self) -> String {
        let mut yaml = format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  namespace: {}\n  name: {}\n  \
             uid: {}\n  creationTimestamp: {}\n",
            self.namespace,
            self.name,
            uid(&self.key()),
            quoted(&timestamp(self.created)),
        );
        if !self.annotations.is_empty() {
            yaml += "  annotations:\n";
        }
        for (name, value) in &self.annotations {
            line(&mut yaml, 4, &format!("{ANNOTATION_PREFIX}{name}: {}", quoted(value)));
        }
        yaml += "spec:\n  ingressClassName: nginx\n";
        self.write_tls(&mut yaml);
        if let Some(service) = &self.default_backend {
            yaml += "  defaultBackend:\n";
            write_service(&mut yaml, 4, service);
        }
        if !self.paths.is_empty() {
            let host = self.host.as_ref().map_or(String::new(), |host| format!("host: {}\n      ", quoted(host)));
            line(&mut yaml, 2, &format!("rules:\n    - {host}http:\n        paths:"));
        }
        for path in &self.paths {
            line(&mut yaml, 10, &format!("- path: {}", quoted(&path.path)));
            if let Some(path_type) = path.path_type {
                line(&mut yaml, 12, &format!("pathType: {path_type:?}"));
            }
            line(&mut yaml, 12, "backend:");
            write_service(&mut yaml, 14, &path.backend);
        }
        yaml
    }

    fn write_tls(&self, yaml: &mut String) {
        let host = self.host.as_deref().unwrap_or("no-host.example");
        let (host, secret) = match self.tls {
            Tls::None => return,
            Tls::MissingSecret => (host, true),
            Tls::NoSecret => (host, false),
            Tls::OtherHost => ("other.example", true),
        };
        line(yaml, 2, &format!("tls:\n    - hosts: [{}]", quoted(host)));
        if secret {
            line(yaml, 6, "secretName: missing");
        }
    }
}

fn write_service(yaml: &mut String, indent: usize, service: &str) {
    line(yaml, indent, &format!("service: {{ name: {service}, port: {{ number: 80 }} }}"));
}

fn line(yaml: &mut String, indent: usize, text: &str) {
    writeln!(yaml, "{:indent$}{text}", "").expect("a string accepts all text");
}

/// A UID that only depends on the key.
fn uid(key: &str) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(key.as_bytes());
    format!("00000000-0000-4000-8000-{:012x}", hasher.finish() >> 16)
}

/// A string of YAML in double quotes.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            ' '..='~' => quoted.push(character),
            _ => write!(quoted, "\\U{:08x}", u32::from(character)).expect("a string accepts all text"),
        }
    }
    quoted + "\""
}

/// Seconds since 1970 as in RFC 3339.
fn timestamp(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years begin in March, so that the leap day is the last one; 719,468 days are between 0000-03-01 and 1970-01-01.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

/// The class of all Ingresses of this test.
pub(crate) const CLASS_YAML: &str = "apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: nginx
  annotations:
    portico.dev/dialect: nginx
spec:
  controller: portico.dev/ingress-controller
";

const ANNOTATION_PREFIX: &str = "nginx.ingress.kubernetes.io/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_a_date() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(timestamp(seconds), expected);
        }
    }

    #[test]
    fn yaml_has_the_rule_and_escapes_values() {
        let path = TestPath { path: "/\"\\é".into(), path_type: Some(PathType::Exact), backend: "s0".into() };
        let ingress = TestIngress {
            namespace: "one".into(),
            name: "a".into(),
            created: 0,
            host: Some("*.example".into()),
            tls: Tls::MissingSecret,
            annotations: vec![("rewrite-target".into(), "/$2".into())],
            paths: vec![path],
            default_backend: None,
        };
        let yaml = ingress.to_yaml();
        for part in [
            "\n  creationTimestamp: \"1970-01-01T00:00:00Z\"\n",
            "\n    nginx.ingress.kubernetes.io/rewrite-target: \"/$2\"\n",
            "\n  tls:\n    - hosts: [\"*.example\"]\n      secretName: missing\n",
            "\n  rules:\n    - host: \"*.example\"\n      http:\n        paths:\n",
            "\n          - path: \"/\\\"\\\\\\U000000e9\"\n",
            "\n            pathType: Exact\n            backend:\n              service: { name: s0, ",
        ] {
            assert!(yaml.contains(part), "{part}\n{yaml}");
        }
    }
}
