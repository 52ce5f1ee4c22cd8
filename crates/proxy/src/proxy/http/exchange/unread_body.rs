//! The rest of a request body that its HTTP/1 connection has not read.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::http1::InvalidMessage;

/// A connection that reads the body of its current request on demand. Requests have numbers, because a body may outlive
/// the request that it belongs to.
pub(in crate::proxy) trait BodyReader {
    fn poll_body(&self, request: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, InvalidMessage>>>;

    /// Whether the body of this request is read to its end.
    fn is_body_ended(&self, request: u64) -> bool;

    fn body_size(&self, request: u64) -> SizeHint;

    /// The body of this request is not read further.
    fn end_body(&self, request: u64);
}

pub(in crate::proxy) struct UnreadBody {
    /// The connection, of which this knows nothing else. Requests without a body do not have it.
    reader: Rc<dyn BodyReader>,
    /// The number of the request.
    request: u64,
}

impl UnreadBody {
    pub(in crate::proxy) fn new(reader: Rc<dyn BodyReader>, request: u64) -> Self {
        UnreadBody { reader, request }
    }

    pub(in crate::proxy) fn poll_frame(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, InvalidMessage>>> {
        self.reader.poll_body(self.request, cx)
    }

    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        self.reader.is_body_ended(self.request)
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        self.reader.body_size(self.request)
    }
}

impl Drop for UnreadBody {
    fn drop(&mut self) {
        self.reader.end_body(self.request);
    }
}
