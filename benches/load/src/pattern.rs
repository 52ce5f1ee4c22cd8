//! Content of bodies: a sequence that load generator and backend know, so that lost, duplicated or swapped bytes are
//! detected.

use std::sync::LazyLock;

/// Maximum length of a body.
pub(crate) const MAX_BODY: usize = 10_000_000;

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(MAX_BODY);
    while bytes.len() < MAX_BODY {
        // xorshift64 (Marsaglia, 2003): its period never aligns with chunks or buffers.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
});

/// The body with a given length.
pub(crate) fn body(length: usize) -> &'static [u8] {
    &BYTES[..length.min(MAX_BODY)]
}

/// Verifies a body incrementally.
#[derive(Default)]
pub(crate) struct BodyChecker {
    /// The number of bytes read.
    pub(crate) length: usize,
    pub(crate) differs: bool,
}

impl BodyChecker {
    pub(crate) fn read(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        self.differs |= BYTES.get(self.length..end) != Some(bytes);
        self.length = end;
    }
}
