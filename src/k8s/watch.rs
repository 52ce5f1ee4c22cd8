//! One watch of the API server, which feeds a sink and runs until it is dropped.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::core::ApiResource;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Error};
use tokio::sync::watch;
use tokio::time::sleep;

use super::backoff::Backoff;
use super::raw::RawObject;
use super::watch_health::{WatchError, WatchReporter};
use crate::api::ObjectKey;

/// What is watched.
#[derive(Clone, Debug)]
pub(super) struct WatchTarget {
    pub(super) resource: ApiResource,
    pub(super) namespace: Option<Arc<str>>,
    /// Only the object of this name.
    pub(super) name: Option<Arc<str>>,
}

/// Receives what a watch sees; with `META`, only metadata.
pub(super) trait WatchSink<const META: bool>: Send + Sync + 'static {
    type Item: Send;

    /// The part of an object to keep; None for an irrelevant object.
    fn read(&self, raw: RawObject<META>) -> Option<Self::Item>;
    /// All objects in scope: others are gone.
    fn listed(&self, items: Vec<Self::Item>);
    fn applied(&self, item: Self::Item);
    fn deleted(&self, key: ObjectKey);
}

/// What all watches share.
#[derive(Clone)]
pub(super) struct WatchContext {
    /// Replaced when the credentials change.
    pub(super) client: watch::Receiver<Client>,
    /// Changes when the server is back after an outage, so that a running back-off can be cut short.
    pub(super) server_back: watch::Receiver<()>,
}

/// How the first list is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListMode {
    Streamed,
    Paged,
}

/// Watches forever.
pub(super) async fn run_watch<const META: bool>(
    target: WatchTarget,
    mut surroundings: WatchContext,
    sink: impl WatchSink<META>,
    health: WatchReporter,
) {
    let mut listing = ListMode::Streamed;
    let mut patience = WatchBackoff::default();
    loop {
        let client = surroundings.client.borrow_and_update().clone();
        let mut config = watcher::Config {
            field_selector: target.name.as_ref().map(|name| format!("metadata.name={name}")),
            ..watcher::Config::default()
        };
        if listing == ListMode::Streamed {
            config = config.streaming_lists();
        }
        let api: Api<RawObject<META>> = match &target.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &target.resource),
            None => Api::all_with(client, &target.resource),
        };
        let mut events = watcher(api, config).boxed();
        // The objects of an unfinished list. It takes effect when it is complete.
        let mut list = None;
        let mut begun = false;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = patience.stalled(!begun || list.is_some()) => {
                    if listing == ListMode::Streamed && begun {
                        listing = ListMode::Paged;
                        break;
                    }
                    let stalled = WatchError::new(format!("nothing received for {} s", STALLED_AFTER.as_secs()));
                    health.record_error(&stalled);
                    sleep(patience.next_delay(&stalled)).await;
                    break;
                }
                () = patience.recovered() => {
                    health.record_success();
                    patience = WatchBackoff::default();
                    continue;
                }
                Ok(()) = surroundings.client.changed() => break,
            };
            match event {
                Some(Ok(event)) => {
                    health.record_event(&event);
                    begun = true;
                    patience.record_event();
                    handle_event(event, &sink, &mut list, &health);
                    if list.is_none() {
                        patience = WatchBackoff::default();
                    }
                }
                Some(Err(error)) => {
                    let watch_error = WatchError::from_watcher(&error);
                    if listing == ListMode::Streamed && refuses_streaming(&error) {
                        listing = ListMode::Paged;
                        break;
                    }
                    begun = true;
                    health.record_error(&watch_error);
                    tokio::select! {
                        () = sleep(patience.next_delay(&watch_error)) => {}
                        Ok(()) = surroundings.server_back.changed() => patience.reset_after_outage(),
                        Ok(()) = surroundings.client.changed() => break,
                    }
                    // If the 410 came as the response instead of an event, the watcher would request the expired
                    // version again.
                    if watch_error.expired {
                        break;
                    }
                }
                // A watcher does not end; if it does, the next one starts with a list.
                None => break,
            }
        }
    }
}

fn handle_event<const META: bool, S: WatchSink<META>>(
    event: Event<RawObject<META>>,
    sink: &S,
    list: &mut Option<Vec<S::Item>>,
    health: &WatchReporter,
) {
    match event {
        Event::Init => *list = Some(Vec::new()),
        Event::InitApply(raw) => list.get_or_insert_default().extend(sink.read(raw)),
        Event::InitDone => {
            sink.listed(list.take().unwrap_or_default());
            health.record_list();
        }
        Event::Apply(raw) => {
            if let Some(item) = sink.read(raw) {
                sink.applied(item);
            }
        }
        Event::Delete(raw) => {
            if let Some(key) = raw.key() {
                sink.deleted(key);
            }
        }
    }
}

/// An older server, or one with the feature disabled, rejects the parameters.
fn refuses_streaming(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(Error::Api(status)) => matches!(status.code, 400 | 405 | 422),
        _ => false,
    }
}

/// The back-off of one watch, and its timers for recovery and stalls.
#[derive(Debug)]
struct WatchBackoff {
    backoff: Backoff,
    /// Polling a forbidden kind costs the server little, and the kind appears soon after it is granted.
    forbidden: Backoff,
    failing: bool,
}

impl Default for WatchBackoff {
    fn default() -> Self {
        WatchBackoff {
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(15)),
            forbidden: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)),
            failing: false,
        }
    }
}

impl WatchBackoff {
    fn next_delay(&mut self, watch_error: &WatchError) -> Duration {
        self.failing = true;
        if watch_error.expired {
            // Usual after a long pause and not an error: the next attempt starts with a list.
            self.backoff.reset();
        }
        let wait = if watch_error.forbidden { self.forbidden.next_delay() } else { self.backoff.next_delay() };
        wait.max(watch_error.retry_after)
    }

    /// Earlier failures were an outage of the whole server.
    fn reset_after_outage(&mut self) {
        *self = WatchBackoff { failing: self.failing, ..WatchBackoff::default() };
    }

    fn record_event(&mut self) {
        self.failing = false;
    }

    /// A watch that resumes after a failure is quiet until something changes, so a quiet time counts as recovery.
    async fn recovered(&self) {
        match self.failing {
            true => sleep(RECOVERED_AFTER).await,
            false => pending().await,
        }
    }

    /// A server without streaming lists may start the watch and never end the list; another may accept the connection
    /// and never respond.
    async fn stalled(&self, waiting: bool) {
        match waiting {
            true => sleep(STALLED_AFTER).await,
            false => pending().await,
        }
    }
}

const RECOVERED_AFTER: Duration = Duration::from_secs(3);
const STALLED_AFTER: Duration = Duration::from_secs(20);
