//! The purpose of a request: a page, the end of a login, a logout of the browser or of the provider.

use http::Method;

use super::OpenIdConnect;
use super::config::AuthMethod;
use super::credentials::{self, ClientCredential};
use crate::plugin_api::RequestCx;
use crate::plugin_api::fields::{FieldValue, UrlEncodedForm};

/// The purpose of a request.
pub(super) enum Purpose<'c> {
    /// The provider has sent the browser back. `is_certain`: the path is that of the configured redirect URI.
    Callback {
        is_certain: bool,
    },
    Logout,
    BackchannelLogout,
    /// A request for the endpoint, with this credential.
    Forward(ClientCredential<'c>),
}

impl OpenIdConnect {
    pub(super) fn purpose<'c>(&self, cx: &'c RequestCx<'_>) -> Purpose<'c> {
        let settings = &self.settings;
        let method = &cx.head.method;
        if self.is_backchannel(method, cx.path) {
            return Purpose::BackchannelLogout;
        }
        let query = UrlEncodedForm(cx.query.unwrap_or_default().as_bytes());
        let has = |name: &str| query.find(name.as_bytes()) != FieldValue::Absent;
        let logout = &settings.logout;
        if logout.methods.contains(method)
            && (logout.suffix.as_deref().is_some_and(|suffix| cx.path.ends_with(suffix))
                || logout.query_arg.as_deref().is_some_and(has))
        {
            return Purpose::Logout;
        }
        if *method == Method::GET && settings.party.accepts(AuthMethod::AuthorizationCode) {
            let is_response = || has("state") && (has("code") || has("error"));
            match &settings.redirect_uri {
                Some(redirect_uri) if *redirect_uri.path == *cx.path => return Purpose::Callback { is_certain: true },
                None if is_response() => return Purpose::Callback { is_certain: false },
                _ => {}
            }
        }
        let cookie = settings.token_cookie.as_deref();
        Purpose::Forward(credentials::find(cx.head, cx.query, &settings.token_locations, cookie))
    }

    pub(super) fn is_backchannel(&self, method: &Method, path: &str) -> bool {
        let suffix = self.settings.backchannel_suffix.as_deref();
        *method == Method::POST && suffix.is_some_and(|suffix| path.ends_with(suffix))
    }
}
