//! Finds the frames of a WebSocket connection in its bytes as they arrive (RFC 6455, section 5.2). Payloads are neither
//! kept nor read, only their lengths are added up for each message.

/// The side that sends frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameSender {
    /// Its frames are masked.
    Client,
    Endpoint,
}

/// Why a frame must not be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameViolation {
    /// The message has more bytes than the limit.
    TooLarge,
    /// The frame is not one that both sides understand in the same way.
    Invalid,
}

/// The frames that one side sends.
#[derive(Debug)]
pub(super) struct FrameScanner {
    sender: FrameSender,
    /// The most bytes of a message.
    limit: u64,
    /// How many bytes of the current frame are still to come.
    remaining: u64,
    /// The bytes of the message so far, whose last frame is still to come.
    fragmented: Option<u64>,
    has_closed: bool,
}

/// What was found in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ScannedBytes {
    /// How many bytes may be forwarded. Those after them are the beginning of a header whose rest is still to come, the
    /// frame that must not be forwarded, or what follows a close frame.
    pub(super) forwardable: usize,
    pub(super) result: Result<(), FrameViolation>,
}

/// The longest header: two bytes, eight of the length, and four of the mask.
pub(super) const MAX_HEADER_BYTES: usize = 14;

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PONG: u8 = 0xa;
const MASKED: u8 = 0x80;
const MASK_BYTES: usize = 4;
/// The longest payload of a control frame.
const MAX_CONTROL_PAYLOAD: u64 = 125;

/// A complete header.
struct CompleteHeader {
    /// The bytes of the header itself.
    length: usize,
    opcode: u8,
    is_final: bool,
    payload: u64,
}

impl FrameScanner {
    pub(super) fn new(sender: FrameSender, limit: u64) -> Self {
        FrameScanner { sender, limit, remaining: 0, fragmented: None, has_closed: false }
    }

