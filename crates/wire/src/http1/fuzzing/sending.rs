//! Sends a message of a description, and checks what the sender reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::BytesMut;
use http::HeaderName;

use super::message_plan::{MessagePlan, PlannedBody};
use super::odd_stream::OddStream;
use crate::http1::{BodyFraming, OutgoingMessage, SendFailure};

/// A message that was sent, perhaps not to its end.
pub(super) struct SentMessage {
    pub(super) wire: Vec<u8>,
    /// The data that a recipient finds in the body.
    pub(super) data: Vec<u8>,
    /// Names of the trailers that may follow.
    pub(super) trailers: Vec<HeaderName>,
    pub(super) is_complete: bool,
}

/// Sends a message. None if the stream fails, or if the recipient cannot know that the body is incomplete.
pub(super) fn send(plan: &MessagePlan<'_>, head: BytesMut, framing: BodyFraming) -> Option<SentMessage> {
    let (data, is_complete, trailers) = match &framing {
        BodyFraming::None => (&[][..], true, Vec::new()),
        BodyFraming::Length(length) => {
            let permitted = usize::try_from(*length).unwrap_or(usize::MAX).min(plan.data.len());
            (&plan.data[..permitted], permitted as u64 == *length, Vec::new())
        }
        BodyFraming::Chunked { trailers } => (&*plan.data, !plan.has_error, trailers.clone()),
        BodyFraming::UntilClose if plan.has_error => return None,
        BodyFraming::UntilClose => (&*plan.data, true, Vec::new()),
        // Of requests to FastCGI servers, which are no messages of HTTP/1.
        BodyFraming::Records(_) => return None,
    };
    let data = data.to_vec();
    let reads_body = !matches!(framing, BodyFraming::None);
    let has_end = matches!(framing, BodyFraming::Chunked { .. } | BodyFraming::UntilClose);
    let head_length = head.len();
    let mut stream = plan.stream();
    let mut message = OutgoingMessage::new(head, framing, plan.body().clone());
    match poll_until_ready(&mut message, &mut stream) {
        Ok(()) => {
            // The body is not polled further when its length was sent.
            assert!(is_complete && (!plan.has_error || !has_end), "an incomplete body is reported");
            assert!(stream.is_flushed(), "all was sent");
        }
        Err(SendFailure::Body(_)) => assert!(reads_body && plan.has_error, "the body fails"),
        Err(SendFailure::TooShort) => assert!(!is_complete && !plan.has_error, "the body is too short"),
        Err(SendFailure::Stream(_)) => return None,
    }
    assert!(stream.received.len() >= head_length, "the head was sent");
    Some(SentMessage { wire: stream.received, data, trailers, is_complete })
}

fn poll_until_ready(message: &mut OutgoingMessage<PlannedBody>, stream: &mut OddStream<'_>) -> Result<(), SendFailure> {
    let wakes = Arc::new(CountedWakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    loop {
        let before = wakes.0.load(Ordering::Relaxed);
        if let Poll::Ready(outcome) = message.poll_send(&mut Context::from_waker(&waker), stream) {
            return outcome;
        }
        assert!(wakes.0.load(Ordering::Relaxed) > before, "a pending message is polled again");
    }
}

#[derive(Default)]
struct CountedWakes(AtomicUsize);

impl Wake for CountedWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
