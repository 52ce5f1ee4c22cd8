//! The Secret with the keys that all replicas share: every replica watches it, and the leader creates it.
//!
//! ```text
//!   watch of the one Secret ──▶ KeySecret ──▶ keys of plugins
//!                                   │ missing
//!                                   └──▶ the leader creates it, with random keys
//! ```

use std::fmt;
use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1;
use kube::api::PostParams;
use kube::core::Request;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use super::api_error::{ApiError, with_timeout};
use super::leader_write_guard::LeaderWriteGuard;
use super::services::{WatchUpdate, watch_objects};
use super::status_client::FIELD_MANAGER;

/// The name of the Secret.
pub const KEY_SECRET_NAME: &str = "portico-keys";

/// What is known of the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySecret {
    /// The API server has not responded yet.
    Unknown,
    /// The permission to read it is missing.
    Forbidden,
    Missing,
    Invalid {
        uid: String,
        /// The field, what is wrong with it, and what would be right.
        message: String,
    },
    Valid(StoredKeys),
}

/// The keys in the Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredKeys {
    /// The key that seals.
    pub current: Vec<u8>,
    /// A key that also opens.
    pub former: Option<Vec<u8>>,
}

impl fmt::Debug for StoredKeys {
    /// Omits the keys.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("StoredKeys").finish_non_exhaustive()
    }
}

/// Follows the Secret in this namespace, and creates it while this replica leads and it is missing. Does not end.
pub async fn follow_key_secret(
    mut client: watch::Receiver<Client>,
    namespace: String,
    leading: watch::Receiver<bool>,
    write_guard: LeaderWriteGuard,
    state: watch::Sender<KeySecret>,
) {
    loop {
        let current = client.borrow_and_update().clone();
        let creator = KeySecretCreator {
            client: current.clone(),
            namespace: &namespace,
            leading: leading.clone(),
            write_guard: &write_guard,
            is_failing: false,
        };
        tokio::select! {
            () = watch_secret(current, &namespace, &state) => {}
            () = creator.run(state.subscribe()) => {}
            // The credentials have changed.
            Ok(()) = client.changed() => {}
        }
    }
}

async fn watch_secret(client: Client, namespace: &str, state: &watch::Sender<KeySecret>) {
    let api: Api<v1::Secret> = Api::namespaced(client, namespace);
    // A permission with the name of the Secret covers requests with this selector only.
    let config = watcher::Config::default().fields(&format!("metadata.name={KEY_SECRET_NAME}"));
    let listed = parking_lot::Mutex::new(KeySecret::Missing);
    let set = |new: KeySecret| {
        state.send_if_modified(|old| {
            *old != new && {
                *old = new;
                true
            }
        });
    };
    let is_ours = |secret: &v1::Secret| secret.metadata.name.as_deref() == Some(KEY_SECRET_NAME);
    let report = |update| match update {
        WatchUpdate::Forbidden => {
            // Keys that were read before stay in use.
            if *state.borrow() == KeySecret::Unknown {
                set(KeySecret::Forbidden);
            }
        }
        WatchUpdate::Event(Event::Init) => *listed.lock() = KeySecret::Missing,
        WatchUpdate::Event(Event::InitApply(secret)) if is_ours(&secret) => *listed.lock() = read(&secret),
        WatchUpdate::Event(Event::InitDone) => set(listed.lock().clone()),
        WatchUpdate::Event(Event::Apply(secret)) if is_ours(&secret) => set(read(&secret)),
        WatchUpdate::Event(Event::Delete(secret)) if is_ours(&secret) => set(KeySecret::Missing),
        WatchUpdate::Event(Event::InitApply(_) | Event::Apply(_) | Event::Delete(_)) => {}
    };
    let objects = format!("Secret {KEY_SECRET_NAME} in namespace {namespace}");
    watch_objects(&objects, api, config, report).await;
}

