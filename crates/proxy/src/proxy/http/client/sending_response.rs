//! A response of an HTTP/2 stream of which the connection holds data, until that is sent.
//!
//! The library drops the body of a response when it has taken the last data, which the client may not read for long. So
//! the record of the request, with all that the response holds in memory, passes to its unsent data. The stream has no
//! task any more, so the connection checks whether the client reads.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use bytes::{Buf, Bytes};

use super::deadlines::is_unread_too_long;
use crate::proxy::http::exchange::unsent_responses::{CountedBytes, EndingResponse, UnsentResponses};
use crate::proxy::http::steps::held_record::HeldRecord;

/// A response with data that counts. Its body and each part of its data have a reference to it.
pub(super) struct SendingResponse {
    connection: Rc<UnsentResponses>,
    /// Bytes of parts that exist.
    unsent: Cell<usize>,
    /// Bytes that were dropped before they were sent.
    lost: Cell<usize>,
    /// The record of the request, once the library has all data.
    record: RefCell<Option<HeldRecord>>,
}

impl SendingResponse {
    pub(super) fn new(connection: &Rc<UnsentResponses>) -> Rc<Self> {
        Rc::new(SendingResponse {
            connection: Rc::clone(connection),
            unsent: Cell::new(0),
            lost: Cell::new(0),
            record: RefCell::default(),
        })
    }

    /// Counts the data until it is dropped.
    pub(super) fn count(self: &Rc<Self>, bytes: Bytes) -> UnsentData {
        let length = bytes.len();
        self.unsent.set(self.unsent.get() + length);
        let counted = CountedPart { _bytes: self.connection.count(length), response: Rc::clone(self), length };
        UnsentData { bytes, counted: Some(counted) }
    }

    /// The bytes that were not sent so far, or never will be.
    pub(super) fn missing(&self) -> usize {
        self.unsent.get() + self.lost.get()
    }

    /// The library has all data. Ends the record when all of it is sent or dropped.
    pub(super) fn end(self: Rc<Self>, record: HeldRecord) {
        *self.record.borrow_mut() = Some(record);
        let ending: Weak<Self> = Rc::downgrade(&self);
        self.connection.begin_ending(ending);
    }

    /// Bytes were sent. Before the record has passed to this, the stream records its own progress.
    fn record_sent(&self) {
        if let Some(record) = &*self.record.borrow() {
            record.exchange.activity.record_progress();
        }
    }
}

impl EndingResponse for SendingResponse {
    fn has_stalled(&self) -> bool {
        self.record.borrow().as_ref().is_some_and(|record| is_unread_too_long(&record.exchange))
    }
}

impl Drop for SendingResponse {
    fn drop(&mut self) {
        let Some(mut record) = self.record.take() else { return };
        self.connection.end_ending();
        let lost = self.lost.get();
        record.facts.bytes_out = record.facts.bytes_out.saturating_sub(lost as u64);
        if lost == 0 {
            record.finish();
        }
    }
}

/// Data of a response body, as the connection to the client holds it until it is sent.
pub(in crate::proxy) struct UnsentData {
    bytes: Bytes,
    counted: Option<CountedPart>,
}

struct CountedPart {
    _bytes: CountedBytes,
    response: Rc<SendingResponse>,
    length: usize,
}

impl UnsentData {
    pub(super) fn uncounted(bytes: Bytes) -> Self {
        UnsentData { bytes, counted: None }
    }
}

impl Buf for UnsentData {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(counted) = &self.counted {
            counted.response.record_sent();
        }
    }

    /// Does not copy.
    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.bytes.copy_to_bytes(length)
    }
}

impl Drop for UnsentData {
    fn drop(&mut self) {
        let Some(CountedPart { response, length, .. }) = self.counted.take() else { return };
        response.unsent.set(response.unsent.get() - length);
        response.lost.set(response.lost.get() + self.bytes.len());
        if Rc::strong_count(&response) == 1 {
            let connection = Rc::clone(&response.connection);
            connection.drop_later(response);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::proxy::unforwarded_budget::{UnforwardedBudget, WorkerUnforwarded};

    #[test]
    fn data_counts_until_it_is_dropped() {
        let worker = WorkerUnforwarded::new(Arc::new(UnforwardedBudget::new(1 << 20, 1)));
        let free = worker.free();
        let response = SendingResponse::new(&UnsentResponses::new(&worker));
        let mut unsent = response.count(Bytes::from(vec![b'x'; 1000]));
        unsent.advance(400);
        assert_eq!((unsent.remaining(), unsent.chunk().len(), worker.free()), (600, 600, free - 1000));
        assert_eq!(response.missing(), 1000);
        drop(unsent);
        assert_eq!((worker.free(), response.missing()), (free, 600), "the rest was not sent");
        let uncounted = UnsentData::uncounted(Bytes::from_static(b"0123456789"));
        assert_eq!((uncounted.remaining(), worker.free()), (10, free));
    }
}
