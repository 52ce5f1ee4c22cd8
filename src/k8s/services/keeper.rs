//! Keeps the Services of Gateways as they should be, and tells what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::applied::is_applied;
use super::plan::{self, Outcome, Step};
use super::service::Known;
use super::table::Table;
use super::watch::{Seen, follow};
use super::{Front, Shape, Trouble, View, Want, Wants, chain};
use crate::api::ObjectKey;
use crate::api::names::{MANAGED_BY, MANAGED_BY_LABEL};

/// How Services are kept.
#[derive(Clone)]
pub struct Settings {
    pub client: Client,
    /// Only in these; everywhere if there are none.
    pub namespaces: Vec<String>,
    pub shape: Shape,
    /// Controllers in whose names we act.
    pub controllers: BTreeSet<String>,
}

/// What is known to those who write and those who read.
struct Shared {
    known: Mutex<World>,
    /// Marked whenever that changes.
    changed: watch::Sender<()>,
}

struct World {
    services: Table<Known>,
    hitches: BTreeMap<ObjectKey, Hitch>,
}

/// What went wrong for a Gateway, and when to try again.
struct Hitch {
    trouble: Trouble,
    /// What was wanted then: if that changes there is no reason to wait.
    want: Option<Want>,
    wait: Duration,
    again: Instant,
}

/// Never returns. `view` is told whenever the Services say something else.
pub async fn keep(
    settings: Settings,
    wants: watch::Receiver<Arc<Wants>>,
    leading: watch::Receiver<bool>,
    view: watch::Sender<Arc<View>>,
) {
    let world = World { services: Table::of(settings.namespaces.len().max(1)), hitches: BTreeMap::new() };
    let shared = Shared { known: Mutex::new(world), changed: watch::Sender::new(()) };
    let watching = join_all(apis(&settings).into_iter().enumerate().map(|(number, api)| {
        let config = watcher::Config::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
        let shared = &shared;
        follow("the Services of Gateways", api, config, move |seen| shared.services_seen(number, seen))
    }));
    tokio::join!(watching, tell(&settings, &shared, wants.clone(), view), write(&settings, &shared, wants, leading));
}

fn apis(settings: &Settings) -> Vec<Api<Service>> {
    if settings.namespaces.is_empty() {
        return vec![Api::all(settings.client.clone())];
    }
    settings.namespaces.iter().map(|namespace| Api::namespaced(settings.client.clone(), namespace)).collect()
}

impl Shared {
    fn services_seen(&self, watch: usize, seen: Seen<Service>) {
        let mut known = self.known.lock();
        let changed = match seen {
            Seen::Event(event) => known.services.take(watch, event, key, Known::read),
            Seen::Forbidden => known.services.give_up(watch),
        };
        drop(known);
        if changed {
            self.changed.send_replace(());
        }
    }
}

fn key(service: &Service) -> Option<ObjectKey> {
    Some(ObjectKey::new(service.metadata.namespace.as_deref()?, service.metadata.name.as_deref()?))
}

/// Tells what the Services say.
async fn tell(
    settings: &Settings,
    shared: &Shared,
    mut wants: watch::Receiver<Arc<Wants>>,
    view: watch::Sender<Arc<View>>,
) {
    let mut changed = shared.changed.subscribe();
    loop {
        let next = look(settings, &shared.known.lock(), &wants.borrow_and_update());
        view.send_if_modified(|view| {
            let differs = **view != next;
            if differs {
                *view = Arc::new(next);
            }
            differs
        });
        tokio::select! {
            _ = changed.changed() => {}
            Ok(()) = wants.changed() => {}
        }
    }
}

