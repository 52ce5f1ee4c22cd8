//! Finds the end of a head as its bytes arrive.

use memchr::memchr_iter;

use super::InvalidMessage;

/// Lines end in CR LF. A line feed alone also ends a line, as many recipients read it, but is reported: others do not.
#[derive(Debug, Default)]
pub(super) struct HeadEnd {
    /// How many bytes were examined.
    examined: usize,
    line_start: usize,
    pub(super) has_bare_line_feed: bool,
    /// The length from which an incomplete head is parsed next.
    next_check: usize,
}

impl HeadEnd {
    /// Returns the length of the head, with the empty line at its end, if it has arrived. `bytes` begin with those of
    /// earlier calls. `check` parses an incomplete head, to reject what cannot become one.
    pub(super) fn find_checked(
        &mut self,
        bytes: &[u8],
        max_length: usize,
        check: impl FnOnce() -> Result<(), InvalidMessage>,
    ) -> Result<Option<usize>, InvalidMessage> {
        let length = self.find(bytes);
        if length.map_or(bytes.len() >= max_length, |length| length > max_length) {
            return Err(InvalidMessage::TooLarge);
        }
        if length.is_none() && self.must_check(bytes.len()) {
            check()?;
        }
        Ok(length)
    }

    /// The same without limit and check.
    pub(super) fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let unexamined = self.examined;
        for position in memchr_iter(b'\n', &bytes[unexamined..]) {
            let line_end = unexamined + position;
            let line = &bytes[self.line_start..line_end];
            self.line_start = line_end + 1;
            let stripped = line.strip_suffix(b"\r");
            self.has_bare_line_feed |= stripped.is_none();
            if stripped.unwrap_or(line).is_empty() {
                return Some(line_end + 1);
            }
        }
        self.examined = bytes.len();
        None
    }

    /// Whether an incomplete head of this length must be parsed. The lengths at which it must double, so that bytes
    /// that arrive slowly cost no more than others.
    fn must_check(&mut self, length: usize) -> bool {
        let must_check = length >= self.next_check;
        if must_check {
            self.next_check = length * 2;
        }
        must_check
    }
}
