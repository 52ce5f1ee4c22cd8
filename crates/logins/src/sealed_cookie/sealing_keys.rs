//! The keys that seal and open cookies.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::shared_keys::{SharedKey, SharedKeySet, SharedKeys};

/// Seals with one key and opens with that key or another one: keys can be replaced without ending sessions.
pub struct SealingKeys {
    purpose: Box<str>,
    source: KeySource,
}

enum KeySource {
    /// The keys of a plugin with a secret of its own.
    Own(DerivedKeys),
    /// The keys of all replicas, which may be replaced while the plugin exists.
    Shared { keys: Arc<SharedKeys>, derived: ArcSwap<DerivedShared> },
}

/// The keys for one purpose.
struct DerivedKeys {
    sealing: RandomizedNonceKey,
    opening: Option<RandomizedNonceKey>,
    /// One for each of both.
    naming: Vec<hmac::Key>,
}

/// Derived keys, and the keys that they were derived from.
struct DerivedShared {
    from: Arc<SharedKeySet>,
    keys: DerivedKeys,
}

/// A secret with fewer bytes may be guessed: a client can test guesses on its own cookie.
const RECOMMENDED_SECRET_BYTES: usize = 32;

impl SealingKeys {
    /// The keys of a plugin. `purpose` separates the keys of plugins with the same secret. Without a secret, the keys
    /// are those that all replicas share. Without a cluster, the key is then random, and lasts as long as plugins of
    /// the object exist in this process.
    pub fn from_config(
        secret: Option<&str>,
        former_secret: Option<&str>,
        fields: (&str, &str),
        purpose: &str,
        cx: &BuildCx<'_>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let (secret_field, former_field) = fields;
        let mut invalid = Vec::new();
        for (field, value) in [(secret_field, secret), (former_field, former_secret)] {
            if value == Some("") {
                invalid.push(Diagnostic::in_config(field, "is empty", "set it to a long random text, or remove it"));
            }
        }
        if secret.is_none() && former_secret.is_some() {
            let message = format!("has no effect without `{secret_field}`");
            invalid.push(Diagnostic::in_config(former_field, message, format!("set `{secret_field}` too")));
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let Some(secret) = secret else {
            if let Some(keys) = cx.services.shared_keys() {
                return Ok(SealingKeys::shared(keys, purpose, cx));
            }
            let message = "is not set, so the key is random: sessions end when Portico restarts, and other replicas do \
                           not accept them";
            cx.note(Diagnostic::in_config(secret_field, message, "set it to a long random text, from a Secret"));
            let name = format!("{} sealing secret {purpose}", cx.object);
            let secret = cx.state.get_or_create(&name, || random_text(32));
            return Ok(SealingKeys::derive(secret.as_bytes(), None, purpose));
        };
        if secret.len() < RECOMMENDED_SECRET_BYTES {
            let message = "is short, so clients may guess it and forge sessions";
            cx.note(Diagnostic::in_config(secret_field, message, "use at least 32 random characters"));
        }
        Ok(SealingKeys::derive(secret.as_bytes(), former_secret.map(str::as_bytes), purpose))
    }

    /// The keys for a purpose.
    pub(super) fn derive(secret: &[u8], former_secret: Option<&[u8]>, purpose: &str) -> Self {
        let keys = DerivedKeys::derive(secret, former_secret, purpose);
        SealingKeys { purpose: purpose.into(), source: KeySource::Own(keys) }
    }

    /// Keys derived from those of all replicas. They also depend on the object of the plugin, because without a secret
    /// of its own, a session for one object must not be one for another.
    fn shared(keys: Arc<SharedKeys>, purpose: &str, cx: &BuildCx<'_>) -> Self {
        let purpose: Box<str> = format!("{purpose} of {}", cx.object).into();
        let derived = ArcSwap::from_pointee(DerivedShared::new(Arc::clone(&keys.load()), &purpose));
        SealingKeys { purpose, source: KeySource::Shared { keys, derived } }
    }

    /// The keys of a test.
    #[cfg(test)]
    pub(crate) fn for_tests(secret: &str) -> Self {
        SealingKeys::derive(secret.as_bytes(), None, "test")
    }

    /// Encrypts and authenticates a text, together with the context, which [`SealingKeys::open`] must get again.
    pub(crate) fn seal(&self, context: &[u8], text: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(self.with(|keys| keys.seal(context, text)))
    }

    /// `None` if no key has sealed the text for this context.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        self.with(|keys| keys.open(context, &bytes))
    }

