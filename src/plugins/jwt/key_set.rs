//! The keys of an issuer: fetched in the background, kept while it is down, and not asked for by requests when it fails.
//!
//! ```text
//!            ┌── every five minutes ◀───────────────┐
//!            ▼                                      │
//!   start ─▶ fetch ── a set ──────▶ known, closed ──┴── a token names an unknown key ─▶ fetch
//!            ▲   └─── anything else ─▶ open: known keys stay, requests neither wait nor ask
//!            └──────── after 1, 2, 4 … 60 seconds ──┘
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::plugin::jwk::PublishedKey;
use crate::plugin::kind::Invalid;
use crate::plugin::{Fetched, Services, State};

/// How long an issuer has for its answer, and a request waits for that.
const PATIENCE: Duration = Duration::from_secs(5);
/// After how long keys are fetched again: for so long one that its issuer removed stays usable.
const REFRESH: Duration = Duration::from_secs(300);
/// Tokens with made-up names of keys make us ask no more often than this.
const COOL_DOWN: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const LARGEST_SET: usize = 1 << 20;

/// The keys behind one URI, shared by all plugins that name it. Dropped with the last of them, which ends the fetching.
#[derive(Debug)]
pub(super) struct KeySet {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
    _lives: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Shared {
    uri: Box<str>,
    keys: ArcSwap<Keys>,
    wanted: Notify,
    public: Mutex<Public>,
}

/// Who is told when fetching fails, and what of.
#[derive(Debug, Default)]
struct Public {
    /// Why it failed last, if it did.
    trouble: Option<String>,
    /// Objects, and the field of each that names the URI. One that is built anew is here twice for a moment.
    readers: Vec<(Arc<str>, Arc<str>)>,
}

/// Keeps an object among those that are told.
pub(super) struct Subscription {
    shared: Arc<Shared>,
    services: Arc<dyn Services>,
    object: Arc<str>,
}

/// What the issuer published last. None if it was never heard of.
pub(super) type Keys = Option<Vec<Arc<PublishedKey>>>;

/// How the fetching goes.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    attempts: u64,
    /// In a row.
    failures: u32,
    last: Option<Instant>,
}

impl KeySet {
    pub(super) fn open(uri: &str, state: &State, services: &Arc<dyn Services>) -> Arc<Self> {
        state.shared(&format!("jwks {uri}"), || {
            let (keys, public) = (ArcSwap::default(), Mutex::default());
            let shared = Arc::new(Shared { uri: uri.into(), keys, wanted: Notify::new(), public });
            let (report, progress) = watch::channel(Progress::default());
            let (lives, ended) = oneshot::channel();
            services.spawn(Box::pin(fetching(Arc::clone(&shared), Arc::clone(services), report, ended)));
            KeySet { shared, progress, _lives: lives }
        })
    }

    /// Has the conditions of an object say so while the keys cannot be fetched. `field` is where it names the URI.
    pub(super) fn subscribe(&self, object: &str, field: &str, services: &Arc<dyn Services>) -> Subscription {
        let (object, field): (Arc<str>, Arc<str>) = (object.into(), field.into());
        let mut public = self.shared.public.lock();
        public.readers.push((Arc::clone(&object), Arc::clone(&field)));
        if let Some(error) = &public.trouble {
            services.tell(&object, Some(trouble(&field, error)));
        }
        drop(public);
        Subscription { shared: Arc::clone(&self.shared), services: Arc::clone(services), object }
    }

    pub(super) fn current(&self) -> Guard<Arc<Keys>> {
        self.shared.keys.load()
    }

    /// Whether it makes sense to wait for newer keys.
    pub(super) fn may_have_news(&self) -> bool {
        // Without anybody who fetches there is nothing to wait for.
        self.progress.has_changed().is_ok() && self.progress.borrow().is_ready()
    }

