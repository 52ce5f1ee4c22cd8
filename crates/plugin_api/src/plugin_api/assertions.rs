//! What plugins assert toward endpoints: the fields of requests that identify the client, such as names of consumers,
//! claims, tokens and groups. An endpoint believes them, so none of them may come from the client.
//!
//! ```text
//!   Plugin::declare_assertions ─▶ Assertions of an instance ─┬▶ Chain: before its plugins, and after them
//!                                                            └▶ a plugin of the consumer: when it is selected
//!   names that an authorization server decides ─▶ AssertedFields ─▶ the rule: before plugins, after authorization
//! ```
//!
//! A field that a plugin only edits, such as a header that request-transformer adds, is not asserted: see
//! [`ChangedFields`](super::ChangedFields).

use std::sync::Arc;

use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;

use super::cookies::remove_cookies;
use super::header_spoofing::is_alike;

/// Names of fields that no client may send to an endpoint, in any spelling with hyphens and underscores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssertedFields {
    names: Vec<HeaderName>,
    /// The lengths of the names, as bits. Most fields of requests have another length than all of them.
    lengths: u64,
}

impl AssertedFields {
    pub fn add(&mut self, name: &HeaderName) {
        if !self.names.contains(name) {
            self.lengths |= length_bit(name);
            self.names.push(name.clone());
        }
    }

    pub fn add_all<'n>(&mut self, names: impl IntoIterator<Item = &'n HeaderName>) {
        names.into_iter().for_each(|name| self.add(name));
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The names as they were added.
    pub fn names(&self) -> &[HeaderName] {
        &self.names
    }

    /// Whether a name is one of these in any spelling.
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.lengths & length_bit(name) != 0 && self.names.iter().any(|asserted| is_alike(asserted, name))
    }

    /// Removes these fields, in all spellings, except those that `is_kept` returns true for.
    pub fn remove_from(&self, headers: &mut HeaderMap, is_kept: impl Fn(&HeaderName) -> bool) {
        let is_removed = |name: &&HeaderName| self.contains(name) && !is_kept(name);
        let removed: SmallVec<[HeaderName; 4]> = headers.keys().filter(is_removed).cloned().collect();
        for name in removed {
            headers.remove(name);
        }
    }
}

impl<'n> FromIterator<&'n HeaderName> for AssertedFields {
    fn from_iter<I: IntoIterator<Item = &'n HeaderName>>(names: I) -> Self {
        let mut fields = AssertedFields::default();
        fields.add_all(names);
        fields
    }
}

/// The asserted fields that a request still has from its client, because a plugin reads them.
pub type FieldsOfClient = SmallVec<[HeaderName; 1]>;

fn length_bit(name: &HeaderName) -> u64 {
    1 << name.as_str().len().min(63)
}

/// What plugins assert, and what they must read before it is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assertions {
    /// The fields that identify the client.
    pub fields: AssertedFields,
    /// Fields that the plugin reads as the client sent them, because they may contain its credential. They stay until
    /// the plugins that read them have run. The locations of credentials that the plugin declares need not be added.
    pub read: Vec<HeaderName>,
    /// Cookies that are for the proxy only. They are removed when the plugins that may read them have run.
    pub hidden_cookies: Vec<HiddenCookies>,
}

/// Cookies that no endpoint gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HiddenCookies {
    Named(Box<str>),
    WithPrefix(Box<str>),
}

impl HiddenCookies {
    fn contain(&self, name: &[u8]) -> bool {
        match self {
            HiddenCookies::Named(hidden) => hidden.as_bytes() == name,
            HiddenCookies::WithPrefix(prefix) => name.starts_with(prefix.as_bytes()),
        }
    }
}

impl Assertions {
    /// What a plugin has declared, with the headers in which it expects credentials, if it expects any. `None` if the
    /// plugin asserts nothing.
    pub(super) fn complete(mut self, credentials: Option<Vec<HeaderName>>) -> Option<Arc<Assertions>> {
        if self.fields.is_empty() && self.hidden_cookies.is_empty() {
            return None;
        }
        if let Some(headers) = credentials {
            self.read.extend(headers);
            self.read.extend([AUTHORIZATION, PROXY_AUTHORIZATION]);
        }
        Some(Arc::new(self))
    }

