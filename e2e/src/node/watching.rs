//! Watches that go on whatever happens to the API server.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use kube::runtime::utils::{Backoff, StreamBackoff};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// All events of these objects. What goes wrong is tried again; after it, everything is listed anew.
pub(crate) fn events<K>(api: Api<K>) -> impl Stream<Item = Event<K>> + Send + Unpin
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let stream = StreamBackoff::new(watcher(api, watcher::Config::default()), Steadily);
    // The API server is stopped on purpose in some tests; there is nothing to say about that here.
    Box::pin(stream.filter_map(|event| std::future::ready(event.ok())))
}

/// One API server on the same machine needs no consideration.
struct Steadily;

impl Iterator for Steadily {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(200))
    }
}

impl Backoff for Steadily {
    fn reset(&mut self) {}
}