    /// Names for a label, one for each key. Without the key, the label can be neither computed nor guessed from them.
    pub fn names(&self, label: &str) -> Vec<String> {
        self.with(|keys| {
            let name = |key: &hmac::Key| URL_SAFE_NO_PAD.encode(hmac::sign(key, label.as_bytes()));
            keys.naming.iter().map(name).collect()
        })
    }

    fn with<T>(&self, action: impl FnOnce(&DerivedKeys) -> T) -> T {
        match &self.source {
            KeySource::Own(keys) => action(keys),
            KeySource::Shared { keys, derived } => {
                let current = keys.load();
                let known = derived.load();
                if Arc::ptr_eq(&known.from, &current) {
                    return action(&known.keys);
                }
                // Several requests may derive the same keys at the same time, which is rare and harmless.
                let new = Arc::new(DerivedShared::new(Arc::clone(&current), &self.purpose));
                derived.store(Arc::clone(&new));
                action(&new.keys)
            }
        }
    }
}

impl DerivedShared {
    fn new(from: Arc<SharedKeySet>, purpose: &str) -> Self {
        let opening = from.opening.as_ref().map(SharedKey::as_bytes);
        let keys = DerivedKeys::derive(from.sealing.as_bytes(), opening, purpose);
        DerivedShared { from, keys }
    }
}

impl DerivedKeys {
    fn derive(sealing: &[u8], opening: Option<&[u8]>, purpose: &str) -> Self {
        let key = |secret: &[u8]| {
            // One block of HMAC is a pseudorandom function of the purpose, and has the size of a key.
            let label = format!("portico sealed cookie 1 {purpose}");
            let bytes = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), label.as_bytes());
            RandomizedNonceKey::new(&AES_256_GCM_SIV, bytes.as_ref()).expect("a SHA-256 HMAC has 32 bytes")
        };
        let naming = |secret: &[u8]| {
            let label = format!("portico session name 1 {purpose}");
            let bytes = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), label.as_bytes());
            hmac::Key::new(hmac::HMAC_SHA256, bytes.as_ref())
        };
        let secrets = [Some(sealing), opening];
        let naming = secrets.into_iter().flatten().map(naming).collect();
        DerivedKeys { sealing: key(sealing), opening: opening.map(key), naming }
    }

    fn seal(&self, context: &[u8], text: &[u8]) -> Vec<u8> {
        let mut sealed = text.to_vec();
        let nonce = self
            .sealing
            .seal_in_place_append_tag(Aad::from(context), &mut sealed)
            .expect("a text of a few kilobytes is short enough to be sealed");
        let mut bytes = nonce.as_ref().to_vec();
        bytes.append(&mut sealed);
        bytes
    }

    fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, ciphertext) = sealed.split_at_checked(NONCE_LEN)?;
        [Some(&self.sealing), self.opening.as_ref()].into_iter().flatten().find_map(|key| {
            let mut text = ciphertext.to_vec();
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let length = key.open_in_place(nonce, Aad::from(context), &mut text).ok()?.len();
            text.truncate(length);
            Some(text)
        })
    }
}

impl fmt::Debug for SealingKeys {
    /// Omits the keys.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SealingKeys").finish_non_exhaustive()
    }
}

