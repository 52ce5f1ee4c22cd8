//! Informational responses of endpoints, which reach HTTP/1.1 clients (RFC 9110, section 15.2).

use std::sync::Arc;

use tokio::sync::Notify;

use crate::harness::{Endpoint, TestServer, header, routes_to};

const HINTS: &str =
    "HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn server(endpoint: &Endpoint) -> TestServer {
    TestServer::with_routes(routes_to(endpoint.address)).await
}

#[tokio::test]
async fn early_hints_arrive_before_the_response() {
    let has_arrived = Arc::new(Notify::new());
    let may_respond = Arc::clone(&has_arrived);
    let endpoint = Endpoint::scripted(move |mut stream, _| {
        let may_respond = Arc::clone(&may_respond);
        async move {
            while stream.request().await.is_some() {
                stream.send(HINTS).await;
                may_respond.notified().await;
                stream.send(OK).await;
            }
        }
    })
    .await;
    let server = server(&endpoint).await;
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
        let hints = client.try_next_response_to("").await.unwrap();
        assert_eq!(hints.status, 103);
        assert_eq!(header(&hints.head, "link"), Some("</style.css>; rel=preload"));
        assert_eq!((header(&hints.head, "connection"), header(&hints.head, "x-hop")), (None, None));
        has_arrived.notify_one();
        assert_eq!(client.response().await.text(), "ok");
    }
    assert_eq!(endpoint.log.connections(), 1);
}

#[tokio::test]
async fn informational_responses_that_arrive_with_the_response_precede_it() {
    let continues = "HTTP/1.1 100 Continue\r\n\r\n";
    let processing = "HTTP/1.1 102 Processing\r\n\r\n";
    let endpoint = Endpoint::responding_with(format!("{continues}{processing}{HINTS}{OK}")).await;
    let server = server(&endpoint).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    for status in [102, 103, 200] {
        assert_eq!(client.try_next_response_to("").await.unwrap().status, status);
    }
    // HTTP/1.0 has none.
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.0\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(client.try_next_response_to("").await.unwrap().status, 200);
}

#[tokio::test]
async fn client_that_reads_nothing_gets_its_response() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        for _ in 0..200 {
            stream.send(HINTS.repeat(1000)).await;
        }
        stream.send(OK).await;
        stream.read_to_end().await;
    })
    .await;
    let server = server(&endpoint).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    endpoint.log.wait_for("the request", |log| !log.requests().is_empty()).await;
    let mut count = 0;
    loop {
        match client.try_next_response_to("").await.unwrap().status {
            103 => count += 1,
            status => break assert_eq!(status, 200),
        }
    }
    assert!((1..200_000).contains(&count), "{count} informational responses were passed on");
}
