//! The header fields that plugins change. An endpoint or a client could otherwise send the same fields in trailers and
//! informational responses, which plugins do not see, and the recipient would take them for those of the proxy.

use std::collections::HashSet;

use http::HeaderName;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

/// Fields of a connection, or of the framing and target of one message. They are never copied between a request and
/// what a server decides about it.
pub static MESSAGE_FIELDS: [HeaderName; 10] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Conditions and ranges, which are about the resource of the endpoint, and not about what another server says.
pub static CONDITIONAL_FIELDS: [HeaderName; 6] =
    [IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE];

/// The header fields that a plugin sets, changes or removes, as
/// [`Plugin::declare_fields`](super::Plugin::declare_fields) names them.
#[derive(Clone, Debug, Default)]
pub struct ChangedFields {
    /// Of requests, in [`Plugin::access`](super::Plugin::access).
    pub request: FieldNames,
    /// Of responses, whether [`RequestCx::response_headers`](super::RequestCx::response_headers) or
    /// [`Plugin::response`](super::Plugin::response) changes them. Those of a reply need not be named.
    pub response: FieldNames,
}

impl ChangedFields {
    pub fn is_empty(&self) -> bool {
        self.request.is_empty() && self.response.is_empty()
    }

    /// Adds the fields that another plugin changes.
    pub fn merge(&mut self, other: ChangedFields) {
        self.request.merge(other.request);
        self.response.merge(other.response);
    }
}

/// Names of fields. Hyphens and underscores are the same, as for endpoints that read CGI variables.
#[derive(Clone, Debug, Default)]
pub struct FieldNames(HashSet<HeaderName>);

impl FieldNames {
    pub fn add(&mut self, name: &HeaderName) {
        self.0.insert(with_hyphens(name));
    }

    pub fn add_all<'n>(&mut self, names: impl IntoIterator<Item = &'n HeaderName>) {
        self.0.extend(names.into_iter().map(with_hyphens));
    }

    pub fn merge(&mut self, other: FieldNames) {
        self.0.extend(other.0);
    }

    pub fn contains(&self, name: &HeaderName) -> bool {
        self.0.contains(&with_hyphens(name))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn with_hyphens(name: &HeaderName) -> HeaderName {
    if !name.as_str().contains('_') {
        return name.clone();
    }
    HeaderName::try_from(name.as_str().replace('_', "-")).expect("a name with hyphens instead is a valid name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_all_spellings() {
        let name = HeaderName::from_static;
        let mut names = FieldNames::default();
        names.add(&name("x_user-id"));
        for (found, expected) in [("x-user-id", true), ("x_user_id", true), ("x-user-id_", false), ("x-user", false)] {
            assert_eq!(names.contains(&name(found)), expected, "{found}");
        }
        let mut fields = ChangedFields::default();
        assert!(fields.is_empty());
        fields.response.add_all(&[name("link")]);
        fields.merge(ChangedFields { request: names, ..ChangedFields::default() });
        assert!(fields.request.contains(&name("x-user_id")) && fields.response.contains(&name("link")));
        assert!(!fields.response.contains(&name("x-user-id")));
    }
}
