//! Terms that say the same, built once: a thousand Services that trust the same authority have one config between them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::sign::CertifiedKey;

use super::{Digest, Protocol, Terms, Trust, config, digest};

/// What was built, for as long as an upstream uses it.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Shared {
    configs: Mutex<HashMap<Digest, Weak<ClientConfig>>>,
}

impl Shared {
    /// As [`Terms::new`], but what is there already is not built again.
    pub(in crate::upstream) fn terms(
        &self,
        protocol: Protocol,
        trust: Option<Trust>,
        client: Option<Arc<CertifiedKey>>,
    ) -> Result<Terms, rustls::Error> {
        let digest = digest(protocol, trust.as_ref(), client.as_deref());
        let (verifies, presents) = (trust.is_some(), client.is_some());
        let mut configs = self.configs.lock();
        let config = match configs.get(&digest).and_then(Weak::upgrade) {
            Some(known) => known,
            None => {
                let made = Arc::new(config(protocol, trust, client)?);
                configs.insert(digest, Arc::downgrade(&made));
                made
            }
        };
        Ok(Terms { digest, verifies, presents, config })
    }

    /// Forgets what nobody uses any more.
    pub(in crate::upstream) fn sweep(&self) {
        self.configs.lock().retain(|_, config| config.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use rustls::pki_types::CertificateDer;

    use super::super::Anchors;
    use super::*;

    fn authority() -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_thousand_services_with_the_same_terms_have_one_config() {
        let (one, other) = (authority(), authority());
        let shared = Shared::default();
        // Each reads its Secret for itself.
        let trust = |authorities: &[&CertificateDer<'static>], depth| {
            let anchors = Anchors::new(authorities.iter().map(|authority| (*authority).clone()));
            Some(Trust { anchors: Arc::new(anchors), depth })
        };
        let terms = |trust| shared.terms(Protocol::Http1, trust, None).unwrap();
        let first = terms(trust(&[&one], None));
        for _ in 0..1000 {
            let another = terms(trust(&[&one], None));
            assert!(first == another && Arc::ptr_eq(&first.config, &another.config));
        }
        assert!(Arc::ptr_eq(first.config.crypto_provider(), terms(None).config.crypto_provider()));
        let others = [
            terms(trust(&[&other], None)),
            terms(trust(&[&one, &other], None)),
            terms(trust(&[&one], Some(1))),
            terms(None),
            shared.terms(Protocol::Http2, trust(&[&one], None), None).unwrap(),
        ];
        for other in &others {
            assert!(first != *other && !Arc::ptr_eq(&first.config, &other.config));
        }
        shared.sweep();
        assert_eq!(shared.configs.lock().len(), 6);
        drop((first, others));
        shared.sweep();
        assert!(shared.configs.lock().is_empty(), "what nobody uses is forgotten");
    }
}
