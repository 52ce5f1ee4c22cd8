//! Finds the end of a head as its bytes arrive. Most heads arrive at once and have no unusual line ends: for these, one
//! search suffices, and the parsed head shows whether it was right.

use std::sync::LazyLock;

use bytes::BytesMut;
use memchr::memchr_iter;
use memchr::memmem::Finder;

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
    /// Returns the length of the head up to the first two line ends CR LF in succession, unless a part of the head was
    /// examined before. If the head has other line ends, it may end earlier: [`LineEnds::are_in`] decides.
    pub(super) fn find_at_once(&self, bytes: &[u8], max_length: usize) -> Option<usize> {
        if self.examined > 0 {
            return None;
        }
        let bytes = bytes.get(..max_length).unwrap_or(bytes);
        let length = EMPTY_LINE.find(bytes)? + EMPTY_LINE.needle().len();
        bytes[..length].ends_with(b"\r\n\r\n").then_some(length)
    }

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

/// How the lines of a head may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineEnds {
    /// Its length is from [`HeadEnd::find_at_once`], so all must end in CR LF.
    Usual,
    /// Its length is from [`HeadEnd::find_checked`].
    Any,
}

impl LineEnds {
    /// Whether the head has such line ends. `fields` are all that httparse has found in it, and the head has exactly
    /// the length that httparse has found. So each line feed stands before the name of a field, or is one of the two at
    /// the end; if a CR stands before each, [`HeadEnd::find`] returns the same length, without a line feed alone.
    pub(super) fn are_in(self, head: &[u8], fields: &[httparse::Header<'_>]) -> bool {
        let is_after_line_end = |field: &httparse::Header<'_>| {
            let position = field.name.as_ptr().addr().checked_sub(head.as_ptr().addr());
            position.and_then(|position| head.get(..position)).is_some_and(|before| before.ends_with(b"\r\n"))
        };
        self == LineEnds::Any || fields.iter().all(is_after_line_end)
    }
}

/// Puts a head before what has arrived after it.
#[cold]
pub(super) fn put_back(head: &[u8], input: &mut BytesMut) {
    let rest = std::mem::take(input);
    input.extend_from_slice(head);
    input.extend_from_slice(&rest);
}

/// An empty line after another one. Without the CR of the other one, its first two bytes are nowhere else, which makes
/// the search faster.
static EMPTY_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n\r\n"));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX_LENGTH: usize = 80;

    /// The length that is found at once, if the head has usual line ends.
    fn find_confirmed(bytes: &[u8]) -> Option<usize> {
        let length = HeadEnd::default().find_at_once(bytes, MAX_LENGTH)?;
        let head = &bytes[..length];
        let mut memory = [httparse::EMPTY_HEADER; 20];
        let (parsed, fields) = if head.starts_with(b"HTTP") {
            let mut response = httparse::Response::new(&mut memory);
            (response.parse(head), response.headers)
        } else {
            let mut request = httparse::Request::new(&mut memory);
            (request.parse(head), request.headers)
        };
        (parsed == Ok(httparse::Status::Complete(length)) && LineEnds::Usual.are_in(head, fields)).then_some(length)
    }

    #[test]
    fn usual_heads_are_found_at_once() {
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\na:b\r\nempty:\r\nc:  d \r\n\r\n",
            "HTTP/1.1 200\r\na: b\r\n\r\n",
        ] {
            for rest in ["", "\n", "\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"] {
                let bytes = [head, rest].concat();
                assert_eq!(find_confirmed(bytes.as_bytes()), Some(head.len()), "{bytes:?}");
            }
            for length in 0..head.len() {
                assert_eq!(find_confirmed(&head.as_bytes()[..length]), None, "{length} bytes of {head:?}");
            }
        }
    }

    #[test]
    fn other_heads_are_not_found_at_once() {
        for bytes in [
            "GET / HTTP/1.1\n\r\n\r\n",
            "GET / HTTP/1.1\na: b\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\nc: d\r\n\r\n",
            "GET / HTTP/1.1\r\na: b \nc: d\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\n\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\r\n\n\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\n\nGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\na:\nb: c\r\n\r\n",
        ] {
            assert_eq!(find_confirmed(bytes.as_bytes()), None, "{bytes:?}");
        }
    }

    #[test]
    fn heads_of_which_a_part_was_examined_are_not_found_at_once() {
        let bytes = b"GET / HTTP/1.1\r\n\r\n";
        let mut end = HeadEnd::default();
        assert_eq!(end.find(&bytes[..1]), None);
        assert_eq!(end.find_at_once(bytes, MAX_LENGTH), None);
        assert_eq!(end.find(bytes), Some(bytes.len()));
    }

    #[test]
    fn heads_up_to_the_limit_are_found_at_once() {
        let bytes = b"GET / HTTP/1.1\r\n\r\n\r\n\r\n";
        assert_eq!(HeadEnd::default().find_at_once(bytes, 18), Some(18));
        assert_eq!(HeadEnd::default().find_at_once(bytes, 17), None);
    }

    /// Mostly heads, with some unusual line ends, and what follows them.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        const PIECES: &str = "a: b|cc:d|e:|f: g |a|:| |\t|HTTP/1.1 200 OK|GET / HTTP/1.1|\u{1}|\u{e9}||||";
        const ENDS: [&str; 10] = ["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n\r\n", "\r\n\r\n", "\n", "\r", ""];
        let beginning = prop::sample::select(&["GET / HTTP/1.1", "HTTP/1.1 200", "HTTP/1.1 200 OK", "x"][..]);
        let piece = prop::sample::select(PIECES.split('|').collect::<Vec<_>>());
        let lines = prop::collection::vec((piece, prop::sample::select(&ENDS[..])), 0..8);
        (beginning, prop::sample::select(&ENDS[..]), lines).prop_map(|(beginning, end, lines)| {
            let lines: String = lines.into_iter().flat_map(|(piece, end)| [piece, end]).collect();
            [beginning, end, &lines].concat().into_bytes()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn what_is_found_at_once_is_found_line_by_line(bytes in bytes()) {
            let mut end = HeadEnd::default();
            let (at_once, by_lines) = (find_confirmed(&bytes), end.find(&bytes));
            // The readers remove empty lines before they search.
            if let Some(length) = at_once {
                prop_assert_eq!((Some(length), false), (by_lines, end.has_bare_line_feed));
                prop_assert!(length <= MAX_LENGTH);
            }
        }
    }
}
