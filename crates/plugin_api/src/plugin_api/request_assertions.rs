//! How plugins set the fields that identify the client toward endpoints.

use http::{HeaderName, HeaderValue};

use crate::plugin_api::consumers::Sha256Digest;
use crate::plugin_api::context::RequestCx;
use crate::plugin_api::endpoint_token::EndpointToken;
use crate::plugin_api::header_spoofing::remove_alike;

impl RequestCx<'_> {
    /// Sets a field with which the plugin identifies the client. Replaces what an earlier plugin has asserted.
    ///
    /// # Panics
    ///
    /// With debug assertions, if the plugin does not declare the field in
    /// [`Plugin::declare_assertions`](crate::plugin_api::Plugin::declare_assertions).
    pub fn assert_field(&mut self, name: &HeaderName, value: HeaderValue) {
        self.begin_assertion(name);
        self.head.headers.insert(name.clone(), value);
    }

    /// Sets a field to a token that the plugin has signed or fetched. Stored responses depend on what the token
    /// `stands_for`, such as its claims without times, and not on its value, which changes when it expires.
    pub fn insert_token(&mut self, name: &HeaderName, value: HeaderValue, stands_for: Sha256Digest) {
        debug_assert!(
            self.assertions.is_none_or(|assertions| assertions.fields.contains(name)),
            "the plugin asserts {name}, which its `declare_assertions` does not name"
        );
        self.fields_of_client.retain(|of_client| of_client != name);
        self.tokens.push(EndpointToken::new(name.clone(), value.clone(), stands_for));
        self.head.headers.insert(name.clone(), value);
    }

    /// Sets a field to something about the client that the endpoint may respond to, such as a claim of its token.
    /// Stored responses depend on it.
    pub fn tell_endpoint(&mut self, name: &HeaderName, value: HeaderValue) {
        self.declare_request_field(name);
        self.assert_field(name, value);
    }

    /// Adds a value to a field that the plugin has asserted.
    pub fn assert_further_value(&mut self, name: &HeaderName, value: HeaderValue) {
        self.head.headers.append(name.clone(), value);
    }

    /// Asserts that a field has no value: removes what an earlier plugin has asserted.
    pub fn assert_none(&mut self, name: &HeaderName) {
        self.begin_assertion(name);
        self.head.headers.remove(name);
    }

    /// Asserts a field as it is in the request, because the plugin trusts its sender.
    pub fn assert_unchanged(&mut self, name: &HeaderName) {
        self.begin_assertion(name);
    }

    /// Like [`RequestCx::assert_field`], for a field that a server has named and the plugin cannot declare. What the
    /// client has sent under this name goes now, in all spellings.
    pub fn assert_decided_field(&mut self, name: &HeaderName, value: HeaderValue) {
        self.declare_request_field(name);
        self.fields_of_client.retain(|of_client| of_client != name);
        remove_alike(&mut self.head.headers, name);
        self.head.headers.insert(name.clone(), value);
    }

    fn begin_assertion(&mut self, name: &HeaderName) {
        debug_assert!(
            self.assertions.is_some_and(|assertions| assertions.fields.contains(name)),
            "the plugin asserts {name}, which its `declare_assertions` does not name"
        );
        self.fields_of_client.retain(|of_client| of_client != name);
    }
}
