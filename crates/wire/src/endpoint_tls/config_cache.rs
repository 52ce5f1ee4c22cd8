//! Cache of TLS configurations: a thousand Services that trust the same authority share one configuration.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustls::SupportedCipherSuite;
use rustls::sign::CertifiedKey;

use super::{
    EndpointSessions, EndpointTlsConfig, TlsDigest, TlsTrust, UpstreamProtocol, UpstreamTlsSettings, build_config,
    settings_digest,
};

/// The built configurations, for as long as an upstream uses them, and the TLS sessions of all.
#[derive(Debug, Default)]
pub struct TlsConfigCache {
    configs: Mutex<HashMap<TlsDigest, Weak<EndpointTlsConfig>>>,
    sessions: EndpointSessions,
}

impl TlsConfigCache {
    /// Like [`UpstreamTlsSettings::new`], but reuses an existing configuration. `suites`: those that handshakes offer,
    /// and with them the versions of TLS; `None` for all.
    ///
    /// # Errors
    ///
    /// If the list of suites is empty.
    pub fn settings(
        &self,
        protocol: Option<UpstreamProtocol>,
        trust: Option<TlsTrust>,
        client: Option<Arc<CertifiedKey>>,
        suites: Option<&[SupportedCipherSuite]>,
    ) -> Result<UpstreamTlsSettings, rustls::Error> {
        let digest = settings_digest(protocol, trust.as_ref(), client.as_deref(), suites);
        let has_client_certificate = client.is_some();
        let identity = trust.as_ref().and_then(|trust| trust.identity.as_ref());
        let server_name = identity.map(|identity| identity.server_name.clone());
        let mut configs = self.configs.lock();
        let config = match configs.get(&digest).and_then(Weak::upgrade) {
            Some(known) => known,
            None => {
                let created = Arc::new(build_config(protocol, trust, client, suites)?);
                configs.insert(digest, Arc::downgrade(&created));
                created
            }
        };
        let sessions = self.sessions.clone();
        Ok(UpstreamTlsSettings { digest, has_client_certificate, server_name, config, sessions })
    }

    /// Drops unused configurations.
    pub fn sweep(&self) {
        self.configs.lock().retain(|_, config| config.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use rustls::crypto::aws_lc_rs::cipher_suite::{TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS13_AES_128_GCM_SHA256};
    use rustls::pki_types::CertificateDer;

    use super::super::{EndpointIdentity, IdentityName, TrustAnchors};
    use super::*;

    fn authority() -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn equal_tls_settings_share_one_config() {
        let (first_authority, second_authority) = (authority(), authority());
        let cache = TlsConfigCache::default();
        // Each Service reads its own Secret.
        let trust = |authorities: &[&CertificateDer<'static>], max_intermediates| {
            let anchors = TrustAnchors::new(authorities.iter().map(|authority| (*authority).clone()));
            Some(TlsTrust { anchors: Arc::new(anchors), max_intermediates, identity: None })
        };
        let settings = |trust| cache.settings(Some(UpstreamProtocol::Http1), trust, None, None).unwrap();
        let first = settings(trust(&[&first_authority], None));
        for _ in 0..1000 {
            let another = settings(trust(&[&first_authority], None));
            assert!(first == another && Arc::ptr_eq(&first.config, &another.config));
        }
        assert!(Arc::ptr_eq(first.config.client.crypto_provider(), settings(None).config.client.crypto_provider()));
        let with_identity = |server_name: &'static str, alternatives: &[&'static str]| {
            let alternatives = alternatives.iter().map(|name| IdentityName::Uri((*name).into())).collect();
            let server_name = HeaderValue::from_static(server_name);
            let identity = Some(EndpointIdentity { server_name, alternatives });
            trust(&[&first_authority], None).map(|trust| TlsTrust { identity, ..trust })
        };
        let with_suites = |suites: &[SupportedCipherSuite]| {
            let trust = trust(&[&first_authority], None);
            cache.settings(Some(UpstreamProtocol::Http1), trust, None, Some(suites)).unwrap()
        };
        let others = [
            settings(trust(&[&second_authority], None)),
            settings(trust(&[&first_authority, &second_authority], None)),
            settings(trust(&[&first_authority], Some(1))),
            settings(None),
            cache.settings(Some(UpstreamProtocol::Http2), trust(&[&first_authority], None), None, None).unwrap(),
            cache.settings(None, trust(&[&first_authority], None), None, None).unwrap(),
            with_suites(&[TLS13_AES_128_GCM_SHA256]),
            with_suites(&[TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]),
            with_suites(&[TLS13_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]),
            settings(with_identity("a.example", &[])),
            settings(with_identity("b.example", &[])),
            settings(with_identity("a.example", &["b.example"])),
        ];
        for other in &others {
            assert!(first != *other && !Arc::ptr_eq(&first.config, &other.config));
        }
        cache.sweep();
        assert_eq!(cache.configs.lock().len(), 13);
        drop((first, others));
        cache.sweep();
        assert!(cache.configs.lock().is_empty(), "unused configurations are dropped");
    }
    #[test]
    fn a_list_of_suites_must_have_one() {
        let cache = TlsConfigCache::default();
        assert!(cache.settings(Some(UpstreamProtocol::Http1), None, None, Some(&[])).is_err());
        for suite in [TLS13_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256] {
            let settings = cache.settings(Some(UpstreamProtocol::Http1), None, None, Some(&[suite])).unwrap();
            assert_eq!(settings.config.client.crypto_provider().cipher_suites, [suite]);
        }
    }
}
