//! `portico crds`: the definitions of Portico's own and of Kong's kinds, for clusters that do not have them.

use crate::api::definitions;

/// Each definition as YAML, with its file name in `crds/`.
pub fn crds() -> Vec<(String, String)> {
    let definition = |kind| {
        let definition = definitions::definition(kind)?;
        let text = serde_saphyr::to_string(&definition).expect("every JSON value can be written as YAML");
        Some((format!("{}.yaml", kind.plural()), text))
    };
    definitions::kinds().filter_map(definition).collect()
}
