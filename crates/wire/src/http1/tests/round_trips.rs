//! Messages that are written, sent and read back are the same.

use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRAILER, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use proptest::prelude::*;

use super::super::{
    AddedFields, BodyFraming, BodyLength, OutgoingMessage, ResponseContext, write_request_head, write_response_head,
};
use super::scripts::{BodyStep, ScriptedBody, ScriptedStream, StreamStep, send};
use super::*;

static NOW: HeaderValue = HeaderValue::from_static("now");

/// The body of a message before it is written.
#[derive(Clone, Debug)]
struct RoundTripBody {
    frames: Vec<Vec<u8>>,
    /// They are declared, too.
    trailers: HeaderMap,
    has_known_length: bool,
    reports_end: bool,
}

#[derive(Clone, Debug)]
struct RoundTripResponse {
    status: StatusCode,
    reason: Option<String>,
    fields: HeaderMap,
    body: RoundTripBody,
    version: Version,
    is_head: bool,
}

impl RoundTripBody {
    fn body(&self) -> ScriptedBody {
        let data = self.frames.iter().map(|frame| BodyStep::Data(frame.clone().into()));
        let trailers = (!self.trailers.is_empty()).then(|| BodyStep::Trailers(self.trailers.clone()));
        let body = ScriptedBody::new(data.chain(trailers)).reporting_end(self.reports_end);
        if self.has_known_length { body.with_length(self.frames.concat().len() as u64) } else { body }
    }

    fn declare_trailers(&self, fields: &mut HeaderMap) {
        for name in self.trailers.keys() {
            fields.append(TRAILER, HeaderValue::from_str(name.as_str()).unwrap());
        }
    }

    /// What a recipient must read.
    fn expected(&self, framing: &BodyFraming) -> (Vec<u8>, Option<HeaderMap>) {
        let has_trailers = matches!(framing, BodyFraming::Chunked { .. }) && !self.trailers.is_empty();
        match framing {
            BodyFraming::None => (Vec::new(), None),
            _ => (self.frames.concat(), has_trailers.then(|| self.trailers.clone())),
        }
    }
}

fn write(head: BytesMut, framing: BodyFraming, body: ScriptedBody, steps: &[StreamStep]) -> Vec<u8> {
    let mut stream = ScriptedStream::new(steps.iter().copied());
    send(&mut OutgoingMessage::new(head, framing, body), &mut stream).unwrap();
    stream.written
}

fn without_framing(mut fields: HeaderMap) -> HeaderMap {
    for name in [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, DATE, TRAILER] {
        fields.remove(name);
    }
    fields
}

fn fields() -> impl Strategy<Value = HeaderMap> {
    let value = proptest::collection::vec(prop_oneof![b' '..=b'~', 0x80..=0xff_u8, Just(b'\t')], 0..30);
    let field = ("x-[a-c]{1,2}", value).prop_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        (name, HeaderValue::from_bytes(value.trim_ascii()).unwrap())
    });
    proptest::collection::vec(field, 0..8).prop_map(|fields| {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(name, value);
        }
        map
    })
}

fn body() -> impl Strategy<Value = RoundTripBody> {
    let frame = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        (any::<u8>(), 0..5000_usize).prop_map(|(byte, size)| vec![byte; size]),
    ];
    (proptest::collection::vec(frame, 0..6), fields(), any::<bool>(), any::<bool>()).prop_map(
        |(frames, trailers, has_known_length, reports_end)| RoundTripBody {
            frames,
            trailers,
            has_known_length,
            reports_end,
        },
    )
}

fn response() -> impl Strategy<Value = RoundTripResponse> {
    let status = proptest::sample::select(vec![200, 201, 204, 205, 304, 404, 500, 599, 999]);
    let reason = proptest::option::of("[!-~]([ -~]{0,10}[!-~])?");
    let version = proptest::sample::select(vec![Version::HTTP_10, Version::HTTP_11]);
    (status, reason, fields(), body(), version, any::<bool>()).prop_map(
        |(status, reason, fields, body, version, is_head)| {
            let status = StatusCode::from_u16(status).unwrap();
            RoundTripResponse { status, reason, fields, body, version, is_head }
        },
    )
}

fn stream_steps() -> impl Strategy<Value = Vec<StreamStep>> {
    let step = prop_oneof![(1..300_usize).prop_map(StreamStep::Accept), Just(StreamStep::Wait)];
    proptest::collection::vec(step, 0..20)
}

proptest! {
    #[test]
    fn requests_are_read_as_they_were_sent(
        requests in proptest::collection::vec(
            ("[A-Z]{1,9}", "/[!$-;=?-_a-z~]{0,30}", fields(), body()), 1..4,
        ),
        steps in stream_steps(),
        seed in any::<u64>(),
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (method, target, fields, planned) in requests {
            let mut request = Request::builder().method(&*method).uri(&*target).body(planned.body()).unwrap();
            *request.headers_mut() = fields.clone();
            planned.declare_trailers(request.headers_mut());
            let mut head = BytesMut::new();
            let (length, added) = (BodyLength::of(request.body()), AddedFields::default());
            let (framing, _) = write_request_head(&request, length, added, &mut head);
            let (body, trailers) = planned.expected(&framing);
            bytes.extend(write(head, framing, request.into_body(), &steps));
            let first_line = format!("{method} {target} HTTP/1.1");
            expected.push(ReadMessage { first_line, fields, is_persistent: true, body, trailers });
        }
        let mut read = read_requests(&random_parts(&bytes, seed), LIMITS);
        for message in &mut read.complete {
            message.fields = without_framing(std::mem::take(&mut message.fields));
        }
        prop_assert_eq!(read, ReadConnection { complete: expected, ..ReadConnection::default() });
    }

    #[test]
    fn responses_are_read_as_they_were_sent(
        responses in proptest::collection::vec(response(), 1..4), steps in stream_steps(), seed in any::<u64>(),
    ) {
        let (mut bytes, mut expected, mut methods) = (Vec::new(), Vec::new(), Vec::new());
        for planned in responses {
            let RoundTripResponse { status, reason, fields, version, is_head, .. } = planned;
            let mut response = Response::new(planned.body.body());
            (*response.status_mut(), *response.headers_mut()) = (status, fields.clone());
            planned.body.declare_trailers(response.headers_mut());
            if let Some(reason) = &reason {
                response.extensions_mut().insert(ReasonPhrase::try_from(reason.clone()).unwrap());
            }
            let context =
                ResponseContext { version, is_head, is_persistent: true, accepts_trailers: true, date: &NOW, passed: None };
            let length = BodyLength::of(response.body());
            let mut head = BytesMut::new();
            let (framing, is_persistent) = write_response_head(&response, length, context, &mut head);
            let (body, trailers) = planned.body.expected(&framing);
            bytes.extend(write(head, framing, response.into_body(), &steps));
            let reason = reason.as_deref().or(status.canonical_reason()).unwrap_or("<none>");
            let first_line = format!("{version:?} {} {reason}", status.as_str());
            expected.push(ReadMessage { first_line, fields, is_persistent, body, trailers });
            methods.push(if is_head { Method::HEAD } else { Method::GET });
            if !is_persistent {
                break;
            }
        }
        let mut read = read_responses(&methods, &random_parts(&bytes, seed), LIMITS);
        for message in &mut read.complete {
            message.fields = without_framing(std::mem::take(&mut message.fields));
        }
        prop_assert_eq!(read, ReadConnection { complete: expected, ..ReadConnection::default() });
    }
}
