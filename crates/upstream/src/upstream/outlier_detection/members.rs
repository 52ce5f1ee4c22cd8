//! Which endpoints have a state: those that the configuration and DNS name, and those that left a while ago. So an
//! EndpointSlice in which an endpoint appears and disappears heals nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use super::transitions::Transitions;
use crate::upstream::endpoint_state::EndpointState;
use crate::upstream::health::EndpointHealth;

/// All endpoints with a state, sorted by address. A list, because the nodes of a map would be half empty.
#[derive(Debug, Default)]
pub(super) struct Members(Vec<Member>);

#[derive(Debug)]
pub(super) struct Member {
    address: SocketAddr,
    pub(super) state: Arc<EndpointState>,
    /// The UID of the Pod. Another Pod that gets the address has a state of its own.
    pod: Option<Arc<str>>,
    /// When the endpoint left, in milliseconds of the upstream's clock; 0 if it did not.
    left_at: u64,
    pub(super) transitions: Transitions,
}

impl Members {
    /// The states of these endpoints, which are sorted, in their order. `pods`: the UID of the Pod at an address, if it
    /// is known.
    pub(super) fn replace(
        &mut self,
        addresses: &[SocketAddr],
        pods: impl Fn(&SocketAddr) -> Option<Arc<str>>,
        now: u64,
    ) -> Vec<(SocketAddr, Arc<EndpointState>)> {
        let is_first = self.0.is_empty();
        let mut known = std::mem::take(&mut self.0).into_iter().filter(|member| !member.is_expired(now)).peekable();
        let left =
            |member: Member| Member { left_at: if member.has_left() { member.left_at } else { now.max(1) }, ..member };
        let mut members = Vec::with_capacity(addresses.len());
        let mut current = Vec::with_capacity(addresses.len());
        for address in addresses {
            members.extend(std::iter::from_fn(|| known.next_if(|member| member.address < *address)).map(left));
            let member = known.next_if(|member| member.address == *address);
            let pod = pods(address);
            let member = match member {
                Some(member) if member.pod.is_none() || pod.is_none() || member.pod == pod => {
                    Member { pod: pod.or(member.pod), left_at: 0, ..member }
                }
                Some(_) => Member::new(*address, pod, false, now),
                None => Member::new(*address, pod, is_first, now),
            };
            current.push((*address, Arc::clone(&member.state)));
            members.push(member);
        }
        members.extend(known.map(left));
        self.0 = members;
        self.forget_surplus(addresses.len());
        self.0.shrink_to_fit();
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
            let Some(member) = self.get_mut(address) else { return false };
            let pod = pods(&address);
            if member.pod.is_none() {
                member.pod.clone_from(&pod);
            }
            let has_same_pod = pod.is_none() || member.pod == pod;
            has_same_pod && Arc::ptr_eq(&member.state, state)
        })
    }

    pub(super) fn get(&self, address: SocketAddr) -> Option<&Member> {
        let index = self.0.binary_search_by_key(&address, |member| member.address).ok()?;
        Some(&self.0[index])
    }

    pub(super) fn get_mut(&mut self, address: SocketAddr) -> Option<&mut Member> {
        let index = self.0.binary_search_by_key(&address, |member| member.address).ok()?;
        Some(&mut self.0[index])
    }

    /// The address of the endpoint with this state. Looks at all endpoints.
    pub(super) fn address_of(&self, state: &Arc<EndpointState>) -> Option<SocketAddr> {
        self.0.iter().find(|member| Arc::ptr_eq(&member.state, state)).map(|member| member.address)
    }

    /// Forgets endpoints that left long ago, and the first ones that left if there are too many.
    pub(super) fn forget_left(&mut self, now: u64, current: usize) {
        self.0.retain(|member| !member.is_expired(now));
        self.forget_surplus(current);
    }

    fn forget_surplus(&mut self, current: usize) {
        let mut left: Vec<(u64, SocketAddr)> = self.0.iter().filter_map(Member::departure).collect();
        let surplus = left.len().saturating_sub(current.max(MIN_KEPT));
        if surplus > 0 {
            left.sort_unstable();
            let last = left[surplus - 1];
            self.0.retain(|member| member.departure().is_none_or(|departure| departure > last));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Member {
    fn new(address: SocketAddr, pod: Option<Arc<str>>, is_first: bool, now: u64) -> Self {
        // Endpoints that are known from the start are not new to anyone.
        let health = if is_first { EndpointHealth::default() } else { EndpointHealth::added(now) };
        let state = Arc::new(EndpointState { health, ..EndpointState::default() });
        Member { address, state, pod, left_at: 0, transitions: Transitions::default() }
    }

    fn has_left(&self) -> bool {
        self.left_at != 0
    }

    /// When the endpoint left, and which it was, by which the first ones are forgotten.
    fn departure(&self) -> Option<(u64, SocketAddr)> {
        self.has_left().then_some((self.left_at, self.address))
    }

    fn is_expired(&self, now: u64) -> bool {
        self.has_left() && now.saturating_sub(self.left_at) >= KEPT_MILLIS
    }
}

/// How long the state of an endpoint is kept that left.
const KEPT_MILLIS: u64 = 60_000;
/// How many endpoints that left are kept in any case within this time; more if there are more current ones.
const MIN_KEPT: usize = 256;
