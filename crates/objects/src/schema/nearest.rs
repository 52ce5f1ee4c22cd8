//! Suggests the known word that is closest to a misspelled one.

use crate::api::Kind;

/// The candidate that `word` most likely misspells: a few letters wrong, missing, added or swapped, or one word
/// contained in the other (`Prefix`, `PathPrefix`). Ignores case. Among equally close candidates the first one wins.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = WordLetters::new(word)?;
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let Some(other) = WordLetters::new(candidate) else { continue };
        let Some(score) = word.small_edit_distance(&other).or_else(|| word.containment_score(&other)) else { continue };
        if best.is_none_or(|(best_score, _)| score < best_score) {
            best = Some((score, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Whether `word` is `known` in another case, or with one or two letters wrong, missing, added or swapped. Unlike
/// [`nearest`], this is certain enough to refuse what the word may have been meant for.
pub fn misspells(word: &str, known: &str) -> bool {
    let letters = WordLetters::new(word).zip(WordLetters::new(known));
    let edits = letters.and_then(|(word, known)| word.small_edit_distance(&known));
    word != known && edits.is_some_and(|edits| edits <= 2)
}

/// The kind of this group that `name` most likely misspells. Containment does not count here: `ServiceAccount` does not
/// misspell `Service`.
pub fn nearest_kind(group: &str, name: &str) -> Option<&'static str> {
    let word = WordLetters::new(name)?;
    Kind::ALL
        .iter()
        .filter(|kind| kind.group() == group)
        .filter_map(|kind| word.small_edit_distance(&WordLetters::new(kind.name())?).map(|edits| (edits, kind.name())))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// Longer words are not compared, since that would be slow. All known names are shorter.
const MAX_WORD_LENGTH: usize = 64;

struct WordLetters(Vec<char>);

impl WordLetters {
    fn new(word: &str) -> Option<WordLetters> {
        if word.len() > MAX_WORD_LENGTH {
            return None;
        }
        Some(WordLetters(word.chars().flat_map(char::to_lowercase).collect()))
    }

    /// The edit distance of two words if it is small for the longer word: at most one edit, or one for every three
    /// letters, and less than its whole length.
    fn small_edit_distance(&self, other: &WordLetters) -> Option<usize> {
        let longer = self.0.len().max(other.0.len());
        let limit = (longer / 3).max(1).min(longer.checked_sub(1)?);
        edit_distance(&self.0, &other.0, limit)
    }

    /// If one word contains the other, a score that is higher (worse) than every edit distance and grows with the
    /// difference in length.
    fn containment_score(&self, other: &WordLetters) -> Option<usize> {
        let (short, long) = if self.0.len() < other.0.len() { (self, other) } else { (other, self) };
        // Two letters are part of very many words, but seldom their end, as in `on` and `retryOn`.
        let is_part = match short.0.len() {
            0 | 1 => false,
            2 => long.0.ends_with(&short.0),
            length => long.0.windows(length).any(|window| window == short.0),
        };
        if !is_part {
            return None;
        }
        Some(MAX_WORD_LENGTH + long.0.len() - short.0.len())
    }
}

/// Optimal string alignment distance: insertions, deletions, substitutions and transpositions of neighbors, each letter
/// edited once. `None` above `limit`, which most pairs of words exceed after a few letters.
fn edit_distance(left: &[char], right: &[char], limit: usize) -> Option<usize> {
    if left.len().abs_diff(right.len()) > limit {
        return None;
    }
    let mut two_above = vec![0; right.len() + 1];
    let mut above: Vec<usize> = (0..=right.len()).collect();
    let mut row = vec![0; right.len() + 1];
    for i in 1..=left.len() {
        row[0] = i;
        for j in 1..=right.len() {
            let differs = usize::from(left[i - 1] != right[j - 1]);
            row[j] = (above[j] + 1).min(row[j - 1] + 1).min(above[j - 1] + differs);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                row[j] = row[j].min(two_above[j - 2] + 1);
            }
        }
        // Every later distance comes from one of these two rows, and none is less than theirs.
        if row.iter().chain(&above).all(|distance| *distance > limit) {
            return None;
        }
        std::mem::swap(&mut two_above, &mut above);
        std::mem::swap(&mut above, &mut row);
    }
    Some(above[right.len()]).filter(|distance| *distance <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kind::{CORE_GROUP, GATEWAY_GROUP};

    #[test]
    fn misspellings_find_the_nearest_word() {
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
            ("on", &["nonIdempotent", "retryOn"], Some("retryOn")),
            ("on", &["nonIdempotent", "conditions"], None),
            ("n", &["a", "b"], None),
        ] {
            assert_eq!(nearest(word, candidates.iter().copied()), expected, "{word}");
        }
        assert_eq!(nearest(&"a".repeat(100_000), ["aaa"]), None, "a long word is not compared");
        for (word, is_misspelled) in [
            ("plugns", true),
            ("plugin", true),
            ("lpugins", true),
            ("Plugns", true),
            ("Plugins", true),
            ("PLUGINS", true),
            ("plug", false),
            ("plugins", false),
            ("plugins-of-team", false),
            ("path", false),
        ] {
            assert_eq!(misspells(word, "plugins"), is_misspelled, "{word}");
        }
        assert!(misspells("sni", "snis") && !misspells("tags", "snis"));
    }

    #[test]
    fn misspelled_kinds_are_found_in_their_group() {
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
