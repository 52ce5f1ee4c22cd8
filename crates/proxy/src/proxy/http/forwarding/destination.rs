//! Where a request is forwarded to, and how.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::attempt_policy::AttemptPolicy;
use super::attempt_timeouts::{AttemptTimeouts, TimeLimit};
use super::upgrade::Upgrade;
use crate::forwarding_fields::ForwardingFields;
use crate::hop_count::HopCount;
use crate::plugin_api::trace::EndpointTrace;
use crate::proxy::http::fields::field_policy::InformationalPolicy;
use crate::upstream::{Admission, AttemptSettings, ClientSlot, Upstream};

/// Where a request is forwarded to. The request is already rewritten for the endpoint.
pub(in crate::proxy) struct Destination<'r> {
    pub(in crate::proxy) upstream: &'r Arc<Upstream>,
    /// The admission to the upstream, if the request has it already.
    pub(in crate::proxy) admitted: Option<Box<Admission>>,
    /// The endpoint of the session, for the first attempt.
    pub(in crate::proxy) pinned: Option<SocketAddr>,
    /// Those of the sessions with upstreams that may take its place.
    pub(in crate::proxy) pinned_others: Box<[(Arc<Upstream>, SocketAddr)]>,
    /// What load balancing by hash uses, if the upstream does and the request has it.
    pub(in crate::proxy) hash: Option<u64>,
    pub(in crate::proxy) policy: AttemptPolicy<'r>,
    /// The retries and timeouts of the Service, from which the policy of the request follows.
    pub(in crate::proxy) settings: Option<Arc<AttemptSettings>>,
    pub(in crate::proxy) upgrade: Option<Box<Upgrade>>,
    /// Whether the request may have the field `TE`.
    pub(in crate::proxy) may_have_te: bool,
    pub(in crate::proxy) informational: InformationalPolicy<'r>,
    /// How many Portico processes have forwarded the request, with this one.
    pub(in crate::proxy) hops: HopCount,
    pub(in crate::proxy) trace: EndpointTrace,
    /// The forwarding fields, unless the header has them already.
    pub(in crate::proxy) forwarding: Option<ForwardingFields<'r>>,
    /// In which slot the request is counted.
    pub(in crate::proxy) client: ClientSlot,
}

impl<'r> Destination<'r> {
    /// The same for another upstream, without what only one request has.
    pub(super) fn at<'a>(&self, upstream: &'a Arc<Upstream>) -> Destination<'a>
    where
        'r: 'a,
    {
        Destination {
            upstream,
            admitted: None,
            pinned: self.pinned_at(upstream),
            pinned_others: Box::default(),
            hash: self.hash,
            policy: self.policy,
            settings: self.settings.clone(),
            upgrade: None,
            may_have_te: self.may_have_te,
            informational: self.informational.clone(),
            hops: self.hops,
            trace: self.trace,
            forwarding: self.forwarding,
            client: self.client,
        }
    }

    /// The endpoint of the session with an upstream that takes the place of this one.
    pub(super) fn pinned_at(&self, upstream: &Arc<Upstream>) -> Option<SocketAddr> {
        self.pinned_others.iter().find(|(other, _)| Arc::ptr_eq(other, upstream)).map(|(_, pinned)| *pinned)
    }

    /// When a request that begins now must be complete, with all its attempts.
    pub(super) fn time_limit(&self, now: Instant) -> Option<TimeLimit> {
        let of_service = self.settings.as_deref().and_then(|settings| settings.timeouts.as_deref());
        AttemptTimeouts::of(self.policy.rule, of_service).limit(now, self.policy.call_deadline)
    }
}
