//! The key set of an issuer: fetched in the background, and kept while the issuer is unavailable.
//!
//! ```text
//!              ┌── after five minutes, or when a token refers to an unknown key ──┐
//!              ▼                                                                 │
//!   start ─▶ fetch ── success ─▶ replace the keys ───────────────────────────────┘
//!              ▲ └─── failure ─▶ keep the known keys; requests neither trigger a fetch nor wait for one ──┐
//!              └── after 1, 2, 4 … 60 seconds ────────────────────────────────────────────────────────────┘
//! ```
//!
//! Clients can invent unknown keys, so their tokens trigger only a few fetches: a key that was rotated soon after a
//! fetch is found at once, and a flood of invented keys causes two fetches in a minute. The tokens that the issuer has
//! sent to Portico itself have an allowance of their own, which clients cannot use up.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::jwk::PublishedKey;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::hidden_texts::HiddenTexts;
use crate::plugin_api::{BuildCx, PluginServices, PluginState, RemoteResponse};

/// Timeout of a fetch, and limit of the time that a request waits for it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval of fetches. A key that its issuer removed remains usable for up to this time.
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);
/// How many fetches the tokens of clients trigger at once, and the interval after which they may trigger another one.
const CLIENT_FETCHES: u32 = 4;
const CLIENT_FETCH_INTERVAL: Duration = Duration::from_secs(30);
/// Minimum interval of the fetches that tokens of the issuer itself trigger.
const ISSUER_FETCH_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum pause after failed fetches.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Size limit of a key set.
const MAX_SET_BYTES: usize = 1 << 20;
/// How many of the plugins that use a key set a line of the log names.
const MAX_LOGGED_OBJECTS: usize = 5;

/// The key set of one URI, shared by all plugins of a namespace that use it. Dropping the last reference ends the
/// fetches.
#[derive(Debug)]
pub struct KeySet {
    shared: Arc<SharedKeySet>,
    progress: watch::Receiver<FetchProgress>,
    _stop_on_drop: oneshot::Sender<()>,
}

#[derive(Debug)]
struct SharedKeySet {
    uri: Box<str>,
    /// The namespace of the plugins.
    namespace: Option<Box<str>>,
    keys: ArcSwap<PublishedKeys>,
    /// Notified when a request needs newer keys.
    fetch_requested: Notify,
    /// The number of the fetch that requests of each [`TokenOrigin`] need: a fetch in progress serves all of them.
    needed_fetches: [AtomicU64; 2],
    subscribers: Mutex<KeySetSubscribers>,
    /// Has the hidden texts of the subscribers.
    state: PluginState,
    /// Those of the object for which the fetches began: the first one may fail before the object subscribes.
    hidden: Arc<HiddenTexts>,
}

/// The objects to report failed fetches to.
#[derive(Debug, Default)]
struct KeySetSubscribers {
    /// The error of the last fetch, if it failed.
    last_error: Option<String>,
    /// While an object is rebuilt, it is listed twice.
    fields: Vec<SubscribedField>,
}

/// A field with the URI.
#[derive(Debug)]
struct SubscribedField {
    object: Arc<str>,
    field: Arc<str>,
    /// The URI may be in a Secret.
    hidden: Arc<HiddenTexts>,
}

/// The subscription of an object to reports of failed fetches. Ends when it is dropped.
pub struct KeySetSubscription {
    shared: Arc<SharedKeySet>,
    services: Arc<dyn PluginServices>,
    object: Arc<str>,
}

/// The keys of the last successful fetch. `None` if there was none.
pub(super) type PublishedKeys = Option<Vec<Arc<PublishedKey>>>;

/// How a token came to Portico, which decides how often it may trigger a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenOrigin {
    /// A client has sent it, so it may name any key.
    Client,
    /// Portico has got it from the issuer.
    Issuer,
}

/// Progress of the fetches.
#[derive(Clone, Copy, Debug, Default)]
struct FetchProgress {
    attempts: u64,
    /// Consecutive failures.
    failures: u32,
    last_attempt: Option<Instant>,
    /// The fetches that tokens of clients have triggered, less those that the time since `allowed_since` has allowed
    /// again.
    client_fetches: u32,
    allowed_since: Option<Instant>,
}

impl KeySet {
    /// The key set of this URI. Starts the fetches if no plugin of the namespace uses it yet: a name without dots is
    /// another Service in each namespace, and the requests count in the share of one.
    pub fn open(uri: &str, cx: &BuildCx<'_>) -> Arc<Self> {
        KeySet::open_in(uri, cx.namespace(), cx.object, cx.state, cx.services)
    }

