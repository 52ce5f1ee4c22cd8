//! Patterns of Lua (reference manual of Lua 5.1, section 5.4.1): classes, sets, repetitions, captures, `%b` and `%f`.
//!
//! The algorithm is backtracking. Each comparison costs a step of the [`Budget`], and the recursion has a maximum
//! depth, so no pattern and no subject can occupy a thread.

use std::ops::Range;

use super::MAX_VALUE_BYTES;
use crate::plugin_api::lua_value::{Budget, EvaluationError};

/// Where a pattern matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PatternMatch {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) captures: Vec<Group>,
}

/// What a pair of parentheses captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Text(Range<usize>),
    /// `()`: the offset of the match so far.
    Position(usize),
}

const MAX_GROUPS: usize = 32;
/// How deep the matching may recurse, as in Lua.
const MAX_RECURSION: usize = 200;

const ENDS_WITH_PERCENT: &str = "it ends with a percent sign";
const UNCLOSED_SET: &str = "a \"[\" has no closing \"]\"";
const UNCLOSED_GROUP: &str = "a \"(\" has no closing \")\"";
const UNOPENED_GROUP: &str = "a \")\" has no opening \"(\"";
const INVALID_GROUP: &str = "it refers to a group that is not complete";
const TOO_MANY_GROUPS: &str = "it has more than 32 groups";
const INCOMPLETE_BALANCE: &str = "%b needs two characters";
const INCOMPLETE_FRONTIER: &str = "%f needs a set in brackets";
const TOO_COMPLEX: &str = "it needs too much recursion";

/// Checks a pattern without matching it.
pub(super) fn check(pattern: &[u8]) -> Result<(), &'static str> {
    let mut open = Vec::new();
    let (mut groups, mut closed) = (0, [false; MAX_GROUPS]);
    let mut at = usize::from(pattern.first() == Some(&b'^'));
    while let Some(byte) = pattern.get(at) {
        match (byte, pattern.get(at + 1)) {
            (b'(', next) => {
                if groups == MAX_GROUPS {
                    return Err(TOO_MANY_GROUPS);
                }
                if next == Some(&b')') {
                    closed[groups] = true;
                    at += 1;
                } else {
                    open.push(groups);
                }
                groups += 1;
                at += 1;
            }
            (b')', _) => {
                closed[open.pop().ok_or(UNOPENED_GROUP)?] = true;
                at += 1;
            }
            (b'%', Some(b'b')) => {
                if pattern.len() < at + 4 {
                    return Err(INCOMPLETE_BALANCE);
                }
                at += 4;
            }
            (b'%', Some(b'f')) => {
                if pattern.get(at + 2) != Some(&b'[') {
                    return Err(INCOMPLETE_FRONTIER);
                }
                at = item_end(pattern, at + 2)?;
            }
            (b'%', Some(digit)) if digit.is_ascii_digit() => {
                let group = usize::from(digit - b'0').checked_sub(1).ok_or(INVALID_GROUP)?;
                if !closed[group] {
                    return Err(INVALID_GROUP);
                }
                at += 2;
            }
            _ => at = item_end(pattern, at)?,
        }
    }
    if open.is_empty() { Ok(()) } else { Err(UNCLOSED_GROUP) }
}

/// The first match at or after an offset.
pub(super) fn find(
    subject: &[u8],
    pattern: &[u8],
    start: usize,
    budget: &mut Budget,
) -> Result<Option<PatternMatch>, EvaluationError> {
    let (is_anchored, pattern) = without_anchor(pattern);
    let mut matcher = PatternMatcher::new(subject, pattern, budget);
    for start in start..=subject.len() {
        if let Some(end) = matcher.match_from(start)? {
            return Ok(Some(PatternMatch { start, end, captures: matcher.captures()? }));
        }
        if is_anchored {
            break;
        }
    }
    Ok(None)
}

