//! Descriptions of messages to send, as lines of text: a method and target, or a status and reason; options; fields up
//! to an empty line; and the frames of the body.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};

use super::odd_stream::OddStream;

pub(super) struct MessagePlan<'i> {
    pub(super) first_line: &'i [u8],
    options: &'i [u8],
    pub(super) fields: HeaderMap,
    body: PlannedBody,
    /// The data before an error.
    pub(super) data: Vec<u8>,
    pub(super) trailers: HeaderMap,
    pub(super) has_error: bool,
}

/// A body with the frames of a description.
#[derive(Clone, Debug, Default)]
pub(super) struct PlannedBody {
    frames: VecDeque<PlannedFrame>,
    reports_end: bool,
    length: Option<u64>,
}

#[derive(Clone, Debug)]
enum PlannedFrame {
    Data(Bytes),
    /// The frame after this one is not available at first.
    Pending,
    Trailers(HeaderMap),
    Error,
}

impl<'i> MessagePlan<'i> {
    pub(super) fn parse(input: &'i [u8]) -> Self {
        let mut lines = input.split(|byte| *byte == b'\n');
        let first_line = lines.next().unwrap_or_default();
        let options = lines.next().unwrap_or_default();
        let fields = lines.by_ref().take_while(|line| !line.is_empty()).take(MAX_FIELDS);
        let fields = fields.filter_map(parse_field).collect();
        let mut frames = VecDeque::new();
        let (mut data, mut trailers, mut has_error) = (Vec::new(), HeaderMap::new(), false);
        for line in lines {
            match line {
                [b'^', field @ ..] => trailers.extend(parse_field(field).filter(|_| trailers.len() < MAX_FIELDS)),
                b"~" => frames.push_back(PlannedFrame::Pending),
                b"!" => {
                    frames.push_back(PlannedFrame::Error);
                    has_error = true;
                    break;
                }
                line => {
                    let frame = parse_data(line, MAX_DATA - data.len());
                    data.extend_from_slice(&frame);
                    frames.push_back(PlannedFrame::Data(frame.into()));
                }
            }
        }
        if !trailers.is_empty() && !has_error {
            frames.push_back(PlannedFrame::Trailers(trailers.clone()));
        }
        let mut plan =
            MessagePlan { first_line, options, fields, body: PlannedBody::default(), data, trailers, has_error };
        let length = plan.data.len() as u64;
        let length = match () {
            () if plan.has(b'k') => Some(length),
            () if plan.has(b'm') => Some(length + 1),
            () if plan.has(b'l') => Some(length.saturating_sub(1)),
            () => None,
        };
        plan.body = PlannedBody { frames, reports_end: plan.has(b'e'), length };
        plan
    }

    /// Whether the line of options has this letter. Other characters say what the stream does.
    ///
    /// - `k`, `m`, `l`: the body reports its length, one byte more, or one byte less.
    /// - `e`: the body reports its end.
    /// - `h`: the request was HEAD. `o`: it was HTTP/1.0.
    /// - `p`: another request may follow. `t`: the client accepts trailers.
    pub(super) fn has(&self, option: u8) -> bool {
        self.options.contains(&option)
    }

    pub(super) fn body(&self) -> &PlannedBody {
        &self.body
    }

    /// The stream that the message is sent on.
    pub(super) fn stream(&self) -> OddStream<'i> {
        OddStream::new(self.options)
    }

    /// Whether the body has the length that it reports.
    pub(super) fn is_honest(&self) -> bool {
        !self.has_error && self.body.length.is_none_or(|length| length == self.data.len() as u64)
    }
}

impl Body for PlannedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(match self.frames.pop_front() {
            None => None,
            Some(PlannedFrame::Data(data)) => Some(Ok(Frame::data(data))),
            Some(PlannedFrame::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(PlannedFrame::Error) => Some(Err(io::ErrorKind::ConnectionReset.into())),
            Some(PlannedFrame::Pending) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.reports_end && self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

fn parse_field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_at(memchr::memchr(b':', line)?);
    Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value[1..].trim_ascii()).ok()?))
}

/// The bytes of a line, in which `|` stands for a line end. `7*ab` stands for seven bytes, `abababa`.
fn parse_data(line: &[u8], max_length: usize) -> Vec<u8> {
    let (count, text) = match memchr::memchr(b'*', line).map(|star| line.split_at(star)) {
        Some((count, [_, text @ ..])) => (str::from_utf8(count).ok().and_then(|count| count.parse().ok()), text),
        _ => (None, line),
    };
    let text: Vec<u8> = text
        .iter()
        .flat_map(|byte| if *byte == b'|' { b"\r\n" } else { std::slice::from_ref(byte) })
        .copied()
        .collect();
    let length = count.unwrap_or(text.len()).min(max_length);
    text.into_iter().cycle().take(length).collect()
}

/// Fewer than the limit of the readers, since writing a head adds some.
const MAX_FIELDS: usize = 50;
/// More than what waits in a message before its body is polled again.
const MAX_DATA: usize = 100_000;
