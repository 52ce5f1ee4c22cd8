//! The functions that compare strings with regular expressions, whose time is linear in the length of the string.

use regex::{Captures, Regex};

use super::budget::{Flow, Stop, error};
use super::paths::Item;
use super::program::{RegexFunction, Term};
use super::run::{JqRun, JqScope};
use super::value::{JqMembers, JqValue};

pub(super) struct RegexCall<'p> {
    pub(super) function: RegexFunction,
    pub(super) regex: &'p Regex,
    pub(super) is_global: bool,
}

pub(super) fn apply<'p>(
    evaluation: &JqRun<'p>,
    call: &RegexCall<'p>,
    replacement: Option<&'p Term>,
    environment: &JqScope<'p>,
    input: &Item,
    output: &mut dyn FnMut(JqValue) -> Flow,
) -> Flow {
    let Some(text) = input.value.text() else {
        return error(format!("{} cannot be compared with a regular expression", input.value.type_name()));
    };
    evaluation.budget.spend(text.len() + 1)?;
    if call.function == RegexFunction::Test {
        return output(JqValue::Boolean(call.regex.is_match(text)));
    }
    let most = if call.is_global { usize::MAX } else { 1 };
    let found = call.regex.captures_iter(text).take(most);
    match call.function {
        RegexFunction::Split => {
            let mut start = 0;
            for captures in found {
                let Some(whole) = captures.get(0) else { continue };
                evaluation.budget.spend(1)?;
                output(JqValue::from(&text[start..whole.start()]))?;
                start = whole.end();
            }
            output(JqValue::from(&text[start..]))
        }
        RegexFunction::Substitute => {
            let Some(replacement) = replacement else { return output(input.value.clone()) };
            let found: Vec<Captures<'_>> = found.collect();
            substitute(evaluation, call.regex, (text, &found), replacement, environment, output)
        }
        function => {
            for captures in found {
                // The position of a match is counted in characters.
                evaluation.budget.spend(1 + captures.len() * (1 + text.len() / 64))?;
                output(match function {
                    RegexFunction::Capture => named_groups(call.regex, &captures),
                    RegexFunction::Scan => scanned(&captures),
                    _ => match_object(call.regex, text, &captures),
                })?;
            }
            Ok(())
        }
    }
}

/// Replaces the matches by the values of the replacement for their named groups.
fn substitute<'p>(
    evaluation: &JqRun<'p>,
    regex: &Regex,
    (text, found): (&str, &[Captures<'_>]),
    replacement: &'p Term,
    environment: &JqScope<'p>,
    output: &mut dyn FnMut(JqValue) -> Flow,
) -> Flow {
    let (mut replaced, mut position) = (String::new(), 0);
    for captures in found {
        let Some(whole) = captures.get(0) else { continue };
        replaced.push_str(&text[position..whole.start()]);
        position = whole.end();
        // Nearly all replacements have one value; of several, the first is used.
        let (mut value, done) = (None, evaluation.new_label());
        let flow = evaluation.values(replacement, environment, &named_groups(regex, captures), &mut |found| {
            value = Some(found);
            Err(Stop::Break(done))
        });
        match flow {
            Err(Stop::Break(label)) if label == done => {}
            flow => flow?,
        }
        let Some(JqValue::Text(value)) = value else { return error("a replacement must be a string") };
        evaluation.budget.spend(1 + value.len() / 8)?;
        replaced.push_str(&value);
    }
    replaced.push_str(&text[position..]);
    evaluation.budget.spend(replaced.len() / 8)?;
    output(JqValue::Text(replaced.into()))
}

fn group(captures: &Captures<'_>, index: usize) -> JqValue {
    captures.get(index).map_or(JqValue::Null, |group| JqValue::from(group.as_str()))
}

fn named_groups(regex: &Regex, captures: &Captures<'_>) -> JqValue {
    let names = regex.capture_names().enumerate();
    let members = names.filter_map(|(index, name)| Some((name?.into(), group(captures, index))));
    JqValue::from(members.collect::<JqMembers>())
}

/// The match, or the list of its groups if it has some.
fn scanned(captures: &Captures<'_>) -> JqValue {
    if captures.len() == 1 {
        return group(captures, 0);
    }
    JqValue::from((1..captures.len()).map(|index| group(captures, index)).collect::<Vec<_>>())
}

fn match_object(regex: &Regex, text: &str, captures: &Captures<'_>) -> JqValue {
    let describe = |index: usize| {
        let found = captures.get(index);
        let offset = found.map_or(JqValue::from(-1.0), |found| JqValue::from(text[..found.start()].chars().count()));
        let length = found.map_or(0, |found| found.as_str().chars().count());
        [("offset".into(), offset), ("length".into(), JqValue::from(length)), ("string".into(), group(captures, index))]
    };
    let groups = regex.capture_names().enumerate().skip(1).map(|(index, name)| {
        let mut members = JqMembers::from(describe(index));
        members.insert("name".into(), name.map_or(JqValue::Null, JqValue::from));
        JqValue::from(members)
    });
    let mut members = JqMembers::from(describe(0));
    members.insert("captures".into(), JqValue::from(groups.collect::<Vec<_>>()));
    JqValue::from(members)
}
