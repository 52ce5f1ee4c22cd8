//! All annotations, sorted by name when this is compiled, from one list for each topic.

mod access;
mod affinity;
mod canary;
mod cors;
mod limits;
mod observability;
mod proxying;
mod routing;
mod row;
mod tls;
mod upstream_tls;

use row::Row;

/// All annotations, sorted by name.
pub(super) static BY_NAME: &[Row] = &sorted::<{ count(TOPICS) }>(TOPICS);

const TOPICS: &[&[Row]] = &[
    routing::ROUTING,
    access::ACCESS,
    cors::CORS,
    canary::CANARY,
    affinity::AFFINITY_AND_BALANCING,
    proxying::PROXYING,
    limits::LIMITS,
    upstream_tls::UPSTREAM_TLS,
    tls::TLS,
    observability::OBSERVABILITY,
];

const fn count(topics: &[&[Row]]) -> usize {
    let mut count = 0;
    let mut topic = 0;
    while topic < topics.len() {
        count += topics[topic].len();
        topic += 1;
    }
    count
}

/// Insertion sort: a `const fn` has neither iterators nor the sorts of the standard library.
const fn sorted<const COUNT: usize>(topics: &[&[Row]]) -> [Row; COUNT] {
    let mut rows = [topics[0][0]; COUNT];
    let mut length = 0;
    let mut topic = 0;
    while topic < topics.len() {
        let mut index = 0;
        while index < topics[topic].len() {
            let row = topics[topic][index];
            let mut place = length;
            while place > 0 && is_before(row.name, rows[place - 1].name) {
                rows[place] = rows[place - 1];
                place -= 1;
            }
            rows[place] = row;
            length += 1;
            index += 1;
        }
        topic += 1;
    }
    rows
}

const fn is_before(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut index = 0;
    while index < one.len() && index < other.len() {
        if one[index] != other[index] {
            return one[index] < other[index];
        }
        index += 1;
    }
    one.len() < other.len()
}

#[cfg(test)]
mod tests {
    use super::super::value::ValueKind;
    use super::*;

    #[test]
    fn each_name_is_in_the_table_once_and_in_its_place() {
        assert_eq!(BY_NAME.len(), 138);
        assert!(BY_NAME.is_sorted_by(|one, other| one.name < other.name));
    }

    #[test]
    fn each_default_is_a_value_of_its_kind() {
        for row in BY_NAME {
            assert_eq!(row.value.check(row.default), Ok(()), "{}", row.name);
        }
    }

    #[test]
    fn each_summary_is_a_short_sentence() {
        for Row { name, summary, .. } in BY_NAME {
            assert!(summary.chars().count() <= 100, "{name}");
            assert!(summary.starts_with(|first: char| first.is_uppercase()), "{name}");
            assert!(summary.ends_with('.'), "{name}");
            assert_eq!(summary.matches(". ").count(), 0, "{name} has one sentence");
        }
    }

    #[test]
    fn each_annotation_accepts_an_empty_value_and_no_hostile_one() {
        let long = "ä".repeat(100_000);
        let hostile = ["\n", "a\nb", "x;}", "a\0b", "\"; root /; #", "${", "é", "<script>", long.as_str()];
        for row in BY_NAME {
            assert_eq!(row.consequence(""), None, "{}", row.name);
            for value in hostile {
                let result = row.value.check(value);
                match row.value {
                    ValueKind::Any => assert_eq!(result, Ok(()), "{}", row.name),
                    _ if value == "${" && has_variables(row.value) => assert_eq!(result, Ok(()), "{}", row.name),
                    _ => {
                        let remedy = result.expect_err(row.name);
                        assert!(remedy.starts_with("write ") && remedy.len() < 300, "{}: {remedy}", row.name);
                    }
                }
            }
        }
    }

    fn has_variables(kind: ValueKind) -> bool {
        match kind {
            ValueKind::Text(set) | ValueKind::SpacedText(set) => set.first_outside("${").is_none(),
            ValueKind::ServerName | ValueKind::ServerNames => true,
            _ => false,
        }
    }

    #[test]
    fn only_snippets_are_unchecked() {
        for row in BY_NAME {
            let is_snippet = row.name.ends_with("-snippet");
            assert_eq!(row.value == ValueKind::Any, is_snippet, "{}", row.name);
        }
    }

    #[test]
    fn an_older_name_has_the_row_of_its_successor() {
        let find = |name| BY_NAME.iter().find(|row| row.name == name).copied().unwrap();
        for (older, name) in
            [("whitelist-source-range", "allowlist-source-range"), ("limit-whitelist", "limit-allowlist")]
        {
            let (older, row) = (find(older), find(name));
            assert_eq!((older.value, older.on_bad), (row.value, row.on_bad));
        }
    }
}
