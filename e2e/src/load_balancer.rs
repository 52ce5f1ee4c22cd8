//! A load balancer for Services of type LoadBalancer: assigns addresses and forwards packets to endpoints.
//!
//! ```text
//!  Services ───────┐
//!                  ├──▶ frontends and targets ──▶ nft (DNAT) ──▶ status.loadBalancer
//!  EndpointSlices ─┘
//! ```
//!
//! Connections to ports that no Service serves are rejected. A Pod cannot reach itself through the load balancer.

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
use crate::progress::report;
use rules::{Frontend, Targets, frontends, render};

/// Addresses of LoadBalancer Services: a part of [`GATEWAY_RANGE`](crate::cluster::GATEWAY_RANGE) above the addresses
/// of Gateways.
pub const LOAD_BALANCER_RANGE: &str = "198.18.64.0/18";
/// The first and the last address for Services.
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 64, 1);
const LAST: Ipv4Addr = Ipv4Addr::new(198, 18, 127, 254);

/// Delay before a failed operation is retried.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Namespace and name.
type ServiceKey = (String, String);

/// The load balancer. Its packet rules are removed with the cluster's network namespace.
pub(crate) struct LoadBalancer {
    client: Client,
    netns: Netns,
    services: ObjectCache<Service>,
    slices: ObjectCache<EndpointSlice>,
    assigned: BTreeMap<ServiceKey, Ipv4Addr>,
    /// The ruleset that nft loaded last.
    loaded: String,
}

impl LoadBalancer {
    /// Creates the load balancer and routes its range.
    pub(crate) fn new(client: Client, netns: Netns) -> Result<LoadBalancer> {
        // The route is in the table of local addresses, where it is more specific than the route of Gateways. If the
        // addresses were local, responses would arrive from outside with a local source address, which the kernel
        // drops.
        let source = ADDRESS.to_string();
        let arguments =
            ["route", "replace", "unicast", LOAD_BALANCER_RANGE, "dev", "lo", "table", "local", "src", &source];
        netns.ip(&arguments)?;
        let (services, slices) = (ObjectCache::default(), ObjectCache::default());
        Ok(LoadBalancer { client, netns, services, slices, assigned: BTreeMap::new(), loaded: String::new() })
    }

    /// Watches the API server until dropped.
    pub(crate) async fn run(mut self) {
        let mut services = events(Api::<Service>::all(self.client.clone()));
        let mut slices = events(Api::<EndpointSlice>::all(self.client.clone()));
        let mut retry_at: Option<Instant> = None;
        let mut last_error = String::new();
        loop {
            tokio::select! {
                Some(event) = services.next() => self.services.handle(event),
                Some(event) = slices.next() => self.slices.handle(event),
                () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {}
            }
            // Pending events, such as those of a list, are handled together.
            while let Some(Some(event)) = services.next().now_or_never() {
                self.services.handle(event);
            }
            while let Some(Some(event)) = slices.next().now_or_never() {
                self.slices.handle(event);
            }
            if !self.services.complete || !self.slices.complete {
                continue;
            }
            retry_at = None;
            let error_message = self.reconcile().await.map_or_else(|error| format!("{error:#}"), |()| String::new());
            if !error_message.is_empty() {
                retry_at = Some(Instant::now() + RETRY_DELAY);
                // An error is logged once, not at every retry.
                if error_message != last_error {
                    report(format_args!("Load balancer: {error_message}"));
                }
            }
            last_error = error_message;
        }
    }

    /// Updates the packet rules, then the statuses: an address in a status must work already.
    async fn reconcile(&mut self) -> Result<()> {
        self.assign();
        let mut targets_by_frontend: BTreeMap<Frontend, Targets> = BTreeMap::new();
        for ((namespace, name), address) in &self.assigned {
            let Some(service) = self.services.objects.get(&(namespace.clone(), name.clone())) else { continue };
            let slices = self.slices.objects.values();
            targets_by_frontend.extend(frontends(service, *address, slices));
        }
        let rules = render(&targets_by_frontend);
        if rules != self.loaded {
            self.load(&rules).await?;
            self.loaded = rules;
        }
        for (key, service) in &self.services.objects {
            self.write_status(key, service).await?;
        }
        Ok(())
    }