fn read(secret: &v1::Secret) -> KeySecret {
    let invalid = |message: String| {
        let uid = secret.metadata.uid.clone().unwrap_or_default();
        KeySecret::Invalid { uid, message }
    };
    let mut keys = StoredKeys { current: Vec::new(), former: None };
    for (name, value) in secret.data.iter().flatten() {
        if !(MIN_KEY_BYTES..=MAX_KEY_BYTES).contains(&value.0.len()) {
            return invalid(format!(
                "data.{name}: has {} bytes; use {MIN_KEY_BYTES} to {MAX_KEY_BYTES} random bytes",
                value.0.len()
            ));
        }
        match &**name {
            CURRENT => keys.current.clone_from(&value.0),
            FORMER => keys.former = Some(value.0.clone()),
            _ => return invalid(format!("data.{name}: is unknown; the keys are `{CURRENT}` and `{FORMER}`")),
        }
    }
    if keys.current.is_empty() {
        let remedy = format!("set it to {MIN_KEY_BYTES} random bytes in base64, or delete the Secret");
        return invalid(format!("data.{CURRENT}: is missing; {remedy}"));
    }
    KeySecret::Valid(keys)
}

struct KeySecretCreator<'a> {
    client: Client,
    namespace: &'a str,
    leading: watch::Receiver<bool>,
    write_guard: &'a LeaderWriteGuard,
    is_failing: bool,
}

impl KeySecretCreator<'_> {
    async fn run(mut self, mut state: watch::Receiver<KeySecret>) {
        loop {
            // The senders live as long as the process; without them there is nothing to do.
            if state.wait_for(|state| *state == KeySecret::Missing).await.is_err()
                || self.leading.wait_for(|leading| *leading).await.is_err()
            {
                return std::future::pending().await;
            }
            let wait = if *state.borrow() == KeySecret::Missing { self.create_as_leader().await } else { WATCH_DELAY };
            // Until the watch reports the created Secret.
            drop(timeout(wait, state.wait_for(|state| *state != KeySecret::Missing)).await);
        }
    }

    /// Returns how long to wait for the Secret to appear before another attempt.
    async fn create_as_leader(&mut self) -> Duration {
        let permit = self.write_guard.acquire().await;
        if !*self.leading.borrow() {
            return WATCH_DELAY;
        }
        let outcome = self.create().await;
        drop(permit);
        let namespace = self.namespace;
        match outcome {
            Ok(()) => info!("Created Secret {KEY_SECRET_NAME} in namespace {namespace} with the keys of sessions"),
            // Created by hand, or by a former leader: the watch reports it.
            Err(ApiError::AlreadyExists) => {}
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    let remedy = match error {
                        ApiError::Forbidden(_) => {
                            "allow create on secrets there, or create it as the documentation says"
                        }
                        _ => "Portico retries",
                    };
                    warn!(
                        "Cannot create Secret {KEY_SECRET_NAME} in namespace {namespace}: {error}; {remedy}. Until it \
                         exists, each replica has random keys, and does not accept sessions of the others"
                    );
                }
                return RETRY_PERIOD;
            }
        }
        self.is_failing = false;
        WATCH_DELAY
    }

    async fn create(&self) -> Result<(), ApiError> {
        let key = || {
            let mut bytes = [0; MIN_KEY_BYTES];
            rand::fill(&mut bytes).expect("the system provides random bytes");
            STANDARD.encode(bytes)
        };
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": KEY_SECRET_NAME, "namespace": self.namespace},
            "type": "Opaque",
            "data": {CURRENT: key(), FORMER: key()},
        });
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let path = format!("/api/v1/namespaces/{}/secrets", self.namespace);
        let request = Request::new(path).create(&params, secret.to_string().into_bytes())?;
        with_timeout(REQUEST_TIMEOUT, self.client.request::<Value>(request)).await.map(drop)
    }
}

/// The names of the keys in the Secret.
const CURRENT: &str = "current";
const FORMER: &str = "former";

