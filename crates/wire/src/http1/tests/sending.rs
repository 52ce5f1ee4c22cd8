//! Messages on a stream: their bytes, in how many writes, and when they fail or wait.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HOST, MAX_FORWARDS,
    SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::super::{BodyFraming, OutgoingMessage, SendFailure};
use super::scripts::{BodyStep, ScriptedBody, ScriptedStream, SenderWakes, StreamStep, send};

const KIB: usize = 1024;

fn data(text: &'static str) -> BodyStep {
    BodyStep::Data(Bytes::from_static(text.as_bytes()))
}

fn chunked() -> BodyFraming {
    BodyFraming::Chunked { trailers: Vec::new() }
}

fn message(framing: BodyFraming, body: ScriptedBody) -> OutgoingMessage<ScriptedBody> {
    OutgoingMessage::new(BytesMut::from("HEAD "), framing, body)
}

/// Sends a message with this body, and returns what the stream has received.
fn sent(framing: BodyFraming, steps: impl IntoIterator<Item = BodyStep>) -> String {
    let mut stream = ScriptedStream::default();
    send(&mut message(framing, ScriptedBody::new(steps)), &mut stream).unwrap();
    String::from_utf8(stream.written).unwrap()
}

#[test]
fn framing_decides_what_is_sent() {
    use BodyStep::Wait;
    let cases = [
        (BodyFraming::Length(5), vec![data("ab"), Wait, data(""), data("cde")], "HEAD abcde"),
        (BodyFraming::Length(0), vec![], "HEAD "),
        (BodyFraming::UntilClose, vec![Wait, data("ab"), data("c"), Wait], "HEAD abc"),
        (BodyFraming::UntilClose, vec![], "HEAD "),
        (chunked(), vec![], "HEAD 0\r\n\r\n"),
        (
            chunked(),
            vec![data("ab"), data(""), Wait, data("0123456789")],
            "HEAD 2\r\nab\r\na\r\n0123456789\r\n0\r\n\r\n",
        ),
        (BodyFraming::Length(3), vec![data("ab"), data("cde"), data("f")], "HEAD abc"),
        (BodyFraming::Length(0), vec![data("ab")], "HEAD "),
    ];
    for (framing, steps, expected) in cases {
        let name = format!("{framing:?} {steps:?}");
        assert_eq!(sent(framing, steps), expected, "{name}");
    }
}

#[test]
fn chunk_sizes_are_hexadecimal() {
    for size in [1, 9, 15, 16, 255, 256, 4096, 65_535, 1_000_000] {
        let chunk = "d".repeat(size);
        let expected = format!("HEAD {size:x}\r\n{chunk}\r\n0\r\n\r\n");
        assert!(sent(chunked(), [BodyStep::Data(chunk.into())]) == expected, "{size}");
    }
}

#[test]
fn records_have_their_lengths_and_an_end() {
    let header = |length: u16| [&[1, 5, 0, 1][..], &length.to_be_bytes(), &[0, 0]].concat();
    let long = "d".repeat(65_528 + 3);
    let cases = [
        (Some(5), vec![data("ab"), BodyStep::Wait, data("cde")], vec![("ab", 2), ("cde", 3)]),
        (None, vec![data("ab"), data("")], vec![("ab", 2)]),
        (None, vec![], vec![]),
        (Some(2), vec![data("abcd"), data("e")], vec![("ab", 2)]),
        (None, vec![BodyStep::Data(long.clone().into())], vec![(&long[..65_528], 65_528), ("ddd", 3)]),
    ];
    for (length, steps, records) in cases {
        let name = format!("{length:?} {} steps", steps.len());
        let mut stream = ScriptedStream::default();
        send(&mut message(BodyFraming::Records(length), ScriptedBody::new(steps)), &mut stream).unwrap();
        let mut expected = b"HEAD ".to_vec();
        for (content, length) in records {
            expected.extend(header(length));
            expected.extend_from_slice(content.as_bytes());
        }
        expected.extend(header(0));
        assert!(stream.written == expected, "{name}");
    }
    let mut stream = ScriptedStream::default();
    let short = ScriptedBody::new([data("ab")]);
    let outcome = send(&mut message(BodyFraming::Records(Some(3)), short), &mut stream);
    assert!(matches!(outcome, Err(SendFailure::TooShort)), "{outcome:?}");
    let expected = [&b"HEAD "[..], &header(2), b"ab"].concat();
    assert_eq!(stream.written, expected, "no record ends the body");
}