    /// Assigns each new Service its previous address, the requested one, or the next free one.
    fn assign(&mut self) {
        let services = &self.services.objects;
        self.assigned.retain(|key, _| services.get(key).is_some_and(is_served));
        let new: Vec<(&ServiceKey, &Service)> =
            services.iter().filter(|(key, service)| is_served(service) && !self.assigned.contains_key(*key)).collect();
        let mut taken: BTreeSet<Ipv4Addr> = self.assigned.values().copied().collect();
        // Services with a previous or requested address come first, so that no other Service gets it.
        let (with_preference, without_preference): (Vec<_>, Vec<_>) =
            new.into_iter().partition(|(_, service)| preferred_address(service).is_some());
        for (key, service) in with_preference.into_iter().chain(without_preference) {
            let preferred = preferred_address(service).filter(|preferred| !taken.contains(preferred));
            let next_free =
                || (u32::from(FIRST)..=u32::from(LAST)).map(Ipv4Addr::from).find(|address| !taken.contains(address));
            let Some(address) = preferred.or_else(next_free) else { continue };
            taken.insert(address);
            self.assigned.insert(key.clone(), address);
        }
    }

    /// Loads the ruleset with nft.
    async fn load(&self, rules: &str) -> Result<()> {
        let mut command = Command::from(self.netns.command("nft"));
        command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().context("cannot start nft; install nftables")?;
        let mut input = child.stdin.take().context("stdin of nft is not a pipe")?;
        input.write_all(rules.as_bytes()).await.context("cannot write to nft")?;
        drop(input);
        let output = child.wait_with_output().await.context("cannot wait for nft")?;
        if !output.status.success() {
            bail!("nft: {}; the ruleset was\n{rules}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Sets or clears the address in the status of a Service if it differs.
    async fn write_status(&self, (namespace, name): &ServiceKey, service: &Service) -> Result<()> {
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let published = status.and_then(|status| status.ingress.as_ref()).and_then(|ingress| ingress.first());
        let published = published.and_then(|ingress| ingress.ip.as_deref()).and_then(|ip| ip.parse::<Ipv4Addr>().ok());
        let assigned = self.assigned.get(&(namespace.clone(), name.clone())).copied();
        // Addresses outside the range belong to other controllers.
        if published == assigned || assigned.is_none() && !published.is_some_and(in_range) {
            return Ok(());
        }
        let ingress = assigned.map(|ip| json!([{ "ip": ip.to_string(), "ipMode": "VIP" }]));
        let patch = json!({ "metadata": { "uid": service.metadata.uid }, "status": { "loadBalancer": { "ingress": ingress } } });
        let api: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        match api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            // Deleted, or replaced by another Service of this name: an event follows.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot write the status of Service {namespace}/{name}")),
        }
    }
}

/// Whether this load balancer serves the Service: those with a class are left to other controllers.
fn is_served(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none())
        && service.metadata.deletion_timestamp.is_none()
}

/// The previous or requested address of a Service.
fn preferred_address(service: &Service) -> Option<Ipv4Addr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let previous = status.and_then(|status| status.ingress.as_ref()?.first()?.ip.as_deref());
    let requested = service.spec.as_ref().and_then(|spec| spec.load_balancer_ip.as_deref());
    previous.or(requested).and_then(|address| address.parse().ok()).filter(|address| in_range(*address))
}

fn in_range(address: Ipv4Addr) -> bool {
    (FIRST..=LAST).contains(&address)
}

/// The objects of one kind.
struct ObjectCache<K> {
    objects: BTreeMap<ServiceKey, K>,
    /// A list that is being received; until it is complete, `objects` stays in use.
    incoming: BTreeMap<ServiceKey, K>,
    /// Whether a complete list was received.
    complete: bool,
}

impl<K> Default for ObjectCache<K> {
    fn default() -> ObjectCache<K> {
        ObjectCache { objects: BTreeMap::new(), incoming: BTreeMap::new(), complete: false }
    }
}

impl<K: Resource> ObjectCache<K> {
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
    fn previous_address_precedes_the_requested_one() {
        let service = |class: Option<&str>, requested: Option<&str>, previous: Option<&str>| -> Service {
            let ingress = previous.map(|ip| json!([{ "ip": ip }]));
            let spec = json!({ "type": "LoadBalancer", "loadBalancerIP": requested, "loadBalancerClass": class });
            serde_json::from_value(json!({ "spec": spec, "status": { "loadBalancer": { "ingress": ingress } } }))
                .unwrap()
        };
        for (service, expected) in [
            (service(None, None, None), None),
            (service(None, Some("198.18.64.7"), None), Some("198.18.64.7")),
            (service(None, Some("198.18.64.7"), Some("198.18.64.8")), Some("198.18.64.8")),
            (service(None, Some("192.0.2.1"), None), None),
        ] {
            assert_eq!(preferred_address(&service).map(|address| address.to_string()).as_deref(), expected);
            assert!(is_served(&service));
        }
        assert!(!is_served(&service(Some("other.example/balancer"), None, None)));
    }
}
