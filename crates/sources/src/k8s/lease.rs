//! Leader election among replicas: the holder of the Lease writes.
//!
//! ```text
//!   follower ──the Lease is free, or was not renewed for 10 s──▶ leader
//!      ▲                                                            │ renews every 2 s
//!      └──── another replica holds it, or not renewed for 6 s ──────┘
//! ```
//!
//! Another holder counts as alive while its Lease changes, measured with the local clock; timestamps in the Lease do
//! not matter. A leader that cannot renew its Lease steps down 4 s before another replica may take over.

use std::time::Duration;

use kube::Client;
use kube::api::{GetParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::api_error::{ApiError, with_timeout};
use super::leader_write_guard::LeaderWriteGuard;
use super::status_client::FIELD_MANAGER;
use super::timestamps::{now_micros, sleep_until_deadline};

/// How long an unchanged Lease counts as held.
const LEASE_DURATION: Duration = Duration::from_secs(10);
/// How long a leader leads without a successful renewal.
const RENEW_DEADLINE: Duration = Duration::from_secs(6);
/// The interval between renewals, and the longest between a follower's checks.
const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// The interval between attempts while access to the Lease is forbidden.
const RETRY_PERIOD_FORBIDDEN: Duration = Duration::from_secs(30);
/// The longest time that each step of releasing the Lease may add to shutdown.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// The name of the Lease.
pub const LEASE_NAME: &str = "portico-leader";

/// A participant of the election, and the namespace of the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderCandidate {
    pub namespace: String,
    /// Unique to this process: after a restart, the predecessor's Lease must not look like its own.
    pub identity: String,
}

impl LeaderCandidate {
    /// For a process of this name, such as the name of its Pod.
    pub fn new(namespace: String, process: &str) -> Self {
        LeaderCandidate { namespace, identity: format!("{process}_{:08x}", fastrand::u32(..)) }
    }
}

/// Takes part in the election until `stop`, and reports in `leading` whether this replica leads. Then releases the
/// Lease, so that a successor need not wait for its expiry. `client` holds the current client.
pub async fn run_leader_election(
    client: watch::Receiver<Client>,
    candidate: LeaderCandidate,
    leading: watch::Sender<bool>,
    write_guard: LeaderWriteGuard,
    stop: impl Future<Output = ()>,
) {
    let mut election = LeaderElection {
        held_until: None,
        record: None,
        unchanged_since: Instant::now(),
        write_in_flight: false,
        last_logged: None,
        path: format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", candidate.namespace),
        client,
        candidate,
        leading,
        write_guard,
    };
    tokio::select! {
        () = stop => {}
        () = election.run() => {}
    }
    election.resign().await;
}

struct LeaderElection {
    client: watch::Receiver<Client>,
    path: String,
    candidate: LeaderCandidate,
    leading: watch::Sender<bool>,
    write_guard: LeaderWriteGuard,
    /// Until when this replica leads without another renewal.
    held_until: Option<Instant>,
    /// The Lease as last seen; None if it does not exist or was not fetched yet.
    record: Option<LeaseRecord>,
    /// When the content of `record` was first seen, by the local clock.
    unchanged_since: Instant,
    /// Whether a write of the Lease was sent whose outcome is unknown: the server may carry it out later.
    write_in_flight: bool,
    /// The label of the failure that was logged last; None after an attempt without failure.
    last_logged: Option<&'static str>,
}

/// The relevant fields of a Lease.
#[derive(Clone, Debug, PartialEq)]
struct LeaseRecord {
    resource_version: String,
    holder: String,
    renewed: String,
    transitions: i64,
}

#[derive(Debug, PartialEq)]
enum LeaseAction {
    /// The Lease does not exist.
    Create,
    /// It is free, or its holder stopped renewing it.
    Take,
    /// This replica holds it.
    Renew,
    Wait,
}

impl LeaderElection {
    async fn run(&mut self) {
        loop {
            let begun = Instant::now();
            if self.held_until.is_some_and(|until| until <= begun) {
                self.step_down("this process was suspended until after its renewal deadline");
            }
            let outcome = self.try_acquire_in_time(begun).await;
            let wait = self.apply_outcome(begun, outcome);
            let next = begun + wait;
            // Leadership ends at the deadline, even if no attempt finishes before.
            if self.held_until.is_some_and(|until| until < next) {
                sleep_until_deadline(self.held_until).await;
                self.step_down("its Lease could not be renewed in time");
            }
            sleep_until(next).await;
        }
    }

    /// Makes one attempt to get or renew the Lease. True if this replica holds it now.
    async fn try_acquire_in_time(&mut self, begun: Instant) -> Result<bool, ApiError> {
        let until = self.held_until;
        tokio::select! {
            biased;
            outcome = self.try_acquire(begun) => outcome,
            () = sleep_until_deadline(until) => Err(ApiError::Unreachable("no response in time".to_owned())),
        }
    }

