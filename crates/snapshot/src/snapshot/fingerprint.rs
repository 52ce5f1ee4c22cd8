//! Snapshot fingerprints: replicas that serve the same configuration have the same fingerprint.
//!
//! The fingerprint covers everything that affects a request: listeners, routes, rules, plugin configuration, consumers,
//! certificates, and TLS settings of Services. Endpoints are not part of a snapshot, and generated certificates are
//! left out because they differ per process.
//!
//! Metrics expose the fingerprint, so it must not allow guessing secrets by comparison: the content of a Secret is
//! represented by its resourceVersion. Certificates are included themselves, since they are public and have a random
//! key. Secrets in files have no version, so apart from certificates their content is not covered.

use std::fmt;
use std::io;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER;

use super::Snapshot;
use super::certs::Certificate;
use super::dump::SnapshotDump;
use super::port_tls::PortTls;
use crate::plugin_chain::Chain;

/// Half of a SHA-256 digest, which suffices for comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The first 48 bits as a number, which a `double` (as in Prometheus) holds exactly.
    pub fn as_metric_value(self) -> u64 {
        self.0[..6].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(formatter)
    }
}

impl Snapshot {
    /// Computes the fingerprint. This takes about as long as a dump, so it is done on demand and not for every change.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hasher = FingerprintHasher(Context::new(&SHA256));
        // Each section has a label, so that the bytes of one section cannot be mistaken for those of another.
        hasher.add_section("routes");
        // The fingerprint of the consumers covers their plugins.
        let mut dump = SnapshotDump { binds: self.dump_binds(), consumer_plugins: Vec::new() };
        for listener in dump.binds.iter_mut().flat_map(|bind| &mut bind.listeners) {
            // The dump lists generated certificates too; the certificates from Secrets are hashed below.
            listener.certificates = listener.certificates.as_ref().map(|_| Vec::new());
        }
        serde_json::to_writer(&mut hasher, &dump)
            .expect("a dump contains only strings and numbers, and hashing cannot fail");
        hasher.add_section("plugins");
        self.chains().for_each(|chain| hasher.add_configurations(chain));
        hasher.add_section("certificates");
        for (host, certificates) in
            self.http_binds().filter_map(|bind| bind.tls.as_ref()).flat_map(PortTls::certificates)
        {
            hasher.add_section(&host.to_string());
            let from_secrets = certificates.all().iter().filter(|certificate| !certificate.is_self_generated());
            from_secrets.for_each(|certificate| hasher.add_certificate(certificate));
            let authorities = certificates.client_validation().into_iter().flat_map(|clients| clients.authorities());
            authorities.for_each(|authority| hasher.add_field(authority));
        }
        hasher.add_section("consumers");
        hasher.add_field(&self.consumers.fingerprint.to_be_bytes());
        let digest = hasher.0.finish();
        let mut half = [0; 16];
        half.copy_from_slice(&digest.as_ref()[..16]);
        Fingerprint(half)
    }

    /// The plugin chains of all rules that have one, in the order of the dump, and that of requests without a rule.
    fn chains(&self) -> impl Iterator<Item = &Arc<Chain>> {
        let listeners = self.http_binds().flat_map(|bind| bind.listeners.sorted()).map(|(_, listener)| listener);
        listeners
            .flat_map(|listener| listener.routes.rules())
            .filter_map(|rule| rule.plugins.as_ref())
            .chain(&self.unmatched_plugins)
    }
}

struct FingerprintHasher(Context);

impl FingerprintHasher {
    fn add_section(&mut self, name: &str) {
        self.add_field(name.as_bytes());
    }

    /// Hashes the bytes after their length, so that field boundaries are unambiguous.
    fn add_field(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn add_configurations(&mut self, chain: &Chain) {
        for digest in chain.configuration_hashes() {
            self.add_field(&digest.to_be_bytes());
        }
        self.add_section("end of chain");
    }

    fn add_certificate(&mut self, certificate: &Certificate) {
        self.add_field(certificate.secret.as_bytes());
        for der in &certificate.key.cert {
            self.add_field(der);
        }
    }
}

impl io::Write for FingerprintHasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
