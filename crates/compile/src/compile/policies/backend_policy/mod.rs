//! BackendPolicies: how requests to Services, XBackends and KongServiceFacades are balanced, limited and repeated.
//!
//! ```text
//!   blocks/        the blocks of a policy; each is taken whole from one policy
//!     ├ load_balancing.rs, request_hash.rs, session.rs, health.rs, active_check.rs, limits.rs, circuit_breaker.rs,
//!     │ retry.rs, timeouts.rs                            block ─▶ `upstream::settings`
//!     └ block_reader.rs                                  fields, and the problems with them
//!   layers.rs      target ─▶ the policies that apply to it, in the order of precedence
//!   effective.rs   upstream ─▶ its settings, with those of other sources for blocks that no policy has
//!   verdict.rs     the conditions Accepted and Programmed
//!     ├ field_needs/       fields without effect, since they lack what they need
//!     ├ displacement.rs    blocks that something else sets
//!     └ rule_settings.rs   the rules that set blocks themselves
//!   affected.rs    target ─▶ the policies that affect it, for its status and events
//! ```
//!
//! The settings belong to the upstreams, so an edit of a policy changes neither routes nor routers.

mod affected;
mod blocks;
mod displacement;
mod effective;
mod field_needs;
mod layers;
mod policy_target;
mod rule_settings;
mod verdict;

pub(in crate::compile) use affected::affected_by;
pub(in crate::compile) use blocks::{Block, failover_settings};
pub(in crate::compile) use effective::{apply, is_enforceable};
pub(in crate::compile) use layers::{first_with_block, overriding_policy, policies_of_upstream, sources};
pub(in crate::compile) use policy_target::backend_key;
pub(in crate::compile) use verdict::findings;

use super::target::{TargetKind, TargetReference, TargetedPolicy};
use crate::api::Kind;
use crate::api::portico::BackendPolicy;
use crate::compile::affected::BackendChange;
use crate::store::{ObjectTable, Store};
use crate::verdict::Code;

impl TargetedPolicy for BackendPolicy {
    const TARGETS: &'static [TargetKind] = &[TargetKind::Service, TargetKind::XBackend, TargetKind::Facade];
    const USERS: &'static [Kind] = &[
        Kind::HttpRoute,
        Kind::GrpcRoute,
        Kind::TlsRoute,
        Kind::TcpRoute,
        Kind::UdpRoute,
        Kind::Ingress,
        Kind::TcpIngress,
        Kind::UdpIngress,
    ];
    const CHANGE: BackendChange = BackendChange::Endpoints;
    const AFFECTS_PASSTHROUGH: bool = true;
    const WITHOUT_USERS: Option<Code> = Some(Code::BackendPolicyReconciling);

    fn table(store: &Store) -> &ObjectTable<Self> {
        &store.backend_policies
    }

    fn target_references(&self) -> impl Iterator<Item = TargetReference<'_>> {
        self.spec.target_refs.iter().map(|target| TargetReference {
            group: &target.group,
            kind: &target.kind,
            name: &target.name,
            section: target.section_name.as_deref(),
        })
    }
}
