//! Where the record of a request is. It is large, and passes through many hands: from the steps to the body of the
//! response, which ends it. So only its address moves. Its memory is that of an earlier request of the thread.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use super::request_record::RequestRecord;

thread_local!(static UNUSED: RefCell<Vec<RecordPlace>> = const { RefCell::new(Vec::new()) });

/// Memory for a record. It stays where it is, whether it is used or not.
type RecordPlace = Box<Option<RequestRecord>>;

/// The record of a request. Dropping it finishes the record.
pub(in crate::proxy) struct HeldRecord {
    /// Both are `Some` until this is dropped.
    place: Option<RecordPlace>,
}

impl HeldRecord {
    pub(in crate::proxy) fn new(record: RequestRecord) -> Self {
        let mut place = UNUSED.with_borrow_mut(Vec::pop).unwrap_or_default();
        *place = Some(record);
        HeldRecord { place: Some(place) }
    }
}

impl Deref for HeldRecord {
    type Target = RequestRecord;

    fn deref(&self) -> &RequestRecord {
        self.place.as_deref().and_then(Option::as_ref).expect(IN_USE)
    }
}

impl DerefMut for HeldRecord {
    fn deref_mut(&mut self) -> &mut RequestRecord {
        self.place.as_deref_mut().and_then(Option::as_mut).expect(IN_USE)
    }
}

impl Drop for HeldRecord {
    fn drop(&mut self) {
        let Some(mut place) = self.place.take() else { return };
        // Outside of the closure, because this finishes the record, which runs much other code.
        *place = None;
        UNUSED.with_borrow_mut(|unused| {
            if unused.len() < MAX_UNUSED {
                unused.push(place);
            }
        });
    }
}

const IN_USE: &str = "the record is there until it is dropped";
/// About the usual number of concurrent requests of one worker.
const MAX_UNUSED: usize = 64;
