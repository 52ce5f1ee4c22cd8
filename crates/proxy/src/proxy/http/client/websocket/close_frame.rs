//! Close frames that the proxy sends in place of one of the sides (RFC 6455, sections 5.5.1 and 7.4.1).

use super::frames::FrameSender;

/// Why the proxy closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// Because of the other side.
    GoingAway,
    ProtocolError,
    MessageTooBig,
}

impl CloseReason {
    /// The status, and Kong's text.
    fn content(self) -> (u16, &'static str) {
        match self {
            CloseReason::GoingAway => (1001, "Going Away"),
            CloseReason::ProtocolError => (1002, "Protocol Error"),
            CloseReason::MessageTooBig => (1009, "Payload Too Large"),
        }
    }
}

/// A whole close frame.
#[derive(Debug)]
pub(super) struct CloseFrame(Vec<u8>);

impl CloseFrame {
    /// The frame that is sent in place of one of this side. That of a client is masked.
    pub(super) fn from(sender: FrameSender, reason: CloseReason) -> Self {
        let (status, text) = reason.content();
        let payload = [&status.to_be_bytes(), text.as_bytes()].concat();
        // All texts are shorter than the 123 bytes that are allowed.
        let length = payload.len() as u8;
        CloseFrame(match sender {
            FrameSender::Endpoint => [&[FINAL_CLOSE, length], &payload[..]].concat(),
            FrameSender::Client => {
                let mask = fastrand::u32(..).to_ne_bytes();
                let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
                [FINAL_CLOSE, MASKED | length].into_iter().chain(mask).chain(masked).collect()
            }
        })
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

const FINAL_CLOSE: u8 = 0x88;
const MASKED: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_status_and_text() {
        let frame = CloseFrame::from(FrameSender::Endpoint, CloseReason::MessageTooBig);
        assert_eq!(frame.as_bytes(), b"\x88\x13\x03\xf1Payload Too Large");
        let frame = CloseFrame::from(FrameSender::Client, CloseReason::GoingAway);
        let [0x88, 0x8c, mask @ .., b'!'] = &[&frame.as_bytes()[..6], b"!"].concat()[..] else {
            panic!("{frame:?}");
        };
        let payload: Vec<u8> = frame.as_bytes()[6..].iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b).collect();
        assert_eq!(payload, b"\x03\xe9Going Away");
    }
}