    /// Asks for newer keys and waits until that has succeeded or failed.
    pub(super) async fn news(&self) {
        let mut progress = self.progress.clone();
        let seen = *progress.borrow_and_update();
        if seen.is_ready() {
            self.shared.wanted.notify_one();
            // Whatever comes of it, the keys that are known afterwards decide.
            timeout(PATIENCE, progress.wait_for(|progress| progress.attempts > seen.attempts)).await.ok();
        }
    }
}

impl Progress {
    /// Whether a request may cause the next attempt, or wait for the first.
    fn is_ready(&self) -> bool {
        self.failures == 0 && self.last.is_none_or(|last| last.elapsed() >= COOL_DOWN)
    }
}

async fn fetching(
    shared: Arc<Shared>,
    services: Arc<dyn Services>,
    report: watch::Sender<Progress>,
    mut ended: oneshot::Receiver<()>,
) {
    let mut progress = Progress::default();
    loop {
        let fetched = tokio::select! {
            fetched = services.fetch(&shared.uri, PATIENCE, LARGEST_SET) => fetched,
            _ = &mut ended => return,
        };
        progress.attempts += 1;
        progress.last = Some(Instant::now());
        match fetched.and_then(keys_of) {
            Ok(keys) => {
                let number = keys.len();
                if progress.failures > 0 || shared.keys.load().is_none() {
                    info!(uri = &*shared.uri, keys = number, "Fetched the keys of an issuer of tokens");
                }
                progress.failures = 0;
                shared.adopt(keys);
                shared.tell(&services, None);
            }
            Err(error) => {
                progress.failures = progress.failures.saturating_add(1);
                if progress.failures == 1 {
                    warn!(uri = &*shared.uri, %error, "Cannot fetch the keys of an issuer of tokens; known ones stay in use");
                }
                shared.tell(&services, Some(error));
            }
        }
        report.send_replace(progress);
        let pause = sleep(pause_after(progress.failures));
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                _ = &mut ended => return,
                () = shared.wanted.notified(), if progress.failures == 0 => {
                    // The wish may be older than the fetch that has just answered it.
                    if progress.is_ready() {
                        break;
                    }
                }
            }
        }
    }
}

impl Shared {
    fn tell(&self, services: &Arc<dyn Services>, error: Option<String>) {
        let mut public = self.public.lock();
        if error.is_none() && public.trouble.is_none() {
            return;
        }
        for (object, field) in &public.readers {
            services.tell(object, error.as_deref().map(|error| trouble(field, error)));
        }
        public.trouble = error;
    }

    /// A key that has not changed stays the same one, so that what was verified with it stays verified.
    fn adopt(&self, published: Vec<PublishedKey>) {
        let old = self.keys.load();
        let old = old.as_deref().unwrap_or_default();
        let keys = published.into_iter().map(|key| {
            let known = old.iter().find(|known| ***known == key);
            known.cloned().unwrap_or_else(|| Arc::new(key))
        });
        self.keys.store(Arc::new(Some(keys.collect())));
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut public = self.shared.public.lock();
        let is_own = |(object, _): &(Arc<str>, Arc<str>)| *object == self.object;
        if let Some(at) = public.readers.iter().position(is_own) {
            public.readers.remove(at);
        }
        if public.trouble.is_some() && !public.readers.iter().any(is_own) {
            self.services.tell(&self.object, None);
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Subscription").field(&self.object).finish()
    }
}

fn trouble(field: &str, error: &str) -> Invalid {
    let message = format!("its keys cannot be fetched, and those that are known stay in use: {error}");
    Invalid::new(field, message, "make the issuer reachable from here, or correct the URI")
}

fn keys_of(answer: Fetched) -> Result<Vec<PublishedKey>, String> {
    if answer.status != StatusCode::OK {
        return Err(format!("it answered {}", answer.status));
    }
    PublishedKey::all_of(&answer.body).map_err(|error| format!("what it answered {error}"))
}

fn pause_after(failures: u32) -> Duration {
    match failures {
        0 => REFRESH,
        failures => Duration::from_secs(1 << (failures - 1).min(6)).min(LONGEST_PAUSE),
    }
}
