//! What handshakes for a host may use of the versions of TLS and the cipher suites that the process permits.

use std::fmt;
use std::sync::OnceLock;

use rustls::SupportedCipherSuite;
use rustls::server::ServerConfig;

/// The limits of a host, with what the proxy builds from them.
#[derive(Debug, Default)]
pub struct HandshakeLimits {
    pub choice: SuiteChoice,
    /// The configurations of handshakes, which the proxy creates for the first ones: without and with a request for the
    /// certificate of the client.
    pub server_configs: [OnceLock<ServerConfig>; 2],
}

/// Versions of TLS and cipher suites.
#[derive(Clone, Debug, PartialEq)]
pub struct SuiteChoice {
    pub permits_tls12: bool,
    pub permits_tls13: bool,
    /// The suites of TLS 1.2, the preferred first; `None` for all.
    pub tls12: Option<Box<[SupportedCipherSuite]>>,
    /// Whether the order of the server precedes that of the client; `None` for what applies to other hosts.
    pub prefers_server: Option<bool>,
}

impl Default for SuiteChoice {
    fn default() -> Self {
        SuiteChoice { permits_tls12: true, permits_tls13: true, tls12: None, prefers_server: None }
    }
}

impl SuiteChoice {
    /// Those of the permitted suites that a handshake may use, the preferred first. There may be none.
    pub fn of_permitted(&self, permitted: &[SupportedCipherSuite]) -> Vec<SupportedCipherSuite> {
        let is_tls13 = |suite: &&SupportedCipherSuite| suite.tls13().is_some();
        let mut chosen: Vec<SupportedCipherSuite> = Vec::new();
        if self.permits_tls13 {
            chosen.extend(permitted.iter().filter(is_tls13));
        }
        match &self.tls12 {
            _ if !self.permits_tls12 => {}
            Some(listed) => chosen.extend(listed.iter().filter(|suite| permitted.contains(suite))),
            None => chosen.extend(permitted.iter().filter(|suite| !is_tls13(suite))),
        }
        chosen
    }
}

/// `TLS 1.2 (TLS_ECDHE_…), TLS 1.3, in the order of the server`
impl fmt::Display for SuiteChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |suites: &[SupportedCipherSuite]| {
            let names: Vec<&str> = suites.iter().filter_map(|suite| suite.suite().as_str()).collect();
            format!(" ({})", names.join(" "))
        };
        let suites = self.tls12.as_deref().map(names).unwrap_or_default();
        let tls12 = self.permits_tls12.then(|| format!("TLS 1.2{suites}"));
        let tls13 = self.permits_tls13.then(|| "TLS 1.3".to_owned());
        let order = self.prefers_server.map(|is_server| {
            let side = if is_server { "server" } else { "client" };
            format!("in the order of the {side}")
        });
        let parts: Vec<String> = [tls12, tls13, order].into_iter().flatten().collect();
        formatter.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::cipher_suite::{
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 as ECDSA, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 as RSA,
        TLS13_AES_128_GCM_SHA256 as NEW, TLS13_AES_256_GCM_SHA384 as OTHER_NEW,
    };

    use super::*;

    #[test]
    fn a_host_only_narrows_what_is_permitted() {
        let all = SuiteChoice::default();
        let tls12 = |suites: &[SupportedCipherSuite]| SuiteChoice { tls12: Some(suites.into()), ..all.clone() };
        let only_tls12 = SuiteChoice { permits_tls13: false, ..all.clone() };
        let only_tls13 = SuiteChoice { permits_tls12: false, ..tls12(&[RSA]) };
        for (choice, permitted, expected) in [
            (&all, &[RSA, NEW, ECDSA][..], &[NEW, RSA, ECDSA][..]),
            (&tls12(&[ECDSA, RSA]), &[RSA, ECDSA, NEW], &[NEW, ECDSA, RSA]),
            (&tls12(&[ECDSA, RSA]), &[RSA, OTHER_NEW], &[OTHER_NEW, RSA]),
            (&tls12(&[ECDSA]), &[RSA, NEW], &[NEW]),
            (&tls12(&[]), &[RSA, NEW], &[NEW]),
            (&only_tls12, &[RSA, NEW], &[RSA]),
            (&only_tls12, &[NEW], &[]),
            (&only_tls13, &[RSA, NEW], &[NEW]),
        ] {
            assert_eq!(choice.of_permitted(permitted), expected, "{choice:?} {permitted:?}");
        }
        assert_eq!(only_tls13.to_string(), "TLS 1.3");
        let ordered = SuiteChoice { prefers_server: Some(true), ..tls12(&[RSA]) };
        let text = "TLS 1.2 (TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256), TLS 1.3, in the order of the server";
        assert_eq!(ordered.to_string(), text);
    }
}
