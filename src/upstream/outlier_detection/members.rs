//! Which endpoints have a state: those that the configuration and DNS name, and those that left a while ago. So an
//! EndpointSlice in which an endpoint appears and disappears heals nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::transitions::Transitions;
use crate::upstream::endpoint_state::EndpointState;
use crate::upstream::health::EndpointHealth;

/// All endpoints with a state.
#[derive(Debug, Default)]
pub(super) struct Members(BTreeMap<SocketAddr, Member>);

#[derive(Debug)]
pub(super) struct Member {
    pub(super) state: Arc<EndpointState>,
    /// The UID of the Pod. Another Pod that gets the address has a state of its own.
    pod: Option<Arc<str>>,
    /// When the endpoint left, in milliseconds of the upstream's clock.
    left_at: Option<u64>,
    pub(super) transitions: Transitions,
}

impl Members {
    /// The states of these endpoints, in their order. `pods`: the UID of the Pod at an address, if it is known.
    pub(super) fn replace(
        &mut self,
        addresses: &[SocketAddr],
        pods: impl Fn(&SocketAddr) -> Option<Arc<str>>,
        now: u64,
    ) -> Vec<(SocketAddr, Arc<EndpointState>)> {
        let is_first = self.0.is_empty();
        self.forget_expired(now);
        for (address, member) in &mut self.0 {
            match addresses.binary_search(address) {
                Ok(_) => member.left_at = None,
                Err(_) => {
                    member.left_at.get_or_insert(now);
                }
            }
        }
        let current = addresses.iter().map(|address| {
            let pod = pods(address);
            let member = self.0.entry(*address).or_insert_with(|| Member::new(is_first, now));
            if let (Some(known), Some(pod)) = (&member.pod, &pod)
                && known != pod
            {
                *member = Member::new(false, now);
            }
            member.pod = pod.or(member.pod.take());
            (*address, Arc::clone(&member.state))
        });
        let current: Vec<_> = current.collect();
        self.forget_surplus(addresses.len());
        current
    }

    /// Whether these endpoints still have these states, because no other Pod is behind their addresses. Remembers the
    /// Pods behind addresses of which none was known. `pods`: see [`Self::replace`].
    pub(super) fn confirm<'s>(
        &mut self,
        mut endpoints: impl Iterator<Item = (SocketAddr, &'s Arc<EndpointState>)>,
        pods: impl Fn(&SocketAddr) -> Option<Arc<str>>,
    ) -> bool {
        endpoints.all(|(address, state)| {
            let Some(member) = self.0.get_mut(&address) else { return false };
            let pod = pods(&address);
            if member.pod.is_none() {
                member.pod.clone_from(&pod);
            }
            let has_same_pod = pod.is_none() || member.pod == pod;
            has_same_pod && Arc::ptr_eq(&member.state, state)
        })
    }

    pub(super) fn get(&self, address: SocketAddr) -> Option<&Member> {
        self.0.get(&address)
    }

    pub(super) fn get_mut(&mut self, address: SocketAddr) -> Option<&mut Member> {
        self.0.get_mut(&address)
    }

    /// Forgets endpoints that left long ago, and the first ones that left if there are too many.
    pub(super) fn forget_left(&mut self, now: u64, current: usize) {
        self.forget_expired(now);
        self.forget_surplus(current);
    }

    fn forget_expired(&mut self, now: u64) {
        self.0.retain(|_, member| member.left_at.is_none_or(|left_at| now.saturating_sub(left_at) < KEPT_MILLIS));
    }

    fn forget_surplus(&mut self, current: usize) {
        let left = self.0.values().filter(|member| member.left_at.is_some()).count();
        let surplus = left.saturating_sub(current.max(MIN_KEPT));
        if surplus > 0 {
            let mut by_time: Vec<_> =
                self.0.iter().filter_map(|(address, member)| Some((member.left_at?, *address))).collect();
            by_time.sort_unstable();
            for (_, address) in &by_time[..surplus] {
                self.0.remove(address);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Member {
    fn new(is_first: bool, now: u64) -> Self {
        // Endpoints that are known from the start are not new to anyone.
        let health = if is_first { EndpointHealth::default() } else { EndpointHealth::added(now) };
        let state = EndpointState { health, ..EndpointState::default() };
        Member { state: Arc::new(state), pod: None, left_at: None, transitions: Transitions::default() }
    }
}

/// How long the state of an endpoint is kept that left.
const KEPT_MILLIS: u64 = 60_000;
/// How many endpoints that left are kept in any case within this time; more if there are more current ones.
const MIN_KEPT: usize = 256;