#[test]
fn bodies_that_must_not_be_sent_are_not_read() {
    let body = ScriptedBody::new([data("ab"), BodyStep::Fail]);
    let (polls, mut stream) = (body.polls(), ScriptedStream::default());
    let mut message = message(BodyFraming::None, body);
    send(&mut message, &mut stream).unwrap();
    assert_eq!((&*stream.written, polls.get()), (&b"HEAD "[..], 0));
}

#[test]
fn the_end_that_a_body_reports_is_not_requested() {
    for (reports_end, expected) in [(true, 1), (false, 2)] {
        let body = ScriptedBody::new([data("ab")]).reporting_end(reports_end);
        let (polls, mut stream) = (body.polls(), ScriptedStream::default());
        send(&mut message(chunked(), body), &mut stream).unwrap();
        assert_eq!((&*stream.written, polls.get()), (&b"HEAD 2\r\nab\r\n0\r\n\r\n"[..], expected));
    }
}

#[test]
fn declared_trailers_are_sent_with_chunks() {
    let trailers =
        |names: &[HeaderName]| names.iter().map(|name| (name.clone(), HeaderValue::from_static("1"))).collect();
    let (sum, other) = (HeaderName::from_static("sum"), HeaderName::from_static("other"));
    let chunked =
        |declared: &[&HeaderName]| BodyFraming::Chunked { trailers: declared.iter().copied().cloned().collect() };
    let both: HeaderMap = trailers(&[sum.clone(), other.clone()]);
    let with_trailers = || [data("ab"), BodyStep::Trailers(both.clone())];
    let cases = [
        (chunked(&[&sum, &other]), "HEAD 2\r\nab\r\n0\r\nsum: 1\r\nother: 1\r\n\r\n"),
        (chunked(&[&other]), "HEAD 2\r\nab\r\n0\r\nother: 1\r\n\r\n"),
        (chunked(&[]), "HEAD 2\r\nab\r\n0\r\n\r\n"),
        (BodyFraming::Length(2), "HEAD ab"),
        (BodyFraming::UntilClose, "HEAD ab"),
    ];
    for (framing, expected) in cases {
        let name = format!("{framing:?}");
        assert_eq!(sent(framing, with_trailers()), expected, "{name}");
    }
    let mut repeated = HeaderMap::new();
    repeated.append(&sum, HeaderValue::from_static("1"));
    repeated.append(&sum, HeaderValue::from_bytes(b"\xff").unwrap());
    let mut stream = ScriptedStream::default();
    send(&mut message(chunked(&[&sum]), ScriptedBody::new([BodyStep::Trailers(repeated)])), &mut stream).unwrap();
    assert_eq!(&*stream.written, b"HEAD 0\r\nsum: 1\r\nsum: \xff\r\n\r\n");
}

/// RFC 9110, section 6.5.1.
#[test]
fn fields_that_are_necessary_before_the_body_are_no_trailers() {
    let forbidden = [
        AUTHORIZATION,
        CACHE_CONTROL,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        HOST,
        MAX_FORWARDS,
        SET_COOKIE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
    ];
    let trailers = forbidden.iter().map(|name| (name.clone(), HeaderValue::from_static("1"))).collect();
    let framing = BodyFraming::Chunked { trailers: forbidden.to_vec() };
    assert_eq!(sent(framing, [BodyStep::Trailers(trailers)]), "HEAD 0\r\n\r\n");
}

