//! The Gateway API rules that cases cite by name.

use std::collections::BTreeSet;

/// The names in `rules.md`, where every list entry starts with one in backticks.
pub(crate) fn known_rules() -> BTreeSet<String> {
    let name = |line: &str| Some(line.strip_prefix("- `")?.split_once('`')?.0.to_owned());
    let rules: BTreeSet<String> = include_str!("rules.md").lines().filter_map(name).collect();
    assert!(rules.len() > 20, "rules.md has too few rules");
    rules
}
