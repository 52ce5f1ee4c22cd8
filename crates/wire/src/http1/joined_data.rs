//! Data of a body that arrived in several frames, joined into one piece.

use bytes::{Bytes, BytesMut};

/// Joined data. Most bodies arrive in one piece, which is not copied.
#[derive(Default)]
pub struct JoinedData {
    first: Bytes,
    all: BytesMut,
}

impl JoinedData {
    pub fn push(&mut self, data: Bytes) {
        if self.is_empty() {
            self.first = data;
        } else {
            if self.all.is_empty() {
                self.all.extend_from_slice(&std::mem::take(&mut self.first));
            }
            self.all.extend_from_slice(&data);
        }
    }

    pub fn len(&self) -> usize {
        self.first.len() + self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes all data.
    pub fn take(&mut self) -> Bytes {
        let first = std::mem::take(&mut self.first);
        if self.all.is_empty() { first } else { std::mem::take(&mut self.all).freeze() }
    }
}
