//! What a location does with its requests before any plugin runs, and with its responses, in the order of nginx: the
//! dialect `nginx` of Ingresses puts it first into the chains of its rules.
//!
//! ```text
//!   preflight ▶ redirect ▶ redirect to HTTPS ▶ denied and allowed addresses ▶ size of the body ▶ plugins
//! ```
//!
//! The order is visible to clients: a preflight request is never redirected, and a request in plain text that is going
//! to be redirected is not denied because of its address.

mod cross_origin;
mod https_redirect;

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, LOCATION, STRICT_TRANSPORT_SECURITY};
use http::{HeaderValue, Method, StatusCode};

pub use self::cross_origin::{AllowedOrigin, CrossOrigin};
pub use self::https_redirect::HttpsRedirectOfLocation;
use self::https_redirect::without_port;
use super::location_path::PathReplacement;
use crate::address_ranges::AddressRanges;
use crate::plugin_api::context::UNKNOWN_CLIENT;
use crate::plugin_api::instance::{ExecutionPlace, PluginInstance};
use crate::plugin_api::{
    AccessOutcome, ChangedFields, ClientInfo, Phases, Plugin, Reply, ReplyBody, RequestCx, ResponseCx, ResponseOutcome,
    Scheme,
};

/// The steps of one location. The default does nothing.
#[derive(Debug, Default, PartialEq)]
pub struct LocationSteps {
    pub cross_origin: Option<Arc<CrossOrigin>>,
    pub response: Option<FixedResponse>,
    /// Redirects to the URL that replaces the path.
    pub replacement: Option<Arc<PathReplacement>>,
    pub https_redirect: Option<HttpsRedirectOfLocation>,
    /// Clients that get 403, before `allowed` is consulted.
    pub denied: Arc<AddressRanges>,
    /// If set, all other clients get 403.
    pub allowed: Option<Arc<AddressRanges>>,
    /// The largest request body, in bytes.
    pub max_body_bytes: Option<u64>,
    /// `Strict-Transport-Security` of all responses over TLS.
    pub transport_security: Option<HeaderValue>,
}

/// A response to all requests of a location: a redirect to one URL, unless the status is not one of a redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedResponse {
    pub status: StatusCode,
    /// `Location`. A path is one of the host of the request.
    pub target: HeaderValue,
}

impl FixedResponse {
    fn reply(&self, client: ClientInfo<'_>) -> Box<Reply> {
        // Of the statuses from 300 to 308, nginx sends only these with a `Location`.
        if !matches!(self.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Reply::new(self.status, ReplyBody::Empty, Reply::NO_REASON);
        }
        let target = match self.target.to_str() {
            Ok(path) if path.starts_with('/') => {
                let host = without_port(client.host).trim_end_matches('.').to_ascii_lowercase();
                HeaderValue::try_from(format!("{}://{host}{path}", client.scheme)).ok()
            }
            _ => Some(self.target.clone()),
        };
        redirect_to(self.status, target)
    }
}

impl LocationSteps {
    /// Before all plugins. No plugin has the name, so that a plugin of the operator runs, too.
    const PLACE: ExecutionPlace = ExecutionPlace { kind: "location", priority: i32::MAX };

    /// The steps as a part of a chain. `object`: what configures them.
    pub fn into_instance(self: Arc<Self>, scope: Arc<str>, object: Arc<str>) -> (ExecutionPlace, PluginInstance) {
        let instance = PluginInstance {
            phases: self.phases(),
            plugin: self,
            scope,
            object,
            // The content of the rule includes the annotations.
            configuration_hash: 0,
            first_backend: 0,
            assertions: None,
        };
        (LocationSteps::PLACE, instance)
    }

    fn phases(&self) -> Phases {
        if self.cross_origin.is_some() { Phases::ACCESS_AND_RESPONSE } else { Phases::ACCESS }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == LocationSteps::default()
    }

