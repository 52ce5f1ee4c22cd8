//! Every kind whose status Portico writes gets one. A kind that the compiler forgets has a verdict without content.

use std::collections::BTreeSet;

use portico::api::Kind;
use portico::compile::verdict::Verdict;

use super::case::Case;

#[test]
fn kinds_with_a_status_get_one_in_some_case() {
    let mut missing: BTreeSet<Kind> =
        Kind::ALL.iter().copied().filter(|kind| kind.is_served() && kind.has_written_status()).collect();
    assert!(missing.len() > 10, "{missing:?}");
    for case in Case::all() {
        for (id, verdict) in case.verdicts() {
            if has_content(&verdict) {
                missing.remove(&id.kind);
            }
        }
    }
    assert!(
        missing.is_empty(),
        "no case in tests/compile has a condition for an object of {missing:?}; add one, and if its golden has no \
         condition, add the kind to `update_other_verdicts` in src/compile/verdict_updates.rs, or in the file of this \
         name in src/compile/kong"
    );
}

/// Whether the verdict sets a field of the status. Diagnostics without a condition are not part of a status.
fn has_content(verdict: &Verdict) -> bool {
    let Verdict { generation, diagnostics, .. } = Verdict::default();
    Verdict { generation, diagnostics, ..verdict.clone() } != Verdict::default()
}
