//! How requests are traced, while flags of the program trace all of them: annotations, and keys of the ConfigMap.

use std::sync::Arc;

use super::value_reader::ValueReader;
use crate::api::ingress_nginx::{find, flag};
use crate::diagnostic::Diagnostic;
use crate::snapshot::rule_telemetry::RuleTracing;

/// What the ConfigMap says about traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TraceSettings {
    /// `None` if it says nothing: then the flags of the program decide, as for all other requests. In ingress-nginx,
    /// nothing is traced then.
    is_on: Option<bool>,
    continues_traces: bool,
    operation: Option<Arc<str>>,
}

/// The keys that are read here.
pub(super) const NAMES: &[&str] = &[ENABLE, OPERATION, TRUST];

impl Default for TraceSettings {
    fn default() -> Self {
        TraceSettings { is_on: None, continues_traces: true, operation: None }
    }
}

impl TraceSettings {
    /// What applies without annotations.
    pub(super) fn of_all(&self) -> RuleTracing {
        RuleTracing {
            is_off: self.is_on == Some(false),
            ignores_parent: !self.continues_traces,
            operation: self.operation.clone(),
        }
    }
}

/// Reads a key. `None` if its value is bad. `object`: the ConfigMap and the key, for `notes`.
pub(super) fn set(
    traces: &mut TraceSettings,
    notes: &mut Vec<Diagnostic>,
    object: &str,
    name: &str,
    text: &str,
) -> Option<()> {
    match name {
        ENABLE => traces.is_on = Some(flag(text)?),
        TRUST => traces.continues_traces = flag(text)?,
        _ => match find(OPERATION)?.value.check(text) {
            Ok(()) => traces.operation = Some(text.into()),
            Err(_) => {
                let message = format!(
                    "{object}: {text:?} is not supported as the name of spans, so they have that of the method"
                );
                let remedy = "write letters, digits, hyphens and underscores; variables of nginx are not supported";
                notes.push(Diagnostic::of_object(message, remedy).into_warning());
            }
        },
    }
    Some(())
}

/// Reads the annotations. As in ingress-nginx, the other two have an effect only next to the one that enables traces.
pub(super) fn read(reader: &mut ValueReader<'_>, config: &TraceSettings) -> RuleTracing {
    let of_all = config.of_all();
    let is_on = reader.text(ENABLE).and_then(flag);
    let continues_traces = reader.text(TRUST).and_then(flag);
    let operation = reader.text(OPERATION).map(str::trim).filter(|operation| !operation.is_empty());
    match is_on {
        Some(true) => RuleTracing {
            is_off: false,
            ignores_parent: continues_traces.map_or(of_all.ignores_parent, |continues| !continues),
            operation: operation.map(Into::into).or(of_all.operation),
        },
        is_on => {
            reader.note_without(&[TRUST, OPERATION], "enable-opentelemetry: \"true\"");
            RuleTracing { is_off: is_on == Some(false) || of_all.is_off, ..of_all }
        }
    }
}

const ENABLE: &str = "enable-opentelemetry";
const TRUST: &str = "opentelemetry-trust-incoming-span";
const OPERATION: &str = "opentelemetry-operation-name";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::ingress_nginx::PREFIX;

    fn config(keys: &[(&str, &str)]) -> (TraceSettings, Vec<Diagnostic>) {
        let (mut traces, mut notes) = (TraceSettings::default(), Vec::new());
        for (name, text) in keys {
            assert_eq!(set(&mut traces, &mut notes, "ConfigMap a/b, key", name, text), Some(()), "{name}");
        }
        (traces, notes)
    }

    /// The text of dumps, and the number of notes.
    fn traced(keys: &[(&str, &str)], annotations: &[(&str, &str)]) -> (String, usize) {
        let annotations: std::collections::BTreeMap<String, &str> =
            annotations.iter().map(|(name, value)| (format!("{PREFIX}{name}"), *value)).collect();
        let meta = json!({"namespace": "a", "name": "b", "annotations": annotations});
        let meta = serde_json::from_value(meta).unwrap();
        let mut reader = ValueReader::new(&meta);
        let tracing = read(&mut reader, &config(keys).0);
        assert!(reader.errors.is_empty());
        (tracing.to_string(), reader.notes.len())
    }

    #[test]
    fn annotations_precede_the_config_map() {
        for (keys, annotations, expected, notes) in [
            (&[][..], &[][..], "", 0),
            (&[], &[(ENABLE, "true")], "", 0),
            (&[], &[(ENABLE, "false")], "no traces", 0),
            (&[(ENABLE, "false")], &[], "no traces", 0),
            (&[(ENABLE, "false")], &[(ENABLE, "true")], "", 0),
            (&[(ENABLE, "true")], &[(ENABLE, "false")], "no traces", 0),
            (&[(TRUST, "false")], &[], "traces of clients end", 0),
            (&[(TRUST, "false")], &[(ENABLE, "true"), (TRUST, "true")], "", 0),
            (
                &[],
                &[(ENABLE, "true"), (TRUST, "false"), (OPERATION, "cart")],
                "traces of clients end, spans named cart",
                0,
            ),
            (&[(OPERATION, "all")], &[(ENABLE, "true")], "spans named all", 0),
            (&[], &[(TRUST, "false"), (OPERATION, "cart")], "", 2),
            (&[], &[(ENABLE, "false"), (OPERATION, "cart")], "no traces", 1),
            (&[], &[(ENABLE, "on")], "", 1),
        ] {
            assert_eq!(traced(keys, annotations), (expected.to_owned(), notes), "{keys:?} {annotations:?}");
        }
    }

    #[test]
    fn variables_in_names_are_reported() {
        let (mut traces, mut notes) = config(&[(OPERATION, "HTTP $request_method")]);
        assert_eq!(traces, TraceSettings::default());
        let is_reported = notes.len() == 1 && notes[0].message.contains("is not supported as the name of spans");
        assert!(is_reported, "{notes:?}");
        assert_eq!(set(&mut traces, &mut notes, "ConfigMap a/b, key", ENABLE, "on"), None);
    }
}
