//! The rest of a request body that its HTTP/1 connection has not read.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::client_io::ClientIo;
use crate::http1::{BodyDecoder, InvalidMessage};

pub(in crate::proxy) struct UnreadBody {
    io: Rc<ClientIo>,
    /// The number of the request.
    request: u64,
}

impl UnreadBody {
    /// The body of the current request. None if it has none.
    pub(in crate::proxy) fn of_current_request(io: &Rc<ClientIo>) -> Option<Self> {
        Some(UnreadBody { request: io.begin_body()?, io: Rc::clone(io) })
    }

    pub(in crate::proxy) fn poll_frame(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, InvalidMessage>>> {
        self.io.poll_body(self.request, cx)
    }

    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        self.io.body(self.request).is_some_and(|body| body.is_ended())
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        self.io.body(self.request).map_or_else(SizeHint::default, |body| BodyDecoder::size_hint(&body))
    }
}

impl Drop for UnreadBody {
    fn drop(&mut self) {
        self.io.end_body(self.request);
    }
}
