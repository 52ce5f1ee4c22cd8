//! The keys of the ConfigMap about the access log: which requests of the dialect have a line, and its format.

use crate::access_log_syntax::LineTemplate;
use crate::api::ingress_nginx::{flag, items};
use crate::diagnostic::Diagnostic;
use crate::snapshot::access_logs::LocationAccessLog;

/// What the keys say. The default is that of ingress-nginx.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct LogSettings {
    /// Whether no request has a line.
    is_off: bool,
    /// Whether requests for hosts that no Ingress names have one.
    logs_default_backend: bool,
    format: Option<Box<str>>,
    escapes_as_json: bool,
    pub lines: LocationAccessLog,
}

/// The keys that are read here.
pub(super) const NAMES: &[&str] = &[
    "disable-access-log",
    "disable-http-access-log",
    "enable-access-log-for-default-backend",
    "log-format-escape-json",
    "log-format-escape-none",
    "log-format-upstream",
    "skip-access-log-urls",
];

impl LogSettings {
    /// Whether the access log has requests for which annotations and snippets say nothing.
    pub(super) fn is_on(&self) -> bool {
        !self.is_off
    }

    /// Whether it has those for hosts that no Ingress names.
    pub(super) fn has_unnamed_hosts(&self) -> bool {
        !self.is_off && self.logs_default_backend
    }
}

/// Reads a key. `None` if its value is bad. `object`: the ConfigMap and the key, for `notes`.
pub(super) fn set(
    logs: &mut LogSettings,
    notes: &mut Vec<Diagnostic>,
    object: &str,
    name: &str,
    text: &str,
) -> Option<()> {
    match name {
        "disable-access-log" | "disable-http-access-log" => logs.is_off |= flag(text)?,
        "enable-access-log-for-default-backend" => logs.logs_default_backend = flag(text)?,
        "log-format-escape-json" => logs.escapes_as_json = flag(text)?,
        "log-format-escape-none" => {
            if flag(text)? {
                let message =
                    format!("{object}: values are escaped nevertheless: clients could write lines of their own");
                let remedy = "remove it, or set log-format-escape-json for lines of JSON";
                notes.push(Diagnostic::of_object(message, remedy).into_warning());
            }
        }
        "log-format-upstream" => logs.format = Some(text.into()),
        _ => {
            let (expressions, targets): (Vec<_>, Vec<_>) = items(text).partition(|item| item.starts_with('~'));
            if let Some(expression) = expressions.first() {
                let message = format!(
                    "{object}: {expression:?} is a regular expression, which is not supported, so requests that match \
                     it have lines"
                );
                let remedy = "list whole targets, or run Portico with --access-log-filter 'drop path=…'";
                notes.push(Diagnostic::of_object(message, remedy).into_warning());
            }
            logs.lines.unlogged_targets = targets.into_iter().map(Into::into).collect();
        }
    }
    Some(())
}

/// Parses the format, after all keys are read. A bad one has no effect, and is reported. `config_map`: its name.
pub(super) fn finish(logs: &mut LogSettings, notes: &mut Vec<Diagnostic>, config_map: &str) {
    let Some(format) = logs.format.take() else { return };
    // As in the configuration that ingress-nginx writes, whose quotes the format ends in the same places.
    let escape = if logs.escapes_as_json { "escape=json " } else { "" };
    match LineTemplate::parse(&format!("log_format upstreaminfo {escape}'{format}';")) {
        Ok(template) => logs.lines.template = Some(template),
        Err(error) => {
            let message = format!(
                "{config_map}, log-format-upstream: {}, so lines have the format of --access-log-format",
                error.message
            );
            notes.push(Diagnostic::of_object(message, error.remedy).into_warning());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(keys: &[(&str, &str)]) -> (LogSettings, Vec<Diagnostic>) {
        let (mut logs, mut notes) = (LogSettings::default(), Vec::new());
        for (name, text) in keys {
            assert!(NAMES.contains(name), "{name}");
            assert_eq!(set(&mut logs, &mut notes, "ConfigMap a/b, key", name, text), Some(()), "{name}");
        }
        finish(&mut logs, &mut notes, "ConfigMap a/b");
        (logs, notes)
    }

    #[test]
    fn lines_have_the_format_of_the_config_map() {
        for (keys, variables) in [
            (&[("log-format-upstream", "$remote_addr [$proxy_upstream_name] \"$request\"")][..], 3),
            (&[("log-format-upstream", "{\"a\": \"$uri\"}"), ("log-format-escape-json", "true")], 1),
            (&[("log-format-escape-json", "true"), ("log-format-upstream", "{\"a\": \"$uri\", \"b\": $status}")], 2),
        ] {
            let (logs, notes) = read(keys);
            let template = logs.lines.template.as_ref().expect("the format is valid");
            assert_eq!((template.variables().count(), notes.len()), (variables, 0), "{keys:?}");
        }
    }

    #[test]
    fn keys_decide_which_requests_have_lines() {
        for (keys, is_on, has_unnamed) in [
            (&[][..], true, false),
            (&[("disable-access-log", "true")], false, false),
            (&[("disable-http-access-log", "true"), ("disable-access-log", "false")], false, false),
            (&[("enable-access-log-for-default-backend", "true")], true, true),
            (&[("enable-access-log-for-default-backend", "true"), ("disable-access-log", "1")], false, false),
        ] {
            let (logs, _) = read(keys);
            assert_eq!((logs.is_on(), logs.has_unnamed_hosts()), (is_on, has_unnamed), "{keys:?}");
        }
        let lines = read(&[("skip-access-log-urls", "/healthz, /status?full")]).0.lines;
        assert!(!lines.logs("/healthz") && !lines.logs("/status?full") && lines.logs("/status"));
    }

    #[test]
    fn what_has_no_effect_is_reported() {
        for (name, text, expected) in [
            ("log-format-upstream", "$remote_adr", "there is no variable $remote_adr, so lines have the format"),
            ("log-format-upstream", "$http_authorization", "may contain credentials"),
            ("log-format-escape-none", "true", "values are escaped nevertheless"),
            ("skip-access-log-urls", "/a,~^/b", "\"~^/b\" is a regular expression"),
        ] {
            let (_, notes) = read(&[(name, text)]);
            assert!(notes.len() == 1 && notes[0].message.contains(expected), "{name}: {notes:?}");
        }
        let (mut logs, mut notes) = (LogSettings::default(), Vec::new());
        for name in ["disable-access-log", "log-format-escape-json", "enable-access-log-for-default-backend"] {
            assert_eq!(set(&mut logs, &mut notes, "ConfigMap a/b, key", name, "off"), None, "{name}");
        }
        assert_eq!((logs, notes.len()), (LogSettings::default(), 0));
    }
}