#[test]
fn a_body_that_is_too_short_fails_after_it_was_sent() {
    let mut trailers = HeaderMap::new();
    trailers.insert("sum", HeaderValue::from_static("1"));
    for steps in
        [vec![], vec![data("ab")], vec![data("ab"), BodyStep::Wait], vec![data("a"), BodyStep::Trailers(trailers)]]
    {
        let body: String = steps
            .iter()
            .map(|step| if let BodyStep::Data(data) = step { str::from_utf8(data).unwrap() } else { "" })
            .collect();
        for reports_end in [false, true] {
            let mut stream = ScriptedStream::new([StreamStep::Accept(1), StreamStep::Wait, StreamStep::Accept(1)]);
            let mut message =
                message(BodyFraming::Length(3), ScriptedBody::new(steps.clone()).reporting_end(reports_end));
            let failure = send(&mut message, &mut stream).unwrap_err();
            assert!(matches!(failure, SendFailure::TooShort), "{failure:?}");
            assert_eq!(stream.written, format!("HEAD {body}").as_bytes(), "{steps:?}");
        }
    }
}

#[test]
fn the_failure_of_a_body_is_reported_after_its_data_was_sent() {
    for (framing, expected) in [(BodyFraming::Length(9), "HEAD abc"), (chunked(), "HEAD 2\r\nab\r\n1\r\nc\r\n")] {
        let body = ScriptedBody::new([data("ab"), data("c"), BodyStep::Fail, data("d")]);
        let mut stream = ScriptedStream::new([StreamStep::Accept(3), StreamStep::Wait, StreamStep::Accept(1)]);
        let mut message = message(framing, body);
        let failure = send(&mut message, &mut stream).unwrap_err();
        assert!(matches!(failure, SendFailure::Body(_)) && failure.to_string() == "the body has failed", "{failure:?}");
        assert_eq!(stream.written, expected.as_bytes(), "no end of the body is sent");
    }
}

#[test]
fn failures_of_the_stream_are_reported() {
    use StreamStep::{Accept, Fail, Wait};
    let cases = [
        (vec![Fail], vec![], io::ErrorKind::ConnectionReset),
        (vec![Accept(3), Wait, Fail], vec![], io::ErrorKind::ConnectionReset),
        (vec![Accept(0)], vec![], io::ErrorKind::WriteZero),
        (vec![Accept(3), Accept(0)], vec![], io::ErrorKind::WriteZero),
        (vec![], vec![Wait, Fail], io::ErrorKind::ConnectionReset),
    ];
    for (steps, flushes, kind) in cases {
        for framing in [BodyFraming::Length(2 * KIB as u64), chunked()] {
            let body = ScriptedBody::new([BodyStep::Data(vec![b'd'; 2 * KIB].into())]);
            let mut stream = ScriptedStream::new(steps.clone()).with_flushes(flushes.clone());
            let mut message = message(framing, body);
            let SendFailure::Stream(error) = send(&mut message, &mut stream).unwrap_err() else { panic!("{steps:?}") };
            assert_eq!(error.kind(), kind, "{steps:?} {flushes:?}");
        }
    }
}

#[test]
fn available_data_is_flushed_while_the_body_waits() {
    let (mut stream, mut cx) = (ScriptedStream::default(), Context::from_waker(Waker::noop()));
    let body = ScriptedBody::new([data("ab"), BodyStep::Wait, data("c")]);
    let (polls, mut message) = (body.polls(), message(chunked(), body));
    assert!(message.poll_send(&mut cx, &mut stream).is_pending());
    assert_eq!(polls.get(), 2, "it wakes the task before it is polled again");
    assert_eq!((&*stream.written, stream.flushed), (&b"HEAD 2\r\nab\r\n"[..], stream.written.len()));
    assert!(matches!(message.poll_send(&mut cx, &mut stream), Poll::Ready(Ok(()))));
    assert_eq!(stream.flushed, stream.written.len());
}

