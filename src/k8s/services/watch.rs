//! Follows the objects of one kind for as long as somebody wants to know, whatever happens to the API server.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::StreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::sleep;
use tracing::{info, warn};

/// What a watch has to tell.
pub(super) enum Seen<K> {
    Event(Event<K>),
    /// We may not see these objects.
    Forbidden,
}

/// Never returns. `what` names the objects in messages.
pub(super) async fn follow<K>(what: &str, api: Api<K>, config: watcher::Config, tell: impl Fn(Seen<K>))
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = std::pin::pin!(watcher(api, config));
    let mut wait = FIRST;
    let mut failing = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                // The beginning of a list proves nothing yet.
                if !matches!(event, Event::Init) {
                    wait = FIRST;
                    if std::mem::take(&mut failing) {
                        info!("Watching {what} again");
                    }
                }
                tell(Seen::Event(event));
            }
            Err(error) => {
                if is_forbidden(&error) {
                    tell(Seen::Forbidden);
                }
                if !std::mem::replace(&mut failing, true) {
                    let error = super::chain(&error);
                    warn!(error, "Cannot watch {what}; trying again until it works. Does the ClusterRole allow it?");
                }
                sleep(wait).await;
                wait = (wait * 2).min(LONGEST);
            }
        }
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status)) => status.code == 403,
        _ => false,
    }
}

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);
