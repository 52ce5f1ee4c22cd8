//! Which paths of requests a regular expression can match: none, some, or every one.
//!
//! ```text
//!   automaton of the expression ─┐
//!                                ├─▶ both at once, byte by byte
//!   automaton of all paths ──────┘
//! ```
//!
//! Requests are matched by their normalized paths, so an expression such as `/a/\.\./b` is valid, but no request
//! matches it. A rule with such an expression would leave its requests to less specific rules, which may protect them
//! less.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex_automata::nfa::thompson::{NFA, State};
use regex_automata::util::look::Look;
use regex_automata::util::primitives::StateID;

use super::regex::{RegexAnchor, literal_prefix, path_automaton};
use crate::request_target::path_encoding::is_unreserved;

/// The paths that an expression matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathReach {
    Nothing,
    Some,
    Everything,
}

/// How the paths of requests are normalized before they are matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathForm {
    /// Dot segments are resolved, escapes of unreserved characters decoded, and bytes that are not ASCII encoded.
    Resolved,
    /// In addition, adjacent slashes are merged, and escapes are in upper case: the form in the order by conditions.
    Merged,
}

impl PathReach {
    /// What the expression matches at the anchor. `None` if it is invalid. Expressions with word boundaries, and very
    /// complex ones, count as matching some paths.
    pub fn of(pattern: &str, anchor: RegexAnchor, form: PathForm) -> Option<Self> {
        let automaton = path_automaton(pattern, anchor)?;
        let paths = form.automaton();
        Some(if !matches_any(&automaton, paths) {
            PathReach::Nothing
        } else if matches_all(&automaton, paths) {
            PathReach::Everything
        } else {
            PathReach::Some
        })
    }
}

/// The text with which every value begins that the expression matches at the anchor. `None` if it is invalid.
pub fn literal_text(pattern: &str, anchor: RegexAnchor) -> Option<String> {
    let prefix = literal_prefix(pattern, anchor)?;
    // It may end within a character.
    let text = prefix.utf8_chunks().next().map(|chunk| chunk.valid().to_owned());
    Some(text.unwrap_or_default())
}

/// A position in a path: a state of the automaton of all normalized paths.
type PathState = u8;

/// Before the first byte, which is a slash.
const START: PathState = 0;
/// After a slash.
const SLASH: PathState = 1;
/// After one dot at the start of a segment.
const DOT: PathState = 2;
/// After two dots at the start of a segment.
const TWO_DOTS: PathState = 3;
/// In a segment that is not a dot segment.
const TEXT: PathState = 4;
const PERCENT: PathState = 5;
/// After a percent sign and the first digit of an escape, which is added.
const FIRST_DIGIT: PathState = 6;
const POSITIONS: usize = FIRST_DIGIT as usize + 16;

/// For each position, the ranges of bytes that may follow, with the position after them.
type PathAutomaton = [Vec<(u8, u8, PathState)>; POSITIONS];

impl PathForm {
    fn automaton(self) -> &'static PathAutomaton {
        static RESOLVED: LazyLock<PathAutomaton> = LazyLock::new(|| PathForm::Resolved.build());
        static MERGED: LazyLock<PathAutomaton> = LazyLock::new(|| PathForm::Merged.build());
        match self {
            PathForm::Resolved => &RESOLVED,
            PathForm::Merged => &MERGED,
        }
    }

    fn build(self) -> PathAutomaton {
        std::array::from_fn(|position| {
            let position = PathState::try_from(position).unwrap_or(START);
            let mut ranges: Vec<(u8, u8, PathState)> = Vec::new();
            for byte in 0..=u8::MAX {
                let Some(next) = self.next(position, byte) else { continue };
                match ranges.last_mut() {
                    Some((_, end, target)) if *target == next && *end + 1 == byte => *end = byte,
                    _ => ranges.push((byte, byte, next)),
                }
            }
            ranges
        })
    }

    fn next(self, position: PathState, byte: u8) -> Option<PathState> {
        match position {
            START => (byte == b'/').then_some(SLASH),
            PERCENT => self.digit(byte).map(|digit| FIRST_DIGIT + digit),
            FIRST_DIGIT.. => {
                let escaped = (position - FIRST_DIGIT) << 4 | self.digit(byte)?;
                // Requests with an escaped NUL are rejected.
                (escaped != 0 && !is_unreserved(escaped)).then_some(TEXT)
            }
            _ => match byte {
                b'/' if matches!(position, DOT | TWO_DOTS) || (position == SLASH && self == PathForm::Merged) => None,
                b'/' => Some(SLASH),
                b'.' if position == SLASH => Some(DOT),
                b'.' if position == DOT => Some(TWO_DOTS),
                b'%' => Some(PERCENT),
                _ => may_be_unencoded(byte).then_some(TEXT),
            },
        }
    }

    /// The value of a digit of an escape.
    fn digit(self, byte: u8) -> Option<u8> {
        match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'A'..=b'F' => Some(byte - b'A' + 10),
            b'a'..=b'f' if self == PathForm::Resolved => Some(byte - b'a' + 10),
            _ => None,
        }
    }
}

