//! Authorization by an HTTP request: status 200 allows the request of the client, any other response denies it.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE, HOST,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};

use super::decision::Decision;
use super::header_changes::{HeaderAction, HeaderChanges};
use super::server_call;
use crate::plugin_api::AssertedFields;
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::exchange::request_body::RequestBody;
use crate::proxy::http::record::request_error::RequestError;
use crate::proxy::http::steps::request_context::RoutedRequest;
use crate::proxy::http::steps::side_request;
use crate::snapshot::external_auth::HttpAuthorization;
use crate::upstream::Upstream;

pub(super) async fn check(
    exchange: &Rc<ClientExchange>,
    upstream: &Arc<Upstream>,
    settings: &HttpAuthorization,
    routed: &RoutedRequest<'_>,
    request: &Request<RequestBody>,
    hash: Option<u64>,
    body: Bytes,
) -> Result<Decision, RequestError> {
    let request = build_request(exchange, settings, routed, request, body)?;
    let response = server_call::send(exchange, upstream, request, routed.hops, routed.client, hash).await?;
    if response.status() != StatusCode::OK {
        return Ok(Decision::Denied { response: Box::new(response), kept: None });
    }
    let (head, body) = response.into_parts();
    side_request::drain(body).await;
    let request = copied_headers(settings.response_headers.as_ref().map(AssertedFields::names), &head.headers);
    Ok(Decision::Allowed { request, response: HeaderChanges::default() })
}

/// The request to the server: method, Host and path of the client's request, and the headers that are listed.
fn build_request(
    exchange: &Rc<ClientExchange>,
    settings: &HttpAuthorization,
    routed: &RoutedRequest<'_>,
    request: &Request<RequestBody>,
    body: Bytes,
) -> Result<Request<RequestBody>, RequestError> {
    let mut headers = HeaderMap::with_capacity(settings.request_headers.len() + 2);
    headers.insert(HOST, routed.host.raw.clone());
    // Also if there is no body, whatever the method.
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    for name in &settings.request_headers {
        for value in request.headers().get_all(name) {
            headers.append(name, value.clone());
        }
    }
    let target = target_with_prefix(&settings.path_prefix, routed)?;
    let mut authorization = Request::new(RequestBody::from_bytes(body, exchange));
    *authorization.method_mut() = request.method().clone();
    *authorization.uri_mut() = Uri::from(target);
    *authorization.headers_mut() = headers;
    Ok(authorization)
}

/// The path that was matched, with the query of the request.
fn target_with_prefix(prefix: &str, routed: &RoutedRequest<'_>) -> Result<PathAndQuery, RequestError> {
    let (path, query) = (routed.path.path(), routed.endpoint_path().query());
    let mut target = String::with_capacity(prefix.len() + path.len() + query.map_or(0, |query| query.len() + 1));
    target.push_str(prefix);
    target.push_str(path);
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    PathAndQuery::from_maybe_shared(Bytes::from(target)).map_err(|_| RequestError::InvalidRewrite)
}

/// The headers of the response that replace those of the request. The server decides about every listed header, so
/// those of the client are removed even if the response lacks them.
fn copied_headers(listed: Option<&[HeaderName]>, response: &HeaderMap) -> HeaderChanges {
    let mut changes = HeaderChanges::default();
    match listed {
        Some(listed) => {
            for name in listed {
                changes.remove(name.clone());
                for value in response.get_all(name) {
                    changes.push(name.clone(), value.clone(), HeaderAction::Append);
                }
            }
        }
        None => {
            for (name, value) in response.iter().filter(|(name, _)| !DESCRIBES_BODY.contains(name)) {
                changes.push(name.clone(), value.clone(), HeaderAction::Overwrite);
            }
        }
    }
    changes
}

/// Headers about the body of the response, which would be wrong about the body of the request.
static DESCRIBES_BODY: [HeaderName; 5] =
    [CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE];

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &str) -> HeaderMap {
        let fields = text.lines().map(|line| line.split_once(": ").unwrap());
        fields.map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn server_decides_about_listed_headers() {
        let user: &[HeaderName] = &[HeaderName::from_static("x-user"), HeaderName::from_static("x-group")];
        let response = "x-user: eve\nx-other: o\nhost: h\ncontent-length: 3\ncontent-type: text/plain\nset-cookie: a=1";
        let cases = [
            (Some(user), "x-user: admin\nx-other: 1", response, "x-other: 1\nx-user: eve"),
            // Absent in the response, and spelled as CGI would read it.
            (Some(user), "x-user: admin\nx-group: root\nx_user: admin\nx_group: root", "a: b", ""),
            (Some(user), "host: a", "x-user: a\nx-user: b", "host: a\nx-user: a\nx-user: b"),
            (
                None,
                "x-user: admin\nx_user: admin\nx-kept: 1\nhost: a\ncontent-length: 7\ncontent-type: image/png",
                response,
                "content-length: 7\ncontent-type: image/png\nhost: a\nset-cookie: a=1\nx-kept: 1\nx-other: o\nx-user: eve",
            ),
        ];
        for (listed, request, response, expected) in cases {
            let mut request = headers(request);
            copied_headers(listed, &headers(response)).apply(&mut request);
            let mut lines: Vec<_> =
                request.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
            lines.sort();
            assert_eq!(lines.join("\n"), expected, "{listed:?} {response}");
        }
    }
}
