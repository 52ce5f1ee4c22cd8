//! Reads the decision of an authorization server that uses `ext_authz`. A response that contradicts itself, or that
//! cannot be applied as a whole, is invalid.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::decision::Decision;
use super::ext_authz::check_response::HttpResponse;
use super::ext_authz::{
    CheckResponse, DeniedHttpResponse, HeaderAppendAction, HeaderValueOption, OkHttpResponse, OptionalBool,
};
use super::header_changes::{HeaderAction, HeaderChanges};
use crate::proxy::http::exchange::body_source::BodySource;

/// The server's response is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidCheck;

/// `max_fields`: the maximum number of headers that the server may change in a message.
pub(super) fn decide(response: CheckResponse, max_fields: usize) -> Result<Decision, InvalidCheck> {
    let is_allowed = response.status.map(|status| status.code == 0);
    match (is_allowed, response.http_response) {
        (Some(true) | None, Some(HttpResponse::OkResponse(ok))) => allow(ok, max_fields),
        (Some(true), None) => allow(OkHttpResponse::default(), max_fields),
        (Some(false) | None, Some(HttpResponse::DeniedResponse(denied))) => deny(denied, max_fields),
        (Some(false), Some(HttpResponse::OkResponse(_)) | None) => deny(DeniedHttpResponse::default(), max_fields),
        (Some(true), Some(HttpResponse::DeniedResponse(_))) | (None, None) => Err(InvalidCheck),
    }
}

fn allow(ok: OkHttpResponse, max_fields: usize) -> Result<Decision, InvalidCheck> {
    // Without these changes, the endpoint would get another request than the server has allowed.
    if !ok.query_parameters_to_set.is_empty() || !ok.query_parameters_to_remove.is_empty() {
        return Err(InvalidCheck);
    }
    let mut request = HeaderChanges::default();
    if ok.headers_to_remove.len() > max_fields {
        return Err(InvalidCheck);
    }
    // Pseudo-header fields cannot be removed, and naming them has no effect, as in Envoy.
    for name in ok.headers_to_remove.iter().filter(|name| !name.starts_with(':')) {
        request.remove(HeaderName::from_bytes(name.as_bytes()).map_err(|_| InvalidCheck)?);
    }
    add_changes(&mut request, ok.headers, max_fields)?;
    let mut response = HeaderChanges::default();
    add_changes(&mut response, ok.response_headers_to_add, max_fields)?;
    Ok(Decision::Allowed { request, response })
}

fn deny(denied: DeniedHttpResponse, max_fields: usize) -> Result<Decision, InvalidCheck> {
    let status = match denied.status.unwrap_or_default().code {
        0 => StatusCode::FORBIDDEN,
        code @ 200..=599 => {
            u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok()).ok_or(InvalidCheck)?
        }
        _ => return Err(InvalidCheck),
    };
    let mut changes = HeaderChanges::default();
    add_changes(&mut changes, denied.headers, max_fields)?;
    let mut response = Response::new(BodySource::Local(Bytes::from(denied.body)));
    *response.status_mut() = status;
    changes.apply(response.headers_mut());
    Ok(Decision::Denied { response: Box::new(response), kept: None })
}

fn add_changes(
    changes: &mut HeaderChanges,
    options: Vec<HeaderValueOption>,
    max_fields: usize,
) -> Result<(), InvalidCheck> {
    if options.len() > max_fields {
        return Err(InvalidCheck);
    }
    for option in options {
        let action = action(&option)?;
        let header = option.header.ok_or(InvalidCheck)?;
        let name = HeaderName::from_bytes(header.key.as_bytes()).map_err(|_| InvalidCheck)?;
        let value = if header.raw_value.is_empty() { header.value.into_bytes() } else { header.raw_value };
        let value = HeaderValue::try_from(value).map_err(|_| InvalidCheck)?;
        changes.push(name, value, action);
    }
    Ok(())
}

/// A header that names neither action is overwritten, as the protocol specifies for these messages. So a client cannot
/// add values to a header that the server sets.
fn action(option: &HeaderValueOption) -> Result<HeaderAction, InvalidCheck> {
    match option.append {
        Some(OptionalBool { value: true }) => return Ok(HeaderAction::Append),
        Some(OptionalBool { value: false }) => return Ok(HeaderAction::Overwrite),
        None => {}
    }
    match HeaderAppendAction::try_from(option.append_action) {
        Ok(HeaderAppendAction::AppendIfExistsOrAdd | HeaderAppendAction::OverwriteIfExistsOrAdd) => {
            Ok(HeaderAction::Overwrite)
        }
        Ok(HeaderAppendAction::AddIfAbsent) => Ok(HeaderAction::AddIfAbsent),
        Ok(HeaderAppendAction::OverwriteIfExists) => Ok(HeaderAction::OverwriteIfPresent),
        Err(_) => Err(InvalidCheck),
    }
}