    /// As [`KeySet::open`], when the URI becomes known only after the plugin was built.
    pub fn open_in(
        uri: &str,
        namespace: Option<&str>,
        object: &str,
        state: &PluginState,
        services: &Arc<dyn PluginServices>,
    ) -> Arc<Self> {
        state.get_or_create(&format!("jwks {} {uri}", namespace.unwrap_or_default()), || {
            let shared = Arc::new(SharedKeySet {
                uri: uri.into(),
                namespace: namespace.map(Box::from),
                keys: ArcSwap::default(),
                fetch_requested: Notify::new(),
                needed_fetches: Default::default(),
                subscribers: Mutex::default(),
                state: state.clone(),
                hidden: HiddenTexts::of_object(state, object),
            });
            let (progress_sender, progress) = watch::channel(FetchProgress::default());
            let (stop_on_drop, stopped) = oneshot::channel();
            services.spawn(Box::pin(fetch_loop(Arc::clone(&shared), Arc::clone(services), progress_sender, stopped)));
            KeySet { shared, progress, _stop_on_drop: stop_on_drop }
        })
    }

    /// Reports in the conditions of an object while the keys cannot be fetched. `field` is its field with the
    /// URI, relative to `config`.
    pub fn subscribe(&self, object: &str, field: &str, services: &Arc<dyn PluginServices>) -> KeySetSubscription {
        let hidden = HiddenTexts::of_object(&self.shared.state, object);
        let object: Arc<str> = object.into();
        let subscribed = SubscribedField { object: Arc::clone(&object), field: field.into(), hidden };
        let mut subscribers = self.shared.subscribers.lock();
        if let Some(error) = &subscribers.last_error {
            services.report(&object, Some(subscribed.diagnostic(error)));
        }
        subscribers.fields.push(subscribed);
        drop(subscribers);
        KeySetSubscription { shared: Arc::clone(&self.shared), services: Arc::clone(services), object }
    }

    pub(super) fn current(&self) -> Guard<Arc<PublishedKeys>> {
        self.shared.keys.load()
    }

    /// Whether the last fetch has failed, so that the known keys may be outdated.
    pub(super) fn has_failed_fetch(&self) -> bool {
        self.progress.borrow().failures > 0
    }

    /// Whether a request with such a token may wait for newer keys.
    pub fn can_refresh(&self, origin: TokenOrigin) -> bool {
        // The channel is closed if no fetch task runs, for example in `portico check`.
        self.progress.has_changed().is_ok() && self.progress.borrow().allows_fetch(origin)
    }

    /// Triggers a fetch if such a token may do so, and waits until it has succeeded or failed, at most `FETCH_TIMEOUT`.
    /// False if the known keys are still those from before.
    pub async fn refresh(&self, origin: TokenOrigin) -> bool {
        let mut progress = self.progress.clone();
        let before = *progress.borrow_and_update();
        if !before.allows_fetch(origin) {
            return false;
        }
        let needed = before.attempts + 1;
        self.shared.needed_fetches[origin as usize].fetch_max(needed, Ordering::Release);
        self.shared.fetch_requested.notify_one();
        let fetched = timeout(FETCH_TIMEOUT, progress.wait_for(|progress| progress.attempts >= needed)).await;
        fetched.is_ok_and(|progress| progress.is_ok_and(|progress| progress.failures == 0))
    }
}

impl FetchProgress {
    /// Whether a request may trigger the next fetch, or wait for the first one. For tokens of the issuer, the next
    /// fetch may have to wait for a moment.
    fn allows_fetch(&self, origin: TokenOrigin) -> bool {
        let is_allowed = match origin {
            TokenOrigin::Client => self.attempts == 0 || self.used_client_fetches() < CLIENT_FETCHES,
            TokenOrigin::Issuer => true,
        };
        self.failures == 0 && is_allowed
    }

    /// The fetches of clients that count now.
    fn used_client_fetches(&self) -> u32 {
        let intervals =
            self.allowed_since.map_or(0, |since| since.elapsed().as_secs() / CLIENT_FETCH_INTERVAL.as_secs());
        self.client_fetches.saturating_sub(u32::try_from(intervals).unwrap_or(u32::MAX))
    }

    /// Counts a fetch that tokens of clients have triggered.
    fn count_client_fetch(&mut self) {
        let used = self.used_client_fetches();
        // The part of an interval that has passed counts for the next fetch that is allowed again.
        let allowed_again = CLIENT_FETCH_INTERVAL * (self.client_fetches - used);
        self.allowed_since = match (used, self.allowed_since) {
            (0, _) | (_, None) => Some(Instant::now()),
            (_, Some(since)) => Some(since + allowed_again),
        };
        self.client_fetches = used + 1;
    }

