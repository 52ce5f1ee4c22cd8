//! Further names of hosts: the annotation `server-alias`.
//!
//! ```text
//!   server-alias of the Ingresses of a host ──▶ the names of the oldest one with some ──▶ those that nothing else has
//!                                                                                             │
//!                                      each Ingress of the host has its locations for them ◀──┘
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::annotation_prefixes::with_usual_prefix;
use super::value_reader::{is_canary, written};
use crate::api::ingress_nginx::find;
use crate::api::networking::Ingress;
use crate::api::{Meta, Object, ObjectKey};
use crate::compile::budgets::MAX_SERVER_ALIASES;
use crate::snapshot::host::HostPattern;
use crate::snapshot::router::by_conditions::HostName;

pub(super) const ANNOTATION: &str = "server-alias";

/// The order of the Ingresses of a host: by age; of equal age, the later name first, as in ingress-nginx.
pub(super) type IngressAge = (Option<i64>, Reverse<ObjectKey>);

/// The names that an Ingress gives to its hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GivenAliases {
    pub ingress: IngressAge,
    pub names: Arc<[HostPattern]>,
}

/// Which hosts want which further names.
#[derive(Debug, Default)]
pub(super) struct WantedAliases {
    /// By name. The first host of a name gets it: that of the oldest Ingress.
    by_name: BTreeMap<HostPattern, BTreeSet<(IngressAge, HostPattern)>>,
}

impl WantedAliases {
    /// Replaces what a host wants, and returns the names of which something changes.
    pub(super) fn replace(
        &mut self,
        host: &HostPattern,
        before: Option<&GivenAliases>,
        after: Option<&GivenAliases>,
    ) -> BTreeSet<HostPattern> {
        let mut changed = BTreeSet::new();
        if before == after {
            return changed;
        }
        if let Some(GivenAliases { ingress, names }) = before {
            for name in names.iter() {
                if let Some(hosts) = self.by_name.get_mut(name) {
                    hosts.remove(&(ingress.clone(), host.clone()));
                    if hosts.is_empty() {
                        self.by_name.remove(name);
                    }
                }
                changed.insert(name.clone());
            }
        }
        if let Some(GivenAliases { ingress, names }) = after {
            for name in names.iter() {
                self.by_name.entry(name.clone()).or_default().insert((ingress.clone(), host.clone()));
                changed.insert(name.clone());
            }
        }
        changed
    }

    /// The hosts that want a name, the one that gets it first.
    pub(super) fn hosts(&self, name: &HostPattern) -> impl Iterator<Item = &HostPattern> {
        self.by_name.get(name).into_iter().flatten().map(|(_, host)| host)
    }
}

/// The names that an Ingress gives to its hosts, as far as they are supported.
pub(super) fn names(meta: &Meta) -> Vec<HostPattern> {
    let value = written(meta, ANNOTATION);
    let value = value.filter(|value| find(ANNOTATION).is_none_or(|row| row.consequence(value).is_none()));
    let names: BTreeSet<HostPattern> = value.into_iter().flat_map(entries).flat_map(patterns).collect();
    names.into_iter().take(MAX_SERVER_ALIASES).collect()
}

/// The names that an ordinary Ingress gives to its hosts; none of a canary.
pub(in crate::compile::ingress) fn server_alias_names(ingress: &Object<Ingress>) -> Vec<HostPattern> {
    let ingress = with_usual_prefix(ingress);
    if is_canary(&ingress) { Vec::new() } else { names(&ingress.meta) }
}

/// The entries of the list.
pub(super) fn entries(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

/// What an entry stands for; nothing if it is not supported. A dot at the start means the name itself, too.
pub(super) fn patterns(entry: &str) -> Vec<HostPattern> {
    let texts = match entry.strip_prefix('.') {
        Some(name) => vec![name.to_owned(), format!("*{entry}")],
        None => vec![entry.to_owned()],
    };
    let is_host =
        |text: &String| matches!(HostName::parse(text), Some(HostName::Exact(_) | HostName::LeadingWildcard(_)));
    if texts.iter().all(is_host) {
        texts.iter().map(|text| HostPattern::parse(Some(text))).collect()
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_nginx_without_expressions() {
        let shown = |value: &str| {
            let patterns = entries(value).flat_map(patterns);
            patterns.map(|pattern| pattern.to_string()).collect::<Vec<_>>().join(" ")
        };
        for (value, expected) in [
            ("b.example", "b.example"),
            (" B.example , *.c.example,", "b.example *.c.example"),
            (".d.example", "d.example *.d.example"),
            (r"~^www\d+\.example$, a.example", "a.example"),
            ("a.*", ""),
            (",", ""),
        ] {
            assert_eq!(shown(value), expected, "{value}");
        }
    }
}
