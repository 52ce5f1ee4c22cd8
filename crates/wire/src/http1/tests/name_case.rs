//! The case of field names, from a received head to the one that is sent.

use http::header::{DATE, HOST};
use http::{HeaderName, HeaderValue};

use super::super::{
    AddedFields, BodyLength, NameCase, ResponseContext, write_informational, write_request_head, write_response_head,
};
use super::*;

const REQUEST: &str =
    "POST / HTTP/1.1\r\nHOST: a\r\nX-CUSTOM-id: 1\r\nx-custom-ID: 2\r\ncontent-LENGTH: 0\r\nsoAP-action: 3\r\n\r\n";

/// Reads the request and writes it, after one field was removed and others were added or changed.
fn forwarded_request(name_case: NameCase) -> String {
    let reader = RequestReader::new(LIMITS);
    let mut request = reader.with_name_case(name_case).read(&mut REQUEST.into()).unwrap().unwrap().head;
    let headers = request.headers_mut();
    headers.remove("soap-action");
    headers.insert(HOST, HeaderValue::from_static("b"));
    headers.insert("x-forwarded-for", HeaderValue::from_static("10.0.0.1"));
    let mut head = BytesMut::new();
    write_request_head(&request, BodyLength::None, AddedFields::default(), &mut head);
    String::from_utf8(head.to_vec()).unwrap()
}

#[test]
fn names_are_written_in_lower_case() {
    assert_eq!(
        forwarded_request(NameCase::Lower),
        "POST / HTTP/1.1\r\nhost: b\r\nx-custom-id: 1\r\nx-custom-id: 2\r\nx-forwarded-for: 10.0.0.1\r\n\
         content-length: 0\r\n\r\n"
    );
}

#[test]
fn names_of_a_request_are_written_as_they_were_received() {
    assert_eq!(
        forwarded_request(NameCase::Received),
        "POST / HTTP/1.1\r\nHOST: b\r\nX-CUSTOM-id: 1\r\nX-CUSTOM-id: 2\r\nX-Forwarded-For: 10.0.0.1\r\n\
         content-LENGTH: 0\r\n\r\n"
    );
}

#[test]
fn names_of_responses_are_written_as_they_were_received() {
    let input =
        "HTTP/1.1 103 Early Hints\r\nLINK: <a>\r\n\r\nHTTP/1.1 200 OK\r\nETAG: \"1\"\r\ncontent-Length: 5\r\n\r\n";
    let mut reader = ResponseReader::new(LIMITS, &Method::HEAD).with_name_case(NameCase::Received);
    let response = reader.read(&mut input.into()).unwrap().unwrap().head;
    let mut head = BytesMut::new();
    let [informational] = &reader.take_informational()[..] else { panic!("one informational response") };
    write_informational(informational, &mut head);
    let context = ResponseContext {
        version: Version::HTTP_11,
        is_head: true,
        is_persistent: false,
        accepts_trailers: false,
        date: &HeaderValue::from_static("today"),
        passed: None,
    };
    write_response_head(&response, BodyLength::None, context, &mut head);
    assert_eq!(
        std::str::from_utf8(&head).unwrap(),
        "HTTP/1.1 103 Early Hints\r\nLINK: <a>\r\n\r\nHTTP/1.1 200 OK\r\nETAG: \"1\"\r\ncontent-Length: 5\r\n\
         Connection: close\r\nDate: today\r\n\r\n"
    );
}

#[test]
fn messages_without_received_names_have_lower_case() {
    let mut response = http::Response::new(());
    response.headers_mut().insert(DATE, HeaderValue::from_static("today"));
    response.headers_mut().insert(HeaderName::from_static("x-a"), HeaderValue::from_static("1"));
    let mut head = BytesMut::new();
    write_informational(&response, &mut head);
    assert_eq!(&head[..], b"HTTP/1.1 200 OK\r\ndate: today\r\nx-a: 1\r\n\r\n");
}
