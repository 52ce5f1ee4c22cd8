//! The keys of an issuer: fetched in the background, kept while it is down, and not asked for by requests when it fails.
//!
//! ```text
//!            ┌── every five minutes ◀───────────────┐
//!            ▼                                      │
//!   start ─▶ fetch ── a set ──────▶ known, closed ──┴── a token names an unknown key ─▶ fetch
//!            ▲   └─── anything else ─▶ open: known keys stay, requests neither wait nor ask
//!            └──────── after 1, 2, 4 … 60 seconds ──┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use http::StatusCode;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::plugin::jwk::PublishedKey;
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
            let shared = Arc::new(Shared { uri: uri.into(), keys: ArcSwap::default(), wanted: Notify::new() });
            let (report, progress) = watch::channel(Progress::default());
            let (lives, ended) = oneshot::channel();
            services.spawn(Box::pin(fetching(Arc::clone(&shared), Arc::clone(services), report, ended)));
            KeySet { shared, progress, _lives: lives }
        })
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
            }
            Err(error) => {
                progress.failures = progress.failures.saturating_add(1);
                if progress.failures == 1 {
                    warn!(uri = &*shared.uri, %error, "Cannot fetch the keys of an issuer of tokens; known ones stay in use");
                }
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
