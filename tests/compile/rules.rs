//! The rules of Gateway API that compiling must keep, by the names under which cases cite them.

use std::collections::BTreeSet;

/// The names in `rules.md`: every list entry starts with one in backticks.
pub(crate) fn known() -> BTreeSet<String> {
    let name = |line: &str| Some(line.strip_prefix("- `")?.split_once('`')?.0.to_owned());
    let rules: BTreeSet<String> = include_str!("rules.md").lines().filter_map(name).collect();
    assert!(rules.len() > 20, "rules.md could not be read");
    rules
}
