//! Fields that are written with a header map, compared with those of a map that has them.

use bytes::BytesMut;
use http::header::HOST;
use http::{HeaderName, HeaderValue, Request};
use proptest::prelude::*;

use super::super::fuzzing::strict_reader;
use super::super::{AddedFields, BodyLength, NameCase, write_request_head};
use super::*;
use crate::begun_trace::BegunTrace;
use crate::forwarding_fields::ForwardingFields;
use crate::hop_count::HopCount;

/// The names and the case in which a request had them. Other names are added.
const RECEIVED: &str = "GET / HTTP/1.1\r\nHOST: a\r\nX-forwarded-FOR: 1\r\nvIA: 2\r\n\r\n";

fn value() -> impl Strategy<Value = HeaderValue> {
    let bytes = proptest::collection::vec(prop_oneof![b' '..=b'~', 0x80..=0xff_u8, Just(b'\t')], 0..300);
    bytes.prop_map(|value| HeaderValue::from_bytes(value.trim_ascii()).unwrap())
}

/// Without the forwarding fields, but with others that have similar names, and with those that are not written as they
/// are.
fn other_fields() -> impl Strategy<Value = HeaderMap> {
    let name = proptest::sample::select(vec![
        "a",
        "connection",
        "content-length",
        "portico-hops",
        "transfer-encoding",
        "vary",
        "x-forwarded-path",
        "x-forwarded-prefix",
        "x-real-ip",
        "x_forwarded_for",
    ]);
    proptest::collection::vec((name, value()), 0..20).prop_map(|fields| {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_static(name), value);
        }
        map
    })
}

fn body_length() -> impl Strategy<Value = BodyLength> {
    prop_oneof![Just(BodyLength::None), any::<u64>().prop_map(BodyLength::Bytes), Just(BodyLength::Unknown)]
}

fn request(name_case: NameCase, fields: HeaderMap) -> Request<()> {
    let mut reader = RequestReader::new(LIMITS).with_name_case(name_case);
    let mut request = reader.read(&mut RECEIVED.into()).unwrap().unwrap().head;
    *request.headers_mut() = fields;
    request
}

proptest! {
    #[test]
    fn forwarding_fields_are_the_same_as_those_of_the_map(
        fields in other_fields(),
        host in value(),
        values in proptest::array::uniform3(value()),
        is_https in any::<bool>(),
        port in any::<u16>(),
        length in body_length(),
        hops in 0..20_u8,
        has_trace in any::<bool>(),
        keeps_case in any::<bool>(),
    ) {
        let [client, request_id, via] = &values;
        let forwarding = ForwardingFields { client, is_https, port, request_id, via };
        let mut fields = fields;
        fields.insert(HOST, host.clone());
        let name_case = if keeps_case { NameCase::Received } else { NameCase::Lower };
        let added = AddedFields {
            hops: HopCount::new(hops),
            trace: has_trace.then(|| BegunTrace::new(1, 2)),
            forwarding: Some(forwarding),
        };
        let (mut written, mut expected) = (BytesMut::from("earlier"), BytesMut::from("earlier"));
        let result = write_request_head(&request(name_case, fields.clone()), length, added, &mut written);
        let mut with_fields = request(name_case, fields);
        forwarding.set(HeaderValue::from(port), with_fields.headers_mut());
        let added = AddedFields { forwarding: None, ..added };
        let expected_result = write_request_head(&with_fields, length, added, &mut expected);
        prop_assert_eq!(format!("{result:?}"), format!("{expected_result:?}"));
        let lines = |head: &BytesMut| -> Vec<Vec<u8>> {
            let mut lines: Vec<Vec<u8>> = head[..].split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            lines.sort();
            lines
        };
        prop_assert_eq!(lines(&written), lines(&expected), "the same lines, and so the same case");
        let read = strict_reader::read(&written["earlier".len()..]);
        let expected = strict_reader::read(&expected["earlier".len()..]);
        prop_assert!(!read.is_empty() && read[0].fields == expected[0].fields, "{read:?}");
        let mut expected = Vec::new();
        forwarding.each(host.as_bytes(), |name, value| expected.push((name.clone(), value.to_vec())));
        for (name, value) in expected {
            let values = read[0].fields.iter().filter(|(read, _)| *read == name.as_str().as_bytes());
            let values: Vec<&[u8]> = values.map(|(_, value)| &**value).collect();
            prop_assert_eq!(values, [value]);
        }
    }
}

#[test]
fn forwarding_fields_follow_those_of_the_map() {
    let [client, request_id, via] = &["10.0.0.1", "id", "1.1 portico"].map(HeaderValue::from_static);
    let forwarding = Some(ForwardingFields { client, is_https: false, port: 80, request_id, via });
    for (name_case, expected) in [
        (
            NameCase::Lower,
            "host: a.example\r\na: b\r\nx-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: http\r\nx-forwarded-host: a.example\r\n\
             x-forwarded-port: 80\r\nx-request-id: id\r\nvia: 1.1 portico\r\ncontent-length: 5\r\nportico-hops: 1\r\n",
        ),
        (
            NameCase::Received,
            "HOST: a.example\r\nA: b\r\nX-forwarded-FOR: 10.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.example\r\n\
             X-Forwarded-Port: 80\r\nX-Request-Id: id\r\nvIA: 1.1 portico\r\nContent-Length: 5\r\nPortico-Hops: 1\r\n",
        ),
    ] {
        let fields = [(HOST, "a.example"), (HeaderName::from_static("a"), "b")];
        let fields = fields.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect();
        let added = AddedFields { hops: HopCount::new(1), trace: None, forwarding };
        let mut head = BytesMut::new();
        write_request_head(&request(name_case, fields), BodyLength::Bytes(5), added, &mut head);
        assert_eq!(String::from_utf8_lossy(&head), format!("GET / HTTP/1.1\r\n{expected}\r\n"), "{name_case:?}");
    }
}
