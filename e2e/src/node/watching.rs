//! Watches that survive outages of the API server.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use kube::runtime::utils::{Backoff, StreamBackoff};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// All events of these objects. After an error, the objects are listed again.
pub(crate) fn events<K>(api: Api<K>) -> impl Stream<Item = Event<K>> + Send + Unpin
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let stream = StreamBackoff::new(watcher(api, watcher::Config::default()), ConstantBackoff);
    // Some tests stop the API server on purpose, so errors are not logged.
    Box::pin(stream.filter_map(|event| std::future::ready(event.ok())))
}

/// A constant back-off: one API server on the same machine needs no growing one.
struct ConstantBackoff;

impl Iterator for ConstantBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(200))
    }
}

impl Backoff for ConstantBackoff {
    fn reset(&mut self) {}
}
