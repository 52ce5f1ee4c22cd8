//! The input of a policy: what it gets to know about a request.

use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::InputParts;
use crate::plugin_api::RequestCx;
use crate::plugin_kit::request_json::{headers, query};

/// The most groups of a regular expression in the input.
const MAX_CAPTURES: usize = 64;

impl InputParts {
    pub(super) fn input(self, cx: &RequestCx<'_>) -> Value {
        let host = cx.client.received.host;
        let mut http = json!({
            "host": host_name(host),
            "port": port(host).unwrap_or(cx.client.received.port),
            "method": cx.head.method.as_str(),
            "scheme": cx.client.scheme.as_str(),
            "path": cx.path,
            "querystring": query(cx.head.uri.query().unwrap_or_default()),
            "headers": headers(&cx.head.headers, cx.client.received.host),
        });
        if let Some(body) = cx.current_body() {
            if self.body {
                http["body"] = String::from_utf8_lossy(body).into();
                http["body_size"] = body.len().into();
            }
            let is_json = || {
                let content_type = cx.head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
                let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
                media_type.trim().eq_ignore_ascii_case("application/json")
            };
            if self.parsed_body
                && is_json()
                && let Ok(parsed) = serde_json::from_slice(body)
            {
                http["parsed_body"] = parsed;
            }
        }
        if self.uri_captures {
            let groups = (1..=MAX_CAPTURES).map_while(|number| cx.uri_captures.group(number));
            http["uri_captures"] = json!({"unnamed": groups.collect::<Vec<_>>()});
        }
        let mut input = json!({"request": {"http": http}, "client_ip": cx.client.address.to_string()});
        if self.service {
            input["service"] = json!({"name": &*cx.route.service});
        }
        if self.route {
            input["route"] = json!({"name": &*cx.route.route});
        }
        if let Some(consumer) = cx.identity.consumer.as_ref().filter(|_| self.consumer) {
            input["consumer"] = json!({
                "id": &**consumer.reported_id(),
                "username": consumer.username.as_deref(),
                "custom_id": consumer.custom_id().map(|id| &**id),
            });
        }
        json!({"input": input})
    }
}

/// The authority without its port.
fn host_name(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn port(authority: &str) -> Option<u16> {
    authority.rsplit_once(':')?.1.parse().ok()
}
