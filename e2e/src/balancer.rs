//! A balancer for Services of type LoadBalancer: each gets an address, and packets to it go to its endpoints.
//!
//! ```text
//!  Services ───────┐
//!                  ├──▶ fronts and targets ──▶ nft (packets change where they go) ──▶ status.loadBalancer
//!  EndpointSlices ─┘
//! ```
//!
//! As with any balancer, what an address does not serve is refused. A Pod does not reach itself through it.

mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::Event;
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::{Instant, sleep_until};

use crate::cluster::ADDRESS;
use crate::netns::Netns;
use crate::node::watching::events;
use crate::progress::say;
use rules::{Front, Targets, fronts, render};

/// Addresses of LoadBalancer Services. A part of [`GATEWAY_RANGE`](crate::cluster::GATEWAY_RANGE) of its own: Gateways
/// take theirs from below.
pub const LOAD_BALANCER_RANGE: &str = "198.18.64.0/18";
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 64, 1);
const LAST: Ipv4Addr = Ipv4Addr::new(198, 18, 127, 254);

/// How long to wait until something that failed is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// Namespace and name.
type Key = (String, String);

/// Balances until it is given up. Its rules go with the cluster's network.
pub(crate) struct Balancer {
    client: Client,
    netns: Netns,
    services: Known<Service>,
    slices: Known<EndpointSlice>,
    held: BTreeMap<Key, Ipv4Addr>,
    /// What nft was told last.
    loaded: String,
}

impl Balancer {
    /// Takes its range out of what the cluster's network takes for its own.
    pub(crate) fn new(client: Client, netns: Netns) -> Result<Balancer> {
        // Into the table of local addresses, where it is more exact than that of Gateways. Were they local, answers
        // would come from a local address outside, which the kernel drops.
        let source = ADDRESS.to_string();
        let to = ["route", "replace", "unicast", LOAD_BALANCER_RANGE, "dev", "lo", "table", "local", "src", &source];
        netns.ip(&to)?;
        let (services, slices) = (Known::default(), Known::default());
        Ok(Balancer { client, netns, services, slices, held: BTreeMap::new(), loaded: String::new() })
    }

    /// Follows the API server until it is given up.
    pub(crate) async fn run(mut self) {
        let mut services = events(Api::<Service>::all(self.client.clone()));
        let mut slices = events(Api::<EndpointSlice>::all(self.client.clone()));
        let mut again: Option<Instant> = None;
        let mut said = String::new();
        loop {
            tokio::select! {
                Some(event) = services.next() => self.services.handle(event),
                Some(event) = slices.next() => self.slices.handle(event),
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
            }
            // Several events that belong together, such as a whole list, make one change.
            while let Some(Some(event)) = services.next().now_or_never() {
                self.services.handle(event);
            }
            while let Some(Some(event)) = slices.next().now_or_never() {
                self.slices.handle(event);
            }
            if !self.services.complete || !self.slices.complete {
                continue;
            }
            again = None;
            let wrong = self.follow().await.map_or_else(|error| format!("{error:#}"), |()| String::new());
            if !wrong.is_empty() {
                again = Some(Instant::now() + RETRY);
                // Once, however often it is tried.
                if wrong != said {
                    say(format_args!("The balancer: {wrong}"));
                }
            }
            said = wrong;
        }
    }

    /// Makes packets and statuses agree with the objects. Packets first: who reads an address may use it.
    async fn follow(&mut self) -> Result<()> {
        self.assign();
        let mut all: BTreeMap<Front, Targets> = BTreeMap::new();
        for ((namespace, name), address) in &self.held {
            let Some(service) = self.services.objects.get(&(namespace.clone(), name.clone())) else { continue };
            let slices = self.slices.objects.values();
            all.extend(fronts(service, *address, slices));
        }
        let rules = render(&all);
        if rules != self.loaded {
            self.load(&rules).await?;
            self.loaded = rules;
        }
        for (key, service) in &self.services.objects {
            self.tell(key, service).await?;
        }
        Ok(())
    }

    /// Gives each Service its address: what it had, what it asks for, or the next one.
    fn assign(&mut self) {
        let services = &self.services.objects;
        self.held.retain(|key, _| services.get(key).is_some_and(ours));
        let new: Vec<(&Key, &Service)> =
            services.iter().filter(|(key, service)| ours(service) && !self.held.contains_key(*key)).collect();
        let mut taken: BTreeSet<Ipv4Addr> = self.held.values().copied().collect();
        // Those that have a wish first, so that nobody else gets what was theirs before this balancer started.
        let (wishing, others): (Vec<_>, Vec<_>) = new.into_iter().partition(|(_, service)| wish(service).is_some());
        for (key, service) in wishing.into_iter().chain(others) {
            let wish = wish(service).filter(|wish| !taken.contains(wish));
            let free = || (u32::from(FIRST)..=u32::from(LAST)).map(Ipv4Addr::from).find(|next| !taken.contains(next));
            let Some(address) = wish.or_else(free) else { continue };
            taken.insert(address);
            self.held.insert(key.clone(), address);
        }
    }

