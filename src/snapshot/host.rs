//! Hosts: exact names, wildcards and "any", looked up from the most specific to the least.

use std::collections::HashMap;

/// A hostname as a listener or route writes it, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// `api.example.com`
    Exact(Box<str>),
    /// `*.example.com`, kept as `example.com`; matches any number of labels before it, never the bare domain.
    Wildcard(Box<str>),
    Any,
}

impl HostPattern {
    /// Reads `api.example.com`, `*.example.com`, or nothing at all.
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            None | Some("") => HostPattern::Any,
            Some(text) => match text.strip_prefix("*.") {
                Some(suffix) => HostPattern::Wildcard(suffix.to_ascii_lowercase().into()),
                None => HostPattern::Exact(text.to_ascii_lowercase().into()),
            },
        }
    }
}

/// Values by host pattern.
#[derive(Debug)]
pub struct HostMap<T> {
    _exact: HashMap<Box<str>, T>,
    _wildcards: HashMap<Box<str>, T>,
    _any: Option<T>,
}
