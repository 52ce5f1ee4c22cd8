//! Verdicts that concern rejected objects: what is reported about such an object, and the words for references to it,
//! since it is in a file or in the cluster, and not missing.

use std::collections::BTreeSet;

use crate::api::ObjectId;
use crate::diagnostic::{Diagnostic, REJECTED, Reason};
use crate::store::Store;
use crate::verdict::Verdict;

/// The rejected objects, as of one compilation.
#[derive(Debug, Default)]
pub(in crate::compile) struct RejectedVerdicts {
    /// The text that stands for each in messages.
    names: BTreeSet<String>,
}

impl RejectedVerdicts {
    pub(in crate::compile) fn new(store: &Store) -> Self {
        let rejected = store.unparseable.iter().filter(|(id, _)| store.is_rejected(id));
        RejectedVerdicts { names: rejected.map(|(id, _)| id.to_string()).collect() }
    }

    /// The verdict to set instead of the one that a step decided.
    pub(in crate::compile) fn apply(&self, id: &ObjectId, verdict: Option<Verdict>) -> Option<Verdict> {
        if self.names.is_empty() {
            return verdict;
        }
        let mut verdict = verdict?;
        let of_listeners = verdict.listeners.iter_mut().flat_map(|listener| &mut listener.conditions);
        let of_parents = verdict.parents.iter_mut().flat_map(|parent| &mut parent.conditions);
        let of_ancestors = verdict.ancestors.iter_mut().flat_map(|ancestor| &mut ancestor.conditions);
        let conditions = verdict.conditions.iter_mut().chain(of_listeners).chain(of_parents).chain(of_ancestors);
        let diagnostics = conditions.flat_map(|condition| &mut condition.diagnostics).chain(&mut verdict.diagnostics);
        for diagnostic in diagnostics {
            self.reword(diagnostic);
        }
        let name = id.to_string();
        let is_reported = verdict.all_conditions().any(|(_, condition)| condition.diagnostics.iter().any(is_of_object));
        if self.names.contains(&name) && !is_reported {
            verdict.diagnostics.push(rejected());
        }
        Some(verdict)
    }

    /// Says that an object was rejected where the message says that it does not exist.
    fn reword(&self, diagnostic: &mut Diagnostic) {
        let Reason::NotFound(missing) = &diagnostic.reason else { return };
        if self.names.contains(missing) {
            // The message may go on after "does not exist" with a consequence, which stays.
            diagnostic.message = diagnostic.message.replacen("does not exist", "was rejected", 1);
            "fix the error reported for it".clone_into(&mut diagnostic.remedy);
        }
    }
}

fn is_of_object(diagnostic: &Diagnostic) -> bool {
    diagnostic.reason == REJECTED
}

/// What a verdict says of a rejected object itself. The source of the object reports why.
pub(in crate::compile) fn rejected() -> Diagnostic {
    let message = "the object was rejected, and no valid version of it is known";
    Diagnostic::of_object(message, "fix the error reported for it").with_reason(REJECTED)
}
