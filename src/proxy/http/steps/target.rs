//! Reads the target of a request: its host, its path and the requested upgrade. Ambiguous targets are rejected.

use http::header::HOST;
use http::{Request, Version};

use super::early_exit::EarlyExit;
use super::request_context::RequestContext;
use crate::http2_frames::{FRAGMENT_HOST, UNREADABLE_HOST};
use crate::proxy::http::exchange::request_body::RequestBody;
use crate::proxy::http::fields::headers::join_cookies;
use crate::proxy::http::forwarding::framing;
use crate::proxy::http::forwarding::upgrade::Upgrade;
use crate::proxy::http::record::request_error::RequestError;
use crate::request_target::{self, InvalidHost, RequestHost, RequestPath, TargetError};

/// The host and path to match and to forward, and the requested upgrade.
pub(in crate::proxy) struct RequestTarget {
    pub(in crate::proxy) host: RequestHost,
    pub(in crate::proxy) path: RequestPath,
    pub(in crate::proxy) upgrade: Option<Box<Upgrade>>,
}

/// Checks the head of the request and reads its target.
pub(in crate::proxy) fn read_target(
    cx: &RequestContext<'_>,
    request: &mut Request<RequestBody>,
) -> Result<RequestTarget, EarlyExit> {
    let exchange = cx.exchange();
    if let Some(error) = exchange.activity.ambiguity.get() {
        return Err(error.into());
    }
    let upgrade = Upgrade::take(request)?;
    framing::check_request(request)?;
    // Before fields are counted: a browser sends each cookie in a field of its own in HTTP/2.
    join_cookies(request.headers_mut());
    if request.headers().len() > exchange.worker().limits.max_request_fields {
        return Err(RequestError::TooManyHeaders.into());
    }
    let local = exchange.connections.address.socket;
    let target = request_target::read(request.method(), request.version(), request.uri(), request.headers(), local);
    let (host, path) = target.map_err(|error| target_error(request, error))?;
    let path = path.ok_or(EarlyExit::ServerOptions)?;
    exchange.http.rejected_paths.check(path.path()).map_err(RequestError::InvalidTarget)?;
    Ok(RequestTarget { host, path, upgrade })
}

/// The error of a request without a usable target. An HTTP/2 request that was rejected before it was read has a Host
/// field that says why, after its own one if it has one.
#[cold]
fn target_error(request: &Request<RequestBody>, error: TargetError) -> RequestError {
    let is_marked = request.version() == Version::HTTP_2
        && matches!(error, TargetError::Host(InvalidHost::Several | InvalidHost::Malformed));
    let mark = request.headers().get_all(HOST).iter().take(2).last().filter(|_| is_marked);
    match mark.map(|mark| mark.as_bytes()) {
        Some(FRAGMENT_HOST) => RequestError::InvalidTarget("the target has a fragment"),
        Some(UNREADABLE_HOST) => {
            RequestError::InvalidTarget("its header block, or an earlier one of the connection, cannot be read")
        }
        _ => error.into(),
    }
}