const MIN_KEY_BYTES: usize = 32;
const MAX_KEY_BYTES: usize = 1024;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the watch may take to report a created Secret.
const WATCH_DELAY: Duration = Duration::from_secs(5);
/// The interval between attempts to create the Secret.
const RETRY_PERIOD: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_in_the_secret_are_found() {
        let key = STANDARD.encode([7; 32]);
        for (data, problem) in [
            (json!({"current": key}), None),
            (json!({"current": key, "former": STANDARD.encode([8; 1024])}), None),
            (json!({}), Some("data.current: is missing")),
            (Value::Null, Some("data.current: is missing")),
            (json!({"former": key}), Some("data.current: is missing")),
            (json!({"current": STANDARD.encode([7; 31])}), Some("data.current: has 31 bytes")),
            (json!({"current": key, "former": ""}), Some("data.former: has 0 bytes")),
            (json!({"current": key, "former": STANDARD.encode([8; 1025])}), Some("data.former: has 1025 bytes")),
            (json!({"current": key, "formr": key}), Some("data.formr: is unknown")),
        ] {
            let secret = json!({"metadata": {"name": KEY_SECRET_NAME, "uid": "u"}, "data": data});
            match (read(&serde_json::from_value(secret).unwrap()), problem) {
                (KeySecret::Valid(keys), None) => assert_eq!(keys.current, [7; 32]),
                (KeySecret::Invalid { uid, message }, Some(problem)) => {
                    assert_eq!(uid, "u");
                    assert!(message.starts_with(problem), "{message}");
                    assert!(!message.contains(&key), "{message}");
                }
                (found, _) => panic!("{data}: {found:?}"),
            }
        }
    }

    #[test]
    fn stored_keys_are_not_shown() {
        let keys = StoredKeys { current: b"marker".to_vec(), former: Some(b"marker".to_vec()) };
        let shown = format!("{:?}", KeySecret::Valid(keys));
        assert!(!shown.contains("marker") && !shown.contains("109"), "{shown}");
    }

    /// An API server without the Secret, or one that refuses to list it. Returns the bodies of what is created.
    async fn run(status: u16, leads: bool) -> (KeySecret, Vec<Value>) {
        let (sent, mut created) = tokio::sync::mpsc::channel(8);
        let server = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let sent = sent.clone();
            async move {
                let (head, body) = request.into_parts();
                let uri = head.uri.to_string();
                assert!(uri.starts_with("/api/v1/namespaces/own/secrets?"), "{uri}");
                let answer = if head.method == http::Method::POST {
                    let created: Value = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap();
                    sent.try_send(created.clone()).ok();
                    created
                } else {
                    assert!(uri.contains("fieldSelector=metadata.name%3Dportico-keys"), "{uri}");
                    if uri.contains("watch=true") {
                        std::future::pending::<()>().await;
                    }
                    json!({"apiVersion": "v1", "kind": "SecretList", "metadata": {"resourceVersion": "1"}, "items": [],
                        "status": "Failure", "code": status, "message": "no", "reason": "Forbidden"})
                };
                let body = http_body_util::Full::new(bytes::Bytes::from(answer.to_string()));
                let status = if head.method == http::Method::POST { 201 } else { status };
                Ok::<_, std::convert::Infallible>(http::Response::builder().status(status).body(body).unwrap())
            }
        });
        let client = watch::Sender::new(Client::new(server, "default"));
        let (leading, state) = (watch::channel(leads).0, watch::Sender::new(KeySecret::Unknown));
        let guard = LeaderWriteGuard::default();
        let following =
            follow_key_secret(client.subscribe(), "own".to_owned(), leading.subscribe(), guard, state.clone());
        drop(timeout(Duration::from_secs(3), following).await);
        let found = state.borrow().clone();
        let mut bodies = Vec::new();
        while let Ok(body) = created.try_recv() {
            bodies.push(body);
        }
        (found, bodies)
    }

    #[tokio::test(start_paused = true)]
    async fn the_leader_creates_a_missing_secret_with_random_keys() {
        assert_eq!(run(200, false).await, (KeySecret::Missing, vec![]), "another replica leads");
        assert_eq!(run(403, true).await, (KeySecret::Forbidden, vec![]), "the Secret may exist");
        let (_, created) = run(200, true).await;
        let [secret] = &created[..] else { panic!("{} are created", created.len()) };
        assert_eq!(secret["metadata"], json!({"name": "portico-keys", "namespace": "own"}));
        let KeySecret::Valid(keys) = read(&serde_json::from_value(secret.clone()).unwrap()) else {
            panic!("the created Secret is not valid")
        };
        let former = keys.former.unwrap();
        assert_eq!((keys.current.len(), former.len()), (32, 32));
        assert!(keys.current != former && keys.current != [0; 32]);
    }
}
