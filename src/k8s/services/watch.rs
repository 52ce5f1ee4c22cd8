//! Follows the objects of one kind for as long as somebody wants to know, whatever happens to the API server.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::StreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::k8s::health::Trouble;

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
    let mut wait = FIRST;
    let mut failing = false;
    loop {
        let mut events = std::pin::pin!(watcher(api.clone(), config.clone()));
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
                    let trouble = Trouble::of(&error);
                    if trouble.forbidden {
                        tell(Seen::Forbidden);
                    }
                    if !std::mem::replace(&mut failing, true) {
                        let remedy = if trouble.forbidden { "grant list and watch to Portico's role; " } else { "" };
                        warn!("Cannot watch {what}: {}; {remedy}it is tried again until it works", trouble.message);
                    }
                    sleep(wait.max(trouble.retry_after)).await;
                    wait = (wait * 2).min(LONGEST);
                    // The watcher would ask for the version that is no more again, if that was said instead of an answer.
                    if trouble.expired {
                        break;
                    }
                }
            }
        }
    }
}

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);