    async fn try_acquire(&mut self, begun: Instant) -> Result<bool, ApiError> {
        if self.held_until.is_none() {
            self.fetch().await?;
        }
        let outcome = match self.next_action(begun) {
            LeaseAction::Wait => return Ok(false),
            LeaseAction::Create => self.create().await,
            LeaseAction::Take | LeaseAction::Renew => self.take_or_renew().await,
        };
        match outcome {
            Ok(()) => Ok(true),
            // Neither the Lease nor its namespace exists.
            Err(ApiError::NotFound) if self.record.is_none() => Err(ApiError::NotFound),
            // Another replica was faster, or another client edited or deleted the Lease. Fetching it shows which.
            Err(ApiError::Conflict | ApiError::AlreadyExists | ApiError::NotFound) => {
                self.fetch().await?;
                match self.next_action(begun) {
                    LeaseAction::Renew => self.take_or_renew().await.map(|()| true),
                    // Deleted by hand. The leader creates it again, unless another replica was faster.
                    LeaseAction::Create if self.held_until.is_some() => match self.create().await {
                        Err(ApiError::AlreadyExists) => Ok(false),
                        outcome => outcome.map(|()| true),
                    },
                    LeaseAction::Create | LeaseAction::Take | LeaseAction::Wait => Ok(false),
                }
            }
            Err(failure) => Err(failure),
        }
    }

    fn next_action(&self, now: Instant) -> LeaseAction {
        match &self.record {
            None => LeaseAction::Create,
            Some(record) if record.holder == self.candidate.identity => LeaseAction::Renew,
            Some(record) if record.holder.is_empty() => LeaseAction::Take,
            Some(_) if now.saturating_duration_since(self.unchanged_since) >= LEASE_DURATION => LeaseAction::Take,
            Some(_) => LeaseAction::Wait,
        }
    }

    /// Applies the outcome of an attempt; returns the delay of the next one, counted from the start of this one.
    fn apply_outcome(&mut self, begun: Instant, outcome: Result<bool, ApiError>) -> Duration {
        match outcome {
            Ok(true) => {
                self.held_until = Some(begun + RENEW_DEADLINE);
                self.last_logged = None;
                if self.leading.send_if_modified(|leading| !std::mem::replace(leading, true)) {
                    info!(
                        lease = LEASE_NAME,
                        namespace = self.candidate.namespace,
                        identity = self.candidate.identity,
                        "Became the leader"
                    );
                }
                RETRY_PERIOD
            }
            Ok(false) => {
                self.last_logged = None;
                self.step_down("another replica holds the Lease");
                // Followers of the same leader must not all send requests at the same time.
                RETRY_PERIOD.mul_f64(0.6 + 0.3 * fastrand::f64())
            }
            Err(failure) => {
                self.log_failure(&failure);
                match failure {
                    ApiError::Forbidden(_) if self.held_until.is_none() => RETRY_PERIOD_FORBIDDEN,
                    _ => RETRY_PERIOD,
                }
            }
        }
    }

    fn step_down(&mut self, reason: &str) {
        self.held_until = None;
        if self.leading.send_if_modified(|leading| std::mem::replace(leading, false)) {
            warn!(
                lease = LEASE_NAME,
                "No longer the leader: {reason}; another replica takes over the writing of statuses"
            );
        }
    }

    fn log_failure(&mut self, failure: &ApiError) {
        if self.last_logged.replace(failure.label()) == Some(failure.label()) {
            return;
        }
        let namespace = &self.candidate.namespace;
        match failure {
            ApiError::Forbidden(_) => warn!(
                "Cannot use Lease {LEASE_NAME} in namespace {namespace}: {failure}; allow get, create and patch on \
                 leases of coordination.k8s.io there. Until then this replica serves traffic but writes no statuses"
            ),
            ApiError::NotFound => warn!(
                "Cannot create Lease {LEASE_NAME}: namespace {namespace} does not exist; create it, or name another \
                 with --leader-election-namespace. Until then this replica serves traffic but writes no statuses"
            ),
            _ => info!("Cannot use Lease {LEASE_NAME} in namespace {namespace} now: {failure}; Portico retries"),
        }
    }

    fn client(&self) -> Client {
        self.client.borrow().clone()
    }

