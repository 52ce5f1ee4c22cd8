//! Verdicts on objects that are larger than an object may be, of the kinds whose steps do not look at the size.

use std::collections::BTreeMap;

use crate::api::{Kind, Meta, ObjectId};
use crate::compile::CompileContext;
use crate::diagnostic::Diagnostic;
use crate::store::{Changes, OversizedObject};
use crate::verdict::{Code, Condition, Verdict};

/// What is reported about these objects, whichever step decides their verdicts.
#[derive(Debug, Default)]
pub(in crate::compile) struct OversizedVerdicts {
    /// The verdicts on objects of which nothing is stored. They replace those of all steps, to which such an object
    /// does not exist.
    replaced: BTreeMap<ObjectId, Verdict>,
    /// The generations of the others, and what is added to their verdicts.
    remarks: BTreeMap<ObjectId, (i64, Diagnostic)>,
}

impl OversizedVerdicts {
    /// `is_unreported`: whether no step reports the size of a too large object, of the kinds with steps of their own.
    pub(in crate::compile) fn new(cx: CompileContext<'_>, is_unreported: impl Fn(Kind, &Meta) -> bool) -> Self {
        let mut verdicts = OversizedVerdicts::default();
        let is_reported_here =
            |id: &ObjectId, object: &OversizedObject| !reports_size(id.kind) && is_unreported(id.kind, &object.meta);
        for (id, object) in cx.store.oversized.iter().filter(|(id, object)| is_reported_here(id, object)) {
            let Some(problem) = cx.inputs.budgets.size_problem(cx.store, id.kind, &id.key) else { continue };
            let generation = object.meta.generation;
            if object.stored.is_some() {
                verdicts.remarks.insert(id.clone(), (generation, problem.into_warning()));
            } else {
                let conditions = vec![Condition::new(Code::ObjectInvalid, vec![problem])];
                verdicts.replaced.insert(id.clone(), Verdict { generation, conditions, ..Verdict::default() });
            }
        }
        verdicts
    }

    /// The verdict to set instead of the one that a step decided.
    pub(in crate::compile) fn apply(&self, id: &ObjectId, mut verdict: Option<Verdict>) -> Option<Verdict> {
        if let Some(replaced) = self.replaced.get(id) {
            return Some(replaced.clone());
        }
        if let Some((generation, remark)) = self.remarks.get(id) {
            let verdict = verdict.get_or_insert_with(|| Verdict { generation: *generation, ..Verdict::default() });
            verdict.diagnostics.push(remark.clone());
        }
        verdict
    }

    /// The touched objects of which nothing is stored.
    pub(in crate::compile) fn not_stored(&self, touched: &Changes) -> Vec<ObjectId> {
        self.replaced.keys().filter(|id| touched.contains(*id)).cloned().collect()
    }
}

/// Whether the step that plans objects of this kind reports their size.
fn reports_size(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::HttpRoute
            | Kind::GrpcRoute
            | Kind::TlsRoute
            | Kind::TcpRoute
            | Kind::UdpRoute
            | Kind::Ingress
            | Kind::Gateway
            | Kind::ListenerSet
    )
}
