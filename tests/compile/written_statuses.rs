//! Every kind whose status Portico writes gets one. A kind that the compiler forgets has a verdict without content.

use std::collections::BTreeSet;

use portico::api::Kind;
use portico::verdict::Verdict;

use super::case::Case;

#[test]
fn kinds_with_a_status_get_one_in_some_case() {
    let mut missing: BTreeSet<Kind> =
        Kind::ALL.iter().copied().filter(|kind| kind.is_served() && kind.has_written_status()).collect();
    assert!(missing.len() > 10, "{missing:?}");
    for case in Case::all() {
        for (id, verdict) in case.verdicts() {
            if has_content(id.kind, &verdict) {
                missing.remove(&id.kind);
            }
        }
    }
    assert!(
        missing.is_empty(),
        "no case in tests/compile has a condition for an object of {missing:?}; add one, and if its golden has no \
         condition, add the kind to `update` in crates/compile/src/compile/verdict_updates/other_kinds.rs, or to `verdict` in \
         crates/compile/src/compile/kong/verdict_updates.rs"
    );
}

/// Whether the verdict sets a field of the status. Diagnostics without a condition are not part of a status; those of a
/// KongServiceFacade, which has no conditions, become events.
fn has_content(kind: Kind, verdict: &Verdict) -> bool {
    if kind == Kind::KongServiceFacade {
        return !verdict.diagnostics.is_empty();
    }
    let Verdict { generation, diagnostics, .. } = Verdict::default();
    Verdict { generation, diagnostics, ..verdict.clone() } != Verdict::default()
}