fn look(settings: &Settings, world: &World, wants: &Wants) -> View {
    let mut fronts: BTreeMap<ObjectKey, Front> = BTreeMap::new();
    if let Shape::Exposed(kind) = settings.shape {
        for service in world.services.items().values().filter(|service| !service.going && !service.headless) {
            let gateway = &service.owner.gateway;
            if wants.gateways.get(gateway).is_none_or(|want| want.uid != service.owner.uid) {
                continue;
            }
            let front = fronts.entry(gateway.clone()).or_default();
            front.name = service.key.name.to_string();
            front.ports.clone_from(&service.ports);
            front.addresses = super::service::addresses(service, kind, &[]);
        }
    }
    for (gateway, hitch) in world.hitches.iter().filter(|(gateway, _)| wants.gateways.contains_key(*gateway)) {
        fronts.entry(gateway.clone()).or_default().trouble = Some(hitch.trouble.clone());
    }
    View { complete: world.services.is_complete(), fronts, pod_ips: Vec::new() }
}

/// Brings the Services in line with what is wanted, for as long as we lead.
async fn write(
    settings: &Settings,
    shared: &Shared,
    mut wants: watch::Receiver<Arc<Wants>>,
    mut leading: watch::Receiver<bool>,
) {
    let mut changed = shared.changed.subscribe();
    loop {
        changed.mark_unchanged();
        let now = wants.borrow_and_update().clone();
        let mut again = None;
        if *leading.borrow_and_update() {
            let outcomes = shared.due(settings, &now, &mut again);
            let steps = stream::iter(outcomes).map(|(gateway, outcome)| {
                let leading = leading.clone();
                async move {
                    // Whoever leads now has plans of its own.
                    let done = if *leading.borrow() { take(settings, &gateway, outcome).await } else { Ok(None) };
                    (gateway, done)
                }
            });
            let mut steps = std::pin::pin!(steps.buffer_unordered(AT_A_TIME));
            while let Some((gateway, done)) = steps.next().await {
                shared.done(settings, &now, gateway, done);
            }
        }
        tokio::select! {
            _ = changed.changed() => {}
            Ok(()) = wants.changed() => {}
            Ok(()) = leading.changed() => {}
            () = at(again) => {}
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

impl Shared {
    /// What is to be done now. What failed lately has to wait, until `again` at the latest.
    fn due(&self, settings: &Settings, wants: &Wants, again: &mut Option<Instant>) -> Vec<(ObjectKey, Outcome)> {
        let mut world = self.known.lock();
        if !world.services.is_complete() {
            return Vec::new();
        }
        let mut outcomes = plan::services(wants, settings.shape, &settings.controllers, world.services.items());
        let before = world.hitches.len();
        world.hitches.retain(|gateway, _| outcomes.contains_key(gateway));
        if world.hitches.len() < before {
            self.changed.send_replace(());
        }
        outcomes.retain(|gateway, _| {
            let Some(hitch) = world.hitches.get(gateway) else { return true };
            if hitch.want.as_ref() != wants.gateways.get(gateway) || hitch.again <= Instant::now() {
                return true;
            }
            *again = Some(again.map_or(hitch.again, |again| again.min(hitch.again)));
            false
        });
        outcomes.into_iter().collect()
    }

    fn done(&self, settings: &Settings, wants: &Wants, gateway: ObjectKey, done: Result<Option<Service>, Trouble>) {
        let mut world = self.known.lock();
        match done {
            Ok(service) => {
                world.hitches.remove(&gateway);
                // The watch would tell the same in a moment, but the next plan is made before.
                if let Some(service) = service {
                    let namespace = service.namespace().unwrap_or_default();
                    let watch = settings.namespaces.iter().position(|known| *known == namespace).unwrap_or_default();
                    world.services.take(watch, Event::Apply(service), key, Known::read);
                }
            }
            Err(trouble) => {
                let before = world.hitches.remove(&gateway);
                let wait = before.as_ref().map_or(FIRST_WAIT, |before| (before.wait * 2).min(LONGEST_WAIT));
                if before.is_none_or(|before| before.trouble != trouble) {
                    warn!(%gateway, remedy = trouble.remedy, "{}", trouble.message);
                }
                let want = wants.gateways.get(&gateway).cloned();
                world.hitches.insert(gateway, Hitch { trouble, want, wait, again: Instant::now() + wait });
            }
        }
        drop(world);
        self.changed.send_replace(());
    }
}

/// Takes one step. Gives the Service as it is now, if it is known.
async fn take(settings: &Settings, gateway: &ObjectKey, outcome: Outcome) -> Result<Option<Service>, Trouble> {
    let step = outcome?;
    let (Step::Create { key, .. } | Step::Apply { key, .. } | Step::Delete { key, .. }) = &step;
    let key = key.clone();
    let api: Api<Service> = Api::namespaced(settings.client.clone(), &key.namespace);
    let call = async {
        match &step {
            Step::Create { object, .. } => {
                if let Some(there) = api.get_opt(&key.name).await? {
                    // One of ours that the watch has not told of yet is none of somebody else.
                    return Ok(Known::read(&there).map(|_| there));
                }
                api.patch(&key.name, &applying(), &Patch::Apply(object)).await.map(Some)
            }
            Step::Apply { object, .. } => api.patch(&key.name, &applying(), &Patch::Apply(object)).await.map(Some),
            Step::Delete { uid, .. } => {
                let this = Preconditions { uid: Some(uid.clone()), resource_version: None };
                match api.delete(&key.name, &DeleteParams::background().preconditions(this)).await {
                    Ok(_) => Ok(None),
                    // Gone, or another one by now: the watch tells.
                    Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        }
    };
    let answer = timeout(PATIENCE, call).await.map_err(|_| Trouble {
        message: format!("the API server does not answer about Service {key}"),
        remedy: "it is tried again by itself".to_owned(),
    })?;
    let service = answer.map_err(|error| refusal(&key, &step, &error))?;
    if matches!(step, Step::Create { .. }) && service.is_none() {
        return Err(Trouble {
            message: format!("Service {key} is not one of Portico's, so it is left alone"),
            remedy: "rename or delete that Service".to_owned(),
        });
    }
    // Said once and tried seldom: otherwise we and whoever changes it would write without end.
    if let (Step::Create { object, .. } | Step::Apply { object, .. }, Some(service)) = (&step, &service)
        && let Ok(whole) = serde_json::to_value(service)
        && Known::read(service).is_some_and(|known| known.owner.gateway == *gateway)
        && !is_applied(object, &whole, MANAGED_BY)
    {
        return Err(Trouble {
            message: format!("Service {key} does not stay as it is written"),
            remedy: "see which admission webhook or controller changes it".to_owned(),
        });
    }
    match step {
        Step::Create { .. } => info!(service = %key, "Created the Service of a Gateway"),
        Step::Apply { .. } => info!(service = %key, "Changed the Service of a Gateway"),
        Step::Delete { .. } => info!(service = %key, "Deleted the Service of a Gateway"),
    }
    Ok(service)
}

/// Whatever others set in our fields is set back; their own fields stay.
fn applying() -> PatchParams {
    PatchParams::apply(MANAGED_BY).force()
}

fn refusal(key: &ObjectKey, step: &Step, error: &kube::Error) -> Trouble {
    let what = match step {
        Step::Create { .. } => "created",
        Step::Apply { .. } => "changed",
        Step::Delete { .. } => "deleted",
    };
    let remedy = match error {
        kube::Error::Api(status) if status.code == 403 => {
            "grant the ServiceAccount what manifests/ lists, or see which admission policy refuses it"
        }
        kube::Error::Api(status) if matches!(status.code, 400 | 422) => {
            "correct spec.infrastructure or spec.addresses of the Gateway"
        }
        _ => "it is tried again by itself",
    };
    Trouble { message: format!("Service {key} cannot be {what}: {}", chain(error)), remedy: remedy.to_owned() }
}

/// Calls at a time: enough that a thousand Gateways do not take minutes, too few to trouble anybody.
const AT_A_TIME: usize = 8;
const PATIENCE: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
