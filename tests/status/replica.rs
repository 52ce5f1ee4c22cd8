//! A replica of Portico, as far as it writes: fed by the watch of a played API server.

use std::sync::Arc;
use std::time::Duration;

use portico::api::gateway::ParentReference;
use portico::api::{Kind, ObjectId, ObjectKey};
use portico::compile::verdict::{Code, Condition, ListenerVerdict, ParentVerdict, Verdict};
use portico::k8s::{Pen, Seat, Statuses, campaign};
use portico::status::{Desk, Writer, Writes};
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::played::Played;

pub(crate) const US: &str = "portico.dev/gateway-controller";

pub(crate) struct Replica {
    pub(crate) desk: Desk,
    pub(crate) leading: watch::Receiver<bool>,
    stop: Option<oneshot::Sender<()>>,
    tasks: JoinSet<()>,
    election: AbortHandle,
}

impl Replica {
    /// One that takes part in the election.
    pub(crate) fn start(played: &Played, name: &str) -> Replica {
        let (leads, leading) = watch::channel(false);
        let (stop, stopped) = oneshot::channel();
        let mut tasks = JoinSet::new();
        let pen = Pen::default();
        let seat = Seat::new("portico-system".to_owned(), name);
        let client = played.client();
        let held = pen.clone();
        let election = tasks.spawn(async move {
            campaign(client, seat, leads, held, async { stopped.await.unwrap() }).await;
        });
        Self::with(played, leading, pen, Some(stop), tasks, election)
    }

    /// One that is told whether it leads.
    pub(crate) fn led(played: &Played, leading: watch::Receiver<bool>) -> Replica {
        let mut tasks = JoinSet::new();
        let election = tasks.spawn(async {});
        Self::with(played, leading, Pen::default(), None, tasks, election)
    }

    fn with(
        played: &Played,
        leading: watch::Receiver<bool>,
        pen: Pen,
        stop: Option<oneshot::Sender<()>>,
        mut tasks: JoinSet<()>,
        election: AbortHandle,
    ) -> Replica {
        let desk = Desk::new();
        let mut changes = played.watch();
        let watching = desk.clone();
        tasks.spawn(async move {
            while let Ok((path, observed)) = changes.recv().await {
                sleep(Duration::from_millis(1)).await;
                if let Some(id) = id(&path) {
                    watching.observe(id, observed);
                }
            }
        });
        let writer = Writer::new(desk.clone(), Statuses::new(played.client()), vec![US.to_owned()], Writes::default());
        tasks.spawn(writer.run(leading.clone(), pen));
        Replica { desk, leading, stop, tasks, election }
    }

    /// As SIGTERM does; returns when the election is over for it.
    pub(crate) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        while !self.election.is_finished() {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// As SIGKILL does.
    pub(crate) fn kill(mut self) {
        self.tasks.abort_all();
    }
}

/// Lets time pass until it is so, but not longer than that; gives how long it took.
pub(crate) async fn until(limit: Duration, what: &str, so: impl Fn() -> bool) -> Duration {
    let begin = Instant::now();
    while !so() {
        assert!(begin.elapsed() <= limit, "{what}: not within {limit:?}");
        sleep(Duration::from_millis(1)).await;
    }
    begin.elapsed()
}

pub(crate) const GATEWAY: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/default/gateways/web";

pub(crate) fn route(name: &str) -> String {
    format!("/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes/{name}")
}

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
    let conditions = vec![Condition::plain(Code::GatewayAccepted), Condition::plain(Code::GatewayProgrammed)];
    let listener = ListenerVerdict {
        name: "http".to_owned(),
        port: 80,
        attached_routes,
        supported_kinds: vec![],
        sockets: vec![],
        conditions: vec![Condition::plain(Code::ListenerAccepted)],
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
    let conditions = vec![Condition::plain(code), Condition::plain(Code::RouteResolvedRefs)];
    let parent = ParentVerdict { controller: US.into(), index: 0, parent, conditions };
    Arc::new(Verdict { generation, parents: vec![parent], ..Verdict::default() })
}