    /// What both assert and read. One of both if it has all of the other, so that many chains share it.
    pub fn union(first: &Arc<Assertions>, second: &Arc<Assertions>) -> Arc<Assertions> {
        if first.has_all_of(second) {
            return Arc::clone(first);
        }
        if second.has_all_of(first) {
            return Arc::clone(second);
        }
        let mut union = Assertions::clone(first);
        union.fields.add_all(second.fields.names());
        union.read.extend(second.read.iter().filter(|name| !first.read.contains(name)).cloned());
        let is_new = |cookies: &&HiddenCookies| !first.hidden_cookies.contains(cookies);
        union.hidden_cookies.extend(second.hidden_cookies.iter().filter(is_new).cloned());
        Arc::new(union)
    }

    /// Adds the new names of asserted fields, which plugins rename: they may not come from the client when there is
    /// nothing to rename.
    pub fn with_new_names(mut self: Arc<Self>, renamed: &[(HeaderName, HeaderName)]) -> Arc<Assertions> {
        let is_new = |fields: &AssertedFields, (old, new): &(HeaderName, HeaderName)| {
            fields.contains(old) && !fields.contains(new)
        };
        // A new name may be renamed again.
        while let Some((_, new)) = renamed.iter().find(|pair| is_new(&self.fields, pair)) {
            Arc::make_mut(&mut self).fields.add(new);
        }
        self
    }

    fn has_all_of(&self, other: &Assertions) -> bool {
        other.fields.names().iter().all(|name| self.fields.contains(name))
            && other.read.iter().all(|name| self.read.contains(name))
            && other.hidden_cookies.iter().all(|cookies| self.hidden_cookies.contains(cookies))
    }

    /// The fields that are asserted and read. Those with the credentials of the client, until a plugin asserts them.
    pub fn kept_fields(&self) -> impl Iterator<Item = &HeaderName> {
        self.read.iter().filter(|name| self.fields.contains(name))
    }

    /// Removes the cookies that no endpoint gets.
    pub fn hide_cookies(&self, headers: &mut HeaderMap) {
        if !self.hidden_cookies.is_empty() {
            remove_cookies(headers, |name| self.hidden_cookies.iter().any(|hidden| hidden.contain(name)));
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn fields_are_removed_in_all_spellings() {
        let long = "x-a-name-of-a-field-that-is-longer-than-all-lengths-for-which-there-is-a-bit";
        let name = HeaderName::from_static;
        let asserted: AssertedFields = [name("x-user_id"), name(long)].iter().collect();
        let sent = ["x-user-id", "x_user_id", "x-user_id", "x_user-id", "x-user-ids", "y-user-id", "x-api-key", "host"];
        let mut headers: HeaderMap = sent.iter().map(|sent| (name(sent), HeaderValue::from_static("1"))).collect();
        headers.insert(HeaderName::try_from(long.replace('-', "_")).unwrap(), HeaderValue::from_static("1"));
        asserted.remove_from(&mut headers, |name| name == "x_user_id");
        assert_eq!(names(&headers), ["host", "x-api-key", "x-user-ids", "x_user_id", "y-user-id"]);
    }

    #[test]
    fn new_names_of_asserted_fields_are_asserted() {
        let name = HeaderName::from_static;
        let asserting = Arc::new(Assertions { fields: [name("x-user")].iter().collect(), ..Assertions::default() });
        let renamed = [("x-name", "x-last"), ("x_user", "x-name"), ("x-other", "x-free")];
        let renamed = renamed.map(|(old, new)| (name(old), name(new)));
        assert_eq!(asserting.with_new_names(&renamed).fields.names(), ["x-user", "x-name", "x-last"]);
    }

    #[test]
    fn chains_share_what_one_plugin_has_all_of() {
        let assertions = |names: &[&'static str]| {
            let names: Vec<_> = names.iter().map(|name| HeaderName::from_static(name)).collect();
            Arc::new(Assertions { fields: names.iter().collect(), ..Assertions::default() })
        };
        let (both, one, other) = (assertions(&["x-a", "x-b"]), assertions(&["x_b"]), assertions(&["x-c"]));
        assert!(Arc::ptr_eq(&Assertions::union(&both, &one), &both));
        assert!(Arc::ptr_eq(&Assertions::union(&one, &both), &both));
        assert_eq!(Assertions::union(&both, &other).fields.names(), ["x-a", "x-b", "x-c"]);
        let reader = Arc::new(Assertions { read: vec![AUTHORIZATION], ..Assertions::clone(&one) });
        assert_eq!(Assertions::union(&both, &reader).read, [AUTHORIZATION]);
    }

    #[test]
    fn a_name_is_added_once() {
        let mut asserted = AssertedFields::default();
        assert!(asserted.is_empty());
        asserted.add_all(&["x-user", "x_user", "x-user"].map(HeaderName::from_static));
        assert_eq!(asserted.names(), ["x-user", "x_user"]);
    }
}
