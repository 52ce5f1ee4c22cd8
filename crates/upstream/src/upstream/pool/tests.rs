//! Tests of how long requests wait for a connection.

mod levels;

use http_body_util::Empty;

use super::*;
use crate::http1::NameCase;
use crate::upstream::{SocketLimit, UpstreamKey, UpstreamRegistry};

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Pools of a process that may have no connection to an endpoint.
fn pools_without_sockets() -> ConnectionPools<Empty<Bytes>> {
    let connector = EndpointConnector {
        timeout: CONNECT_TIMEOUT,
        sockets: Arc::new(SocketBudget::new(0)),
        max_head: 1000,
        max_fields: 10,
        own_sockets: Arc::default(),
        name_case: NameCase::Lower,
        max_streams: 1,
        ping_interval: Duration::from_secs(10),
        ping_timeout: Duration::from_secs(10),
    };
    let limits = IdleLimits { per_endpoint: 1, timeout: Duration::from_secs(10), recent: Duration::from_secs(10) };
    ConnectionPools::new(connector, limits, WorkerSubsetting::new(1, 1), Arc::default())
}

/// The documented limit is that of both waits together.
#[tokio::test(start_paused = true)]
async fn time_for_the_share_of_the_client_counts_for_the_socket_as_well() {
    let pools = pools_without_sockets();
    let client = ClientSlot::of([192, 0, 2, 1].into());
    let address = SocketAddr::from(([127, 0, 0, 1], 9));
    for (port, protocol) in [(80, UpstreamProtocol::Http1), (81, UpstreamProtocol::Http2)] {
        let upstream = UpstreamRegistry::default().upstream(&UpstreamKey { port, protocol, ..UpstreamKey::default() });
        let (handshake_time, place_wait) = Default::default();
        let target = UpstreamTarget { upstream: &upstream, server_name: None, client, handshake_time, place_wait };
        let clients = Rc::clone(&pools.pool(&upstream).clients);
        for is_raw in [false, true] {
            let mut share: Vec<_> = std::iter::from_fn(|| clients.try_begin(client, |_| false)).collect();
            assert_ne!(share.len(), 0);
            let began = Instant::now();
            let connecting = async {
                let outcome = if is_raw {
                    pools.open_raw(&upstream, address, client, b"").await.map(drop)
                } else {
                    pools.connect(&target, address, IdleReuse::Any, None).await.map(drop)
                };
                (outcome, began.elapsed())
            };
            let release = async {
                tokio::time::sleep(CONNECT_TIMEOUT * 3 / 5).await; // The clock is paused.
                share.clear();
            };
            let ((outcome, waited), ()) = tokio::join!(connecting, release);
            assert!(matches!(outcome, Err(ConnectError::LimitReached(_, SocketLimit::Share { .. }))), "{outcome:?}");
            let milliseconds = CONNECT_TIMEOUT.as_millis();
            assert!((milliseconds..=milliseconds + 1).contains(&waited.as_millis()), "{waited:?}, {protocol:?}");
        }
    }
}

/// Timeouts while the process had no sockets left counted as those of the endpoints.
#[tokio::test(start_paused = true)]
async fn requests_behind_one_that_waits_for_a_socket_wait_for_it_as_well() {
    let pools = pools_without_sockets();
    let address = SocketAddr::from(([127, 0, 0, 1], 9));
    let key = UpstreamKey { protocol: UpstreamProtocol::Http2, ..UpstreamKey::default() };
    let upstream = UpstreamRegistry::default().upstream(&key);
    let targets = [1, 2].map(|client| UpstreamTarget::new(&upstream, None, ClientSlot::numbered(client)));
    let time = CONNECT_TIMEOUT / 2;
    let connect = |target| tokio::time::timeout(time, pools.connect(target, address, IdleReuse::Any, None));
    let outcomes = futures_util::future::join_all(targets.iter().map(connect)).await;
    assert!(outcomes.iter().all(Result::is_err), "no socket becomes free");
    let waited = targets.each_ref().map(|target| target.place_wait.total());
    assert!(waited.iter().all(|waited| *waited >= time), "{waited:?}");
}
