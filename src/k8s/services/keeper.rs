//! The tasks that keep the Services of Gateways as they should be, and tell what they say.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::sleep;

use super::choice::Bound;
use super::plan::Step;
use super::slices::Stay;
use super::watch::{Seen, follow};
use super::world::{Here, World};
use super::{Shape, View, Wants, write};
use crate::api::ObjectKey;
use crate::api::names::{MANAGED_BY, MANAGED_BY_LABEL};
use crate::k8s::until;

/// How Services are kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Only in these; everywhere if there are none.
    pub namespaces: Vec<String>,
    pub shape: Shape,
    /// Controllers in whose names we act.
    pub controllers: BTreeSet<String>,
    /// The Pod that this process runs in, if it does.
    pub pod: Option<ObjectKey>,
}

/// What the tasks go by. All of it may change at any time.
#[derive(Clone, Debug)]
pub struct Inputs {
    pub wants: watch::Receiver<Arc<Wants>>,
    /// Services are written by whoever leads.
    pub leading: watch::Receiver<bool>,
    /// None as long as this process has not come to listening.
    pub bound: watch::Receiver<Option<Arc<Bound>>>,
    pub stay: watch::Receiver<Stay>,
}

impl Settings {
    pub(super) fn is_exposed(&self) -> bool {
        matches!(self.shape, Shape::Exposed(_))
    }
}

/// Known to those who write and those who read, and marked whenever it changes.
struct Shared {
    world: Mutex<World>,
    changed: watch::Sender<()>,
}

/// Returns when this process is `Gone` and its EndpointSlices are too, or those that are left cannot be deleted right now. `view` is told whenever the Services say
/// something else.
pub async fn keep(
    settings: Settings,
    mut client: watch::Receiver<Client>,
    inputs: Inputs,
    view: watch::Sender<Arc<View>>,
) {
    let shared = Shared { world: Mutex::new(World::new(&settings)), changed: watch::Sender::new(()) };
    loop {
        let now = client.borrow_and_update().clone();
        tokio::select! {
            () = watch_all(&settings, &now, &shared) => {}
            () = tell(&settings, &shared, inputs.wants.clone(), inputs.bound.clone(), &view) => {}
            () = bring_about(&settings, &now, &shared, inputs.clone()) => return,
            // With other credentials everything is looked at again.
            Ok(()) = client.changed() => {}
        }
    }
}

async fn watch_all(settings: &Settings, client: &Client, shared: &Shared) {
    let ours = watcher::Config::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
    let services = join_all(apis(settings, client).into_iter().enumerate().map(|(number, api)| {
        let tell = move |seen: Seen<_>| shared.see(|world| world.see_services(number, seen));
        follow("the Services of Gateways", api, ours.clone(), tell)
    }));
    let slices = join_all(apis(settings, client).into_iter().enumerate().map(|(number, api)| {
        let tell = move |seen: Seen<_>| shared.see(|world| world.see_slices(number, seen));
        follow("the EndpointSlices of Gateways", api, ours.clone(), tell)
    }));
    let pods = async {
        if let Some(pod) = &settings.pod {
            let api = Api::namespaced(client.clone(), &pod.namespace);
            let tell = |seen: Seen<_>| shared.see(|world| world.see_pods(seen));
            follow("the Pods of this namespace", api, watcher::Config::default(), tell).await;
        }
    };
    if settings.is_exposed() {
        tokio::join!(services, slices, pods);
    } else {
        services.await;
    }
    pending().await
}

fn apis<K>(settings: &Settings, client: &Client) -> Vec<Api<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    if settings.namespaces.is_empty() {
        return vec![Api::all(client.clone())];
    }
    settings.namespaces.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
}

impl Shared {
    fn see(&self, see: impl FnOnce(&mut World) -> bool) {
        let changed = see(&mut self.world.lock());
        if changed {
            self.changed.send_replace(());
        }
    }
}

/// Tells what the Services say.
async fn tell(
    settings: &Settings,
    shared: &Shared,
    mut wants: watch::Receiver<Arc<Wants>>,
    mut bound: watch::Receiver<Option<Arc<Bound>>>,
    view: &watch::Sender<Arc<View>>,
) {
    let mut changed = shared.changed.subscribe();
    loop {
        let (wanted, listening) = (wants.borrow_and_update().clone(), bound.borrow_and_update().clone());
        let next = shared.world.lock().view(settings, &wanted, &listening.unwrap_or_default());
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
            Ok(()) = bound.changed() => {}
        }
    }
}

/// Brings Services and EndpointSlices in line with what is wanted, until this process is gone.
async fn bring_about(settings: &Settings, client: &Client, shared: &Shared, inputs: Inputs) {
    let Inputs { mut wants, mut leading, mut bound, mut stay } = inputs;
    let mut changed = shared.changed.subscribe();
    loop {
        changed.mark_unchanged();
        let (steps, again) = {
            let (wants, bound) = (wants.borrow_and_update().clone(), bound.borrow_and_update().clone());
            let (leading, stay) = (*leading.borrow_and_update(), *stay.borrow_and_update());
            shared.world.lock().due(settings, &wants, Here { leading, stay, bound: bound.as_deref() })
        };
        if *stay.borrow() == Stay::Gone && steps.is_empty() {
            return;
        }
        take_all(settings, client, shared, steps, &leading).await;
        tokio::select! {
            _ = changed.changed() => {}
            Ok(()) = wants.changed() => {}
            Ok(()) = leading.changed() => {}
            Ok(()) = bound.changed() => {}
            Ok(()) = stay.changed() => {}
            () = until(again) => {}
        }
        // Whatever comes together is one plan.
        sleep(TOGETHER).await;
    }
}

async fn take_all(
    settings: &Settings,
    client: &Client,
    shared: &Shared,
    steps: Vec<Step>,
    leading: &watch::Receiver<bool>,
) {
    let led = *leading.borrow();
    let calls = stream::iter(steps).map(|step| async move {
        // Whoever leads by now has plans of its own.
        let done = if *leading.borrow() == led { Some(write::take(client, &step).await) } else { None };
        (step, done)
    });
    let mut calls = std::pin::pin!(calls.buffer_unordered(AT_A_TIME));
    while let Some((step, done)) = calls.next().await {
        if let Some(done) = done {
            shared.world.lock().done(settings, step, done);
        }
        shared.changed.send_replace(());
    }
}

/// Calls at a time: enough that a thousand Gateways do not take minutes, too few to trouble anybody.
const AT_A_TIME: usize = 8;
const TOGETHER: Duration = Duration::from_millis(10);