/// Whether requests may have the byte in their path, except slashes, dots and percent signs, which are special.
fn may_be_unencoded(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"#<>?`".contains(&byte)
}

/// Whether a path may end at the position.
fn may_end(position: PathState) -> bool {
    matches!(position, SLASH | TEXT)
}

/// Whether the assertion holds: `None` if that depends on bytes that are not known. Paths have no line ends.
fn holds(look: Look, position: PathState, is_end: bool) -> Option<bool> {
    match look {
        Look::Start | Look::StartLF | Look::StartCRLF => Some(position == START),
        Look::End | Look::EndLF | Look::EndCRLF => Some(is_end),
        _ => None,
    }
}

/// The transitions of a state, as ranges of bytes.
fn transitions(state: &State, mut visit: impl FnMut(u8, u8, StateID)) {
    match state {
        State::ByteRange { trans } => visit(trans.start, trans.end, trans.next),
        State::Sparse(sparse) => sparse.transitions.iter().for_each(|trans| visit(trans.start, trans.end, trans.next)),
        State::Dense(dense) => {
            for (byte, next) in (0..=u8::MAX).zip(&*dense.transitions) {
                if *next != StateID::ZERO {
                    visit(byte, byte, *next);
                }
            }
        }
        State::Look { .. }
        | State::Union { .. }
        | State::BinaryUnion { .. }
        | State::Capture { .. }
        | State::Fail
        | State::Match { .. } => {}
    }
}

/// Whether a path exists that the expression matches. Assertions that depend on unknown bytes count as met.
fn matches_any(automaton: &NFA, paths: &PathAutomaton) -> bool {
    // The end of the path is known as soon as an assertion requires it: then no byte may follow.
    let mut visited: BTreeSet<(StateID, PathState, bool)> = BTreeSet::new();
    let mut to_visit = vec![(automaton.start_anchored(), START, false)];
    while let Some((id, position, is_end)) = to_visit.pop() {
        if !visited.insert((id, position, is_end)) {
            continue;
        }
        match automaton.state(id) {
            // Every position leads to the end of a path.
            State::Match { .. } => return true,
            State::Fail => {}
            State::Capture { next, .. } => to_visit.push((*next, position, is_end)),
            State::Union { alternates } => {
                to_visit.extend(alternates.iter().map(|next| (*next, position, is_end)));
            }
            State::BinaryUnion { alt1, alt2 } => to_visit.extend([*alt1, *alt2].map(|next| (next, position, is_end))),
            State::Look { look, next } => match holds(*look, position, is_end) {
                Some(false) if !is_end && may_end(position) && holds(*look, position, true) == Some(true) => {
                    to_visit.push((*next, position, true));
                }
                Some(false) => {}
                Some(true) | None => to_visit.push((*next, position, is_end)),
            },
            _ if is_end => {}
            state @ (State::ByteRange { .. } | State::Sparse(_) | State::Dense(_)) => {
                transitions(state, |start, end, next| {
                    let ranges = paths[usize::from(position)].iter();
                    let possible = ranges.filter(|(first, last, _)| *first <= end && start <= *last);
                    to_visit.extend(possible.map(|(_, _, after)| (next, *after, false)));
                });
            }
        }
    }
    false
}

