//! Which of several replicas writes: the one that holds the Lease.
//!
//! ```text
//!   follower ──nobody holds it, or it was not renewed for 10 s──▶ leader
//!      ▲                                                             │ renews every 2 s
//!      └──────── somebody else has it, or not renewed for 6 s ───────┘
//! ```
//!
//! Whether another holder is alive is judged by whether its Lease changes while we look on, by our own clock: what its
//! clock says in there does not matter. A leader gives up 4 s before any other may take over.

use std::time::Duration;

use kube::Client;
use kube::api::{GetParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::failure::{Failure, within};
use super::moments::{now, until};
use super::patch::FIELD_MANAGER;
use super::pen::Pen;

/// How long a Lease that does not change counts as held.
const DURATION: Duration = Duration::from_secs(10);
/// How long a leader leads without a renewal that succeeded.
const RENEW: Duration = Duration::from_secs(6);
/// How often a leader renews, and the most that others wait before they look again.
const RETRY: Duration = Duration::from_secs(2);
/// While it is not allowed at all.
const RETRY_FORBIDDEN: Duration = Duration::from_secs(30);
/// Leaving must not take longer because of an API server that does not answer.
const RELEASE: Duration = Duration::from_secs(1);

/// Of the Lease.
pub const NAME: &str = "portico-leader";

/// Who stands for election, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    pub namespace: String,
    /// Of this process, and of no other that ever was: who starts again must not mistake its predecessor for itself.
    pub identity: String,
}

impl Seat {
    /// Of a process of this name, such as that of its Pod.
    pub fn new(namespace: String, process: &str) -> Self {
        Seat { namespace, identity: format!("{process}_{:08x}", fastrand::u32(..)) }
    }
}

/// Stands for election until `stop`, and says in `leading` whether it is won; then gives the Lease back, so that a
/// successor need not wait for it to run out. `client` has the one that is to be used now.
pub async fn campaign(
    client: watch::Receiver<Client>,
    seat: Seat,
    leading: watch::Sender<bool>,
    pen: Pen,
    stop: impl Future<Output = ()>,
) {
    let mut campaign = Campaign {
        held_until: None,
        record: None,
        changed: Instant::now(),
        on_its_way: false,
        complained: None,
        path: format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", seat.namespace),
        client,
        seat,
        leading,
        pen,
    };
    tokio::select! {
        () = stop => {}
        () = campaign.run() => {}
    }
    campaign.release().await;
}

struct Campaign {
    client: watch::Receiver<Client>,
    path: String,
    seat: Seat,
    leading: watch::Sender<bool>,
    pen: Pen,
    /// Until when we lead without another renewal.
    held_until: Option<Instant>,
    /// The Lease as it was last seen, and since when it is so by our clock.
    record: Option<Record>,
    changed: Instant,
    /// A call that writes was sent, and its answer has not come.
    on_its_way: bool,
    complained: Option<&'static str>,
}

/// What a Lease says.
#[derive(Clone, Debug, PartialEq)]
struct Record {
    resource_version: String,
    holder: String,
    renewed: String,
    transitions: i64,
}

#[derive(Debug, PartialEq)]
enum Move {
    /// Nobody ever held it.
    Create,
    /// It is free, or its holder is silent for too long.
    Take,
    /// It is ours.
    Renew,
    Wait,
}

impl Campaign {
    async fn run(&mut self) {
        loop {
            let begun = Instant::now();
            if self.held_until.is_some_and(|until| until <= begun) {
                self.lose("this process was stopped for longer than its Lease lasts");
            }
            let outcome = self.attempt(begun).await;
            let wait = self.conclude(begun, outcome);
            let next = begun + wait;
            // Whatever else happens, leading ends when it has to.
            if self.held_until.is_some_and(|until| until < next) {
                until(self.held_until).await;
                self.lose("its Lease could not be renewed in time");
            }
            sleep_until(next).await;
        }
    }

    /// Asks for the Lease once. True if it is ours now.
    async fn attempt(&mut self, begun: Instant) -> Result<bool, Failure> {
        let until = self.held_until;
        tokio::select! {
            biased;
            outcome = self.ask(begun) => outcome,
            () = super::until(until) => Err(Failure::Unreachable("no answer in time".to_owned())),
        }
    }

