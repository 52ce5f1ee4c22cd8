//! The part of a Portico replica that elects a leader and writes statuses, with the watch of a fake API server as
//! input.

use std::sync::Arc;
use std::time::Duration;

use portico::api::gateway::ParentReference;
use portico::api::{Kind, ObjectId, ObjectKey};
use portico::k8s::{LeaderCandidate, LeaderWriteGuard, StatusClient, run_leader_election};
use portico::status::{StatusQueue, StatusWriteMetrics, StatusWriter};
use portico::verdict::{Code, Condition, ListenerVerdict, ParentVerdict, Verdict};
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::fake_api::FakeStatusApi;

pub(crate) const CONTROLLER: &str = "portico.dev/gateway-controller";

pub(crate) struct StatusReplica {
    pub(crate) queue: StatusQueue,
    pub(crate) leading: watch::Receiver<bool>,
    stop: Option<oneshot::Sender<()>>,
    tasks: JoinSet<()>,
    election: AbortHandle,
}

impl StatusReplica {
    /// Starts a replica that takes part in the election.
    pub(crate) fn start(api: &FakeStatusApi, name: &str) -> StatusReplica {
        let (leadership, leading) = watch::channel(false);
        let (stop, stopped) = oneshot::channel();
        let mut tasks = JoinSet::new();
        let write_guard = LeaderWriteGuard::default();
        let candidate = LeaderCandidate::new("portico-system".to_owned(), name);
        let client = api.client();
        let election_guard = write_guard.clone();
        let election = tasks.spawn(async move {
            run_leader_election(client, candidate, leadership, election_guard, async { stopped.await.unwrap() }).await;
        });
        Self::start_with(api, leading, write_guard, Some(stop), tasks, election)
    }

    /// Starts a replica that leads while the last value sent by the test is true.
    pub(crate) fn with_leadership(api: &FakeStatusApi, leading: watch::Receiver<bool>) -> StatusReplica {
        let mut tasks = JoinSet::new();
        let election = tasks.spawn(async {});
        Self::start_with(api, leading, LeaderWriteGuard::default(), None, tasks, election)
    }

    fn start_with(
        api: &FakeStatusApi,
        leading: watch::Receiver<bool>,
        write_guard: LeaderWriteGuard,
        stop: Option<oneshot::Sender<()>>,
        mut tasks: JoinSet<()>,
        election: AbortHandle,
    ) -> StatusReplica {
        let queue = StatusQueue::new();
        let mut changes = api.watch();
        let watched_queue = queue.clone();
        tasks.spawn(async move {
            while let Ok((path, observed)) = changes.recv().await {
                sleep(Duration::from_millis(1)).await; // Time is paused.
                if let Some(id) = id(&path) {
                    watched_queue.observe(id, observed);
                }
            }
        });
        let writer = StatusWriter::new(
            queue.clone(),
            StatusClient::new(api.client()),
            vec![CONTROLLER.to_owned()],
            StatusWriteMetrics::default(),
        );
        tasks.spawn(writer.run(leading.clone(), write_guard));
        StatusReplica { queue, leading, stop, tasks, election }
    }

    /// Stops the replica like SIGTERM, and returns when it no longer takes part in the election.
    pub(crate) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        while !self.election.is_finished() {
            sleep(Duration::from_millis(1)).await; // Time is paused.
        }
    }

    /// Stops the replica like SIGKILL.
    pub(crate) fn kill(mut self) {
        self.tasks.abort_all();
    }
}

/// Lets time pass until the condition holds, within the limit; returns how long it took.
pub(crate) async fn wait_until(limit: Duration, event: &str, condition: impl Fn() -> bool) -> Duration {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() <= limit, "{event}: not within {limit:?}");
        sleep(Duration::from_millis(1)).await; // Time is paused.
    }
    begin.elapsed()
}

/// The path of a Gateway.
pub(crate) const GATEWAY: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/default/gateways/web";

/// The path of a route.
pub(crate) fn route(name: &str) -> String {
    format!("/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes/{name}")
}

/// The object at a path of the API.
pub(crate) fn id(path: &str) -> Option<ObjectId> {
    let (collection, name) = path.rsplit_once('/')?;
    let kind = match collection.rsplit_once('/')?.1 {
        "gateways" => Kind::Gateway,
        "httproutes" => Kind::HttpRoute,
        _ => return None,
    };
    Some(ObjectId::new(kind, ObjectKey::new("default", name)))
}

pub(crate) fn gateway_verdict(generation: i64, attached_routes: u32) -> Arc<Verdict> {
    let conditions = vec![
        Condition::without_diagnostics(Code::GatewayAccepted),
        Condition::without_diagnostics(Code::GatewayProgrammed),
    ];
    let listener = ListenerVerdict {
        name: "http".to_owned(),
        port: 80,
        attached_routes,
        supported_kinds: vec![],
        sockets: vec![],
        conditions: vec![Condition::without_diagnostics(Code::ListenerAccepted)],
    };
    let addresses = vec!["192.0.2.1".to_owned()];
    Arc::new(Verdict { generation, conditions, addresses, listeners: vec![listener], ..Verdict::default() })
}

pub(crate) fn route_verdict(generation: i64, code: Code) -> Arc<Verdict> {
    let parent = ParentReference {
        group: "gateway.networking.k8s.io".to_owned(),
        kind: "Gateway".to_owned(),
        namespace: None,
        name: "web".to_owned(),
        section_name: None,
        port: None,
    };
    let conditions =
        vec![Condition::without_diagnostics(code), Condition::without_diagnostics(Code::RouteResolvedRefs)];
    let parent = ParentVerdict { controller: CONTROLLER.into(), index: Some(0), parent, conditions };
    Arc::new(Verdict { generation, parents: vec![parent], ..Verdict::default() })
}
