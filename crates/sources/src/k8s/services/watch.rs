//! Watches the objects of one kind, and retries after failures.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::StreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::k8s::watch_health::WatchError;

/// What a watch reports.
#[derive(Clone)]
pub(in crate::k8s) enum WatchUpdate<K> {
    Event(Event<K>),
    /// The permission to list or watch these objects is missing.
    Forbidden,
}

/// Reports the events of one watch; never returns. `objects` names the watched objects in messages.
pub(in crate::k8s) async fn watch_objects<K>(
    objects: &str,
    api: Api<K>,
    config: watcher::Config,
    report: impl Fn(WatchUpdate<K>),
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut delay = MIN_RETRY_DELAY;
    let mut failing = false;
    loop {
        let mut events = std::pin::pin!(watcher(api.clone(), config.clone()));
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    // The start of a list does not show yet that the watch works.
                    if !matches!(event, Event::Init) {
                        delay = MIN_RETRY_DELAY;
                        if std::mem::take(&mut failing) {
                            info!("Watching {objects} again");
                        }
                    }
                    report(WatchUpdate::Event(event));
                }
                Err(error) => {
                    let watch_error = WatchError::from_watcher(&error);
                    if watch_error.forbidden {
                        report(WatchUpdate::Forbidden);
                    }
                    if !std::mem::replace(&mut failing, true) {
                        let remedy =
                            if watch_error.forbidden { "grant list and watch to Portico's role; " } else { "" };
                        warn!("Cannot watch {objects}: {}; {remedy}Portico retries", watch_error.message);
                    }
                    sleep(delay.max(watch_error.retry_after)).await;
                    delay = (delay * 2).min(MAX_RETRY_DELAY);
                    // After a 410 as the status of the response, not in an event, this watcher would request the
                    // expired resource version again. A new one starts with a list.
                    if watch_error.expired {
                        break;
                    }
                }
            }
        }
    }
}

const MIN_RETRY_DELAY: Duration = Duration::from_millis(200);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(5);
