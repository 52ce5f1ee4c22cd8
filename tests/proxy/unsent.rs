//! The limit of the bytes of responses that clients of HTTP/2 do not read.

use portico::limits::ProxyLimits;

use crate::accounting::scrape;
use crate::frames::{DATA, RawConnection, get_request};
use crate::harness::{TestServer, with_timeout};
use crate::unforwarded::wait_until_given_back;
use crate::unforwarded_streams::{endless_server, largest_windows, wait_until_blocked};

const LIMIT: usize = 1 << 20;
/// The streams of each connection. Each could hold 64 KiB, so those of all connections 16 MiB.
const STREAMS: u32 = 16;
const CONNECTIONS: usize = 16;
/// What each connection may hold when nothing is free.
const RESERVED: usize = 16 * 1024;
/// More than what sockets and the proxy can hold.
const MANY_BYTES: usize = 32 << 20;

async fn connect(server: &TestServer) -> RawConnection {
    let mut raw = RawConnection::connect_without_preface(server.address).await;
    let requests = (0..STREAMS).flat_map(|number| get_request(2 * number + 1));
    raw.send(largest_windows().into_iter().chain(requests).collect::<Vec<_>>()).await;
    raw
}

async fn read(raw: &mut RawConnection, bytes: usize) {
    with_timeout("the response", async {
        let mut received = 0;
        while received < bytes {
            let frame = raw.next_frame().await.expect("the connection is open");
            received += if frame.kind == DATA { frame.payload.len() } else { 0 };
        }
    })
    .await;
}

#[tokio::test]
async fn unread_responses_of_all_connections_are_limited() {
    let limits = ProxyLimits { max_unforwarded_bytes: LIMIT, ..ProxyLimits::default() };
    let (server, _endpoint, sent) = endless_server(limits).await;
    let mut unread = Vec::new();
    for _ in 0..CONNECTIONS {
        unread.push(connect(&server).await);
    }
    wait_until_blocked(&server, &sent).await;
    let metrics = scrape(&server);
    let held = metrics["portico_unforwarded_bytes"] as usize;
    assert!((LIMIT / 2..=LIMIT + CONNECTIONS * RESERVED).contains(&held), "{held} with a limit of {LIMIT}");
    assert!(metrics["portico_unforwarded_bytes_pauses_total"] > 0.0);
    // Other clients get their responses, and so does one that begins to read.
    let mut other = connect(&server).await;
    read(&mut other, MANY_BYTES).await;
    read(&mut unread[0], MANY_BYTES).await;
    drop((other, unread));
    wait_until_given_back(&server).await;
}
