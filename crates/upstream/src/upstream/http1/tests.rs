//! Connections of HTTP/1 and of FastCGI to an endpoint that the test plays.

use std::cell::Cell;
use std::io::{Read, Write};

use http::Method;
use http_body_util::{Empty, Full};
use tokio::task::LocalSet;

use super::*;
use crate::fast_cgi::FastCgiParams;
use crate::upstream::{ClientSlot, SocketBudget, UpstreamKey, UpstreamRegistry};

fn connector() -> EndpointConnector {
    EndpointConnector {
        timeout: Duration::from_secs(10),
        sockets: Arc::new(SocketBudget::new(10)),
        max_head: 1000,
        max_fields: 10,
        own_sockets: Arc::default(),
        name_case: NameCase::Lower,
        max_streams: 1,
        ping_interval: Duration::from_secs(10),
        ping_timeout: Duration::from_secs(10),
    }
}

/// A connection to an endpoint, and its other end.
async fn connect<B>(protocol: UpstreamProtocol) -> (Http1EndpointConnection<B>, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let registry = UpstreamRegistry::default();
    let upstream = registry.upstream(&UpstreamKey { protocol, ..UpstreamKey::default() });
    let target = UpstreamTarget {
        upstream: &upstream,
        server_name: None,
        client: ClientSlot::of([127, 0, 0, 1].into()),
        handshake_time: Cell::default(),
        place_wait: Default::default(),
    };
    let address = listener.local_addr().unwrap();
    let (connector, counters) = (connector(), Arc::default());
    let deadline = connector.socket_deadline();
    let permit = connector.permit_socket(&target, address, deadline, &counters).await.unwrap();
    let connecting = Http1EndpointConnection::connect(&connector, &target, address, permit, &counters).await;
    (connecting.unwrap(), listener.accept().unwrap().0)
}

/// Sends a request with this method, and receives a response with this head.
async fn exchange(method: &Method, head: &str) -> (Http1EndpointConnection<Empty<Bytes>>, std::net::TcpStream) {
    let (connection, mut endpoint) = connect(UpstreamProtocol::Http1).await;
    let request = Request::builder().method(method).uri("/").header("host", "a").body(Empty::new()).unwrap();
    connection.begin(&mut Some(request), None, AddedFields::default(), false);
    endpoint.write_all(head.as_bytes()).unwrap();
    let response = poll_fn(|cx| connection.poll_response(cx, &mut |_| {})).await.unwrap();
    assert!(head.contains(response.status().as_str()));
    assert_ne!(endpoint.read(&mut [0; 1000]).unwrap(), 0, "the request");
    (connection, endpoint)
}

/// The task does not wait between the bytes and the next request, so the runtime has not noticed them.
#[tokio::test]
async fn body_of_a_response_that_has_none_is_noticed_before_the_next_request() {
    let cases = [
        (Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"),
        (Method::HEAD, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n"),
        (Method::GET, "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"),
    ];
    let all = async {
        for (method, head) in cases {
            let (connection, mut endpoint) = exchange(&method, head).await;
            assert!(connection.is_reusable(), "{method} {head}");
            connection.become_idle();
            assert!(connection.is_silent(), "{method} {head}");
            endpoint.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").unwrap();
            assert!(!connection.is_silent(), "{method} {head}");
        }
    };
    LocalSet::new().run_until(all).await;
}

/// A record from an endpoint.
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[1, kind, 0, 1, length[0], length[1], 0, 0], content].concat()
}

#[tokio::test]
async fn a_fast_cgi_connection_has_one_request() {
    let all = async {
        let (connection, mut endpoint) = connect(UpstreamProtocol::FastCgi).await;
        let mut params = FastCgiParams::default();
        params.push(b"SCRIPT_NAME", b"/a.php");
        let request = Request::builder().method("POST").uri("/a.php").extension(Arc::new(params));
        let request = request.body(Full::new(Bytes::from_static(b"body"))).unwrap();
        connection.begin(&mut Some(request), None, AddedFields::default(), true);
        let response =
            [record(7, b"warning"), record(6, b"Status: 201\r\n\r\nda"), record(6, b"ta"), record(3, &[0; 8])];
        endpoint.write_all(&response.concat()).unwrap();
        let response = poll_fn(|cx| connection.poll_response(cx, &mut |_| {})).await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        let mut data = Vec::new();
        while let Some(frame) = poll_fn(|cx| connection.poll_frame(cx)).await {
            data.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
        assert_eq!((&data[..], connection.body_is_ended()), (&b"data"[..], true));
        assert!(connection.is_sent() && !connection.is_reusable());
        // As its release does: a connection is reset otherwise.
        connection.monitor().finish_request();
        drop(connection);
        let mut sent = Vec::new();
        endpoint.read_to_end(&mut sent).unwrap();
        assert_eq!(sent[..16], [1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], "BEGIN_REQUEST");
        let end = [&[1, 5, 0, 1, 0, 4, 0, 0][..], b"body", &[1, 5, 0, 1, 0, 0, 0, 0]].concat();
        assert!(sent.ends_with(&end), "{sent:?}");
        let has = |text: &[u8]| sent.windows(text.len()).any(|part| part == text);
        assert!(has(b"SCRIPT_NAME/a.php") && has(b"CONTENT_LENGTH4"));
    };
    LocalSet::new().run_until(all).await;
}

#[tokio::test]
async fn fast_cgi_responses_end_with_their_record() {
    let head = record(6, b"X-A: b\r\n\r\ndata");
    for (bytes, is_valid_head, is_complete) in [
        (head.clone(), true, false),
        ([&head[..], &record(3, &[0; 8])].concat(), true, true),
        ([&head[..], &record(9, b"")].concat(), true, false),
        (record(6, b"X-A: b\r\n"), false, false),
        (b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), false, false),
    ] {
        let all = async {
            let (connection, mut endpoint) = connect(UpstreamProtocol::FastCgi).await;
            connection.begin(&mut Some(Request::new(Empty::<Bytes>::new())), None, AddedFields::default(), false);
            // The whole request is read, so that the end of the connection is no reset.
            let (sent, end) = (bytes.clone(), [1, 5, 0, 1, 0, 0, 0, 0]);
            std::thread::spawn(move || {
                let (mut request, mut byte) = (Vec::new(), [0]);
                while !request.ends_with(&end) {
                    endpoint.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                endpoint.write_all(&sent).unwrap();
            });
            let response = poll_fn(|cx| connection.poll_response(cx, &mut |_| {})).await;
            assert_eq!(response.is_ok(), is_valid_head, "{bytes:?}");
            if response.is_err() {
                return;
            }
            let mut last = Ok(());
            while let Some(frame) = poll_fn(|cx| connection.poll_frame(cx)).await {
                last = frame.map(|_| ());
            }
            assert_eq!(last.is_ok(), is_complete, "{bytes:?}");
        };
        LocalSet::new().run_until(all).await;
    }
}
