//! Tokens of logins at servers of vaults. A server that does not respond delays no other one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::secret_reading::ReadError;

/// What a server has issued.
pub(super) struct LoginToken {
    /// The value of a header.
    pub(super) value: HeaderValue,
    /// `None` for a token without end.
    pub(super) renew_at: Option<Instant>,
}

/// The last login of each server or account. Its lock is held during a login, so that several reads log in once.
pub(super) struct Logins<K>(parking_lot::Mutex<BTreeMap<K, Arc<Mutex<LastLogin>>>>);

enum LastLogin {
    None,
    Token(LoginToken),
    /// Until this instant, reads fail for the same reason. Otherwise each of them would wait for a server that is away.
    Failed(Instant, ReadError),
}

impl<K: Ord + Clone> Logins<K> {
    pub(super) fn new() -> Self {
        Logins(parking_lot::Mutex::default())
    }

    /// The token of a server, or that of `login`, which runs only if there is none. A failure lasts for a `pause`.
    pub(super) async fn token(
        &self,
        server: &K,
        pause: Duration,
        login: impl Future<Output = Result<LoginToken, ReadError>>,
    ) -> Result<HeaderValue, ReadError> {
        let slot = self.slot(server);
        let mut last = slot.lock().await;
        let now = Instant::now();
        match &*last {
            LastLogin::Token(token) if token.renew_at.is_none_or(|renew_at| now < renew_at) => {
                return Ok(token.value.clone());
            }
            LastLogin::Failed(end, error) if now < *end => return Err(error.clone()),
            _ => {}
        }
        match login.await {
            Ok(token) => {
                let value = token.value.clone();
                *last = LastLogin::Token(token);
                Ok(value)
            }
            Err(error) => {
                *last = LastLogin::Failed(Instant::now() + pause, error.clone());
                Err(error)
            }
        }
    }

    /// Removes a token that the server has rejected, unless another read has replaced it.
    pub(super) async fn remove(&self, server: &K, rejected: &HeaderValue) {
        let slot = self.slot(server);
        let mut last = slot.lock().await;
        if matches!(&*last, LastLogin::Token(token) if token.value == *rejected) {
            *last = LastLogin::None;
        }
    }

    fn slot(&self, server: &K) -> Arc<Mutex<LastLogin>> {
        let mut slots = self.0.lock();
        // Vaults that were edited leave logins behind.
        if slots.len() >= MAX_LOGINS && !slots.contains_key(server) {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(slots.entry(server.clone()).or_insert_with(|| Arc::new(Mutex::new(LastLogin::None))))
    }
}

impl<K> fmt::Debug for Logins<K> {
    /// Omits the tokens.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Logins")
    }
}

/// How long a failed login lasts: shorter than the reads wait after it, so that each round of reads logs in once.
pub(super) fn pause_after_failure(retry_after: Duration) -> Duration {
    retry_after / 2
}

const MAX_LOGINS: usize = 100;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::sleep;

    use super::*;

    const PAUSE: Duration = Duration::from_secs(5);

    fn issued(value: &'static str, renew_at: Option<Instant>) -> Result<LoginToken, ReadError> {
        Ok(LoginToken { value: HeaderValue::from_static(value), renew_at })
    }

    #[tokio::test(start_paused = true)]
    async fn one_login_serves_all_reads_until_it_ends() {
        let (logins, count) = (Logins::new(), Cell::new(0));
        let end = Instant::now() + Duration::from_secs(60);
        let log_in = || async {
            count.set(count.get() + 1);
            sleep(Duration::from_secs(1)).await; // Paused time.
            issued("t", Some(end))
        };
        let reads = [(); 3].map(|()| logins.token(&"a", PAUSE, log_in()));
        assert!(futures_util::future::join_all(reads).await.iter().all(Result::is_ok));
        assert_eq!(count.get(), 1);
        sleep(Duration::from_secs(60)).await; // Paused time.
        logins.token(&"a", PAUSE, log_in()).await.unwrap();
        assert_eq!(count.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn failed_login_lasts_for_a_pause_and_concerns_one_server() {
        let (logins, failure) = (Logins::new(), ReadError::Unavailable("refused".to_owned()));
        let fail = async { Err(failure.clone()) };
        assert_eq!(logins.token(&"a", PAUSE, fail).await, Err(failure.clone()));
        assert_eq!(logins.token(&"a", PAUSE, async { issued("early", None) }).await, Err(failure));
        assert_eq!(logins.token(&"b", PAUSE, async { issued("other", None) }).await.unwrap(), "other");
        sleep(PAUSE).await; // Paused time.
        assert_eq!(logins.token(&"a", PAUSE, async { issued("late", None) }).await.unwrap(), "late");
    }

    #[tokio::test]
    async fn rejected_token_is_removed_once() {
        let logins = Logins::new();
        let old = logins.token(&"a", PAUSE, async { issued("old", None) }).await.unwrap();
        logins.remove(&"a", &old).await;
        assert_eq!(logins.token(&"a", PAUSE, async { issued("new", None) }).await.unwrap(), "new");
        // Another read that has used the old token is late.
        logins.remove(&"a", &old).await;
        assert_eq!(logins.token(&"a", PAUSE, async { issued("newer", None) }).await.unwrap(), "new");
    }

    #[tokio::test]
    async fn logins_of_former_servers_are_removed() {
        let logins = Logins::new();
        for server in 0..3 * MAX_LOGINS {
            logins.token(&server, PAUSE, async { issued("t", None) }).await.unwrap();
        }
        assert!(logins.0.lock().len() <= MAX_LOGINS);
    }
}
