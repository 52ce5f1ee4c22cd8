//! The known word that somebody who wrote an unknown one most likely meant.

use crate::api::Kind;

/// The candidate that `word` is most likely a slip of: a few letters wrong, missing, added or swapped, or one word inside
/// the other (`Prefix`, `PathPrefix`). Case does not count. Of equally near ones the first in the order given wins.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = Letters::new(word)?;
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let Some(other) = Letters::new(candidate) else { continue };
        let Some(score) = word.edits_if_near(&other).or_else(|| word.containment(&other)) else { continue };
        if best.is_none_or(|(least, _)| score < least) {
            best = Some((score, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// The kind of this group that a misspelt name most likely means. A word inside the other is not enough here:
/// `ServiceAccount` is no slip of `Service`.
pub fn nearest_kind(group: &str, name: &str) -> Option<&'static str> {
    let word = Letters::new(name)?;
    Kind::ALL
        .iter()
        .filter(|kind| kind.group() == group)
        .filter_map(|kind| word.edits_if_near(&Letters::new(kind.name())?).map(|edits| (edits, kind.name())))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// A word longer than any name of ours is not a slip of one, and would make the comparison slow.
const LONGEST: usize = 64;

struct Letters(Vec<char>);

impl Letters {
    fn new(word: &str) -> Option<Letters> {
        if word.len() > LONGEST {
            return None;
        }
        Some(Letters(word.chars().flat_map(char::to_lowercase).collect()))
    }

    /// The number of edits between two words if it is small for their length: one in three letters.
    fn edits_if_near(&self, other: &Letters) -> Option<usize> {
        let longer = self.0.len().max(other.0.len());
        let edits = edits(&self.0, &other.0);
        (edits <= (longer / 3).max(1) && edits < longer).then_some(edits)
    }

    /// Ranks below every near word, by how much longer one is than the other.
    fn containment(&self, other: &Letters) -> Option<usize> {
        let (short, long) = if self.0.len() < other.0.len() { (self, other) } else { (other, self) };
        if short.0.len() < 3 || !long.0.windows(short.0.len()).any(|window| window == short.0) {
            return None;
        }
        Some(LONGEST + long.0.len() - short.0.len())
    }
}

/// Optimal string alignment: insertions, deletions, substitutions and swaps of neighbors, each letter edited once.
fn edits(left: &[char], right: &[char]) -> usize {
    let mut before = vec![0; right.len() + 1];
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for i in 1..=left.len() {
        let mut row = vec![i; right.len() + 1];
        for j in 1..=right.len() {
            let differs = usize::from(left[i - 1] != right[j - 1]);
            row[j] = (above[j] + 1).min(row[j - 1] + 1).min(above[j - 1] + differs);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kind::{CORE_GROUP, GATEWAY_GROUP};

    #[test]
    fn slips_find_their_word_and_strangers_find_none() {
        const FIELDS: &[&str] = &["matches", "filters", "backendRefs", "timeouts", "name"];
        const TYPES: &[&str] = &["Exact", "PathPrefix", "RegularExpression"];
        for (word, candidates, expected) in [
            ("backendRef", FIELDS, Some("backendRefs")),
            ("backendrefs", FIELDS, Some("backendRefs")),
            ("mathces", FIELDS, Some("matches")),
            ("match", FIELDS, Some("matches")),
            ("nmae", FIELDS, Some("name")),
            ("Prefix", TYPES, Some("PathPrefix")),
            ("exact", TYPES, Some("Exact")),
            ("Regex", TYPES, None),
            ("x", FIELDS, None),
            ("", FIELDS, None),
            ("replicas", FIELDS, None),
            ("n", &["a", "b"], None),
        ] {
            assert_eq!(nearest(word, candidates.iter().copied()), expected, "{word}");
        }
        assert_eq!(nearest(&"a".repeat(100_000), ["aaa"]), None, "a giant word costs nothing");
    }

    #[test]
    fn a_misspelt_kind_is_found_in_its_group() {
        for (group, name, expected) in [
            (GATEWAY_GROUP, "HttpRoute", Some("HTTPRoute")),
            (GATEWAY_GROUP, "HTTPRoutes", Some("HTTPRoute")),
            (GATEWAY_GROUP, "GatewayClas", Some("GatewayClass")),
            (GATEWAY_GROUP, "Service", None),
            (CORE_GROUP, "Servce", Some("Service")),
            (CORE_GROUP, "ServiceAccount", None),
            (CORE_GROUP, "Pod", None),
            ("apps", "Deployment", None),
        ] {
            assert_eq!(nearest_kind(group, name), expected, "{group} {name}");
        }
    }
}
