//! Certificates of the listeners of one port, and which of them a client is shown.
//!
//! ```text
//!   server name of the client ─▶ listener, the most specific ─▶ its certificates: exact name, wildcard, the first
//! ```

use std::fmt;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

use super::host::{HostMap, HostPattern};

/// A certificate with its key, as a Secret holds it.
pub struct Certificate {
    /// `namespace/name` of the Secret, or `MADE_HERE`.
    pub secret: Arc<str>,
    pub key: Arc<CertifiedKey>,
    /// The DNS names it is issued for, in lower case.
    pub names: Box<[HostPattern]>,
    /// When the first of the chain ends to be valid, in seconds since 1970.
    pub expires: i64,
    /// How many seconds that one is valid in all.
    pub lifetime: i64,
}

/// In place of the Secret of a certificate that the process made for itself.
pub const MADE_HERE: &str = "made at the start";

impl Certificate {
    /// Whether no Secret holds it, so that every process has another one.
    pub fn is_made_here(&self) -> bool {
        &*self.secret == MADE_HERE
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Certificate").field("secret", &self.secret).field("names", &self.names).finish()
    }
}

/// The certificates of one listener. Without any, its clients are refused.
#[derive(Debug, Default)]
pub struct Certificates {
    all: Box<[Arc<Certificate>]>,
    named: HostMap<Named>,
}

/// The certificates that are issued for one name.
#[derive(Debug)]
struct Named {
    pattern: HostPattern,
    certificates: Vec<Arc<Certificate>>,
}

impl Certificates {
    /// In the order of the listener's references, which decides between those that fit equally well.
    pub fn new(all: Vec<Arc<Certificate>>) -> Self {
        let mut names: std::collections::BTreeMap<&HostPattern, Vec<Arc<Certificate>>> = Default::default();
        for certificate in &all {
            for name in &certificate.names {
                names.entry(name).or_default().push(Arc::clone(certificate));
            }
        }
        let named = names.into_iter().map(|(pattern, certificates)| {
            let named = Named { pattern: pattern.clone(), certificates };
            (pattern.clone(), named)
        });
        let named = named.collect();
        Certificates { all: all.into(), named }
    }

    /// The best fit for a server name first: issued for exactly this name, for the wildcard above it, then all as they
    /// are listed. Whoever asks takes the first with a key that the client can check.
    pub fn by_fit(&self, name: Option<&str>) -> impl Iterator<Item = &Arc<Certificate>> {
        let named = name.into_iter().flat_map(|name| {
            let fits = move |named: &&Named| covers(&named.pattern, name);
            self.named.candidates(name).filter(fits).flat_map(|named| &named.certificates)
        });
        named.chain(&self.all)
    }

    pub fn all(&self) -> &[Arc<Certificate>] {
        &self.all
    }
}

/// Equal if clients see the same: the very same certificates in the same order.
impl PartialEq for Certificates {
    fn eq(&self, other: &Self) -> bool {
        self.all.len() == other.all.len() && self.all.iter().zip(&other.all).all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

/// Whether a certificate's name is good for a host. Its wildcard stands for one label (RFC 9525, section 6.3), while that
/// of a listener stands for any number.
pub fn covers(name: &HostPattern, host: &str) -> bool {
    match name {
        HostPattern::Exact(name) => **name == *host,
        HostPattern::Wildcard(suffix) => host.split_once('.').is_some_and(|(_, parent)| *parent == **suffix),
        HostPattern::Any => false,
    }
}

/// What a port needs to serve TLS: certificates by the hostname of their listener.
#[derive(Debug, Default)]
pub struct Tls {
    pub listeners: HostMap<Arc<Certificates>>,
}

/// What a client without a server name, or with this one, is served by.
///
/// The most specific listener for the name. A client that sends none gets the listener without a hostname and, if there
/// is no such, the only listener of the port; which of several it means cannot be known.
pub(super) fn greeted<'m, T>(listeners: &'m HostMap<T>, name: Option<&str>) -> Option<&'m T> {
    let only = || listeners.iter().next().filter(|_| listeners.len() == 1).map(|(_, listener)| listener);
    match name {
        Some(name) => listeners.most_specific(name),
        None => listeners.most_specific("").or_else(only),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A certificate for these names; `secret` tells it from others.
    pub(crate) fn certificate(secret: &str, names: &[&str]) -> Arc<Certificate> {
        let made = rcgen::generate_simple_self_signed(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let made = made.unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        Arc::new(Certificate {
            secret: secret.into(),
            key: Arc::new(CertifiedKey::new(vec![made.cert.der().clone()], key)),
            names: names.iter().map(|name| HostPattern::parse(Some(name))).collect(),
            expires: 0,
            lifetime: 0,
        })
    }

    #[test]
    fn the_best_fit_comes_first() {
        let certificates = Certificates::new(vec![
            certificate("wild", &["*.example.com"]),
            certificate("deep", &["*.b.example.com", "c.example.org"]),
            certificate("exact", &["a.example.com", "c.example.org"]),
        ]);
        for (name, expected) in [
            (Some("a.example.com"), "exact"),
            (Some("x.example.com"), "wild"),
            (Some("x.b.example.com"), "deep"),
            (Some("c.example.org"), "deep"),
            // A certificate's wildcard is one label, so none fits and the first stands in.
            (Some("x.y.example.com"), "wild"),
            (Some("example.com"), "wild"),
            (Some("elsewhere"), "wild"),
            (None, "wild"),
        ] {
            let found = certificates.by_fit(name).next().map(|certificate| &*certificate.secret);
            assert_eq!(found, Some(expected), "{name:?}");
        }
        assert!(Certificates::default().by_fit(Some("a.example.com")).next().is_none());
    }

    #[test]
    fn a_server_name_finds_its_listener() {
        let map = |patterns: &[&'static str]| -> HostMap<&'static str> {
            let text = |text: &'static str| Some(text).filter(|text| *text != "*");
            patterns.iter().map(|pattern| (HostPattern::parse(text(pattern)), *pattern)).collect()
        };
        let all = map(&["*", "*.example.com", "a.example.com"]);
        let without_any = map(&["*.example.com", "a.example.com"]);
        let only = map(&["a.example.com"]);
        for (listeners, name, expected) in [
            (&all, Some("a.example.com"), Some("a.example.com")),
            (&all, Some("x.y.example.com"), Some("*.example.com")),
            (&all, Some("example.com"), Some("*")),
            (&all, None, Some("*")),
            (&without_any, Some("b.example.org"), None),
            (&without_any, None, None),
            (&only, None, Some("a.example.com")),
            (&only, Some("b.example.com"), None),
            (&map(&[]), None, None),
        ] {
            assert_eq!(greeted(listeners, name).copied(), expected, "{name:?} among {listeners:?}");
        }
    }
}
