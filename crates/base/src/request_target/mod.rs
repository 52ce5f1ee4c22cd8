//! The target of a request: its host, and its path and query, normalized as routes are matched with them. Configured
//! paths are written in the same form.
//!
//! ```text
//!   request line, Host ─┬▶ RequestHost ─▶ name in lower case, without port
//!                       └▶ RequestPath ─▶ path without dot segments, each character in one spelling
//!   configured path ─────▶ path_encoding ─▶ the path that such requests have
//! ```
//!
//! It knows no connection and no configuration, so that the proxy, checks of a gateway and fuzzing use the same code.

mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod host;
mod path;
pub mod path_encoding;

pub use error::{InvalidHost, InvalidTarget, TargetError};
pub use host::RequestHost;
pub use path::RequestPath;

use std::net::SocketAddr;

use http::{HeaderMap, Method, Uri, Version};

/// The host and the path of a request. There is no path for `OPTIONS *`, which is about the server. `local` is the
/// address at which the request has arrived, the host of HTTP/1.0 requests without one.
pub fn read(
    method: &Method,
    version: Version,
    uri: &Uri,
    headers: &HeaderMap,
    local: SocketAddr,
) -> Result<(RequestHost, Option<RequestPath>), TargetError> {
    let path = RequestPath::parse(method, uri)?;
    Ok((RequestHost::from_request(version, uri, headers, local)?, path))
}
