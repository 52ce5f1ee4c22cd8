//! Updates the verdicts on objects of Kong's kinds that no other step updates.

use std::collections::{BTreeMap, BTreeSet};

use super::policy_conflicts::PolicyConflicts;
use super::{service_notes, unserved_kinds, upstream_policy, vaults};
use crate::api::{Kind, Meta, ObjectId};
use crate::compile::CompileContext;
use crate::compile::verdicts::table::VerdictTable;
use crate::store::{Changes, Store};
use crate::verdict::Verdict;

/// How the verdict on an object is found.
#[expect(clippy::large_enum_variant, reason = "a value is matched as soon as it is returned, and never stored")]
pub(in crate::compile) enum VerdictSource {
    /// The step that compiles the kind updates its verdicts.
    OwnStep,
    /// The verdict; `None` if the object does not exist.
    Known(Option<Verdict>),
    /// The kind is not one of Kong's.
    OtherKind,
}

/// The verdict on an object of one of Kong's kinds. `is_used`: whether routes use this facade.
pub(in crate::compile) fn verdict(cx: CompileContext<'_>, id: &ObjectId, is_used: bool) -> VerdictSource {
    match id.kind {
        Kind::KongPlugin
        | Kind::KongClusterPlugin
        | Kind::KongConsumer
        | Kind::KongConsumerGroup
        | Kind::KongCustomEntity
        | Kind::KongUpstreamPolicy
        | Kind::KongIngress
        | Kind::TcpIngress
        | Kind::UdpIngress => VerdictSource::OwnStep,
        Kind::KongVault => VerdictSource::Known(vaults::verdict(cx, &id.key)),
        Kind::KongLicense => VerdictSource::Known(unserved_kinds::verdict(cx, id)),
        Kind::KongServiceFacade => {
            let facade = cx.store.kong_service_facades.get(&id.key);
            VerdictSource::Known(facade.map(|facade| service_notes::facade_verdict(cx, facade, is_used)))
        }
        _ => VerdictSource::OtherKind,
    }
}

/// Whether no step reports the size of an object of this kind that is too large. Objects of other classes are not
/// reported.
pub(in crate::compile) fn is_size_unreported(cx: CompileContext<'_>, kind: Kind, meta: &Meta) -> bool {
    match kind {
        Kind::KongPlugin | Kind::KongClusterPlugin => false,
        Kind::KongConsumer
        | Kind::KongConsumerGroup
        | Kind::KongServiceFacade
        | Kind::KongVault
        | Kind::TcpIngress
        | Kind::UdpIngress => cx.inputs.classes.serves_object(cx.store, meta, None),
        _ => true,
    }
}

/// The policies to which each Service and facade refers.
#[derive(Debug, Default)]
pub(in crate::compile) struct PolicyReferrers {
    /// As of the last update, because a deleted object no longer has its references.
    policies: BTreeMap<ObjectId, BTreeSet<ObjectId>>,
}

impl PolicyReferrers {
    /// Updates the verdicts on policies that changed or whose referring Services changed.
    pub(in crate::compile) fn update(
        &mut self,
        store: &Store,
        touched: &Changes,
        conflicts: &PolicyConflicts,
        verdicts: &mut VerdictTable,
    ) {
        let mut outdated = BTreeSet::new();
        for id in touched {
            match id.kind {
                Kind::KongUpstreamPolicy | Kind::KongIngress => drop(outdated.insert(id.clone())),
                Kind::Service | Kind::KongServiceFacade => {
                    let referenced: BTreeSet<_> =
                        store.meta(id).into_iter().flat_map(upstream_policy::referenced_policies).collect();
                    outdated.extend(referenced.iter().cloned());
                    outdated.extend(self.policies.remove(id).unwrap_or_default());
                    if !referenced.is_empty() {
                        self.policies.insert(id.clone(), referenced);
                    }
                }
                _ => {}
            }
        }
        for id in outdated {
            let verdict = upstream_policy::verdict(store, &id, conflicts);
            verdicts.set(id, verdict);
        }
    }
}