    async fn ask(&mut self, begun: Instant) -> Result<bool, Failure> {
        if self.held_until.is_none() {
            self.look().await?;
        }
        let done = match self.judge(begun) {
            Move::Wait => return Ok(false),
            Move::Create => self.create().await,
            Move::Take | Move::Renew => self.hold().await,
        };
        match done {
            Ok(()) => Ok(true),
            // Not even the namespace is there.
            Err(Failure::Gone) if self.record.is_none() => Err(Failure::Gone),
            // Somebody was quicker, or wrote into the Lease that we hold. Looking says which.
            Err(Failure::Conflict | Failure::Exists | Failure::Gone) => {
                self.look().await?;
                match self.judge(begun) {
                    Move::Renew => self.hold().await.map(|()| true),
                    // Deleted by hand. Whoever leads makes it anew, unless somebody was quicker.
                    Move::Create if self.held_until.is_some() => match self.create().await {
                        Err(Failure::Exists) => Ok(false),
                        done => done.map(|()| true),
                    },
                    Move::Create | Move::Take | Move::Wait => Ok(false),
                }
            }
            Err(failure) => Err(failure),
        }
    }

    fn judge(&self, now: Instant) -> Move {
        match &self.record {
            None => Move::Create,
            Some(record) if record.holder == self.seat.identity => Move::Renew,
            Some(record) if record.holder.is_empty() => Move::Take,
            Some(_) if now.saturating_duration_since(self.changed) >= DURATION => Move::Take,
            Some(_) => Move::Wait,
        }
    }

    /// Takes the outcome of an attempt over; gives when, counted from its begin, the next one is.
    fn conclude(&mut self, begun: Instant, outcome: Result<bool, Failure>) -> Duration {
        match outcome {
            Ok(true) => {
                self.held_until = Some(begun + RENEW);
                self.complained = None;
                if self.leading.send_if_modified(|leading| !std::mem::replace(leading, true)) {
                    info!(lease = NAME, namespace = self.seat.namespace, identity = self.seat.identity, "Leads");
                }
                RETRY
            }
            Ok(false) => {
                self.complained = None;
                self.lose("another replica has the Lease");
                // Replicas that wait for the same one shall not all ask at the same time.
                RETRY.mul_f64(0.6 + 0.3 * fastrand::f64())
            }
            Err(failure) => {
                self.complain(&failure);
                match failure {
                    Failure::Forbidden(_) if self.held_until.is_none() => RETRY_FORBIDDEN,
                    _ => RETRY,
                }
            }
        }
    }

    fn lose(&mut self, why: &str) {
        self.held_until = None;
        if self.leading.send_if_modified(|leading| std::mem::replace(leading, false)) {
            warn!(lease = NAME, "Does not lead any more: {why}; statuses are left to the replica that does");
        }
    }

    fn complain(&mut self, failure: &Failure) {
        if self.complained.replace(failure.word()) == Some(failure.word()) {
            return;
        }
        let namespace = &self.seat.namespace;
        match failure {
            Failure::Forbidden(_) => warn!(
                "Cannot use Lease {NAME} in namespace {namespace}: {failure}; allow get, create and patch on leases of \
                 coordination.k8s.io there. Until then this replica serves, and writes no status"
            ),
            Failure::Gone => warn!(
                "Cannot create Lease {NAME}: there is no namespace {namespace}; create it, or name another with \
                 --leader-election-namespace. Until then this replica serves, and writes no status"
            ),
            _ => info!("Cannot use Lease {NAME} in namespace {namespace} now: {failure}; it is tried again"),
        }
    }

    fn client(&self) -> Client {
        self.client.borrow().clone()
    }