#[test]
fn a_message_is_complete_when_it_is_flushed() {
    let mut stream = ScriptedStream::default().with_flushes([StreamStep::Wait, StreamStep::Wait]);
    let (mut message, mut cx) =
        (message(BodyFraming::UntilClose, ScriptedBody::new([data("ab")])), Context::from_waker(Waker::noop()));
    for _ in 0..2 {
        assert!(message.poll_send(&mut cx, &mut stream).is_pending());
        assert_eq!((&*stream.written, stream.flushed), (&b"HEAD ab"[..], 0));
    }
    assert!(matches!(message.poll_send(&mut cx, &mut stream), Poll::Ready(Ok(()))));
    assert_eq!(stream.flushed, 7);
}

#[test]
fn failures_of_a_body_are_reported_when_its_data_is_flushed() {
    let mut stream = ScriptedStream::default().with_flushes([StreamStep::Wait]);
    assert!(send(&mut message(chunked(), ScriptedBody::new([data("ab"), BodyStep::Fail])), &mut stream).is_err());
    assert_eq!(stream.flushed, stream.written.len());
}

#[test]
fn a_body_that_is_always_ready_lets_others_have_their_turn() {
    let frame = Bytes::from(vec![b'd'; 32 * KIB]);
    let mut message = message(chunked(), ScriptedBody::new(vec![BodyStep::Data(frame); 1000]));
    let (mut stream, wakes) = (ScriptedStream::default(), Arc::new(SenderWakes::default()));
    let polled = message.poll_send(&mut Context::from_waker(&Waker::from(wakes.clone())), &mut stream);
    assert!(polled.is_pending());
    assert_eq!(wakes.count(), 1, "it continues");
    assert!((1..100).contains(&stream.writes.len()), "{}", stream.writes.len());
    send(&mut message, &mut stream).unwrap();
    assert!(stream.written.len() > 1000 * 32 * KIB);
}

#[test]
fn empty_frames_let_others_have_their_turn() {
    let body = ScriptedBody::new(vec![data(""); 10_000]);
    let (polls, mut stream) = (body.polls(), ScriptedStream::default());
    let mut message = message(chunked(), body);
    assert!(message.poll_send(&mut Context::from_waker(Waker::noop()), &mut stream).is_pending());
    assert!(polls.get() < 10_000, "{}", polls.get());
    send(&mut message, &mut stream).unwrap();
    assert_eq!(&*stream.written, b"HEAD 0\r\n\r\n");
}

#[test]
fn what_exceeds_the_length_is_not_read() {
    let body = ScriptedBody::new([data("ab"), data("cd"), data("e"), BodyStep::Fail]);
    let (polls, mut stream) = (body.polls(), ScriptedStream::default());
    send(&mut message(BodyFraming::Length(3), body), &mut stream).unwrap();
    assert_eq!((&*stream.written, polls.get()), (&b"HEAD abc"[..], 2));
}

#[test]
fn a_body_is_not_read_while_much_of_it_waits() {
    for (size, framing) in [(2 * KIB, chunked()), (2 * KIB, BodyFraming::UntilClose), (100, chunked())] {
        let frame = BodyStep::Data(vec![b'd'; size].into());
        let body = ScriptedBody::new(vec![frame; 1000]);
        let (polls, mut stream) = (body.polls(), ScriptedStream::new(vec![StreamStep::Wait; 100]));
        let mut message = message(framing, body);
        for _ in 0..100 {
            assert!(message.poll_send(&mut Context::from_waker(Waker::noop()), &mut stream).is_pending());
        }
        let read = polls.get() * size;
        assert!((32 * KIB..=66 * KIB).contains(&read), "{read} bytes were read");
    }
}