    async fn load(&self, rules: &str) -> Result<()> {
        let mut command = Command::from(self.netns.command("nft"));
        command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().context("cannot start nft; install nftables")?;
        let mut input = child.stdin.take().context("its input is a pipe")?;
        input.write_all(rules.as_bytes()).await.context("cannot write to nft")?;
        drop(input);
        let output = child.wait_with_output().await.context("cannot wait for nft")?;
        if !output.status.success() {
            bail!("nft: {}; it was told\n{rules}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Writes a Service's address into its status, or takes it out, if that is not what it says.
    async fn tell(&self, (namespace, name): &Key, service: &Service) -> Result<()> {
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let told = status.and_then(|status| status.ingress.as_ref()).and_then(|ingress| ingress.first());
        let told = told.and_then(|ingress| ingress.ip.as_deref()).and_then(|ip| ip.parse::<Ipv4Addr>().ok());
        let held = self.held.get(&(namespace.clone(), name.clone())).copied();
        // What others have written stays theirs.
        if told == held || held.is_none() && !told.is_some_and(in_range) {
            return Ok(());
        }
        let ingress = held.map(|ip| json!([{ "ip": ip.to_string(), "ipMode": "VIP" }]));
        let patch = json!({ "metadata": { "uid": service.metadata.uid }, "status": { "loadBalancer": { "ingress": ingress } } });
        let api: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        match api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            // Gone, or another of the same name: an event says so soon.
            Err(kube::Error::Api(refusal)) if matches!(refusal.code, 404 | 409 | 422) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("the status of Service {namespace}/{name}")),
        }
    }
}

/// Whether this balancer serves it. One of a class is for whoever has that class.
fn ours(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none())
        && service.metadata.deletion_timestamp.is_none()
}

/// The address that a Service has had, or asks for.
fn wish(service: &Service) -> Option<Ipv4Addr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let had = status.and_then(|status| status.ingress.as_ref()?.first()?.ip.as_deref());
    let asked = service.spec.as_ref().and_then(|spec| spec.load_balancer_ip.as_deref());
    had.or(asked).and_then(|address| address.parse().ok()).filter(|address| in_range(*address))
}

fn in_range(address: Ipv4Addr) -> bool {
    (FIRST..=LAST).contains(&address)
}

/// The objects of one kind.
struct Known<K> {
    objects: BTreeMap<Key, K>,
    /// A list that is coming in; until it is whole, what was known before counts.
    incoming: BTreeMap<Key, K>,
    /// Whether there has been a whole list.
    complete: bool,
}

impl<K> Default for Known<K> {
    fn default() -> Known<K> {
        Known { objects: BTreeMap::new(), incoming: BTreeMap::new(), complete: false }
    }
}

impl<K: Resource> Known<K> {
    fn handle(&mut self, event: Event<K>) {
        let key = |object: &K| {
            let metadata = object.meta();
            (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
        };
        match event {
            Event::Init => self.incoming.clear(),
            Event::InitApply(object) => drop(self.incoming.insert(key(&object), object)),
            Event::InitDone => {
                self.objects = std::mem::take(&mut self.incoming);
                self.complete = true;
            }
            Event::Apply(object) => drop(self.objects.insert(key(&object), object)),
            Event::Delete(object) => drop(self.objects.remove(&key(&object))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept_asked_for_or_the_next_free_ones() {
        let service = |class: Option<&str>, asked: Option<&str>, had: Option<&str>| -> Service {
            let ingress = had.map(|ip| json!([{ "ip": ip }]));
            let spec = json!({ "type": "LoadBalancer", "loadBalancerIP": asked, "loadBalancerClass": class });
            serde_json::from_value(json!({ "spec": spec, "status": { "loadBalancer": { "ingress": ingress } } }))
                .unwrap()
        };
        for (service, expected) in [
            (service(None, None, None), None),
            (service(None, Some("198.18.64.7"), None), Some("198.18.64.7")),
            (service(None, Some("198.18.64.7"), Some("198.18.64.8")), Some("198.18.64.8")),
            (service(None, Some("192.0.2.1"), None), None),
        ] {
            assert_eq!(wish(&service).map(|address| address.to_string()).as_deref(), expected);
            assert!(ours(&service));
        }
        assert!(!ours(&service(Some("other.example/balancer"), None, None)));
    }
}
