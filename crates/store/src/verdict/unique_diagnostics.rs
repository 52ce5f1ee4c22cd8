//! A list of diagnostics without duplicates. Several rules or paths of an object often have the same problem, which is
//! reported once. Adding one costs the same however many there are: an object may have tens of thousands of paths.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::diagnostic::Diagnostic;

/// Diagnostics in the order in which they were added, each once.
#[derive(Clone, Debug, Default)]
pub struct UniqueDiagnostics {
    list: Vec<Diagnostic>,
    /// Positions in `list`, by hash.
    positions: HashTable<usize>,
    hasher: RandomState,
}

impl UniqueDiagnostics {
    pub fn push(&mut self, diagnostic: Diagnostic) {
        let UniqueDiagnostics { list, positions, hasher } = self;
        let hash = hasher.hash_one(&diagnostic);
        if positions.find(hash, |position| list[*position] == diagnostic).is_none() {
            positions.insert_unique(hash, list.len(), |position| hasher.hash_one(&list[*position]));
            list.push(diagnostic);
        }
    }

    pub fn into_vec(self) -> Vec<Diagnostic> {
        self.list
    }
}

impl Extend<Diagnostic> for UniqueDiagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, diagnostics: I) {
        diagnostics.into_iter().for_each(|diagnostic| self.push(diagnostic));
    }
}

impl FromIterator<Diagnostic> for UniqueDiagnostics {
    fn from_iter<I: IntoIterator<Item = Diagnostic>>(diagnostics: I) -> Self {
        let mut unique = UniqueDiagnostics::default();
        unique.extend(diagnostics);
        unique
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_diagnostic_is_kept_once_and_in_order() {
        let diagnostic = |field: &str| Diagnostic::error(field, "it is invalid", "correct it");
        let added = ["b", "a", "b", "c", "a"].map(diagnostic);
        let kept = UniqueDiagnostics::from_iter(added).into_vec();
        assert_eq!(kept, ["b", "a", "c"].map(diagnostic));
        assert_eq!(UniqueDiagnostics::from_iter([diagnostic("a"), diagnostic("a").into_warning()]).into_vec().len(), 2);
    }
}
