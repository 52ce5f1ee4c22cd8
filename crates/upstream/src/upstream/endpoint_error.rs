//! Why a request got no response, or only a part of one.

use std::error::Error as _;

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
    #[error("the connection was reset before a response")]
    Reset,
    #[error("the response is invalid: {0}")]
    Invalid(InvalidMessage),
    #[error("the request was not sent to its end: {0}")]
    RequestBody(SendFailure),
}

impl EndpointError {
    /// Whether the endpoint or the network has caused the error, and not this process, which resets streams of requests
    /// that their clients have given up.
    pub(super) fn is_of_endpoint(&self) -> bool {
        let error = match self {
            EndpointError::Closed | EndpointError::Reset | EndpointError::Invalid(_) => return true,
            EndpointError::RequestBody(_) => return false,
            EndpointError::Library(error) => error,
        };
        match error.source().and_then(|source| source.downcast_ref::<h2::Error>()) {
            Some(error) => error.is_remote() || error.is_library() || error.is_io() || error.is_go_away(),
            None => !error.is_user(),
        }
    }
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
