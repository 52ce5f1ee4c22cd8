//! The client's side of FastCGI 1.0: requests of the role Responder, one for each connection, in records as the
//! [specification](https://fastcgi-archives.github.io/FastCGI_Specification.html) describes them.
//!
//! ```text
//!   request ─▶ write_request ─▶ BEGIN_REQUEST, PARAMS …, PARAMS (empty)
//!   body ────▶ push_stdin_header ─▶ STDIN …, STDIN (empty)
//!   bytes of an endpoint ─▶ StdoutDecoder ─▶ data of STDOUT records; the beginning of STDERR for the log
//! ```
//!
//! The HTTP/1 codec sends the body, and reads the head that the data of STDOUT begins with, because both are as in
//! HTTP/1. That is why there is no library: those that exist make the connection and the pace of the bodies their own.

mod fields;
mod params;
mod record;
mod stdout;

pub use fields::write_request;
pub use params::FastCgiParams;
pub use record::InvalidRecord;
pub(crate) use record::{MAX_CONTENT, push_stdin_header};
pub(crate) use stdout::{StdoutDecoder, StdoutPart};