/// `string.gsub` with a string: replaces up to `count` matches. In the replacement, `%1` is a group, `%0` the whole
/// match, and `%%` a percent sign.
pub(super) fn replace(
    subject: &[u8],
    pattern: &[u8],
    replacement: &[u8],
    count: usize,
    budget: &mut Budget,
) -> Result<Vec<u8>, EvaluationError> {
    let (is_anchored, pattern) = without_anchor(pattern);
    let mut matcher = PatternMatcher::new(subject, pattern, budget);
    let mut text = Vec::with_capacity(subject.len());
    let (mut at, mut replaced) = (0, 0);
    while replaced < count {
        let end = matcher.match_from(at)?;
        if let Some(end) = end {
            replaced += 1;
            let found = PatternMatch { start: at, end, captures: matcher.captures()? };
            matcher.budget.spend(replacement.len())?;
            expand(replacement, &found, subject, &mut text)?;
        }
        match end {
            Some(end) if end > at => at = end,
            _ if at < subject.len() => {
                text.push(subject[at]);
                at += 1;
            }
            _ => break,
        }
        if text.len() > MAX_VALUE_BYTES {
            return Err(EvaluationError::TooLong);
        }
        if is_anchored {
            break;
        }
    }
    text.extend_from_slice(&subject[at..]);
    if text.len() > MAX_VALUE_BYTES { Err(EvaluationError::TooLong) } else { Ok(text) }
}

fn without_anchor(pattern: &[u8]) -> (bool, &[u8]) {
    pattern.strip_prefix(b"^").map_or((false, pattern), |rest| (true, rest))
}

/// Appends the replacement of one match.
fn expand(replacement: &[u8], found: &PatternMatch, subject: &[u8], text: &mut Vec<u8>) -> Result<(), EvaluationError> {
    let mut bytes = replacement.iter();
    while let Some(byte) = bytes.next() {
        let escaped = if *byte == b'%' { bytes.next() } else { None };
        match (byte, escaped) {
            (b'%', None) => return Err(EvaluationError::Pattern("the replacement ends with a percent sign")),
            (_, Some(digit)) if digit.is_ascii_digit() => match usize::from(digit - b'0') {
                // Without groups, the whole match counts as the first one.
                0 => text.extend_from_slice(&subject[found.start..found.end]),
                1 if found.captures.is_empty() => text.extend_from_slice(&subject[found.start..found.end]),
                number => match found.captures.get(number - 1) {
                    Some(Group::Text(range)) => text.extend_from_slice(&subject[range.clone()]),
                    Some(Group::Position(offset)) => text.extend_from_slice((offset + 1).to_string().as_bytes()),
                    None => return Err(EvaluationError::Pattern("the replacement refers to a group that is missing")),
                },
            },
            (_, Some(other)) => text.push(*other),
            (byte, None) => text.push(*byte),
        }
        if text.len() > MAX_VALUE_BYTES {
            return Err(EvaluationError::TooLong);
        }
    }
    Ok(())
}

/// Offset after the single character, class or set at `at`.
fn item_end(pattern: &[u8], at: usize) -> Result<usize, &'static str> {
    match pattern[at] {
        b'%' if at + 1 == pattern.len() => Err(ENDS_WITH_PERCENT),
        b'%' => Ok(at + 2),
        b'[' => {
            let mut at = at + 1;
            if pattern.get(at) == Some(&b'^') {
                at += 1;
            }
            // A bracket that comes first is a member of the set.
            let first = at;
            loop {
                match pattern.get(at) {
                    None => return Err(UNCLOSED_SET),
                    Some(b']') if at > first => return Ok(at + 1),
                    Some(b'%') => at += 2,
                    Some(_) => at += 1,
                }
            }
        }
        _ => Ok(at + 1),
    }
}

struct PatternMatcher<'a, 'b> {
    subject: &'a [u8],
    pattern: &'a [u8],
    groups: Vec<OpenGroup>,
    recursion: usize,
    budget: &'b mut Budget,
}

#[derive(Clone, Copy)]
struct OpenGroup {
    start: usize,
    end: GroupEnd,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum GroupEnd {
    /// The closing parenthesis has not been reached.
    Open,
    Position,
    At(usize),
}

type MatchEnd = Result<Option<usize>, EvaluationError>;

impl<'a, 'b> PatternMatcher<'a, 'b> {
    fn new(subject: &'a [u8], pattern: &'a [u8], budget: &'b mut Budget) -> Self {
        PatternMatcher { subject, pattern, groups: Vec::new(), recursion: 0, budget }
    }

