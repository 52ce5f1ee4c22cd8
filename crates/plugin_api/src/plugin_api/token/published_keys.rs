//! The public keys of tokens that plugins sign, which the process publishes as JSON Web Key Sets.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::signing_key::SigningKey;
use crate::plugin_api::PluginState;

/// The keys of all plugins of the process. A key is published as long as a plugin holds its [`PublishedSigningKey`].
#[derive(Debug, Default)]
pub struct SigningKeys(Mutex<Vec<Weak<PublishedSigningKey>>>);

/// A key that is published.
#[derive(Debug)]
pub struct PublishedSigningKey {
    /// The namespace of the plugin; empty if it has none.
    namespace: Box<str>,
    pub key: SigningKey,
    /// The state of plugins lives as long as a plugin holds it.
    _keys: Arc<SigningKeys>,
}

impl SigningKeys {
    /// The keys of the process.
    pub fn of_process(state: &PluginState) -> Arc<Self> {
        state.get_or_create(NAME, SigningKeys::default)
    }

    /// Publishes a key of a plugin in this namespace.
    pub fn publish(self: &Arc<Self>, namespace: Option<&str>, key: SigningKey) -> Arc<PublishedSigningKey> {
        let namespace = namespace.unwrap_or_default().into();
        let published = Arc::new(PublishedSigningKey { namespace, key, _keys: Arc::clone(self) });
        let mut keys = self.0.lock();
        keys.retain(|key| key.strong_count() > 0);
        keys.push(Arc::downgrade(&published));
        published
    }

    /// The key set, in the order of the ids. With a namespace, only keys of its plugins: verifiers must not trust keys
    /// of namespaces with other owners, which could sign tokens of the same issuer.
    pub fn key_set(&self, namespace: Option<&str>) -> Value {
        let keys: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        let wanted = keys.iter().filter(|key| namespace.is_none_or(|namespace| *key.namespace == *namespace));
        let mut keys: Vec<&SigningKey> = wanted.map(|published| &published.key).collect();
        keys.sort_by(|a, b| a.id().cmp(b.id()));
        // A plugin that is rebuilt has its keys twice for a moment.
        keys.dedup_by(|a, b| a.id() == b.id() && a.algorithm() == b.algorithm());
        json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()})
    }
}

/// The key set of the process as text. Without keys, if no plugin signs tokens.
pub fn key_set_of_process(state: &PluginState, namespace: Option<&str>) -> String {
    state.get::<SigningKeys>(NAME).map_or_else(|| json!({"keys": []}), |keys| keys.key_set(namespace)).to_string()
}

const NAME: &str = "signing keys";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_api::token::signature::Algorithm;
    use crate::plugin_api::token::signature::signing::Signer;

    #[test]
    fn keys_are_published_while_a_plugin_holds_them() {
        let state = PluginState::default();
        assert_eq!(key_set_of_process(&state, None), r#"{"keys":[]}"#);
        let pem = [(); 2].map(|()| Signer::for_algorithm(Algorithm::Es256).private_pem());
        let key = |index: usize| SigningKey::from_pem(pem[index].as_bytes(), None).unwrap();
        let keys = SigningKeys::of_process(&state);
        let first = keys.publish(Some("a"), key(0));
        let again = keys.publish(Some("a"), key(0));
        let other = keys.publish(None, key(1));
        let ids = |namespace| {
            let set: Value = serde_json::from_str(&key_set_of_process(&state, namespace)).unwrap();
            set["keys"]
                .as_array()
                .unwrap()
                .iter()
                .map(|key| key["kid"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let mut both = vec![first.key.id().to_owned(), other.key.id().to_owned()];
        both.sort();
        assert_eq!(ids(None), both);
        assert_eq!(ids(Some("a")), [first.key.id()]);
        assert_eq!(ids(Some("b")), [""; 0]);
        assert_eq!(ids(Some("")), [other.key.id()]);
        drop(first);
        assert_eq!(ids(Some("a")), [again.key.id()]);
        drop(again);
        assert_eq!(ids(Some("a")), [""; 0]);
    }
}
