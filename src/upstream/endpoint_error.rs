//! Why a request got no response, or only a part of one.

use http::Request;
use hyper::client::conn::TrySendError;

use crate::http1::{InvalidMessage, SendFailure};

/// An error of a connection that had been established.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The library for HTTP/2 reports it.
    #[error(transparent)]
    Library(#[from] hyper::Error),
    #[error("the connection was closed before a response")]
    Closed,
    #[error("the response is invalid: {0}")]
    Invalid(InvalidMessage),
    #[error("the request was not sent to its end: {0}")]
    RequestBody(SendFailure),
}

/// Why a request got no response.
#[derive(Debug)]
pub enum RequestFailure<B> {
    /// Not a byte of the request was sent.
    Unsent(Box<Request<B>>),
    Failed(EndpointError),
}

impl<B> From<TrySendError<Request<B>>> for RequestFailure<B> {
    fn from(mut error: TrySendError<Request<B>>) -> Self {
        match error.take_message() {
            Some(unsent) => RequestFailure::Unsent(Box::new(unsent)),
            None => RequestFailure::Failed(error.into_error().into()),
        }
    }
}
