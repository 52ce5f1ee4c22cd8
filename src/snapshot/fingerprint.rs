//! What tells two snapshots apart: replicas that serve the same have the same fingerprint, whichever process made it.
//!
//! It covers what decides about a request: listeners, routes, what rules do, how their plugins are configured, who the consumers
//! are, which certificates are shown, and on which terms TLS is spoken to Services. Endpoints are no part of a snapshot, and a
//! certificate that the process made for itself is nobody's configuration.
//!
//! Everybody who sees metrics sees it, so nothing that it covers can be guessed to be compared with it. For what a Secret holds
//! stands which version of it the API server gave out. Certificates are in it themselves: they are shown to everybody, and have a
//! random key. In files Secrets have no version, so but for certificates what they hold is not covered.

use std::fmt;
use std::io;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};

use super::certs::Certificate;
use super::{Routes, Snapshot};
use crate::plugin::Chain;

/// Half of a SHA-256, which is enough to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// As a number that a `double` holds exactly, as those of Prometheus are: its first 48 bits.
    pub fn number(self) -> u64 {
        self.0[..6].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl Snapshot {
    /// Takes about as long as a dump, so it is for whoever asks and not for every change.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut print = Print(Context::new(&SHA256));
        // A name for each of its parts, so that none is mistaken for another.
        print.part("routes");
        let mut dump = self.dump();
        for listener in dump.binds.iter_mut().flat_map(|bind| &mut bind.listeners) {
            // With what a process made for itself among them; they follow below.
            listener.certificates = listener.certificates.as_ref().map(|_| Vec::new());
        }
        serde_json::to_writer(&mut print, &dump).expect("a digest takes everything, and a dump is strings and numbers");
        print.part("plugins");
        self.chains().for_each(|chain| print.configurations(chain));
        print.part("certificates");
        for (host, certificates) in
            self.binds.values().filter_map(|bind| bind.tls.as_ref()).flat_map(|tls| tls.listeners.iter())
        {
            print.part(&host.to_string());
            let shown = certificates.all().iter().filter(|certificate| !certificate.is_made_here());
            shown.for_each(|certificate| print.certificate(certificate));
        }
        print.part("consumers");
        print.field(&self.consumers.told_apart.to_be_bytes());
        let digest = print.0.finish();
        let mut half = [0; 16];
        half.copy_from_slice(&digest.as_ref()[..16]);
        Fingerprint(half)
    }

    /// Those of each rule, in the order of the dump.
    fn chains(&self) -> impl Iterator<Item = &Arc<Chain>> {
        let listeners = self.binds.values().flat_map(|bind| bind.listeners.iter().map(|(_, listener)| listener));
        let rules = listeners.flat_map(|listener| -> Box<dyn Iterator<Item = _>> {
            match &listener.routes {
                Routes::Gateway(hosts) => {
                    Box::new(hosts.iter().flat_map(|(_, router)| router.entries()).map(|candidate| &candidate.rule))
                }
                Routes::Kong(router) => Box::new(router.entries().iter().map(|entry| &entry.route.rule)),
            }
        });
        rules.filter_map(|rule| rule.plugins.as_ref())
    }
}

struct Print(Context);

impl Print {
    fn part(&mut self, name: &str) {
        self.field(name.as_bytes());
    }

    /// With its length, so that two fields cannot pass for one.
    fn field(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn configurations(&mut self, chain: &Chain) {
        for digest in chain.configurations() {
            self.field(&digest.to_be_bytes());
        }
        self.part("end of chain");
    }

    fn certificate(&mut self, certificate: &Certificate) {
        self.field(certificate.secret.as_bytes());
        for link in &certificate.key.cert {
            self.field(link);
        }
    }
}

impl io::Write for Print {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