    async fn fetch(&mut self) -> Result<(), ApiError> {
        let request = Request::new(&*self.path).get(LEASE_NAME, &GetParams::default())?;
        match with_timeout(RETRY_PERIOD, self.client().request::<LeaseObject>(request)).await {
            Ok(lease) => self.observe(LeaseRecord::from(lease)),
            Err(ApiError::NotFound) => self.record = None,
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    fn observe(&mut self, record: LeaseRecord) {
        let content = |record: &LeaseRecord| (record.holder.clone(), record.renewed.clone(), record.transitions);
        if self.record.as_ref().map(content) != Some(content(&record)) {
            self.unchanged_since = Instant::now();
        }
        self.record = Some(record);
    }

    async fn create(&mut self) -> Result<(), ApiError> {
        let now = now_micros();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": LEASE_NAME, "namespace": self.candidate.namespace},
            "spec": self.spec_of_new_holder(&now, 0),
        });
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let request = Request::new(&*self.path).create(&params, lease.to_string().into_bytes())?;
        self.send(request).await
    }

    /// Takes or renews the Lease, unless it changed since it was seen.
    async fn take_or_renew(&mut self) -> Result<(), ApiError> {
        let Some(record) = &self.record else { return Err(ApiError::NotFound) };
        let now = now_micros();
        let spec = if record.holder == self.candidate.identity {
            json!({"renewTime": now})
        } else {
            self.spec_of_new_holder(&now, record.transitions + 1)
        };
        self.patch(&spec).await
    }

    /// The spec with which this replica becomes the holder.
    fn spec_of_new_holder(&self, now: &str, transitions: i64) -> Value {
        json!({
            "holderIdentity": self.candidate.identity,
            "leaseDurationSeconds": LEASE_DURATION.as_secs(),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions,
        })
    }

    async fn patch(&mut self, spec: &Value) -> Result<(), ApiError> {
        let version = self.record.as_ref().map(|record| &record.resource_version);
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": spec});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let request = Request::new(&*self.path).patch(LEASE_NAME, &params, &Patch::Merge(patch))?;
        self.send(request).await
    }

    /// Sends a write of the Lease.
    async fn send(&mut self, request: http::Request<Vec<u8>>) -> Result<(), ApiError> {
        self.write_in_flight = true;
        let response = with_timeout(RETRY_PERIOD, self.client().request::<LeaseObject>(request)).await;
        // A write without a response may still be carried out.
        self.write_in_flight = matches!(response, Err(ApiError::Unreachable(_)));
        self.observe(LeaseRecord::from(response?));
        Ok(())
    }

    /// Clears the holder, so that the next leader need not wait.
    async fn resign(&mut self) {
        let held = self.held_until.take().is_some();
        self.leading.send_replace(false);
        if !held && !self.write_in_flight {
            return;
        }
        // Leader-only writes in flight must end before another replica starts to write.
        if timeout(RELEASE_TIMEOUT, self.write_guard.wait_idle()).await.is_err() {
            warn!(
                lease = LEASE_NAME,
                "A write did not finish in time; the Lease is not released and expires by itself"
            );
            return;
        }
        match timeout(RELEASE_TIMEOUT, self.clear_holder()).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => info!(lease = LEASE_NAME, "Released the Lease"),
            Ok(Err(failure)) => {
                info!(lease = LEASE_NAME, "Could not release the Lease: {failure}; it expires by itself")
            }
            Err(_) => info!(lease = LEASE_NAME, "Could not release the Lease in time; it expires by itself"),
        }
    }

    /// Returns false if this replica does not hold the Lease.
    async fn clear_holder(&mut self) -> Result<bool, ApiError> {
        let is_holder = |election: &LeaderElection| {
            election.record.as_ref().is_some_and(|record| record.holder == election.candidate.identity)
        };
        if !is_holder(self) {
            // A write that takes the Lease was sent; the current Lease shows whether it was carried out.
            self.fetch().await?;
        }
        loop {
            if !is_holder(self) {
                return Ok(false);
            }
            let now = now_micros();
            let spec = json!({"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": now, "acquireTime": now});
            match self.patch(&spec).await {
                Ok(()) => return Ok(true),
                // A renewal that was in flight at shutdown has been carried out.
                Err(ApiError::Conflict) => self.fetch().await?,
                Err(failure) => return Err(failure),
            }
        }
    }
}

#[derive(Deserialize)]
struct LeaseObject {
    metadata: LeaseMetadata,
    #[serde(default)]
    spec: LeaseSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeaseMetadata {
    resource_version: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LeaseSpec {
    holder_identity: Option<String>,
    renew_time: Option<String>,
    lease_transitions: Option<i64>,
}

impl From<LeaseObject> for LeaseRecord {
    fn from(LeaseObject { metadata, spec }: LeaseObject) -> Self {
        LeaseRecord {
            resource_version: metadata.resource_version,
            holder: spec.holder_identity.unwrap_or_default(),
            renewed: spec.renew_time.unwrap_or_default(),
            transitions: spec.lease_transitions.unwrap_or_default(),
        }
    }
}
