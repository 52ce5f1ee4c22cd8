//! One watch of the API server, which feeds a sink and runs until its task is aborted.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::core::ApiResource;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Error};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::backoff::Backoff;
use super::raw::RawObject;
use super::watch_health::{WatchError, WatchReporter};
use crate::api::ObjectKey;

/// What is watched.
#[derive(Clone, Debug)]
pub(super) struct WatchTarget {
    pub(super) resource: ApiResource,
    /// None for all namespaces, and for cluster-scoped objects.
    pub(super) namespace: Option<Arc<str>>,
    /// Restricts the watch to the object of this name.
    pub(super) name: Option<Arc<str>>,
}

/// Receives what a watch sees; with `META`, only metadata, and with `WHOLE`, objects of any size.
pub(super) trait WatchSink<const META: bool, const WHOLE: bool = false>: Send + Sync + 'static {
    type Item: Send;

    /// The part of an object to keep; None for an irrelevant object.
    fn read(&self, raw: RawObject<META, WHOLE>) -> Option<Self::Item>;
    /// Receives a complete list. Objects that are not in it are gone.
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

/// How lists are requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListMode {
    Streamed,
    Paged,
}

/// Watches the target and feeds the sink; never returns.
pub(super) async fn run_watch<const META: bool, const WHOLE: bool>(
    target: WatchTarget,
    mut context: WatchContext,
    sink: impl WatchSink<META, WHOLE>,
    health: WatchReporter,
) {
    let mut list_mode = ListMode::Streamed;
    let mut backoff = WatchBackoff::default();
    loop {
        let client = context.client.borrow_and_update().clone();
        let api: Api<RawObject<META, WHOLE>> = match &target.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &target.resource),
            None => Api::all_with(client, &target.resource),
        };
        let mut events = watcher(api, watcher_config(&target, list_mode)).boxed();
        // The objects of an unfinished list. It takes effect when it is complete.
        let mut list = None;
        let mut has_responded = false;
        loop {
            let is_event_due = !has_responded || list.is_some();
            let event = tokio::select! {
                event = events.next() => event,
                () = backoff.stalled(is_event_due) => {
                    if list_mode == ListMode::Streamed && has_responded {
                        list_mode = ListMode::Paged;
                        break;
                    }
                    let stall_error = WatchError::new(format!("nothing received for {} s", STALLED_AFTER.as_secs()));
                    health.record_error(&stall_error);
                    sleep(backoff.next_delay(&stall_error)).await;
                    break;
                }
                () = backoff.recovered() => {
                    health.record_success();
                    backoff = WatchBackoff::default();
                    continue;
                }
                Ok(()) = context.client.changed() => break,
            };
            match event {
                Some(Ok(event)) => {
                    health.record_event(&event);
                    has_responded = true;
                    backoff.record_event();
                    handle_event(event, &sink, &mut list, &health);
                    if list.is_none() {
                        backoff = WatchBackoff::default();
                    }
                }
                Some(Err(error)) => {
                    let watch_error = WatchError::from_watcher(&error);
                    if list_mode == ListMode::Streamed && refuses_streaming(&error) {
                        list_mode = ListMode::Paged;
                        break;
                    }
                    has_responded = true;
                    health.record_error(&watch_error);
                    let earliest_retry = Instant::now() + watch_error.retry_after;
                    let delay = backoff.next_delay(&watch_error);
                    let outage_ended = async {
                        if context.server_back.changed().await.is_err() {
                            pending::<()>().await;
                        }
                        // Another request ended the outage. The delay that this one got still applies.
                        sleep_until(earliest_retry).await;
                    };
                    tokio::select! {
                        () = sleep(delay) => {}
                        () = outage_ended => backoff.reset_after_outage(),
                        Ok(()) = context.client.changed() => break,
                    }
                    // After a 410 as the status of the response, not in an event, this watcher would request the
                    // expired resource version again. A new one starts with a list.
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

fn watcher_config(target: &WatchTarget, list_mode: ListMode) -> watcher::Config {
    let config = watcher::Config {
        field_selector: target.name.as_ref().map(|name| format!("metadata.name={name}")),
        page_size: Some(PAGE_SIZE),
        ..watcher::Config::default()
    };
    if list_mode == ListMode::Streamed { config.streaming_lists() } else { config }
}

fn handle_event<const META: bool, const WHOLE: bool, S: WatchSink<META, WHOLE>>(
    event: Event<RawObject<META, WHOLE>>,
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

/// Whether the server rejects streaming lists, because it is older or has the feature disabled.
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
    /// The back-off after 403 responses. It starts longer, because only a change of permissions helps, and stays short
    /// enough to notice that change soon.
    forbidden: Backoff,
    /// Whether the last attempt failed, and no event has arrived since.
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
        let delay = if watch_error.forbidden { self.forbidden.next_delay() } else { self.backoff.next_delay() };
        delay.max(watch_error.retry_after)
    }

    /// Starts with short delays again, because the earlier failures were an outage of the whole server.
    fn reset_after_outage(&mut self) {
        *self = WatchBackoff { failing: self.failing, ..WatchBackoff::default() };
    }

    fn record_event(&mut self) {
        self.failing = false;
    }

    /// Completes when a failed watch has recovered: after it resumes, no event arrives until something changes, so a
    /// time without errors counts as recovery.
    async fn recovered(&self) {
        match self.failing {
            true => sleep(RECOVERED_AFTER).await,
            false => pending().await,
        }
    }

    /// Completes when an event that is due does not arrive. A server without streaming lists may start the watch and
    /// never end the list; another may accept the connection and never respond.
    async fn stalled(&self, is_event_due: bool) {
        match is_event_due {
            true => sleep(STALLED_AFTER).await,
            false => pending().await,
        }
    }
}

/// The number of objects in a response of a list without streaming. The text of a response is in memory as a whole, and
/// that of one object, of which labels alone may be nearly all, has up to 1.5 MiB.
pub(super) const PAGE_SIZE: u32 = 50;

const RECOVERED_AFTER: Duration = Duration::from_secs(3);
const STALLED_AFTER: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use serde_json::json;
    use tokio::sync::mpsc;

    use super::*;
    use crate::api::Kind;
    use crate::k8s::raw::api_resource;
    use crate::k8s::watch_health::{Scope, WatchHealth, WatchSubject};

    struct NoObjects;

    impl WatchSink<false> for NoObjects {
        type Item = ();

        fn read(&self, _raw: RawObject<false>) -> Option<()> {
            None
        }

        fn listed(&self, _items: Vec<()>) {}

        fn applied(&self, _item: ()) {}

        fn deleted(&self, _key: ObjectKey) {}
    }

    /// Runs a watch whose requests all get this status. An outage of the server ends 50 ms after the first request.
    /// Returns the time from that request to the next.
    async fn second_request(code: u16, retry_after_seconds: u32) -> Duration {
        let (sent, mut requests) = mpsc::channel(8);
        let server = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            sent.try_send(Instant::now()).ok();
            let body = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                "message": "", "reason": "", "details": { "retryAfterSeconds": retry_after_seconds } });
            let body = http_body_util::Full::new(bytes::Bytes::from(body.to_string()));
            std::future::ready(Ok::<_, Infallible>(http::Response::builder().status(code).body(body).unwrap()))
        });
        let client = watch::Sender::new(Client::new(server, "default"));
        let server_back = watch::Sender::new(());
        let context = WatchContext { client: client.subscribe(), server_back: server_back.subscribe() };
        let resource = api_resource(Kind::HttpRoute, "v1");
        let health = WatchHealth::new();
        let reporter = health.reporter(WatchSubject::Objects(Scope { kind: Kind::HttpRoute, namespace: None }));
        let target = WatchTarget { resource, namespace: None, name: None };
        let watch = tokio::spawn(run_watch(target, context, NoObjects, reporter));
        let first = requests.recv().await.unwrap();
        // The paused clock advances only when the watch waits, so its back-off has begun.
        sleep(Duration::from_millis(50)).await; // Time is paused.
        server_back.send_replace(());
        let second = requests.recv().await.unwrap();
        watch.abort();
        second - first
    }

    #[tokio::test(start_paused = true)]
    async fn end_of_an_outage_shortens_the_back_off_but_no_requested_delay() {
        assert_eq!(second_request(500, 0).await, Duration::from_millis(50));
        assert!(second_request(429, 10).await >= Duration::from_secs(10));
    }
}