    /// When the next fetch for tokens of the issuer may begin.
    fn next_issuer_fetch(&self) -> Instant {
        self.last_attempt.map_or_else(Instant::now, |last| last + ISSUER_FETCH_INTERVAL)
    }
}

async fn fetch_loop(
    shared: Arc<SharedKeySet>,
    services: Arc<dyn PluginServices>,
    progress_sender: watch::Sender<FetchProgress>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut progress = FetchProgress::default();
    loop {
        let fetching = services.fetch(&shared.uri, shared.namespace.as_deref(), FETCH_TIMEOUT, MAX_SET_BYTES);
        let fetched = tokio::select! {
            fetched = fetching => fetched,
            _ = &mut stopped => return,
        };
        progress.attempts += 1;
        progress.last_attempt = Some(Instant::now());
        match fetched.and_then(parse_response) {
            Ok(keys) => {
                let key_count = keys.len();
                if progress.failures > 0 || shared.keys.load().is_none() {
                    let (objects, uri) = (shared.objects(), shared.shown(&shared.uri));
                    info!(objects, uri, keys = key_count, "Fetched the key set of a token issuer");
                }
                progress.failures = 0;
                shared.replace_keys(keys);
                shared.report(&services, None);
            }
            Err(error) => {
                progress.failures = progress.failures.saturating_add(1);
                if progress.failures == 1 {
                    warn!(
                        objects = shared.objects(),
                        uri = shared.shown(&shared.uri),
                        error = shared.shown(&error),
                        "Cannot fetch the key set of a token issuer; known keys remain in use"
                    );
                }
                shared.report(&services, Some(error));
            }
        }
        progress_sender.send_replace(progress);
        let pause = sleep(pause_after_failures(progress.failures));
        tokio::pin!(pause);
        let mut issuer_waits = false;
        loop {
            tokio::select! {
                () = &mut pause => break,
                _ = &mut stopped => return,
                () = sleep_until(progress.next_issuer_fetch()), if issuer_waits => break,
                () = shared.fetch_requested.notified(), if progress.failures == 0 => {
                    // The notification may be older than the last fetch, which has then already served it.
                    issuer_waits = shared.is_fetch_needed(TokenOrigin::Issuer, &progress);
                    if shared.is_fetch_needed(TokenOrigin::Client, &progress) {
                        progress.count_client_fetch();
                        break;
                    }
                }
            }
        }
    }
}

impl SharedKeySet {
    /// Whether a request has triggered the next fetch.
    fn is_fetch_needed(&self, origin: TokenOrigin, progress: &FetchProgress) -> bool {
        let needed = self.needed_fetches[origin as usize].load(Ordering::Acquire);
        needed > progress.attempts && progress.allows_fetch(origin)
    }

    /// Reports the error of a fetch to all subscribers. `None` withdraws the report of an earlier error.
    fn report(&self, services: &Arc<dyn PluginServices>, error: Option<String>) {
        let mut subscribers = self.subscribers.lock();
        if error.is_none() && subscribers.last_error.is_none() {
            return;
        }
        for subscribed in &subscribers.fields {
            services.report(&subscribed.object, error.as_deref().map(|error| subscribed.diagnostic(error)));
        }
        subscribers.last_error = error;
    }

    /// The plugins that use the key set, for the log.
    fn objects(&self) -> String {
        let subscribers = self.subscribers.lock();
        let objects: BTreeSet<&str> = subscribers.fields.iter().map(|subscribed| &*subscribed.object).collect();
        let mut listed = objects.iter().take(MAX_LOGGED_OBJECTS).copied().collect::<Vec<_>>().join(", ");
        if let Some(more) = objects.len().checked_sub(MAX_LOGGED_OBJECTS).filter(|more| *more > 0) {
            listed.push_str(&format!(" and {more} more"));
        }
        listed
    }

    /// A text for the log, without values of Secrets and vaults of the plugins that use the key set.
    fn shown(&self, text: &str) -> String {
        let subscribers = self.subscribers.lock();
        let hidden = subscribers.fields.iter().map(|subscribed| &subscribed.hidden).chain([&self.hidden]);
        hidden.fold(text.to_owned(), |shown, hidden| hidden.hide(&shown).into_owned())
    }