    fn response_of_location(&self, cx: &RequestCx<'_>) -> Option<Box<Reply>> {
        if let Some(response) = &self.response {
            return Some(response.reply(cx.client));
        }
        if let Some(replacement) = &self.replacement {
            let path = cx.raw_target.split('?').next().unwrap_or_default();
            let replaced = match replacement.apply(path) {
                Ok(replaced) => replaced,
                Err(_) => return Some(invalid_target()),
            };
            if let Some(mut target) = replaced.map(|replaced| replaced.path) {
                if let Some(query) = cx.query.filter(|query| !query.is_empty()) {
                    target.push('?');
                    target.push_str(query);
                }
                return Some(redirect_to(StatusCode::FOUND, HeaderValue::try_from(target).ok()));
            }
        }
        None
    }

    fn admits(&self, cx: &RequestCx<'_>) -> bool {
        if self.denied.is_empty() && self.allowed.is_none() {
            return true;
        }
        let address = cx.client.address.to_canonical();
        address != UNKNOWN_CLIENT
            && !self.denied.contains(address)
            && self.allowed.as_ref().is_none_or(|allowed| allowed.contains(address))
    }

    /// Rejects a body that is too large, or lets the proxy count its bytes if its length is unknown.
    fn limit_body(&self, cx: &mut RequestCx<'_>) -> Option<Box<Reply>> {
        let max_bytes = self.max_body_bytes?;
        let length = cx.head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        match length {
            Some(length) if length > max_bytes => {
                let message = "Request size limit exceeded";
                Some(Reply::negotiated(StatusCode::PAYLOAD_TOO_LARGE, message, "body_too_large"))
            }
            // The proxy ensures that the body is not longer than Content-Length.
            Some(_) => None,
            None => {
                let limit = &mut cx.body_changes.limit;
                *limit = Some(limit.map_or(max_bytes, |limit| limit.min(max_bytes)));
                None
            }
        }
    }
}

/// `target`: `None` if it is not a valid header value.
fn redirect_to(status: StatusCode, target: Option<HeaderValue>) -> Box<Reply> {
    match target {
        Some(target) => Reply::new(status, ReplyBody::Empty, "redirected").with_header(LOCATION, target),
        None => invalid_target(),
    }
}

fn invalid_target() -> Box<Reply> {
    Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, "An unexpected error occurred", "invalid_rewrite")
}

impl Plugin for LocationSteps {
    fn may_wait(&self) -> bool {
        false
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        if self.transport_security.is_some() {
            fields.response.add(&STRICT_TRANSPORT_SECURITY);
        }
        if self.cross_origin.is_some() {
            fields.response.add_all(&cross_origin::FIELDS);
        }
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        // A proxy in front of Portico that terminates TLS sets the field itself.
        if let (Some(value), Scheme::Https) = (&self.transport_security, cx.client.received.scheme) {
            cx.response_headers.insert(STRICT_TRANSPORT_SECURITY, value.clone());
        }
        if let Some(allow_origin) = self.cross_origin.as_ref().and_then(|rules| rules.allow_origin(&cx.head.headers)) {
            cx.set_plugin_data(allow_origin);
            if cx.head.method == Method::OPTIONS {
                return AccessOutcome::Reply(cross_origin::preflight_reply());
            }
        }
        if let Some(reply) = self.response_of_location(cx) {
            return AccessOutcome::Reply(reply);
        }
        if let Some(target) = self.https_redirect.and_then(|redirect| redirect.target(cx.client, cx.raw_target)) {
            let status = self.https_redirect.map_or(StatusCode::PERMANENT_REDIRECT, |redirect| redirect.status);
            return AccessOutcome::Reply(redirect_to(status, HeaderValue::try_from(target).ok()));
        }
        if !self.admits(cx) {
            let reply = Reply::negotiated(StatusCode::FORBIDDEN, "Forbidden", "address_not_allowed");
            return AccessOutcome::Reply(reply);
        }
        self.limit_body(cx).map_or(AccessOutcome::Continue, AccessOutcome::Reply)
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        let allow_origin = cx.plugin_data::<HeaderValue>().map(|value| value.clone());
        if let (Some(rules), Some(allow_origin)) = (&self.cross_origin, allow_origin) {
            rules.set_fields(allow_origin, cx.headers);
        }
        ResponseOutcome::Continue
    }
}

#[cfg(test)]
mod tests;
