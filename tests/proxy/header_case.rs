//! The case of field names over HTTP/1, which `--keep-header-case` keeps.

use portico::http1::NameCase;

use crate::harness::{
    Endpoint, Options, TestServer, forward, retries, route, routes_to, upstream, with_timeouts_and_retries,
};

const REQUEST: &str =
    "GET / HTTP/1.1\r\nHost: a.example\r\nX-CUSTOM: 1\r\nX-Removed: 2\r\nConnection: x-REMOVED\r\n\r\n";
const RESPONSE: &str = "HTTP/1.1 200 OK\r\nETAG: \"1\"\r\nContent-Length: 2\r\n\r\nok";

fn keeping() -> Options {
    Options { name_case: NameCase::Received, ..Options::default() }
}

fn names(head: &str) -> Vec<&str> {
    head.lines().skip(1).filter_map(|line| line.split_once(": ")).map(|(name, _)| name).collect()
}

#[tokio::test]
async fn names_are_forwarded_as_they_arrive() {
    let endpoint = Endpoint::responding_with(RESPONSE).await;
    let server = TestServer::with_options(keeping(), routes_to(endpoint.address)).await;
    let response = server.request(REQUEST).await;
    assert_eq!(names(&response.head), ["ETAG", "X-Request-Id", "Content-Length", "Date"]);
    let request = endpoint.log.requests().pop().unwrap();
    assert_eq!(
        names(&request),
        [
            "Host",
            "X-CUSTOM",
            "X-Forwarded-For",
            "X-Forwarded-Proto",
            "X-Forwarded-Host",
            "X-Forwarded-Port",
            "X-Request-Id",
            "Via",
            "Portico-Hops"
        ]
    );
}

#[tokio::test]
async fn a_retry_has_the_same_names() {
    let endpoint = Endpoint::scripted(|mut stream, connection| async move {
        while stream.request().await.is_some() {
            stream.send(if connection == 0 { "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n" } else { RESPONSE }).await;
            if connection == 0 {
                return;
            }
        }
    })
    .await;
    let action =
        with_timeouts_and_retries(forward(vec![(1, upstream("web", &[endpoint.address]))]), retries(1, &[503]));
    let server = TestServer::with_options(keeping(), vec![route(action)]).await;
    assert_eq!(server.request(REQUEST).await.status, 200);
    let requests = endpoint.log.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(names(&requests[0]), names(&requests[1]));
    assert!(names(&requests[1]).contains(&"X-CUSTOM"), "{requests:?}");
}

#[tokio::test]
async fn names_are_in_lower_case_by_default() {
    let endpoint = Endpoint::responding_with(RESPONSE).await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let response = server.request(REQUEST).await;
    let request = endpoint.log.requests().pop().unwrap();
    for name in names(&request).into_iter().chain(names(&response.head)) {
        assert_eq!(name, name.to_ascii_lowercase());
    }
}