    /// Scans the next bytes. They begin with those that the last call has not released for forwarding. After a
    /// violation, the state is as if the frame were not there.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> ScannedBytes {
        let mut forwardable = self.skip(bytes.len());
        while forwardable < bytes.len() && !self.has_ended() {
            match self.header(&bytes[forwardable..]) {
                Ok(Some(length)) => {
                    forwardable += length;
                    forwardable += self.skip(bytes.len() - forwardable);
                }
                Ok(None) => break,
                Err(violation) => return ScannedBytes { forwardable, result: Err(violation) },
            }
        }
        ScannedBytes { forwardable, result: Ok(()) }
    }

    /// How many of the next bytes belong to the current frame. They are counted as scanned.
    pub(super) fn skip(&mut self, length: usize) -> usize {
        let skipped = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(length);
        self.remaining -= skipped as u64;
        skipped
    }

    /// Whether a frame of the proxy may follow the bytes that were forwarded.
    pub(super) fn is_between_frames(&self) -> bool {
        self.remaining == 0
    }

    /// Whether a close frame was found, and all of it. Nothing may follow it (RFC 6455, section 5.5.1).
    pub(super) fn has_ended(&self) -> bool {
        self.has_closed && self.remaining == 0
    }

    /// Whether a close frame was found, which is the last frame of a side.
    pub(super) fn has_closed(&self) -> bool {
        self.has_closed
    }

    /// From now on, frames are only read until the side closes.
    pub(super) fn lift_limit(&mut self) {
        self.limit = u64::MAX;
    }

    /// Reads a header, and begins its frame. Returns the length of the header; `None` if it is incomplete.
    fn header(&mut self, bytes: &[u8]) -> Result<Option<usize>, FrameViolation> {
        let Some(CompleteHeader { length, opcode, is_final, payload }) = self.parse(bytes)? else { return Ok(None) };
        if opcode >= CLOSE {
            self.has_closed |= opcode == CLOSE;
        } else {
            let before = match (opcode, self.fragmented) {
                (CONTINUATION, Some(before)) => before,
                (TEXT | BINARY, None) => 0,
                _ => return Err(FrameViolation::Invalid),
            };
            let message = before.saturating_add(payload);
            if message > self.limit {
                return Err(FrameViolation::TooLarge);
            }
            self.fragmented = (!is_final).then_some(message);
        }
        self.remaining = payload;
        Ok(Some(length))
    }

    /// Frames with reserved bits or opcodes belong to extensions, of which none is negotiated.
    fn parse(&self, bytes: &[u8]) -> Result<Option<CompleteHeader>, FrameViolation> {
        let &[first, second, ..] = bytes else { return Ok(None) };
        let (is_final, opcode) = (first & FINAL != 0, first & OPCODE);
        let is_known = opcode <= BINARY || (CLOSE..=PONG).contains(&opcode);
        let is_masked = second & MASKED != 0;
        if first & RESERVED != 0 || !is_known || is_masked != (self.sender == FrameSender::Client) {
            return Err(FrameViolation::Invalid);
        }
        let extended = match second & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if is_masked { MASK_BYTES } else { 0 };
        let length = 2 + extended + mask;
        let payload = match bytes.get(2..2 + extended) {
            Some([]) => u64::from(second & !MASKED),
            Some(digits) => digits.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)),
            None => return Ok(None),
        };
        let is_minimal = match extended {
            2 => payload > 125,
            8 => payload > u64::from(u16::MAX),
            _ => true,
        };
        let is_control = opcode >= CLOSE;
        if !is_minimal || payload > i64::MAX as u64 || is_control && (!is_final || payload > MAX_CONTROL_PAYLOAD) {
            return Err(FrameViolation::Invalid);
        }
        Ok((bytes.len() >= length).then_some(CompleteHeader { length, opcode, is_final, payload }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame with this first byte.
    fn frame(first: u8, sender: FrameSender, payload: usize) -> Vec<u8> {
        let masked = if sender == FrameSender::Client { MASKED } else { 0 };
        let mut frame = match payload {
            0..126 => vec![first, masked | payload as u8],
            126..0x1_0000 => [&[first, masked | 126][..], &(payload as u16).to_be_bytes()].concat(),
            _ => [&[first, masked | 127][..], &(payload as u64).to_be_bytes()].concat(),
        };
        if masked != 0 {
            frame.extend([1, 2, 3, 4]);
        }
        frame.resize(frame.len() + payload, b'x');
        frame
    }

    fn client(first: u8, payload: usize) -> Vec<u8> {
        frame(first, FrameSender::Client, payload)
    }

    /// Scans bytes that arrive in parts of this size, as the caller does. Returns what may be forwarded.
    fn scan(scanner: &mut FrameScanner, bytes: &[u8], size: usize) -> (Vec<u8>, Result<(), FrameViolation>) {
        let (mut forwarded, mut held) = (Vec::new(), Vec::new());
        for part in bytes.chunks(size) {
            held.extend_from_slice(part);
            let ScannedBytes { forwardable, result } = scanner.scan(&held);
            forwarded.extend(held.drain(..forwardable));
            if result.is_err() {
                return (forwarded, result);
            }
            assert!(held.len() < MAX_HEADER_BYTES || scanner.has_ended(), "only a part of a header is held");
        }
        (forwarded, Ok(()))
    }

    #[test]
    fn messages_are_measured_however_they_arrive() {
        const TEXT_PART: u8 = TEXT;
        const LAST: u8 = FINAL | CONTINUATION;
        const PING: u8 = FINAL | 0x9;
        let too_large = Err(FrameViolation::TooLarge);
        for (frames, forwarded, expected) in [
            (vec![client(FINAL | TEXT, 1000), client(FINAL | BINARY, 1000)], 2, Ok(())),
            (vec![client(FINAL | TEXT, 1001)], 0, too_large),
            (vec![client(FINAL | TEXT, 0), client(FINAL | TEXT, 70_000)], 1, too_large),
            (vec![client(TEXT_PART, 500), client(LAST, 500)], 2, Ok(())),
            (vec![client(TEXT_PART, 500), client(PING, 125), client(CONTINUATION, 500), client(LAST, 1)], 3, too_large),
            (vec![client(TEXT_PART, 600), client(LAST, 400), client(TEXT_PART, 600), client(LAST, 400)], 4, Ok(())),
        ] {
            let bytes = frames.concat();
            for size in [1, 2, 3, 7, 100, 100_000] {
                let mut scanner = FrameScanner::new(FrameSender::Client, 1000);
                let (found, result) = scan(&mut scanner, &bytes, size);
                assert_eq!(result, expected, "{size}");
                assert!(found == frames[..forwarded].concat(), "{size}");
                assert!(scanner.is_between_frames());
            }
        }
    }

    #[test]
    fn invalid_frames_are_refused() {
        let huge = [&[FINAL | TEXT, 127][..], &u64::MAX.to_be_bytes()].concat();
        let endpoint = |first, payload| frame(first, FrameSender::Endpoint, payload);
        for (description, bytes) in [
            ("a reserved bit", endpoint(FINAL | 0x40 | TEXT, 1)),
            ("a reserved opcode", endpoint(FINAL | 0x3, 1)),
            ("a reserved control opcode", endpoint(FINAL | 0xb, 1)),
            ("masked by the endpoint", client(FINAL | TEXT, 1)),
            ("a fragmented ping", endpoint(0x9, 1)),
            ("a long ping", endpoint(FINAL | 0x9, 126)),
            ("a continuation of nothing", endpoint(FINAL | CONTINUATION, 1)),
            ("a message within another", [endpoint(TEXT, 1), endpoint(FINAL | TEXT, 1)].concat()),
            ("a negative length", huge),
            ("a length of 125 in two bytes", vec![FINAL | TEXT, 126, 0, 125]),
            ("a length of 65535 in eight bytes", vec![FINAL | TEXT, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
            ("a length of 0 in eight bytes", vec![FINAL | BINARY, 127, 0, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            let mut scanner = FrameScanner::new(FrameSender::Endpoint, u64::MAX);
            assert_eq!(scan(&mut scanner, &bytes, 1).1, Err(FrameViolation::Invalid), "{description}");
        }
        let mut scanner = FrameScanner::new(FrameSender::Client, 10);
        assert_eq!(scan(&mut scanner, &endpoint(FINAL | TEXT, 1), 9).1, Err(FrameViolation::Invalid), "not masked");
    }

    #[test]
    fn nothing_after_a_close_frame_may_be_forwarded() {
        let close = frame(FINAL | CLOSE, FrameSender::Endpoint, 2);
        let bytes = [&close[..], &frame(FINAL | TEXT, FrameSender::Endpoint, 5), b"\xff\xff"].concat();
        for size in [1, 3, 4, 100] {
            let mut scanner = FrameScanner::new(FrameSender::Endpoint, 1000);
            assert_eq!(scan(&mut scanner, &bytes, size), (close.clone(), Ok(())), "{size}");
            assert!(scanner.has_ended());
        }
    }

    #[test]
    fn what_follows_a_violation_is_read_until_the_side_closes() {
        let frames = [client(TEXT, 2000), client(FINAL | CONTINUATION, 70_000), client(FINAL | CLOSE, 2)].concat();
        let mut scanner = FrameScanner::new(FrameSender::Client, 1000);
        assert_eq!(scan(&mut scanner, &frames, 5).1, Err(FrameViolation::TooLarge));
        scanner.lift_limit();
        assert!(!scanner.has_closed());
        assert_eq!(scan(&mut scanner, &frames, 5).1, Ok(()));
        assert!(scanner.has_closed());
    }

    proptest! {
        #[test]
        fn parts_do_not_matter(bytes in prop::collection::vec(any::<u8>(), 0..200), size in 1..20_usize) {
            let [mut whole, mut parts] = [(); 2].map(|()| FrameScanner::new(FrameSender::Client, 50));
            prop_assert_eq!(scan(&mut whole, &bytes, 1000), scan(&mut parts, &bytes, size));
        }
    }
}