/// Random bytes as base64url text, for secrets and ids.
pub fn random_text(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    rand::fill(&mut random).expect("the system provides random bytes");
    URL_SAFE_NO_PAD.encode(random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_api::kind::BuildNotes;
    use crate::plugin_api::{PluginServices, PluginState};

    fn keys(secret: &str, former: Option<&str>) -> SealingKeys {
        SealingKeys::derive(secret.as_bytes(), former.map(str::as_bytes), "test")
    }

    #[test]
    fn texts_open_with_the_key_and_context_that_sealed_them() {
        let sealed = keys("new", None).seal(b"session", b"text");
        assert_eq!(keys("new", None).open(b"session", sealed.as_bytes()).as_deref(), Some(&b"text"[..]));
        assert_eq!(keys("next", Some("new")).open(b"session", sealed.as_bytes()).as_deref(), Some(&b"text"[..]));
        assert_eq!(keys("next", None).open(b"session", sealed.as_bytes()), None, "another key");
        assert_eq!(keys("new", None).open(b"login", sealed.as_bytes()), None, "another context");
        let other_purpose = SealingKeys::derive(b"new", None, "other");
        assert_eq!(other_purpose.open(b"session", sealed.as_bytes()), None, "another purpose");
        assert_ne!(sealed, keys("new", None).seal(b"session", b"text"), "nonces are random");
    }

    /// Replicas see a replacement of the keys at different times.
    #[test]
    fn shared_keys_are_replaced_while_they_are_used() {
        let shared = SharedKeys::random();
        let set = |sealing: &str, opening: Option<&str>| {
            let key = |text: &str| SharedKey::new(text.as_bytes());
            shared.replace(SharedKeySet { sealing: key(sealing), opening: opening.map(key) });
        };
        let keys = |object| {
            let (state, notes) = (PluginState::default(), BuildNotes::default());
            let services: Arc<dyn PluginServices> = Arc::new(ServicesWithKeys(Arc::clone(&shared)));
            let cx = BuildCx { object, state: &state, services: &services, node: "node", notes: &notes };
            let keys = SealingKeys::from_config(None, None, ("secret", "former_secret"), "test", &cx).unwrap();
            assert!(notes.into_vec().is_empty(), "the keys are not random");
            keys
        };
        set("a", None);
        let (plugin, same, other) = (keys("KongPlugin/n/a"), keys("KongPlugin/n/a"), keys("KongPlugin/n/b"));
        let sealed = plugin.seal(b"c", b"text");
        let opens = |keys: &SealingKeys, sealed: &str| keys.open(b"c", sealed.as_bytes()).is_some();
        assert!(opens(&same, &sealed), "another replica");
        assert!(!opens(&other, &sealed), "another object");
        set("b", Some("a"));
        assert!(opens(&plugin, &sealed) && opens(&keys("KongPlugin/n/a"), &sealed), "the former key still opens");
        let resealed = plugin.seal(b"c", b"text");
        set("b", None);
        assert!(!opens(&plugin, &sealed) && opens(&plugin, &resealed), "the former key is gone");
        set("x", Some("y"));
        assert!(!opens(&plugin, &resealed), "all sessions have ended");
    }

    struct ServicesWithKeys(Arc<SharedKeys>);

    impl PluginServices for ServicesWithKeys {
        fn spawn(&self, _task: futures_util::future::BoxFuture<'static, ()>) {}

        fn shared_keys(&self) -> Option<Arc<SharedKeys>> {
            Some(Arc::clone(&self.0))
        }
    }

    #[test]
    fn changed_texts_do_not_open() {
        let keys = keys("secret", None);
        let sealed = keys.seal(b"c", b"text");
        for index in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            assert_eq!(keys.open(b"c", &changed), None, "{index}");
            assert_eq!(keys.open(b"c", &sealed.as_bytes()[..index]), None, "{index} bytes");
        }
        assert_eq!(keys.open(b"c", b"!"), None);
    }
}
