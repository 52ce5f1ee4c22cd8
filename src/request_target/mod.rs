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
