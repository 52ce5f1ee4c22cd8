//! Changes of headers that an authorization server decides.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::plugin_api::changed_fields::MESSAGE_FIELDS;
use crate::plugin_api::header_spoofing::remove_alike;

/// What happens with a header that exists already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderAction {
    Append,
    /// Replaces what existed before all changes, so that one name may have several values.
    Overwrite,
    AddIfAbsent,
    OverwriteIfPresent,
}

/// Changes that are applied together: removals first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HeaderChanges {
    removed: Vec<HeaderName>,
    values: Vec<(HeaderName, HeaderValue, HeaderAction)>,
}

impl HeaderChanges {
    pub(super) fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.values.is_empty()
    }

    /// Adds a change, unless the header belongs to the connection or to the framing of the message.
    pub(super) fn push(&mut self, name: HeaderName, value: HeaderValue, action: HeaderAction) {
        if !MESSAGE_FIELDS.contains(&name) {
            self.values.push((name, value, action));
        }
    }

    pub(super) fn remove(&mut self, name: HeaderName) {
        if !MESSAGE_FIELDS.contains(&name) {
            self.removed.push(name);
        }
    }

    /// The names of all headers that may change.
    pub(super) fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.removed.iter().chain(self.values.iter().map(|(name, ..)| name))
    }

    pub(super) fn extend(&mut self, other: HeaderChanges) {
        self.removed.extend(other.removed);
        self.values.extend(other.values);
    }

    /// Applies the changes. A header that the server removes or overwrites must not arrive in another spelling either:
    /// CGI reads `X_User` as `X-User`.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        let overwritten = self.values.iter().filter(|(_, _, action)| *action == HeaderAction::Overwrite);
        for name in self.removed.iter().chain(overwritten.map(|(name, _, _)| name)) {
            headers.remove(name);
            remove_alike(headers, name);
        }
        for (name, value, action) in &self.values {
            match action {
                HeaderAction::Append | HeaderAction::Overwrite => {
                    headers.append(name, value.clone());
                }
                HeaderAction::AddIfAbsent => {
                    headers.entry(name).or_insert_with(|| value.clone());
                }
                HeaderAction::OverwriteIfPresent => {
                    if let Some(present) = headers.get_mut(name) {
                        *present = value.clone();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_depend_on_what_exists() {
        let cases = [
            (HeaderAction::Append, "a: 0, a: 1, b: 0, b: 1"),
            (HeaderAction::Overwrite, "a: 1, b: 1"),
            (HeaderAction::AddIfAbsent, "a: 0, b: 0"),
            (HeaderAction::OverwriteIfPresent, "a: 1, b: 1"),
        ];
        let header = |name: &str, value: &str| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        for (action, expected) in cases {
            let mut headers: HeaderMap = [header("a", "0"), header("b", "0")].into_iter().collect();
            let mut changes = HeaderChanges::default();
            for name in ["a", "b", "host", "content-length"] {
                let (name, value) = header(name, "1");
                changes.push(name, value, action);
            }
            changes.apply(&mut headers);
            let mut lines: Vec<_> =
                headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
            lines.sort();
            assert_eq!(lines.join(", "), expected, "{action:?}");
        }
    }

    #[test]
    fn absent_headers_are_added_or_left_out() {
        for (action, expected) in [
            (HeaderAction::Append, &["1", "2"][..]),
            (HeaderAction::Overwrite, &["1", "2"]),
            (HeaderAction::AddIfAbsent, &["1"]),
            (HeaderAction::OverwriteIfPresent, &[]),
        ] {
            let mut headers = HeaderMap::new();
            let mut changes = HeaderChanges::default();
            for value in ["1", "2"] {
                changes.push(HeaderName::from_static("set-cookie"), HeaderValue::from_static(value), action);
            }
            changes.apply(&mut headers);
            let values: Vec<_> = headers.get_all("set-cookie").iter().collect();
            assert_eq!(values, expected, "{action:?}");
        }
    }
}