/// Whether the expression certainly matches every path. Assertions that depend on unknown bytes count as unmet.
fn matches_all(automaton: &NFA, paths: &PathAutomaton) -> bool {
    let start = BTreeSet::from([automaton.start_anchored()]);
    let mut visited: BTreeSet<(BTreeSet<StateID>, PathState)> = BTreeSet::new();
    let mut to_visit = vec![(start, START)];
    let mut steps = 0;
    while let Some((states, position)) = to_visit.pop() {
        let Reachable { states, is_match } = reachable(automaton, &states, position, false);
        // What was just examined, even if it was known already.
        steps += states.len();
        if steps > MAX_STEPS {
            return false;
        }
        // A match before the end covers all paths that continue from here.
        if is_match || !visited.insert((states.clone(), position)) {
            continue;
        }
        if may_end(position) && !reachable(automaton, &states, position, true).is_match {
            return false;
        }
        for (first, last, after) in &paths[usize::from(position)] {
            for byte in *first..=*last {
                let mut next_states = BTreeSet::new();
                for id in &states {
                    transitions(automaton.state(*id), |start, end, next| {
                        if (start..=end).contains(&byte) {
                            next_states.insert(next);
                        }
                    });
                }
                steps += states.len() + 1;
                // A path that begins with these bytes exists, and no continuation matches.
                if next_states.is_empty() || steps > MAX_STEPS {
                    return false;
                }
                to_visit.push((next_states, *after));
            }
        }
    }
    true
}

/// What is reached without a byte.
struct Reachable {
    states: BTreeSet<StateID>,
    is_match: bool,
}

fn reachable(automaton: &NFA, from: &BTreeSet<StateID>, position: PathState, is_end: bool) -> Reachable {
    let mut states = BTreeSet::new();
    let mut is_match = false;
    let mut to_visit: Vec<StateID> = from.iter().copied().collect();
    while let Some(id) = to_visit.pop() {
        if !states.insert(id) {
            continue;
        }
        match automaton.state(id) {
            State::Match { .. } => is_match = true,
            State::Capture { next, .. } => to_visit.push(*next),
            State::Union { alternates } => to_visit.extend(alternates.iter()),
            State::BinaryUnion { alt1, alt2 } => to_visit.extend([*alt1, *alt2]),
            State::Look { look, next } if holds(*look, position, is_end) == Some(true) => to_visit.push(*next),
            State::Look { .. } | State::ByteRange { .. } | State::Sparse(_) | State::Dense(_) | State::Fail => {}
        }
    }
    Reachable { states, is_match }
}

