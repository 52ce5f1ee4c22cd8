//! An Ingress of ingress-nginx with what decides about its requests: its annotations, the other Ingresses, and the
//! ConfigMap.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::api::Object;
use crate::api::ingress_nginx::{self, written_key};
use crate::api::networking::{HttpIngressPath, Ingress, IngressBackend};

/// An Ingress among others.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) ingress: &'a Object<Ingress>,
    /// All Ingresses of ingress-nginx, this one included.
    pub(super) all: &'a IngressSet<'a>,
    /// The ConfigMap of ingress-nginx.
    pub(super) config: &'a BTreeMap<String, Arc<str>>,
}

impl<'a> Subject<'a> {
    /// The value of an annotation; an empty one counts as missing.
    pub(super) fn value(&self, name: &str) -> Option<&'a str> {
        value(self.ingress, name)
    }

    /// Whether an annotation is a boolean that is true.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.value(name).and_then(ingress_nginx::flag) == Some(true)
    }

    /// The value of an annotation, or else of the key of the ConfigMap with its name.
    pub(super) fn value_or_key(&self, name: &str) -> Option<&'a str> {
        self.value(name).or_else(|| self.config.get(name).map(|value| &**value).filter(|value| !value.is_empty()))
    }

    pub(super) fn is_canary(&self) -> bool {
        is_canary(self.ingress)
    }

    /// Whether one of its hosts has a certificate, which the Ingress of a canary does not repeat.
    pub(super) fn has_tls(&self) -> bool {
        let hosts = self.ingress.spec.rules.iter().map(|rule| rule.host.as_deref());
        !self.ingress.spec.tls.is_empty() || hosts.into_iter().any(|host| self.all.has_tls(host))
    }

    /// The hosts of its rules, without rules for all hosts.
    pub(super) fn hosts(&self) -> Vec<String> {
        let mut hosts: Vec<String> = Vec::new();
        for host in self.ingress.spec.rules.iter().filter_map(|rule| rule.host.as_deref()) {
            if !host.is_empty() && !hosts.iter().any(|known| known == host) {
                hosts.push(host.to_owned());
            }
        }
        hosts
    }

    /// Whether an Ingress of another namespace has one of its hosts.
    pub(super) fn shares_host_with_other_namespace(&self) -> bool {
        let of_hosts = self.hosts().into_iter().flat_map(|host| self.all.with_host(Some(&host)));
        of_hosts.into_iter().any(|other| other.meta.key.namespace != self.ingress.meta.key.namespace)
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = IngressPathOf<'a>> {
        paths(self.ingress)
    }

    /// The Ingress that has a path of this canary, and the path.
    pub(super) fn main_of(&self, canary: IngressPathOf<'a>) -> Option<(&'a Object<Ingress>, IngressPathOf<'a>)> {
        let found = self.all.with_path(canary).iter().filter(|(other, _)| !is_canary(other));
        let mut found: Vec<_> = found.copied().collect();
        // One of its own namespace is the one that counts.
        found.sort_by_key(|(other, _)| other.meta.key.namespace != self.ingress.meta.key.namespace);
        found.into_iter().next()
    }

    /// The URL of a path, for an example.
    pub(super) fn url(&self, host: Option<&str>, path: &str) -> String {
        let has_tls = !self.ingress.spec.tls.is_empty() || self.all.has_tls(host);
        let scheme = if has_tls { "https" } else { "http" };
        let host = match host.filter(|host| !host.is_empty()) {
            Some(host) => host.strip_prefix('*').map_or_else(|| host.to_owned(), |rest| format!("a{rest}")),
            None => "any.example".to_owned(),
        };
        format!("{scheme}://{host}{path}")
    }

    /// The URL of its first path up to the first character of an expression.
    pub(super) fn first_url(&self) -> String {
        match self.paths().next() {
            Some(IngressPathOf { host, path, .. }) => {
                let end = path.find(['(', '[', '.', '*', '?', '|', '$', '\\']).unwrap_or(path.len());
                self.url(host, &path[..end])
            }
            None => self.url(self.ingress.spec.rules.first().and_then(|rule| rule.host.as_deref()), "/"),
        }
    }
}

