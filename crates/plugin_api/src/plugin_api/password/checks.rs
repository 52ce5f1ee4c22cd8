//! The checks of passwords against slow hashes: on other threads than requests, and few at a time.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::hash::PasswordHash;
use crate::plugin_api::kind::BuildCx;
use crate::shared_limit::{Share, SharedLimit};

/// The checks of one plugin. Those of all plugins have one limit, of which each namespace has a share.
#[derive(Debug)]
pub struct PasswordChecks {
    limit: Arc<SharedLimit>,
    share: Arc<Share>,
}

/// So many passwords are being checked that this one was not checked in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksBusy;

/// The longest time that a check waits for others.
const MAX_WAIT: Duration = Duration::from_secs(5);

impl PasswordChecks {
    /// The checks of a plugin of this object.
    pub fn new(cx: &BuildCx<'_>) -> Self {
        // Half of the cores are left for requests.
        let limit = cx.state.get_or_create("password checks", || {
            SharedLimit::new((std::thread::available_parallelism().map_or(1, NonZero::get) / 2).max(1))
        });
        PasswordChecks { share: limit.share(cx.namespace().unwrap_or_default()), limit }
    }

    /// Whether this is the password of the hash. Waits for a thread, and for the hash.
    pub async fn verify(&self, hash: &Arc<PasswordHash>, password: &[u8]) -> Result<bool, ChecksBusy> {
        let permit = self.limit.take(&self.share, 1, Instant::now() + MAX_WAIT).await.map_err(|_| ChecksBusy)?;
        // Another request may have brought the same password meanwhile.
        if let Some(is_right) = hash.verify_fast(password) {
            return Ok(is_right);
        }
        let (hash, password) = (Arc::clone(hash), password.to_owned());
        let check = tokio::task::spawn_blocking(move || {
            let is_right = hash.verify(&password);
            // Also if the client is gone: the thread is in use until here.
            drop(permit);
            is_right
        });
        check.await.map_err(|_| ChecksBusy)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::plugin_api::kind::BuildNotes;
    use crate::plugin_api::services::{OfflineServices, PluginServices};
    use crate::plugin_api::state::PluginState;

    fn checks(object: &str, state: &PluginState) -> PasswordChecks {
        let (services, notes): (Arc<dyn PluginServices>, _) = (Arc::new(OfflineServices), BuildNotes::default());
        PasswordChecks::new(&BuildCx { object, state, services: &services, node: "", notes: &notes })
    }

    /// A hash that takes milliseconds.
    fn hash() -> Arc<PasswordHash> {
        let text = bcrypt::hash_with_salt("secret", 5, [1; 16]).unwrap().to_string();
        Arc::new(PasswordHash::parse(&text).unwrap())
    }

    #[tokio::test]
    async fn passwords_are_checked_at_the_same_time_within_the_limit() {
        let state = PluginState::default();
        let (first, second) = (checks("KongPlugin/a/b", &state), checks("KongPlugin/c/d", &state));
        let hashes: Vec<_> = (0..8).map(|_| hash()).collect();
        let right = hashes.iter().map(|hash| first.verify(hash, b"secret"));
        let wrong = hashes.iter().map(|hash| second.verify(hash, b"wrong"));
        let (right, wrong) = tokio::join!(join_all(right), join_all(wrong));
        assert_eq!((right, wrong), (vec![Ok(true); 8], vec![Ok(false); 8]));
        assert_eq!(first.limit.free(), first.limit.limit(), "nothing is held");
    }

    #[tokio::test]
    async fn a_check_does_not_wait_forever() {
        let limit = Arc::new(SharedLimit::new(1));
        let checks = PasswordChecks { share: limit.share("a"), limit: Arc::clone(&limit) };
        let held = limit.try_take(&limit.share("other"), 1).unwrap();
        tokio::time::pause();
        assert_eq!(checks.verify(&hash(), b"secret").await, Err(ChecksBusy));
        drop(held);
        assert_eq!(checks.verify(&hash(), b"secret").await, Ok(true));
    }
}