    async fn look(&mut self) -> Result<(), Failure> {
        let request = Request::new(&*self.path).get(NAME, &GetParams::default())?;
        match within(RETRY, self.client().request::<Lease>(request)).await {
            Ok(lease) => self.learn(Record::from(lease)),
            Err(Failure::Gone) => self.record = None,
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    fn learn(&mut self, record: Record) {
        let says = |record: &Record| (record.holder.clone(), record.renewed.clone(), record.transitions);
        if self.record.as_ref().map(says) != Some(says(&record)) {
            self.changed = Instant::now();
        }
        self.record = Some(record);
    }

    async fn create(&mut self) -> Result<(), Failure> {
        let now = now();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": NAME, "namespace": self.seat.namespace},
            "spec": self.spec(&now, 0, Some(&now)),
        });
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let request = Request::new(&*self.path).create(&params, lease.to_string().into_bytes())?;
        self.send(request).await
    }

    /// Takes or renews, provided that nobody else changed it since it was seen.
    async fn hold(&mut self) -> Result<(), Failure> {
        let Some(record) = &self.record else { return Err(Failure::Gone) };
        let now = now();
        let spec = if record.holder == self.seat.identity {
            json!({"renewTime": now})
        } else {
            self.spec(&now, record.transitions + 1, Some(&now))
        };
        self.patch(&spec).await
    }

    fn spec(&self, renewed: &str, transitions: i64, acquired: Option<&str>) -> Value {
        json!({
            "holderIdentity": self.seat.identity,
            "leaseDurationSeconds": DURATION.as_secs(),
            "acquireTime": acquired,
            "renewTime": renewed,
            "leaseTransitions": transitions,
        })
    }

    async fn patch(&mut self, spec: &Value) -> Result<(), Failure> {
        let version = self.record.as_ref().map(|record| &record.resource_version);
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": spec});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let request = Request::new(&*self.path).patch(NAME, &params, &Patch::Merge(patch))?;
        self.send(request).await
    }

    /// Sends what changes the Lease.
    async fn send(&mut self, request: http::Request<Vec<u8>>) -> Result<(), Failure> {
        self.on_its_way = true;
        let answer = within(RETRY, self.client().request::<Lease>(request)).await;
        // Without an answer it may yet be carried out.
        self.on_its_way = matches!(answer, Err(Failure::Unreachable(_)));
        self.learn(Record::from(answer?));
        Ok(())
    }

    /// Says that nobody leads, so that the next one need not wait.
    async fn release(&mut self) {
        let held = self.held_until.take().is_some();
        self.leading.send_replace(false);
        if !held && !self.on_its_way {
            return;
        }
        // What is on its way comes to an end before anybody else may begin to write.
        if timeout(RELEASE, self.pen.put_down()).await.is_err() {
            warn!(lease = NAME, "A write does not end; the Lease is left to run out");
            return;
        }
        match timeout(RELEASE, self.give_back()).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => info!(lease = NAME, "Gave the Lease back"),
            Ok(Err(failure)) => info!(lease = NAME, "Could not give the Lease back: {failure}; it runs out by itself"),
            Err(_) => info!(lease = NAME, "Could not give the Lease back in time; it runs out by itself"),
        }
    }

    /// False if it is not ours to give.
    async fn give_back(&mut self) -> Result<bool, Failure> {
        let is_ours = |campaign: &Campaign| {
            campaign.record.as_ref().is_some_and(|record| record.holder == campaign.seat.identity)
        };
        if !is_ours(self) {
            // We were just about to take it.
            self.look().await?;
        }
        loop {
            if !is_ours(self) {
                return Ok(false);
            }
            let now = now();
            let spec = json!({"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": now, "acquireTime": now});
            match self.patch(&spec).await {
                Ok(()) => return Ok(true),
                // A renewal that was on its way when we were told to stop has been carried out.
                Err(Failure::Conflict) => self.look().await?,
                Err(failure) => return Err(failure),
            }
        }
    }
}

#[derive(Deserialize)]
struct Lease {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    holder_identity: Option<String>,
    renew_time: Option<String>,
    lease_transitions: Option<i64>,
}

impl From<Lease> for Record {
    fn from(Lease { metadata, spec }: Lease) -> Self {
        Record {
            resource_version: metadata.resource_version,
            holder: spec.holder_identity.unwrap_or_default(),
            renewed: spec.renew_time.unwrap_or_default(),
            transitions: spec.lease_transitions.unwrap_or_default(),
        }
    }
}