/// A path of a rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct IngressPathOf<'a> {
    pub(super) host: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) is_exact: bool,
    pub(super) backend: &'a IngressBackend,
}

impl<'a> IngressPathOf<'a> {
    pub(super) fn is_same_as(self, other: IngressPathOf<'_>) -> bool {
        (self.path, self.is_exact) == (other.path, other.is_exact) && lower_host(self.host) == lower_host(other.host)
    }

    fn key(self) -> (String, &'a str, bool) {
        (lower_host(self.host), self.path, self.is_exact)
    }
}

/// A host as a key; that of rules for all hosts is empty.
fn lower_host(host: Option<&str>) -> String {
    host.unwrap_or_default().to_ascii_lowercase()
}

/// A path, and the Ingress that has it.
type WrittenPath<'a> = (&'a Object<Ingress>, IngressPathOf<'a>);

/// Ingresses, by what they share with others.
#[derive(Debug, Default)]
pub(super) struct IngressSet<'a> {
    /// By host, path, and whether it is exact.
    by_path: HashMap<(String, &'a str, bool), Vec<WrittenPath<'a>>>,
    by_host: HashMap<String, Vec<&'a Object<Ingress>>>,
    by_namespace: HashMap<&'a str, Vec<&'a Object<Ingress>>>,
}

impl<'a> IngressSet<'a> {
    pub(super) fn new(ingresses: &'a [Arc<Object<Ingress>>]) -> Self {
        let mut set = IngressSet::default();
        for ingress in ingresses.iter().map(|ingress| &**ingress) {
            set.by_namespace.entry(&*ingress.meta.key.namespace).or_default().push(ingress);
            for path in paths(ingress) {
                set.by_path.entry(path.key()).or_default().push((ingress, path));
            }
            for rule in &ingress.spec.rules {
                set.by_host.entry(lower_host(rule.host.as_deref())).or_default().push(ingress);
            }
        }
        set
    }

    /// Those with a path, and their paths.
    pub(super) fn with_path(&self, path: IngressPathOf<'a>) -> &[(&'a Object<Ingress>, IngressPathOf<'a>)] {
        let key = (lower_host(path.host), path.path, path.is_exact);
        self.by_path.get(&key).map(Vec::as_slice).unwrap_or_default()
    }

    /// Those with a rule for a host.
    pub(super) fn with_host(&self, host: Option<&str>) -> &[&'a Object<Ingress>] {
        self.by_host.get(&lower_host(host)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether one of those with a rule for a host has a section `tls`.
    pub(super) fn has_tls(&self, host: Option<&str>) -> bool {
        self.with_host(host).iter().any(|ingress| !ingress.spec.tls.is_empty())
    }

    pub(super) fn in_namespace(&self, namespace: &str) -> &[&'a Object<Ingress>] {
        self.by_namespace.get(namespace).map(Vec::as_slice).unwrap_or_default()
    }
}

/// The value of an annotation; an empty one counts as missing.
pub(super) fn value<'a>(ingress: &'a Object<Ingress>, name: &str) -> Option<&'a str> {
    let value = written_key(&ingress.meta.annotations, name).and_then(|key| ingress.meta.annotations.get(key));
    value.map(|value| &**value).filter(|value| !value.is_empty())
}

pub(super) fn is_canary(ingress: &Object<Ingress>) -> bool {
    value(ingress, "canary").and_then(ingress_nginx::flag) == Some(true)
}

pub(super) fn paths(ingress: &Object<Ingress>) -> impl Iterator<Item = IngressPathOf<'_>> {
    ingress.spec.rules.iter().flat_map(|rule| {
        let paths = rule.http.iter().flat_map(|http| &http.paths);
        paths.map(|HttpIngressPath { path, path_type, backend }| IngressPathOf {
            host: rule.host.as_deref(),
            path: path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/"),
            is_exact: path_type.as_deref() == Some("Exact"),
            backend,
        })
    })
}
