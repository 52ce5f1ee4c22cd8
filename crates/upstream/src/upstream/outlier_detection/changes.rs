//! Changes of the endpoints and of the settings.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{COUNTS_RATES, COUNTS_STATUSES, OutlierDetection};
use crate::upstream::endpoint_state::EndpointState;
use crate::upstream::settings::{HealthSettings, InitialHealth};

impl OutlierDetection {
    /// Sets the settings; `None` for the defaults. Counts and running ejections stay as far as they still apply.
    pub(in crate::upstream) fn configure(&self, settings: Option<&Arc<HealthSettings>>, is_dry_run: bool) {
        let settings = settings.cloned().unwrap_or_default();
        self.set_attention(COUNTS_STATUSES, settings.passive.counts_statuses());
        self.set_attention(COUNTS_RATES, settings.passive.counts_rates());
        let has_active_check = settings.active.is_some();
        let before = self.settings.swap(settings);
        let was_dry_run = self.is_dry_run.swap(is_dry_run, Relaxed);
        let only_checks = was_dry_run == is_dry_run;
        if !only_checks || before.active.is_some() && !has_active_check {
            let now = self.clock.now();
            for state in self.current.load().iter() {
                state.health.forget(now, only_checks);
            }
        }
        self.update_degraded();
    }

    /// Ends the effect of active checks that are no longer made.
    pub(in crate::upstream) fn forget_checks(&self) {
        let now = self.clock.now();
        for state in self.current.load().iter() {
            state.health.forget(now, true);
        }
        self.update_degraded();
    }

    /// Sets the endpoints that may get requests, sorted, and returns their states. `pods`: the UIDs of Pods by address,
    /// sorted.
    pub(in crate::upstream) fn set_endpoints(
        &self,
        addresses: &[SocketAddr],
        pods: &[(SocketAddr, Arc<str>)],
    ) -> Vec<(SocketAddr, Arc<EndpointState>)> {
        let now = self.clock.now();
        let endpoints = self.members.lock().replace(addresses, |address| pod_at(pods, address), now);
        self.await_first_checks(&endpoints);
        self.current.store(Arc::new(endpoints.iter().map(|(_, state)| Arc::clone(state)).collect()));
        self.update_degraded();
        endpoints
    }

    /// Whether these endpoints still have these states, so that they need not be set again: no other Pod is behind one
    /// of the addresses. `pods`: see [`Self::set_endpoints`].
    pub(in crate::upstream) fn confirm<'s>(
        &self,
        endpoints: impl Iterator<Item = (SocketAddr, &'s Arc<EndpointState>)>,
        pods: &[(SocketAddr, Arc<str>)],
    ) -> bool {
        self.members.lock().confirm(endpoints, |address| pod_at(pods, address))
    }

    /// New endpoints get no requests before a check has passed, if the active check says so.
    fn await_first_checks(&self, endpoints: &[(SocketAddr, Arc<EndpointState>)]) {
        let settings = self.settings.load();
        let is_unhealthy = settings.active.as_ref().is_some_and(|check| check.initial == InitialHealth::Unhealthy);
        if !is_unhealthy {
            return;
        }
        let known: BTreeSet<_> = self.current.load().iter().map(Arc::as_ptr).collect();
        let new = endpoints.iter().filter(|(_, state)| !known.contains(&Arc::as_ptr(state)));
        for (_, state) in new.filter(|(_, state)| state.health.is_clean()) {
            state.health.record_failed_check(self.is_dry_run());
        }
    }
}

fn pod_at(pods: &[(SocketAddr, Arc<str>)], address: &SocketAddr) -> Option<Arc<str>> {
    let index = pods.binary_search_by_key(address, |(address, _)| *address).ok()?;
    Some(Arc::clone(&pods[index].1))
}