    /// Replaces the keys. An unchanged key keeps its `Arc`, so that cached tokens verified with it stay valid.
    fn replace_keys(&self, published: Vec<PublishedKey>) {
        let old = self.keys.load();
        let old = old.as_deref().unwrap_or_default();
        let keys = published.into_iter().map(|key| {
            let unchanged = old.iter().find(|old_key| ***old_key == key);
            unchanged.cloned().unwrap_or_else(|| Arc::new(key))
        });
        self.keys.store(Arc::new(Some(keys.collect())));
    }
}

impl Drop for KeySetSubscription {
    fn drop(&mut self) {
        let mut subscribers = self.shared.subscribers.lock();
        let is_of_object = |subscribed: &SubscribedField| subscribed.object == self.object;
        if let Some(index) = subscribers.fields.iter().position(is_of_object) {
            subscribers.fields.remove(index);
        }
        if subscribers.last_error.is_some() && !subscribers.fields.iter().any(is_of_object) {
            self.services.report(&self.object, None);
        }
    }
}

impl fmt::Debug for KeySetSubscription {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("KeySetSubscription").field(&self.object).finish()
    }
}

impl SubscribedField {
    /// The diagnostic of an object about the error of a fetch.
    fn diagnostic(&self, error: &str) -> Diagnostic {
        let error = self.hidden.hide(error);
        let message = format!("the key set cannot be fetched, and known keys remain in use: {error}");
        Diagnostic::in_config(&self.field, message, "make the URL reachable from Portico, or correct it")
    }
}

fn parse_response(response: RemoteResponse) -> Result<Vec<PublishedKey>, String> {
    if response.status != StatusCode::OK {
        return Err(format!("the issuer responded with status {}", response.status));
    }
    PublishedKey::parse_set(&response.body).map_err(|error| format!("the response of the issuer {error}"))
}

fn pause_after_failures(failures: u32) -> Duration {
    match failures {
        0 => REFRESH_INTERVAL,
        failures => Duration::from_secs(1 << (failures - 1).min(6)).min(MAX_BACKOFF),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_api::scripted_server::ScriptedServer;
    use crate::plugin_api::services::OfflineServices;

    #[test]
    fn log_names_the_plugins_of_a_key_set() {
        let (state, services) = (PluginState::default(), Arc::new(OfflineServices) as Arc<dyn PluginServices>);
        let object = "KongPlugin/shop/a";
        let keys = KeySet::open_in("https://issuer.example/keys", Some("shop"), object, &state, &services);
        let subscribe = |name: &str| keys.subscribe(&format!("KongPlugin/shop/{name}"), "jwks[0].uri", &services);
        // One is rebuilt meanwhile, and listed once.
        let _first = [subscribe("a"), subscribe("b"), subscribe("a")];
        assert_eq!(keys.shared.objects(), "KongPlugin/shop/a, KongPlugin/shop/b");
        let _more = ["c", "d", "e", "f", "g"].map(subscribe);
        let objects = keys.shared.objects();
        assert!(objects.ends_with(", KongPlugin/shop/e and 2 more"), "{objects}");
    }

    #[tokio::test(start_paused = true)]
    async fn uri_in_a_secret_is_neither_reported_nor_logged() {
        let server = ScriptedServer::new(|_| Err("refused".to_owned()));
        let (state, services) = (PluginState::default(), server.services());
        let (uri, object) = ("https://issuer.internal/hunter2", "KongPlugin/shop/a");
        let (error, shown) = (format!("{uri}: refused"), "(key uri of Secret s): refused");
        let hidden = HiddenTexts::of_object(&state, object);
        hidden.add("key uri of Secret s", uri);
        // Another plugin, whose configuration has the same URI as a public text, has begun the fetches.
        let keys = KeySet::open_in(uri, Some("shop"), "KongPlugin/shop/public", &state, &services);
        assert_eq!(keys.shared.shown(&error), error);
        let before = keys.subscribe(object, "jwks[0].uri", &services);
        assert_eq!(keys.shared.shown(&error), shown);
        tokio::time::sleep(Duration::from_millis(500)).await; // Time is paused: it ends when the fetch has failed.
        let after = keys.subscribe(object, "jwks[0].uri", &services);
        let messages: Vec<String> =
            server.reports.lock().iter().flatten().map(|report| report.message.clone()).collect();
        assert_eq!(messages.len(), 2, "{messages:?}");
        assert!(messages.iter().all(|message| message.ends_with(&format!(": {shown}"))), "{messages:?}");
        drop((before, after));
        let own = KeySet::open_in(uri, None, object, &state, &services);
        assert_eq!(own.shared.shown(&error), shown, "before the plugin subscribes");
    }
}
