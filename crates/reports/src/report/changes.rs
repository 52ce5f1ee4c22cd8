//! Summarizes a reload: objects that were added, removed or changed.

use std::collections::{BTreeMap, BTreeSet};

use super::plain::escape_controls;
use super::table::VerdictWord;
use crate::verdict::{Code, Condition, Verdict, Verdicts};

/// One line per object: `+` for added, `-` for removed, and `~` for changed, with the changed conditions. Empty if
/// nothing changed.
pub fn changes(before: &Verdicts, after: &Verdicts) -> String {
    let objects: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let mut out = String::new();
    for id in objects {
        match (before.get(id), after.get(id)) {
            (None, Some(new)) => out += &line('+', &format!("{id}: {}", VerdictWord::from_verdict(new).text())),
            (Some(_), None) => out += &line('-', &id.to_string()),
            (Some(old), Some(new)) => {
                let conditions = changed_conditions(old, new);
                if !conditions.is_empty() {
                    out += &line('~', &format!("{id}: {}", conditions.join(", ")));
                } else if old.generation != new.generation {
                    out += &line('~', &id.to_string());
                }
            }
            (None, None) => {}
        }
    }
    out
}

fn line(sign: char, text: &str) -> String {
    format!("{sign} {}\n", escape_controls(text))
}

/// Conditions with a changed status or reason: `Accepted is False (NoMatchingParent)`.
fn changed_conditions(old: &Verdict, new: &Verdict) -> Vec<String> {
    let old_codes: BTreeMap<_, _> = old.all_conditions().map(keyed_code).collect();
    let changed = new.all_conditions().filter_map(|condition| {
        let (key, code) = keyed_code(condition);
        if old_codes.get(&key).copied() == Some(code) {
            return None;
        }
        let status = if code.status() { "True" } else { "False" };
        let reason = if code.reason() == code.condition() { String::new() } else { format!(" ({})", code.reason()) };
        let path = if key.0.is_empty() { String::new() } else { format!("{} ", key.0) };
        Some(format!("{path}{} is {status}{reason}", code.condition()))
    });
    changed.collect()
}

/// The path and type of a condition, which identify it in a verdict, and its code.
fn keyed_code((path, condition): (String, &Condition)) -> ((String, &'static str), Code) {
    ((path, condition.code.condition()), condition.code)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::{Kind, ObjectId, ObjectKey};
    use crate::verdict::ListenerVerdict;

    fn verdicts(objects: &[(&str, i64, Code)]) -> Verdicts {
        let objects = objects.iter().map(|(name, generation, code)| {
            let condition = Condition::without_diagnostics(*code);
            let listener = ListenerVerdict {
                name: "http".to_owned(),
                port: 80,
                attached_routes: *generation as u32,
                supported_kinds: Vec::new(),
                sockets: Vec::new(),
                conditions: vec![condition.clone()],
            };
            let verdict = Verdict {
                generation: *generation,
                conditions: vec![condition],
                listeners: vec![listener],
                ..Verdict::default()
            };
            (ObjectId::new(Kind::Gateway, ObjectKey::new("default", name)), Arc::new(verdict))
        });
        objects.collect()
    }

    #[test]
    fn added_removed_and_changed_objects_are_listed() {
        let (good, bad) = (Code::ClassAccepted, Code::ClassInvalidParameters);
        let before = verdicts(&[("edited", 1, good), ("flips", 1, good), ("gone", 1, good), ("same", 1, bad)]);
        let after = verdicts(&[("edited", 2, good), ("flips", 2, bad), ("new", 1, bad), ("same", 1, bad)]);
        let expected = "\
~ Gateway default/edited
~ Gateway default/flips: Accepted is False (InvalidParameters), spec.listeners[0] Accepted is False (InvalidParameters)
- Gateway default/gone
+ Gateway default/new: Refused
";
        assert_eq!(changes(&before, &after), expected);
        assert_eq!(changes(&after, &after), "");
        let back = changes(&verdicts(&[("x", 1, bad)]), &verdicts(&[("x", 2, good)]));
        assert_eq!(back, "~ Gateway default/x: Accepted is True, spec.listeners[0] Accepted is True\n");
    }
}
