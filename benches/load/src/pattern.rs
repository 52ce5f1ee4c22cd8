//! What bodies are made of: one sequence known to both sides, so that a byte that is lost, doubled or swapped is seen.

use std::sync::LazyLock;

/// The longest body.
pub(crate) const LONGEST: usize = 1 << 20;

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(LONGEST);
    while bytes.len() < LONGEST {
        // xorshift64 (Marsaglia, 2003): no period that a chunk or a buffer could have.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
});

/// The body of this length.
pub(crate) fn body(length: usize) -> &'static [u8] {
    &BYTES[..length.min(LONGEST)]
}

/// Follows a body as it comes in.
#[derive(Default)]
pub(crate) struct Follow {
    pub(crate) length: usize,
    pub(crate) differs: bool,
}

impl Follow {
    pub(crate) fn read(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        self.differs |= BYTES.get(self.length..end) != Some(bytes);
        self.length = end;
    }
}
