//! The verdicts on all objects, and which of them one compilation changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::oversized_objects::OversizedVerdicts;
use super::rejected_objects::RejectedVerdicts;
use crate::api::ObjectId;
use crate::diagnostic::Diagnostic;
use crate::store::Changes;
use crate::verdict::{Verdict, Verdicts};

/// All verdicts.
#[derive(Debug, Default)]
pub(in crate::compile) struct VerdictTable {
    verdicts: Verdicts,
    /// The last verdict, reused because consecutive objects often have equal verdicts.
    last: Arc<Verdict>,
    /// Objects that are too large, as of the compilation that is running.
    oversized: OversizedVerdicts,
    /// Objects that were rejected, as of the compilation that is running.
    rejected: RejectedVerdicts,
    /// What other objects add to the verdicts on objects, with the verdicts without that.
    noted: BTreeMap<ObjectId, NotedVerdict>,
    /// The objects whose verdict was added, changed or removed since the compilation began.
    changed: BTreeSet<ObjectId>,
}

/// A verdict to which something is added.
#[derive(Debug, Default)]
struct NotedVerdict {
    verdict: Option<Verdict>,
    notes: Vec<Diagnostic>,
}

impl VerdictTable {
    /// Begins a compilation.
    pub(in crate::compile) fn begin(&mut self, oversized: OversizedVerdicts, rejected: RejectedVerdicts) {
        (self.oversized, self.rejected) = (oversized, rejected);
    }

    pub(in crate::compile) fn all(&self) -> &Verdicts {
        &self.verdicts
    }

    /// Sets a verdict; `None` if the object has none.
    pub(in crate::compile) fn set(&mut self, id: ObjectId, verdict: Option<Verdict>) {
        let mut verdict = self.rejected.apply(&id, self.oversized.apply(&id, verdict));
        if let Some(noted) = self.noted.get_mut(&id) {
            noted.verdict.clone_from(&verdict);
            if let Some(verdict) = &mut verdict {
                verdict.diagnostics.extend(noted.notes.iter().cloned());
            }
        }
        if self.verdicts.get(&id).map(|known| &**known) == verdict.as_ref() {
            return;
        }
        match verdict {
            Some(verdict) => {
                // Equal verdicts in a row, such as those on many new routes, share one allocation.
                if *self.last != verdict {
                    self.last = Arc::new(verdict);
                }
                self.verdicts.insert(id.clone(), Arc::clone(&self.last))
            }
            None => self.verdicts.remove(&id),
        };
        self.changed.insert(id);
    }

    /// Sets what other objects add to the verdict on an object, in place of what they added before.
    pub(in crate::compile) fn set_notes(&mut self, id: ObjectId, notes: Vec<Diagnostic>) {
        let known = self.noted.remove(&id).map(|noted| noted.verdict);
        let verdict = known.unwrap_or_else(|| self.verdicts.get(&id).map(|verdict| (**verdict).clone()));
        if !notes.is_empty() {
            self.noted.insert(id.clone(), NotedVerdict { verdict: None, notes });
        }
        self.set(id, verdict);
    }

    /// Ends a compilation, after all steps have set their verdicts: sets those on touched objects of which nothing is
    /// stored, because they are larger than an object may be. Returns the objects whose verdict changed.
    pub(in crate::compile) fn end(&mut self, touched: &Changes) -> BTreeSet<ObjectId> {
        for id in self.oversized.not_stored(touched) {
            self.set(id, None);
        }
        self.begin(OversizedVerdicts::default(), RejectedVerdicts::default());
        // Insertions in key order leave the nodes of the map half empty, and a map collected at once has full nodes.
        if self.changed.len() > self.verdicts.len() / 2 {
            self.verdicts = std::mem::take(&mut self.verdicts).into_iter().collect();
        }
        std::mem::take(&mut self.changed)
    }
}