    /// The end of the match that starts at an offset.
    fn match_from(&mut self, start: usize) -> MatchEnd {
        self.groups.clear();
        self.recursion = 0;
        self.matches(start, 0)
    }

    fn captures(&self) -> Result<Vec<Group>, EvaluationError> {
        let group = |group: &OpenGroup| match group.end {
            GroupEnd::At(end) => Ok(Group::Text(group.start..end)),
            GroupEnd::Position => Ok(Group::Position(group.start)),
            GroupEnd::Open => Err(EvaluationError::Pattern(UNCLOSED_GROUP)),
        };
        self.groups.iter().map(group).collect()
    }

    fn matches(&mut self, at: usize, item: usize) -> MatchEnd {
        self.recursion += 1;
        if self.recursion > MAX_RECURSION {
            return Err(EvaluationError::Pattern(TOO_COMPLEX));
        }
        let result = self.match_items(at, item);
        self.recursion -= 1;
        result
    }

    /// Matches the pattern from the offset `item` with the subject from the offset `at`.
    fn match_items(&mut self, mut at: usize, mut item: usize) -> MatchEnd {
        loop {
            self.budget.spend(1)?;
            let Some(byte) = self.pattern.get(item) else { return Ok(Some(at)) };
            match (byte, self.pattern.get(item + 1)) {
                (b'(', Some(b')')) => return self.open_group(at, item + 2, GroupEnd::Position),
                (b'(', _) => return self.open_group(at, item + 1, GroupEnd::Open),
                (b')', _) => return self.close_group(at, item + 1),
                (b'$', None) => return Ok((at == self.subject.len()).then_some(at)),
                (b'%', Some(b'b')) => {
                    let Some(end) = self.match_balanced(at, item + 2)? else { return Ok(None) };
                    (at, item) = (end, item + 4);
                    continue;
                }
                (b'%', Some(b'f')) => {
                    if self.pattern.get(item + 2) != Some(&b'[') {
                        return Err(EvaluationError::Pattern(INCOMPLETE_FRONTIER));
                    }
                    let end = item_end(self.pattern, item + 2).map_err(EvaluationError::Pattern)?;
                    let before = at.checked_sub(1).map_or(0, |before| self.subject[before]);
                    let after = self.subject.get(at).copied().unwrap_or(0);
                    let set = &self.pattern[item + 2..end];
                    self.budget.spend(set.len())?;
                    if in_set(set, before) || !in_set(set, after) {
                        return Ok(None);
                    }
                    item = end;
                    continue;
                }
                (b'%', Some(digit)) if digit.is_ascii_digit() => {
                    let Some(end) = self.match_group_again(at, *digit)? else { return Ok(None) };
                    (at, item) = (end, item + 2);
                    continue;
                }
                _ => {}
            }
            let end = item_end(self.pattern, item).map_err(EvaluationError::Pattern)?;
            match self.pattern.get(end) {
                Some(b'?') => {
                    if self.is_match(at, item, end)?
                        && let Some(end) = self.matches(at + 1, end + 1)?
                    {
                        return Ok(Some(end));
                    }
                    item = end + 1;
                }
                Some(b'*') => return self.match_most(at, item, end, 0),
                Some(b'+') => return self.match_most(at, item, end, 1),
                Some(b'-') => return self.match_least(at, item, end),
                _ => {
                    if !self.is_match(at, item, end)? {
                        return Ok(None);
                    }
                    (at, item) = (at + 1, end);
                }
            }
        }
    }

    /// Whether the byte at an offset matches the item of the pattern.
    fn is_match(&mut self, at: usize, item: usize, end: usize) -> Result<bool, EvaluationError> {
        self.budget.spend(end - item)?;
        let Some(byte) = self.subject.get(at) else { return Ok(false) };
        Ok(match self.pattern[item] {
            b'.' => true,
            b'%' => in_class(self.pattern[item + 1], *byte),
            b'[' => in_set(&self.pattern[item..end], *byte),
            literal => literal == *byte,
        })
    }

