//! The authorities of client certificates, each Secret parsed once: many Ingresses may name the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::api::core::Secret;
use crate::api::{Object, ObjectKey};
use crate::snapshot::location_steps::ClientAuthorities;
use crate::store::Store;

/// The authorities by Secret, or a clause that says what is wrong. Unchanged ones keep their `Arc`.
#[derive(Debug, Default)]
pub(super) struct AuthorityCache(Mutex<BTreeMap<ObjectKey, CachedAuthorities>>);

type CachedAuthorities = (Arc<Object<Secret>>, ParsedAuthorities);
type ParsedAuthorities = Result<Arc<ClientAuthorities>, String>;

impl AuthorityCache {
    /// The authorities in a Secret. `certificates`: those in it.
    pub(super) fn parse(&self, secret: &Arc<Object<Secret>>, certificates: &[u8]) -> ParsedAuthorities {
        let mut known = self.0.lock();
        if let Some((of, parsed)) = known.get_mut(&secret.meta.key)
            && (Arc::ptr_eq(of, secret) || of.body == secret.body)
        {
            *of = Arc::clone(secret);
            return parsed.clone();
        }
        let parsed = ClientAuthorities::parse(certificates, secret.value("ca.crl")).map(Arc::new);
        known.insert(secret.meta.key.clone(), (Arc::clone(secret), parsed.clone()));
        parsed
    }

    /// Removes what belongs to Secrets that no longer exist.
    pub(super) fn sweep(&self, store: &Store) {
        self.0.lock().retain(|key, _| store.secrets.contains_key(key));
    }
}
