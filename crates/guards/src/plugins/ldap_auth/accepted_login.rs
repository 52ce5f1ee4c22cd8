//! A login that a directory has accepted, as the cache keeps it, without its password.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::{hmac, rand};

use crate::plugin_api::VerifiedSubject;
use crate::plugin_api::consumers::Sha256Digest;

/// A login that the directory has accepted.
#[derive(Debug)]
pub(super) struct AcceptedLogin {
    /// `None` if it is not known which entry the spelling of the username stands for.
    pub(super) subject: Option<VerifiedSubject>,
    /// As the entry has it.
    pub(super) username: String,
    pub(super) groups: Vec<Arc<str>>,
}

/// Keys are made with a secret of the process, so that passwords cannot be guessed from them elsewhere.
static SECRET: LazyLock<hmac::Key> = LazyLock::new(|| {
    hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new()).expect("the system has random bytes")
});

/// The key of a login in the cache. `plugin` distinguishes the configurations of plugins.
pub(super) fn login_key(plugin: &Sha256Digest, username: &str, password: &[u8]) -> Sha256Digest {
    let mut context = hmac::Context::with_key(&SECRET);
    let length = username.len().to_be_bytes();
    [&plugin[..], &length, username.as_bytes(), password].into_iter().for_each(|part| context.update(part));
    let mut key = Sha256Digest::default();
    key.copy_from_slice(context.sign().as_ref());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_each_part() {
        let keys = [
            login_key(&[0; 32], "ab", b"c"),
            login_key(&[0; 32], "a", b"bc"),
            login_key(&[1; 32], "ab", b"c"),
            login_key(&[0; 32], "ab", b"d"),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{index}");
        }
        assert!(keys[0] == login_key(&[0; 32], "ab", b"c"));
    }
}