    /// `*` and `+`: as many as possible, then fewer.
    fn match_most(&mut self, at: usize, item: usize, end: usize, least: usize) -> MatchEnd {
        let mut count = 0;
        while self.is_match(at + count, item, end)? {
            count += 1;
        }
        for count in (least..=count).rev() {
            if let Some(end) = self.matches(at + count, end + 1)? {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    /// `-`: as few as possible, then more.
    fn match_least(&mut self, mut at: usize, item: usize, end: usize) -> MatchEnd {
        loop {
            if let Some(end) = self.matches(at, end + 1)? {
                return Ok(Some(end));
            }
            if !self.is_match(at, item, end)? {
                return Ok(None);
            }
            at += 1;
        }
    }

    fn open_group(&mut self, at: usize, item: usize, end: GroupEnd) -> MatchEnd {
        if self.groups.len() == MAX_GROUPS {
            return Err(EvaluationError::Pattern(TOO_MANY_GROUPS));
        }
        self.groups.push(OpenGroup { start: at, end });
        let level = self.groups.len();
        let result = self.matches(at, item)?;
        if result.is_none() {
            self.groups.truncate(level - 1);
        }
        Ok(result)
    }

    fn close_group(&mut self, at: usize, item: usize) -> MatchEnd {
        let last_open = self.groups.iter().rposition(|group| group.end == GroupEnd::Open);
        let index = last_open.ok_or(EvaluationError::Pattern(UNOPENED_GROUP))?;
        self.groups[index].end = GroupEnd::At(at);
        let result = self.matches(at, item)?;
        if result.is_none() {
            self.groups[index].end = GroupEnd::Open;
        }
        Ok(result)
    }

    /// `%bxy`: from an `x` to the `y` that balances it.
    fn match_balanced(&mut self, at: usize, item: usize) -> MatchEnd {
        let [open, close] = *self.pattern.get(item..item + 2).unwrap_or_default() else {
            return Err(EvaluationError::Pattern(INCOMPLETE_BALANCE));
        };
        if self.subject.get(at) != Some(&open) {
            return Ok(None);
        }
        let mut depth = 1;
        for (offset, byte) in self.subject.iter().enumerate().skip(at + 1) {
            self.budget.spend(1)?;
            if *byte == close {
                depth -= 1;
                if depth == 0 {
                    return Ok(Some(offset + 1));
                }
            } else if *byte == open {
                depth += 1;
            }
        }
        Ok(None)
    }

    /// `%1`: the text of a group once more.
    fn match_group_again(&mut self, at: usize, digit: u8) -> MatchEnd {
        let index = usize::from(digit - b'0').checked_sub(1);
        let group = index.and_then(|index| self.groups.get(index).copied());
        let (start, end) = match group {
            Some(OpenGroup { start, end: GroupEnd::At(end) }) => (start, end),
            // As in Lua, a position is no text that could follow again.
            Some(OpenGroup { end: GroupEnd::Position, .. }) => return Ok(None),
            Some(OpenGroup { end: GroupEnd::Open, .. }) | None => {
                return Err(EvaluationError::Pattern(INVALID_GROUP));
            }
        };
        self.budget.spend(end - start)?;
        let is_equal = self.subject[at..].starts_with(&self.subject[start..end]);
        Ok(is_equal.then_some(at + end - start))
    }
}

/// Whether a byte is in a set with its brackets.
fn in_set(set: &[u8], byte: u8) -> bool {
    let members = &set[1..set.len() - 1];
    let (is_negated, mut members) = members.strip_prefix(b"^").map_or((false, members), |rest| (true, rest));
    let mut is_member = false;
    while let [first, rest @ ..] = members {
        members = rest;
        if *first == b'%' {
            if let [class, rest @ ..] = members {
                is_member |= in_class(*class, byte);
                members = rest;
            }
        } else if let [b'-', last, rest @ ..] = members {
            is_member |= (*first..=*last).contains(&byte);
            members = rest;
        } else {
            is_member |= *first == byte;
        }
    }
    is_member != is_negated
}

/// Whether a byte is in the class of a letter; another character stands for itself.
fn in_class(class: u8, byte: u8) -> bool {
    let is_member = match class.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'g' => byte.is_ascii_graphic(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        // Unlike in Rust, a vertical tab is a space.
        b's' => byte.is_ascii_whitespace() || byte == 11,
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return class == byte,
    };
    is_member != class.is_ascii_uppercase()
}