/// The steps after which an expression counts as one that does not match every path: a fraction of the time in which
/// an expression is compiled. Expressions that are written to match everything take a few hundred.
const MAX_STEPS: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::path_regex::PathRegex;

    fn reach(pattern: &str) -> PathReach {
        PathReach::of(pattern, RegexAnchor::Start, PathForm::Merged).unwrap()
    }

    #[test]
    fn expressions_that_match_no_path_or_every_path_are_found() {
        use PathReach::{Everything, Nothing, Some as SomePaths};
        // (expression, what it matches from the start in the merged form, what it matches as a whole)
        let cases = [
            ("", Everything, Nothing),
            ("/", Everything, SomePaths),
            ("^/", Everything, SomePaths),
            ("/?", Everything, SomePaths),
            (".*", Everything, Everything),
            ("/.*", Everything, Everything),
            ("/.*$", Everything, Everything),
            ("(?s:/.*)", Everything, Everything),
            ("/([^/]*/)*[^/]*", Everything, Everything),
            ("/|admin", Everything, SomePaths),
            ("/.+", SomePaths, SomePaths),
            ("/$", SomePaths, SomePaths),
            ("/a", SomePaths, SomePaths),
            (".+a", SomePaths, SomePaths),
            (r"/a\b", SomePaths, SomePaths),
            ("(?i)/a", SomePaths, SomePaths),
            ("[^a]*", Everything, SomePaths),
            (r"/\.\.\.", SomePaths, SomePaths),
            (r"/\.well-known/.*", SomePaths, SomePaths),
            ("/a%2F", SomePaths, SomePaths),
            ("/a%20b", SomePaths, SomePaths),
            ("/%7B", SomePaths, SomePaths),
            // No path begins like this.
            ("admin", Nothing, Nothing),
            ("[^/]", Nothing, Nothing),
            (r"\d+/a", Nothing, Nothing),
            ("$", Nothing, Nothing),
            ("a^", Nothing, Nothing),
            ("/$a", Nothing, Nothing),
            ("/a^", Nothing, Nothing),
            (r"/[^\s\S]", Nothing, Nothing),
            // No normalized path contains these.
            ("/a b", Nothing, Nothing),
            (r"/a\?b", Nothing, Nothing),
            ("/a#b", Nothing, Nothing),
            ("/a\"b", Nothing, Nothing),
            ("/é", Nothing, Nothing),
            ("/a\u{7f}", Nothing, Nothing),
            (r"/a/\.\./b", Nothing, Nothing),
            (r"/a/\./b", Nothing, Nothing),
            (r"/a/\.\.$", Nothing, Nothing),
            ("/%41", Nothing, Nothing),
            ("/%7E", Nothing, Nothing),
            ("/%00", Nothing, Nothing),
            ("/%zz", Nothing, Nothing),
            ("/a%$", Nothing, Nothing),
            ("/%[67][1-9]", Nothing, Nothing),
            ("/%[2-7][1-9]%4", SomePaths, Nothing),
        ];
        for (pattern, from_start, whole) in cases {
            let found = PathReach::of(pattern, RegexAnchor::Start, PathForm::Merged);
            assert_eq!(found, Some(from_start), "{pattern} from the start");
            assert_eq!(
                PathReach::of(pattern, RegexAnchor::Whole, PathForm::Merged),
                Some(whole),
                "{pattern} as a whole"
            );
        }
        assert_eq!(PathReach::of("(", RegexAnchor::Start, PathForm::Merged), None);
    }

    #[test]
    fn forms_differ_in_slashes_and_the_case_of_escapes() {
        for (pattern, resolved, merged) in [
            ("/a%2fb", PathReach::Some, PathReach::Nothing),
            ("/caf%c3%a9", PathReach::Some, PathReach::Nothing),
            ("/(?i)/foo", PathReach::Some, PathReach::Nothing),
            ("/a//b", PathReach::Some, PathReach::Nothing),
            ("/a%2Fb", PathReach::Some, PathReach::Some),
            ("(/[^/]+)*/?", PathReach::Some, PathReach::Everything),
        ] {
            assert_eq!(PathReach::of(pattern, RegexAnchor::Whole, PathForm::Resolved), Some(resolved), "{pattern}");
            assert_eq!(PathReach::of(pattern, RegexAnchor::Whole, PathForm::Merged), Some(merged), "{pattern}");
        }
    }

    #[test]
    fn large_expressions_are_not_examined_to_the_end() {
        let found = PathReach::of("/([a-z]*[ab][a-z]{14}|.)*x?", RegexAnchor::Whole, PathForm::Merged);
        assert!(found.is_some_and(|reach| reach != PathReach::Nothing));
    }

    proptest::proptest! {
        #[test]
        fn reach_agrees_with_matching(pattern in r"[/a.%2F|()?*+^$\[\]-]{0,8}", path in "(/|a|\\.{3}|%2F){0,6}") {
            let Ok(regex) = PathRegex::compile(&pattern) else { return Ok(()) };
            let path = format!("/{path}").replace("//", "/").replace("//", "/").replace("//", "/");
            let is_match = regex.matched_length(&path).is_some();
            match reach(&pattern) {
                PathReach::Nothing => proptest::prop_assert!(!is_match, "{} {}", pattern, path),
                PathReach::Everything => proptest::prop_assert!(is_match, "{} {}", pattern, path),
                PathReach::Some => {}
            }
        }
    }
}
