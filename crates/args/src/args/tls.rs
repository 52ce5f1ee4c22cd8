//! Flags for TLS with clients: minimum version, cipher suites and handshake timeout.

use clap::{Args, ValueEnum};
use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;

use super::UsageError;
use crate::limits::ProxyLimits;
use crate::quantity::NonZeroTimeout;

#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(super) struct TlsArgs {
    /// Minimum TLS version for clients
    #[arg(long, value_enum, default_value_t = TlsVersionArg::V1_2, value_name = "VERSION")]
    #[arg(env = "PORTICO_TLS_MIN_VERSION")]
    tls_min_version: TlsVersionArg,

    /// Cipher suites for clients, preferred first (repeatable); default: all secure suites
    #[arg(long, value_name = "NAME", value_delimiter = ',', env = "PORTICO_TLS_CIPHERS", value_parser = parse_cipher_suite)]
    tls_ciphers: Vec<SupportedCipherSuite>,

    /// Timeout of a TLS handshake
    #[arg(long, value_name = "DURATION", env = "PORTICO_TLS_HANDSHAKE_TIMEOUT")]
    #[arg(default_value_t = NonZeroTimeout(ProxyLimits::DEFAULT.handshake_timeout))]
    pub(super) tls_handshake_timeout: NonZeroTimeout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TlsVersionArg {
    #[value(name = "1.2")]
    V1_2,
    #[value(name = "1.3")]
    V1_3,
}

/// TLS with clients, resolved.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    pub min_version: TlsVersionArg,
    /// Empty for all suites; otherwise with at least one suite of an allowed version.
    pub ciphers: Vec<SupportedCipherSuite>,
}

impl TlsArgs {
    pub(super) fn resolve(self) -> Result<TlsOptions, UsageError> {
        let TlsArgs { tls_min_version, tls_ciphers, .. } = self;
        let is_usable =
            |suite: &SupportedCipherSuite| tls_min_version == TlsVersionArg::V1_2 || suite.tls13().is_some();
        if !tls_ciphers.is_empty() && !tls_ciphers.iter().any(is_usable) {
            return Err(UsageError::NoCipherForVersion);
        }
        Ok(TlsOptions { min_version: tls_min_version, ciphers: tls_ciphers })
    }
}

fn parse_cipher_suite(text: &str) -> Result<SupportedCipherSuite, String> {
    ALL_CIPHER_SUITES.iter().find(|suite| iana_name(suite).eq_ignore_ascii_case(text)).copied().ok_or_else(|| {
        let names: Vec<_> = ALL_CIPHER_SUITES.iter().map(iana_name).collect();
        format!("not a supported cipher suite; choose from {}", names.join(", "))
    })
}

/// The IANA name; rustls names the suites of TLS 1.3 differently (`TLS13_…`).
fn iana_name(suite: &SupportedCipherSuite) -> String {
    let name = suite.suite().as_str().unwrap_or_default();
    name.strip_prefix("TLS13_").map_or(name.to_owned(), |rest| format!("TLS_{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ciphers_have_iana_names() {
        for known in ["TLS_AES_128_GCM_SHA256", "tls_ecdhe_rsa_with_aes_256_gcm_sha384"] {
            assert!(iana_name(&parse_cipher_suite(known).unwrap()).eq_ignore_ascii_case(known));
        }
        for unknown in ["", "TLS_RSA_WITH_3DES_EDE_CBC_SHA", "AES"] {
            let error = parse_cipher_suite(unknown).unwrap_err();
            assert!(error.contains("TLS_CHACHA20_POLY1305_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"), "{error}");
        }
    }
}
