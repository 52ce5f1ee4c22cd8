//! Requests that clients wait for: their shares, and their end if the client is gone.

use std::net::IpAddr;

use super::*;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
/// The share of a client that is alone in its namespace, of 14 requests.
const SHARE: usize = 13;

#[tokio::test]
async fn one_client_leaves_requests_to_others() {
    let (servers, _lookups) = start(AddressPolicy::default()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = remote("shop", listener.local_addr().unwrap(), MAX_REMOTE_TIMEOUT);
    // More than the limit, which take as long as a configuration permits.
    let sending: Vec<_> = (0..20).map(|_| servers.send_for_client(CLIENT, request(silent.clone()))).collect();
    let mut held = Vec::new();
    for _ in 0..SHARE {
        held.push(listener.accept().await.unwrap());
    }
    let accepting = accepting_server().await;
    let response = servers.send_for_client(OTHER, request(remote("shop", accepting, TEST_TIMEOUT))).await.unwrap();
    assert_eq!(response.status.as_u16(), 200);
    let further =
        RemoteRequest { timeout: Duration::from_millis(200), ..request(remote("shop", accepting, TEST_TIMEOUT)) };
    let failure = servers.send_for_client(CLIENT, further).await.unwrap_err();
    assert!(matches!(failure, ClientRequestFailure::Busy(_)), "{failure:?}");
    drop((sending, held));
}

#[tokio::test]
async fn requests_end_when_their_callers_are_gone() {
    let (servers, _lookups) = start(AddressPolicy::default()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = remote("shop", listener.local_addr().unwrap(), MAX_REMOTE_TIMEOUT);
    let accepting = remote("shop", accepting_server().await, TEST_TIMEOUT);
    for is_of_client in [true, false] {
        let send = |request| match is_of_client {
            true => servers.send_for_client(CLIENT, request).map(|outcome| outcome.is_ok()).boxed(),
            false => servers.send(request).map(|outcome| outcome.is_ok()).boxed(),
        };
        let mut in_progress = Vec::new();
        for _ in 0..SHARE {
            let sending = send(request(silent.clone()));
            let (socket, _) = listener.accept().await.unwrap();
            in_progress.push((sending, socket));
        }
        for (sending, mut socket) in in_progress {
            drop(sending);
            let closed = timeout(TEST_TIMEOUT, socket.read_to_end(&mut Vec::new())).await;
            assert!(closed.is_ok(), "the connection stays open");
        }
        // Their places are free, also for as many as before.
        let all = (0..SHARE).map(|_| send(request(accepting.clone())));
        let outcomes = futures_util::future::join_all(all).await;
        assert!(outcomes.iter().all(|is_ok| *is_ok), "{outcomes:?}");
    }
}