#[test]
fn what_is_unsent_is_observed_before_each_write_after_the_body() {
    let part = |size| BodyStep::Data(vec![b'd'; size].into());
    let body = ScriptedBody::new([part(20 * KIB), BodyStep::Wait, part(2 * KIB)]);
    let steps = [StreamStep::Accept(10 * KIB), StreamStep::Wait, StreamStep::Accept(2 * KIB)];
    let (mut stream, mut message) = (ScriptedStream::new(steps), message(BodyFraming::UntilClose, body));
    let mut observed = Vec::new();
    for is_complete in [false, true] {
        let mut cx = Context::from_waker(Waker::noop());
        let sent = message.poll_send_observed(&mut cx, &mut stream, |_, unsent| observed.push(unsent));
        assert_eq!(sent.is_ready(), is_complete);
    }
    // The last part is small, and more waits before it.
    assert_eq!(observed, [12 * KIB + "HEAD ".len(), 10 * KIB + "HEAD ".len()]);
}

#[test]
fn small_parts_are_written_together() {
    for (framing, size) in [(chunked(), 100), (BodyFraming::UntilClose, KIB), (BodyFraming::Length(60), 10)] {
        let frame = BodyStep::Data(vec![b'd'; size].into());
        let mut stream = ScriptedStream::default();
        send(&mut message(framing, ScriptedBody::new(vec![frame; 6])), &mut stream).unwrap();
        assert!(stream.written.len() > 6 * size);
        assert_eq!((stream.writes.len(), stream.addresses.len()), (1, 1));
    }
}

#[test]
fn large_parts_are_not_copied() {
    let parts: Vec<Bytes> = [KIB + 1, 10 * KIB, 30 * KIB].map(|size| vec![b'd'; size].into()).into();
    for framing in [chunked(), BodyFraming::UntilClose, BodyFraming::Length(41 * KIB as u64 + 1)] {
        let mut stream = ScriptedStream::default();
        let body = ScriptedBody::new(parts.iter().cloned().map(BodyStep::Data));
        send(&mut message(framing, body), &mut stream).unwrap();
        for part in &parts {
            assert!(stream.addresses.contains(&part.as_ptr()), "{} bytes", part.len());
        }
        assert_eq!(stream.writes.len(), 1, "the head and all parts together");
    }
}

fn stream_steps() -> impl Strategy<Value = Vec<StreamStep>> {
    let step = prop_oneof![
        3 => (1..40_usize).prop_map(StreamStep::Accept),
        3 => (1..20_000_usize).prop_map(StreamStep::Accept),
        1 => Just(StreamStep::Wait),
    ];
    proptest::collection::vec(step, 0..60)
}

fn frame_sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![Just(0_usize), 1..50_usize, 1020..1030_usize, 0..9000_usize, 30_000..70_000_usize];
    proptest::collection::vec(size, 0..20)
}

proptest! {
    #[test]
    fn messages_are_complete_however_the_stream_accepts_them(
        steps in stream_steps(), sizes in frame_sizes(), waits in any::<u64>(), reports_end in any::<bool>(),
    ) {
        let mut random = fastrand::Rng::with_seed(waits);
        let frame = |size: &usize| (0..*size).map(|index| (index / 3 % 251) as u8).collect();
        let frames: Vec<Bytes> = sizes.iter().map(frame).collect();
        let body: Vec<u8> = frames.concat();
        let mut body_steps = Vec::new();
        for frame in &frames {
            body_steps.extend(random.bool().then_some(BodyStep::Wait));
            body_steps.push(BodyStep::Data(frame.clone()));
        }
        let mut chunks = Vec::new();
        for frame in frames.iter().filter(|frame| !frame.is_empty()) {
            chunks.extend_from_slice(format!("{:x}\r\n", frame.len()).as_bytes());
            chunks.extend_from_slice(frame);
            chunks.extend_from_slice(b"\r\n");
        }
        chunks.extend_from_slice(b"0\r\n\r\n");
        for (framing, expected) in [
            (BodyFraming::Length(body.len() as u64), &body),
            (BodyFraming::UntilClose, &body),
            (chunked(), &chunks),
        ] {
            let mut stream = ScriptedStream::new(steps.clone());
            let body = ScriptedBody::new(body_steps.clone()).reporting_end(reports_end);
            let mut message = message(framing, body);
            send(&mut message, &mut stream).unwrap();
            prop_assert!(stream.written == [b"HEAD ", &expected[..]].concat());
        }
    }
}
