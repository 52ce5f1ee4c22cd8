//! One watch: from the API server to a sink, for as long as somebody wants it. Nothing ends it but being dropped.

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
use super::health::{Health, Trouble};
use super::raw::Raw;
use crate::api::ObjectKey;

/// What is watched.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) resource: ApiResource,
    pub(super) namespace: Option<Arc<str>>,
    /// Only the object of this name.
    pub(super) name: Option<Arc<str>>,
}

/// Takes what a watch sees. With `META` that is metadata only.
pub(super) trait Sink<const META: bool>: Send + Sync + 'static {
    type Item: Send;

    /// What is kept of an object; None for one that does not matter.
    fn read(&self, raw: Raw<META>) -> Option<Self::Item>;
    /// Everything there is: what is not among it is gone.
    fn listed(&self, items: Vec<Self::Item>);
    fn applied(&self, item: Self::Item);
    fn deleted(&self, key: ObjectKey);
}

/// What all watches share.
#[derive(Clone)]
pub(super) struct Surroundings {
    /// Replaced when credentials are.
    pub(super) client: watch::Receiver<Client>,
    /// Changes when waiting any longer makes no sense, since the server is back.
    pub(super) back: watch::Receiver<()>,
}

/// How the first list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listing {
    Streamed,
    Paged,
}

/// Watches for ever.
pub(super) async fn follow<const META: bool>(
    target: Target,
    mut surroundings: Surroundings,
    sink: impl Sink<META>,
    health: Health,
) {
    let mut listing = Listing::Streamed;
    let mut patience = Patience::default();
    loop {
        let client = surroundings.client.borrow_and_update().clone();
        let mut config = watcher::Config {
            field_selector: target.name.as_ref().map(|name| format!("metadata.name={name}")),
            ..watcher::Config::default()
        };
        if listing == Listing::Streamed {
            config = config.streaming_lists();
        }
        let api: Api<Raw<META>> = match &target.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &target.resource),
            None => Api::all_with(client, &target.resource),
        };
        let mut events = watcher(api, config).boxed();
        // What was listed so far, while the first list comes in. It counts when it is whole.
        let mut list = None;
        let mut begun = false;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = patience.ran_out(!begun || list.is_some()) => {
                    if listing == Listing::Streamed && begun {
                        listing = Listing::Paged;
                        break;
                    }
                    let silence = Trouble::new(format!("nothing came for {} s", LONGEST_SILENCE.as_secs()));
                    health.trouble(&silence);
                    sleep(patience.wait(&silence)).await;
                    break;
                }
                () = patience.calmed_down() => {
                    health.fine();
                    patience = Patience::default();
                    continue;
                }
                Ok(()) = surroundings.client.changed() => break,
            };
            match event {
                Some(Ok(event)) => {
                    health.heard(&event);
                    begun = true;
                    patience.heard();
                    take(event, &sink, &mut list, &health);
                    if list.is_none() {
                        patience = Patience::default();
                    }
                }
                Some(Err(error)) => {
                    let trouble = Trouble::of(&error);
                    if listing == Listing::Streamed && refuses_streaming(&error) {
                        listing = Listing::Paged;
                        break;
                    }
                    begun = true;
                    health.trouble(&trouble);
                    tokio::select! {
                        () = sleep(patience.wait(&trouble)) => {}
                        Ok(()) = surroundings.back.changed() => patience.begin_anew(),
                        Ok(()) = surroundings.client.changed() => break,
                    }
                    // The watcher would ask for the version that is no more again, if that was said instead of an answer.
                    if trouble.expired {
                        break;
                    }
                }
                // A watcher has no end; should it have one after all, the next begins with a list.
                None => break,
            }
        }
    }
}

fn take<const META: bool, S: Sink<META>>(
    event: Event<Raw<META>>,
    sink: &S,
    list: &mut Option<Vec<S::Item>>,
    health: &Health,
) {
    match event {
        Event::Init => *list = Some(Vec::new()),
        Event::InitApply(raw) => list.get_or_insert_default().extend(sink.read(raw)),
        Event::InitDone => {
            sink.listed(list.take().unwrap_or_default());
            health.listed();
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

/// An older server, or one with the feature switched off, says that it does not know what is asked for.
fn refuses_streaming(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(Error::Api(status)) => matches!(status.code, 400 | 405 | 422),
        _ => false,
    }
}

/// What one watch remembers of its failures and of silence.
#[derive(Debug)]
struct Patience {
    backoff: Backoff,
    /// A kind that we may not read costs the server little this way, and is there soon after somebody grants it.
    forbidden: Backoff,
    failing: bool,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(15)),
            forbidden: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)),
            failing: false,
        }
    }
}

impl Patience {
    fn wait(&mut self, trouble: &Trouble) -> Duration {
        self.failing = true;
        if trouble.expired {
            // Usual after a long pause, and nobody's fault: said in the watch, the next try begins with a list.
            self.backoff.reset();
        }
        let wait = if trouble.forbidden { self.forbidden.wait() } else { self.backoff.wait() };
        wait.max(trouble.retry_after)
    }

    /// What failed before was nobody's fault here.
    fn begin_anew(&mut self) {
        *self = Patience { failing: self.failing, ..Patience::default() };
    }

    fn heard(&mut self) {
        self.failing = false;
    }

    /// A watch that goes on after a failure says nothing until something changes, so silence has to do.
    async fn calmed_down(&self) {
        match self.failing {
            true => sleep(CALM).await,
            false => pending().await,
        }
    }

    /// A server that knows nothing of streamed lists may begin to watch and never say that the list is over; another one
    /// takes the connection and never answers.
    async fn ran_out(&self, waiting: bool) {
        match waiting {
            true => sleep(LONGEST_SILENCE).await,
            false => pending().await,
        }
    }
}

const CALM: Duration = Duration::from_secs(3);
const LONGEST_SILENCE: Duration = Duration::from_secs(20);
