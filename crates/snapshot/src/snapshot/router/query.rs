//! Query parameter conditions of a match.

use std::cell::OnceCell;

use smallvec::{SmallVec, smallvec};

use super::header::ValueMatch;
use crate::snapshot::regex_steps::{RegexInput, RegexSteps};

/// A condition on a query parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryMatch {
    /// Decoded; case-sensitive.
    pub name: Box<str>,
    pub value: ValueMatch<Box<str>>,
}

impl QueryMatch {
    pub(in crate::snapshot) fn matches(&self, parameters: &QueryParameters<'_>, steps: &RegexSteps) -> bool {
        let Some(value) = parameters.first(&self.name) else { return false };
        match &self.value {
            ValueMatch::Exact(expected) => form_decode(value).eq(expected.bytes()),
            // The decoded value is not longer.
            ValueMatch::Regex(regex) => {
                steps.admit(regex.states(), value.len(), RegexInput::Target)
                    && regex.is_match(&form_decode(value).collect::<Vec<u8>>())
            }
        }
    }
}

/// The parameter names in the matches of one router, sorted.
#[derive(Debug)]
pub(in crate::snapshot) struct QueryNames(Box<[Box<str>]>);

impl QueryNames {
    pub(in crate::snapshot) fn from_matches<'a>(matches: impl IntoIterator<Item = &'a QueryMatch>) -> Self {
        let mut names: Vec<Box<str>> = matches.into_iter().map(|parameter| parameter.name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        QueryNames(names.into_boxed_slice())
    }
}

/// The query of one request, parsed lazily and only once, so that the cost is not (matches × length of the query).
pub(in crate::snapshot) struct QueryParameters<'a> {
    names: &'a QueryNames,
    query: Option<&'a str>,
    /// By position in `names`, still encoded.
    values: OnceCell<SmallVec<[Option<&'a str>; 8]>>,
}

impl<'a> QueryParameters<'a> {
    pub(in crate::snapshot) fn new(names: &'a QueryNames, query: Option<&'a str>) -> Self {
        QueryParameters { names, query, values: OnceCell::new() }
    }

    /// The value of a parameter, still encoded; empty without `=`. Of a repeated parameter, the first value is used, as
    /// the Gateway API requires.
    fn first(&self, name: &str) -> Option<&'a str> {
        let index = self.names.0.binary_search_by(|known| (**known).cmp(name)).ok()?;
        self.values.get_or_init(|| self.parse())[index]
    }

    fn parse(&self) -> SmallVec<[Option<&'a str>; 8]> {
        let names = &self.names.0;
        let mut values: SmallVec<[Option<&'a str>; 8]> = smallvec![None; names.len()];
        let mut missing = names.len();
        for parameter in self.query.unwrap_or_default().split('&') {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let Ok(index) = names.binary_search_by(|name| name.bytes().cmp(form_decode(key))) else { continue };
            if values[index].is_none() {
                values[index] = Some(value);
                missing -= 1;
                if missing == 0 {
                    break;
                }
            }
        }
        values
    }
}

/// Decodes `application/x-www-form-urlencoded` text: `+` is a space, and a percent sign that starts no escape is
/// literal.
fn form_decode(text: &str) -> impl Iterator<Item = u8> {
    // The pieces between plus signs are decoded separately: `%2B` is a plus sign, not a space.
    let pieces = text.split('+').enumerate();
    pieces.flat_map(|(index, piece)| {
        let space = (index > 0).then_some(b' ');
        space.into_iter().chain(percent_encoding::percent_decode_str(piece))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::router::compile_regex;

    #[test]
    fn query_parameter_matching() {
        // (name, value or /pattern/, query, whether it matches)
        let cases = [
            ("a", "1", "a=1", true),
            ("a", "1", "b=2&a=1", true),
            ("a", "1", "A=1", false),
            ("a", "1", "a=2", false),
            ("a", "1", "", false),
            ("a", "", "a", true),
            ("a", "", "a=", true),
            ("a", "1", "a=1&a=2", true),
            ("a", "2", "a=1&a=2", false),
            ("a", "b c", "a=b+c", true),
            ("a", "b c", "a=b%20c", true),
            ("a", "b+c", "a=b%2Bc", true),
            ("a", "b+c", "a=b+c", false),
            ("a", "1=2", "a=1=2", true),
            ("a b", "1", "a+b=1", true),
            ("é", "ü", "%C3%A9=%c3%BC", true),
            ("a", "%", "a=%", true),
            ("a", "%zz", "a=%zz", true),
            ("a", "%4", "a=%4", true),
            ("a", "1", "&&a=1&", true),
            ("a", "1", "a=1;b=2", false),
            ("a", "/[0-9]+/", "a=12", true),
            ("a", "/[0-9]+/", "a=12x", false),
            ("a", "/b c/", "a=b+c", true),
            ("a", "/.*/", "a=%FF", false),
        ];
        for (name, value, query, matches) in cases {
            let value = match value.strip_prefix('/').and_then(|value| value.strip_suffix('/')) {
                Some(pattern) => ValueMatch::Regex(compile_regex(pattern).unwrap()),
                None => ValueMatch::Exact(value.into()),
            };
            let parameter = QueryMatch { name: name.into(), value };
            let names = QueryNames::from_matches([&parameter]);
            let parameters = QueryParameters::new(&names, Some(query));
            assert_eq!(parameter.matches(&parameters, &RegexSteps::default()), matches, "{parameter:?} on {query}");
        }
    }

    #[test]
    fn each_name_has_its_first_value() {
        let exact = |name: &str, value: &str| QueryMatch { name: name.into(), value: ValueMatch::Exact(value.into()) };
        let all: Vec<QueryMatch> = ('a'..='z').map(|name| exact(&name.to_string(), "1")).collect();
        let names = QueryNames::from_matches(&all);
        let query: String = ('a'..='z').rev().map(|name| format!("{name}=1&{name}=2&")).collect();
        let parameters = QueryParameters::new(&names, Some(&query));
        assert!(all.iter().all(|parameter| parameter.matches(&parameters, &RegexSteps::default())));
        assert!(!exact("a", "2").matches(&parameters, &RegexSteps::default()));
        assert!(!exact("unknown", "1").matches(&parameters, &RegexSteps::default()));
        assert!(!all[0].matches(&QueryParameters::new(&names, None), &RegexSteps::default()));
    }

    proptest::proptest! {
        /// Reference: decode all parameters first, then compare.
        #[test]
        fn first_value_matches_reference(query in "([ab]|=|&|\\+|%61|%2|%|é|;){0,16}") {
            let parameter = QueryMatch { name: "a".into(), value: ValueMatch::Exact("b".into()) };
            let names = QueryNames::from_matches([&parameter]);
            let decoded = |text: &str| form_decode(text).collect::<Vec<u8>>();
            let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let first = pairs.into_iter().find(|(name, _)| decoded(name) == b"a").map(|(_, value)| decoded(value));
            let expected = first.is_some_and(|value| value == b"b");
            let parameters = QueryParameters::new(&names, Some(&query));
            proptest::prop_assert_eq!(parameter.matches(&parameters, &RegexSteps::default()), expected);
        }
    }
}
