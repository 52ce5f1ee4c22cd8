//! Verdicts on objects that are larger than an object may be, of the kinds whose steps do not look at the size.

use std::collections::BTreeMap;

use super::verdict::{Code, Condition, Verdict};
use super::{CompileContext, kong};
use crate::api::{Kind, ObjectId};
use crate::diagnostic::Diagnostic;
use crate::store::{Changes, OversizedObject};

/// What is reported about these objects, whichever step decides their verdicts.
#[derive(Debug, Default)]
pub(super) struct OversizedVerdicts {
    /// The verdicts on objects of which nothing is stored. They replace those of all steps, to which such an object
    /// does not exist.
    replaced: BTreeMap<ObjectId, Verdict>,
    /// The generations of the others, and what is added to their verdicts.
    remarks: BTreeMap<ObjectId, (i64, Diagnostic)>,
}

impl OversizedVerdicts {
    pub(super) fn new(cx: CompileContext<'_>) -> Self {
        let mut verdicts = OversizedVerdicts::default();
        for (id, object) in cx.store.oversized.iter().filter(|(id, object)| is_reported_here(cx, id, object)) {
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
    pub(super) fn apply(&self, id: &ObjectId, mut verdict: Option<Verdict>) -> Option<Verdict> {
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
    pub(super) fn not_stored(&self, touched: &Changes) -> Vec<ObjectId> {
        self.replaced.keys().filter(|id| touched.contains(*id)).cloned().collect()
    }
}

/// Whether no step reports the size of the object. Objects of other classes are not reported.
fn is_reported_here(cx: CompileContext<'_>, id: &ObjectId, object: &OversizedObject) -> bool {
    match id.kind {
        Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute => false,
        Kind::Ingress | Kind::Gateway | Kind::ListenerSet => false,
        kind => kong::verdict_updates::is_size_unreported(cx, kind, &object.meta),
    }
}
