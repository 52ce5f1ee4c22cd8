//! Compiles TCPIngresses and UDPIngresses, which share the ports of `--ingress-stream-ports`.
//!
//! ```text
//!   TCPIngress, UDPIngress ─ plan.rs ─▶ a route for each rule
//!   all plans, the oldest first ─ listeners.rs ─▶ a Bind for each port that a rule uses
//! ```
//!
//! If two rules need one port, or one server name of a port with TLS, the older object wins, then the first by name.

mod listeners;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::{Kind, ObjectId};
use crate::bind_address::BindAddress;
use crate::compile::CompileContext;
use crate::compile::certificates::SecretCache;
use crate::compile::ingress::plan::default_certificates;
use crate::compile::kong::plugins::Plugins;
use crate::diagnostic::Diagnostic;
use crate::snapshot::Bind;
use crate::store::Changes;
use crate::upstream::UpstreamKey;
use crate::verdict::{Code, Condition, PublishedAddress, Verdict};
use listeners::StreamBinds;
use plan::{StreamIngressPlan, StreamIngressSource};

/// All served TCPIngresses and UDPIngresses, and what is compiled from them together.
#[derive(Debug, Default)]
pub(in crate::compile) struct StreamIngressCompiler {
    plans: BTreeMap<ObjectId, StreamIngressPlan>,
    built: StreamBinds,
    /// The addresses for `status.loadBalancer`; `None` if it is not written.
    published: Option<Vec<PublishedAddress>>,
}

/// What an update changed.
#[derive(Debug, Default)]
pub(in crate::compile) struct StreamIngressUpdate {
    /// The upstreams of each object that was planned again, before and after.
    pub upstreams: Vec<[Vec<UpstreamKey>; 2]>,
    pub verdicts_to_update: BTreeSet<ObjectId>,
}

impl StreamIngressCompiler {
    /// Plans the touched objects.
    pub(in crate::compile) fn update(
        &mut self,
        cx: CompileContext<'_>,
        plugins: &Plugins,
        secrets: &mut SecretCache,
        touched: &Changes,
    ) -> StreamIngressUpdate {
        let mut updated = StreamIngressUpdate::default();
        let settings = cx.inputs.ingress;
        for id in touched.iter().filter(|id| is_stream_ingress(id.kind)) {
            updated.verdicts_to_update.insert(id.clone());
            let source = match id.kind {
                Kind::TcpIngress => {
                    cx.store.tcp_ingresses.get(&id.key).map(|object| StreamIngressSource::from(&**object))
                }
                _ => cx.store.udp_ingresses.get(&id.key).map(|object| StreamIngressSource::from(&**object)),
            };
            let after = source.and_then(|source| plan::plan(cx, plugins, secrets, &source));
            let before = self.plans.remove(id);
            let upstreams =
                |plan: &Option<StreamIngressPlan>| plan.as_ref().map(|plan| plan.upstreams.clone()).unwrap_or_default();
            updated.upstreams.push([upstreams(&before), upstreams(&after)]);
            if let Some(after) = after {
                self.plans.insert(id.clone(), after);
            }
        }
        if updated.verdicts_to_update.is_empty() && self.plans.is_empty() {
            return updated;
        }
        let default_secret = settings.default_secret.as_ref();
        let is_default_touched =
            default_secret.is_some_and(|secret| touched.contains(&ObjectId::new(Kind::Secret, secret.clone())));
        let published = settings.publish.addresses(cx.store);
        let is_published_changed = published != self.published;
        self.published = published;
        if !updated.verdicts_to_update.is_empty() || is_default_touched {
            let default = default_certificates(cx, secrets);
            self.built = StreamBinds::build(settings.streams.as_deref().unwrap_or_default(), &self.plans, &default);
            // An older object may win or leave a port that any other one uses.
            updated.verdicts_to_update.extend(self.plans.keys().cloned());
        } else if is_published_changed {
            updated.verdicts_to_update.extend(self.plans.keys().cloned());
        }
        updated
    }

    /// The binds of the ports that rules use.
    pub(in crate::compile) fn binds(&self) -> &BTreeMap<BindAddress, Arc<Bind>> {
        &self.built.binds
    }

    pub(in crate::compile) fn is_served(&self, id: &ObjectId) -> bool {
        self.plans.contains_key(id)
    }

    /// The served objects.
    pub(in crate::compile) fn ids(&self) -> impl Iterator<Item = &ObjectId> {
        self.plans.keys()
    }

    /// The verdict on an object; `None` if it does not exist. `taken`: sockets that serve Gateways instead.
    pub(in crate::compile) fn verdict(
        &self,
        cx: CompileContext<'_>,
        id: &ObjectId,
        taken: &BTreeSet<BindAddress>,
    ) -> Option<Verdict> {
        let meta = cx.store.meta(id)?;
        let Some(plan) = self.plans.get(id) else {
            return Some(Verdict { generation: meta.generation, ..Verdict::default() });
        };
        let mut errors = plan.errors.clone();
        errors.extend(self.built.conflicts.get(id).cloned().unwrap_or_default());
        let sockets = self.built.sockets.get(id).cloned().unwrap_or_default();
        for address in sockets.intersection(taken) {
            let message = format!("a Gateway uses {address}, so rules for this port are not served");
            errors.push(Diagnostic::error("spec.rules", message, "choose another port, or change the Gateway"));
        }
        let condition = match errors.is_empty() {
            true => Condition::without_diagnostics(Code::ObjectProgrammed),
            false => Condition::new(Code::ObjectInvalid, errors),
        };
        Some(Verdict {
            generation: plan.generation,
            conditions: vec![condition],
            load_balancer: self.published.clone(),
            sockets: sockets.difference(taken).copied().collect(),
            diagnostics: plan.notes.clone(),
            ..Verdict::default()
        })
    }
}

/// Whether this step compiles objects of the kind.
fn is_stream_ingress(kind: Kind) -> bool {
    matches!(kind, Kind::TcpIngress | Kind::UdpIngress)
}
