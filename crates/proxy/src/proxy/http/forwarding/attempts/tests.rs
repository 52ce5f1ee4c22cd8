//! The attempts of requests to endpoints that refuse, close, do not respond, or respond.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::super::attempt_policy::AttemptPolicy;
use super::super::destination::Destination;
use super::super::failover::forward_with_alternatives;
use super::super::time_limits::forward_in_time;
use super::*;
use crate::endpoint_tls::UpstreamProtocol;
use crate::fast_cgi::FastCgiParams;
use crate::hop_count::HopCount;
use crate::http1::NameCase;
use crate::limits::ProxyLimits;
use crate::plugin_api::trace::EndpointTrace;
use crate::proxy::http::fields::field_policy::InformationalPolicy;
use crate::proxy::http::fields::header_map_pool::HeaderMapPool;
use crate::snapshot::timeouts_and_retries::{RetryPolicy, RetryScope, TimeoutSetting, TimeoutsAndRetries};
use crate::upstream::settings::{HealthSettings, HedgeSettings, PassiveChecks, RequestTimeouts, RetrySettings};
use crate::upstream::{
    AlternativeBackends, Availability, BackendTraffic, ClientSlot, ConnectionPools, EndpointAddress, EndpointConnector,
    Endpoints, IdleLimits, MinRetryRate, OverBudget, OwnSockets, RetryLimits, SocketBudget, Upstream, UpstreamKey,
    UpstreamRegistry, WorkerSubsetting,
};

struct TestCaller {
    pools: ConnectionPools<Full<Bytes>>,
    header_maps: HeaderMapPool,
    limits: ProxyLimits,
    has_timed_out: bool,
}

impl Caller for TestCaller {
    type Body = Full<Bytes>;

    fn pools(&self) -> &ConnectionPools<Full<Bytes>> {
        &self.pools
    }

    fn header_maps(&self) -> &HeaderMapPool {
        &self.header_maps
    }

    fn limits(&self) -> &ProxyLimits {
        &self.limits
    }

    fn has_timed_out(&self) -> bool {
        self.has_timed_out
    }
}

fn caller(has_timed_out: bool) -> Rc<TestCaller> {
    let limits = ProxyLimits::default();
    let connector = EndpointConnector {
        timeout: Duration::from_secs(10),
        sockets: Arc::new(SocketBudget::new(100)),
        own_sockets: Arc::new(OwnSockets::default()),
        max_head: limits.max_response_head,
        max_fields: limits.max_response_fields,
        name_case: NameCase::Lower,
        max_streams: 100,
        ping_interval: Duration::from_secs(10),
        ping_timeout: Duration::from_secs(10),
    };
    let idle_limits = IdleLimits { per_endpoint: 0, timeout: Duration::from_secs(10), recent: Duration::from_secs(10) };
    let pools = ConnectionPools::new(connector, idle_limits, WorkerSubsetting::new(1, 100), Arc::default());
    Rc::new(TestCaller { pools, header_maps: HeaderMapPool::default(), limits, has_timed_out })
}

/// How an endpoint behaves.
#[derive(Clone, Copy, Debug)]
enum Endpoint {
    Refuses,
    Closes,
    IsSilent,
    Responds(u16),
    RespondsAfter(Duration, u16),
}

/// Starts an endpoint. The socket reserves the port of one that refuses connections.
async fn start(endpoint: Endpoint) -> (SocketAddr, Option<Socket>) {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    if let Endpoint::Refuses = endpoint {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&any_port.into()).unwrap();
        return (socket.local_addr().unwrap().as_socket().unwrap(), Some(socket));
    }
    let listener = TcpListener::bind(any_port).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            if stream.read(&mut head).await.unwrap_or(0) == 0 {
                // The caller has given up.
                continue;
            }
            match endpoint {
                Endpoint::Refuses => unreachable!("no connection is accepted"),
                Endpoint::Closes => {}
                Endpoint::IsSilent => open.push(stream),
                Endpoint::Responds(status) | Endpoint::RespondsAfter(_, status) => {
                    if let Endpoint::RespondsAfter(delay, _) = endpoint {
                        sleep(delay).await; // The time of the endpoint is what is tested.
                    }
                    let response = format!("HTTP/1.1 {status} Status\r\ncontent-length: 0\r\n\r\n");
                    stream.write_all(response.as_bytes()).await.unwrap();
                }
            }
        }
    });
    (address, None)
}

fn upstream(addresses: &[SocketAddr], retry_limits: Option<RetryLimits>) -> Arc<Upstream> {
    upstream_with(addresses, BackendTraffic { retry_limits, ..BackendTraffic::default() })
}

fn upstream_with(addresses: &[SocketAddr], traffic: BackendTraffic) -> Arc<Upstream> {
    let mut addresses: Vec<_> = addresses.iter().map(|address| EndpointAddress::Ip(*address)).collect();
    addresses.sort();
    let upstream = Upstream::new(UpstreamKey { service: "web".into(), port: 80, ..UpstreamKey::default() });
    upstream.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
    Arc::new(upstream)
}

fn plain_destination(upstream: &Arc<Upstream>) -> Destination<'_> {
    Destination {
        upstream,
        admitted: None,
        pinned: None,
        pinned_others: Box::default(),
        hash: None,
        policy: AttemptPolicy::default(),
        settings: None,
        upgrade: None,
        may_have_te: false,
        informational: InformationalPolicy::default(),
        trace: EndpointTrace::Unchanged,
        forwarding: None,
        hops: HopCount::ZERO.next(),
        client: ClientSlot::of([127, 0, 0, 1].into()),
    }
}

struct Case<'c> {
    endpoints: &'c [Endpoint],
    rule: Option<&'c TimeoutsAndRetries>,
    is_mirror: bool,
    method: Method,
    retry_limits: Option<RetryLimits>,
    has_timed_out: bool,
}

/// The name of a case, the case, the status or the error, and the endpoints that are tried.
type Expected<'c> = (&'c str, Case<'c>, Result<u16, RequestError>, &'c [usize]);

const PLAIN: Case<'_> = Case {
    endpoints: &[],
    rule: None,
    is_mirror: false,
    method: Method::GET,
    retry_limits: None,
    has_timed_out: false,
};

/// The status or the error, and the positions of the endpoints that were tried. The first one is tried first.
async fn run(case: &Case<'_>) -> (Result<u16, RequestError>, Vec<usize>) {
    let mut started = Vec::new();
    for endpoint in case.endpoints {
        started.push(start(*endpoint).await);
    }
    let addresses: Vec<_> = started.iter().map(|(address, _)| *address).collect();
    let upstream = upstream(&addresses, case.retry_limits);
    let policy = AttemptPolicy { rule: case.rule, is_mirror: case.is_mirror, ..AttemptPolicy::default() };
    let destination = Destination { pinned: addresses.first().copied(), policy, ..plain_destination(&upstream) };
    let request = Request::builder().method(case.method.clone()).uri("/").header(HOST, "a.example");
    let request = request.body(Full::new(Bytes::new())).unwrap();
    let mut attempts = Attempts::default();
    let caller = caller(case.has_timed_out);
    let (outcome, _) = forward_in_time(&caller, destination, request, &mut attempts).await;
    let position = |address| addresses.iter().position(|known| *known == address).unwrap();
    let tried = attempts.as_slice().iter().map(|attempt| position(attempt.endpoint)).collect();
    for report in upstream.endpoint_reports() {
        let address = report.address.unwrap();
        let refuses = matches!(case.endpoints[position(address)], Endpoint::Refuses);
        let was_tried = attempts.as_slice().iter().any(|attempt| attempt.endpoint == address);
        assert_eq!(report.is_healthy, !(refuses && was_tried), "only refused connections eject {address}");
    }
    (outcome.map(|response| response.status().as_u16()).map_err(|error| error.error), tried)
}

#[tokio::test]
async fn endpoints_are_tried_as_the_policy_allows() {
    use Endpoint::{Closes, IsSilent, Refuses, Responds};
    let retry = |max_retries, codes: &[u16]| TimeoutsAndRetries {
        retry: Some(RetryPolicy {
            max_retries,
            codes: codes.into(),
            backoff: Duration::from_millis(1),
            scope: RetryScope::default(),
        }),
        ..TimeoutsAndRetries::default()
    };
    let in_time = |limit| TimeoutSetting::After(Duration::from_millis(limit));
    let (once, twice, never, on_503) = (retry(1, &[]), retry(2, &[]), retry(0, &[]), retry(1, &[503]));
    let each_in_time = TimeoutsAndRetries { backend_request: in_time(200), ..once.clone() };
    let all_in_time = TimeoutsAndRetries { request: in_time(200), ..once.clone() };
    let hour = Duration::from_secs(3600);
    let none = Some(RetryLimits {
        percent: 0,
        interval: hour,
        min_retry_rate: MinRetryRate { count: 0, interval: hour },
        over_budget: OverBudget::Reject,
    });
    let refused = Err(RequestError::ConnectionRefused);
    let cases: &[Expected<'_>] = &[
        ("no endpoints", PLAIN, Err(RequestError::NoEndpoints), &[]),
        ("response", Case { endpoints: &[Responds(503), Refuses], ..PLAIN }, Ok(503), &[0]),
        ("another endpoint", Case { endpoints: &[Refuses, Responds(200)], ..PLAIN }, Ok(200), &[0, 1]),
        ("all refuse", Case { endpoints: &[Refuses, Refuses], ..PLAIN }, refused, &[0, 1]),
        (
            "perhaps processed",
            Case { endpoints: &[Closes, Responds(200)], ..PLAIN },
            Err(RequestError::NoResponse),
            &[0],
        ),
        ("mirrored copy", Case { endpoints: &[Refuses, Responds(200)], is_mirror: true, ..PLAIN }, refused, &[0]),
        (
            "idempotent and repeated",
            Case { endpoints: &[Closes, Responds(200)], rule: Some(&once), ..PLAIN },
            Ok(200),
            &[0, 1],
        ),
        (
            "not idempotent",
            Case { endpoints: &[Closes, Responds(200)], rule: Some(&once), method: Method::POST, ..PLAIN },
            Err(RequestError::NoResponse),
            &[0],
        ),
        ("no retries", Case { endpoints: &[Refuses, Responds(200)], rule: Some(&never), ..PLAIN }, refused, &[0]),
        ("status", Case { endpoints: &[Responds(503), Responds(200)], rule: Some(&on_503), ..PLAIN }, Ok(200), &[0, 1]),
        (
            "status of the last attempt",
            Case { endpoints: &[Responds(503)], rule: Some(&on_503), ..PLAIN },
            Ok(503),
            &[0, 0],
        ),
        (
            "the endpoint that has just failed is the last choice",
            Case { endpoints: &[Closes, Closes], rule: Some(&twice), ..PLAIN },
            Err(RequestError::NoResponse),
            &[0, 1, 0],
        ),
        (
            "timeout of an attempt",
            Case { endpoints: &[IsSilent, Responds(200)], rule: Some(&each_in_time), ..PLAIN },
            Ok(200),
            &[0, 1],
        ),
        (
            "timeout of the request",
            Case { endpoints: &[IsSilent, Responds(200)], rule: Some(&all_in_time), ..PLAIN },
            Err(RequestError::RequestTimeout),
            &[0],
        ),
        (
            "budget is used",
            Case { endpoints: &[Closes, Responds(200)], rule: Some(&once), retry_limits: none, ..PLAIN },
            Err(RequestError::RetryBudget),
            &[0],
        ),
        (
            "refused connections are outside of the budget",
            Case { endpoints: &[Refuses, Responds(200)], retry_limits: none, ..PLAIN },
            Ok(200),
            &[0, 1],
        ),
        (
            "caller waits no longer",
            Case { endpoints: &[IsSilent, Responds(200)], rule: Some(&once), has_timed_out: true, ..PLAIN },
            Err(RequestError::ConnectTimeout),
            &[0],
        ),
    ];
    let run_all = async {
        for (name, case, expected, tried) in cases {
            assert_eq!(run(case).await, (*expected, tried.to_vec()), "{name}");
        }
    };
    LocalSet::new().run_until(run_all).await;
}

/// The response must be complete when its attempt and its request must be.
#[tokio::test]
async fn response_has_the_earliest_time_limit() {
    let second = Duration::from_secs(1);
    let test = async {
        let (address, _) = start(Endpoint::Responds(200)).await;
        let upstream = upstream(&[address], None);
        for (request_limit, attempt_limit, expected) in [
            (None, None, None),
            (Some(60 * second), None, Some(RequestError::RequestTimeout)),
            (Some(60 * second), Some(30 * second), Some(RequestError::BackendRequestTimeout)),
            (Some(60 * second), Some(90 * second), Some(RequestError::RequestTimeout)),
        ] {
            let setting = |limit: Option<Duration>| limit.map_or(TimeoutSetting::Unset, TimeoutSetting::After);
            let rule = TimeoutsAndRetries {
                request: setting(request_limit),
                backend_request: setting(attempt_limit),
                ..TimeoutsAndRetries::default()
            };
            let policy = AttemptPolicy { rule: Some(&rule), ..AttemptPolicy::default() };
            let destination = Destination { policy, ..plain_destination(&upstream) };
            let request = Request::get("/").header(HOST, "a.example").body(Full::new(Bytes::new())).unwrap();
            let began = Instant::now();
            let (outcome, limit) =
                forward_in_time(&caller(false), destination, request, &mut Attempts::default()).await;
            assert_eq!(outcome.map(|response| response.status().as_u16()).map_err(|error| error.error), Ok(200));
            assert_eq!(limit.map(|limit| limit.error), expected);
            assert!(limit.is_none_or(|limit| limit.end >= began + 30 * second));
        }
    };
    LocalSet::new().run_until(test).await;
}

/// The time for the request begins once, also if a response is replaced by that of another upstream.
#[tokio::test]
async fn alternative_has_the_rest_of_the_time_of_the_service() {
    let (minute, delay) = (Duration::from_secs(60), Duration::from_millis(500));
    let test = async {
        let (failing, _) = start(Endpoint::RespondsAfter(delay, 503)).await;
        let (other, _) = start(Endpoint::Responds(200)).await;
        let registry = UpstreamRegistry::default();
        let key = |service: &str| UpstreamKey { service: service.into(), port: 80, ..UpstreamKey::default() };
        let alternatives = AlternativeBackends {
            failover: [key("other")].into(),
            min_available_percent: 1,
            on_statuses: [503].into(),
            circuit_fallback: None,
        };
        let timeouts = RequestTimeouts { request: Some(minute), ..RequestTimeouts::default() };
        let traffic = BackendTraffic {
            alternatives: Some(Arc::new(alternatives)),
            timeouts: Some(Arc::new(timeouts)),
            ..BackendTraffic::default()
        };
        let endpoints = |address, traffic| Endpoints {
            addresses: vec![EndpointAddress::Ip(address)],
            traffic,
            ..Endpoints::default()
        };
        let web = registry.set_endpoints(&key("web"), endpoints(failing, traffic));
        let _other = registry.set_endpoints(&key("other"), endpoints(other, BackendTraffic::default()));
        let destination = Destination { settings: web.attempt_settings(), ..plain_destination(&web) };
        let request = Request::get("/").header(HOST, "a.example").body(Full::new(Bytes::new())).unwrap();
        let began = Instant::now();
        let (outcome, limit) =
            forward_with_alternatives(&caller(false), destination, request, &mut Attempts::default()).await;
        assert_eq!(outcome.map(|response| response.status().as_u16()).map_err(|error| error.error), Ok(200));
        assert!(limit.unwrap().end < began + minute + delay);
    };
    LocalSet::new().run_until(test).await;
}

/// Starts an endpoint that sends these bytes on each connection, and closes it after this time.
async fn start_closing(first_bytes: &'static [u8], open_for: Duration) -> SocketAddr {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(first_bytes).await.unwrap();
            sleep(open_for).await; // The time of the endpoint is what is tested.
        }
    });
    address
}

/// Of two attempts at the same time, the first may have been processed. The second ends last, without a connection.
#[tokio::test]
async fn request_of_which_one_attempt_may_have_been_processed_goes_to_no_alternative() {
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let test = async {
        let closes = start_closing(SETTINGS, Duration::from_millis(200)).await;
        let has_no_http2 = start_closing(&[], Duration::from_millis(1000)).await;
        let (other, _) = start(Endpoint::Responds(200)).await;
        let registry = UpstreamRegistry::default();
        let key = |service: &str, protocol| UpstreamKey {
            service: service.into(),
            port: 80,
            protocol,
            ..UpstreamKey::default()
        };
        let web = key("web", UpstreamProtocol::Http2);
        let fallback = key("other", UpstreamProtocol::Http1);
        let alternatives = AlternativeBackends {
            failover: [fallback.clone()].into(),
            min_available_percent: 1,
            ..AlternativeBackends::default()
        };
        let hedge = Some(HedgeSettings { delay: Some(Duration::from_millis(10)) });
        let retries = RetrySettings { attempts: 0, hedge, ..RetrySettings::default() };
        let traffic = BackendTraffic {
            alternatives: Some(Arc::new(alternatives)),
            retries: Some(Arc::new(retries)),
            ..BackendTraffic::default()
        };
        let endpoints = |addresses: &[SocketAddr], traffic| {
            let mut addresses: Vec<_> = addresses.iter().map(|address| EndpointAddress::Ip(*address)).collect();
            addresses.sort();
            Endpoints { addresses, traffic, ..Endpoints::default() }
        };
        let web = registry.set_endpoints(&web, endpoints(&[closes, has_no_http2], traffic));
        let _fallback = registry.set_endpoints(&fallback, endpoints(&[other], BackendTraffic::default()));
        let destination =
            Destination { pinned: Some(closes), settings: web.attempt_settings(), ..plain_destination(&web) };
        let request = Request::get("/").header(HOST, "a.example").body(Full::new(Bytes::new())).unwrap();
        let mut attempts = Attempts::default();
        let (outcome, _) = forward_with_alternatives(&caller(false), destination, request, &mut attempts).await;
        let tried: Vec<_> = attempts.as_slice().iter().map(|attempt| attempt.endpoint).collect();
        assert_eq!(tried, [closes, has_no_http2]);
        let outcome = outcome.map(|response| response.status().as_u16()).map_err(|error| error.error);
        assert_eq!(outcome, Err(RequestError::InvalidResponse));
    };
    LocalSet::new().run_until(test).await;
}

/// What a copy shows does not count, so it must not take the place of a request that shows that the endpoint has
/// recovered.
#[tokio::test]
async fn mirrored_copies_leave_the_trial_of_an_endpoint_to_others() {
    let test = async {
        let (recovered, _) = start(Endpoint::Responds(200)).await;
        let (other, _) = start(Endpoint::Responds(200)).await;
        let ejection = Duration::from_millis(1);
        let passive = PassiveChecks {
            server_errors: 1,
            base_ejection: ejection,
            max_ejection: ejection,
            ..PassiveChecks::default()
        };
        let traffic = BackendTraffic {
            health: Some(Arc::new(HealthSettings { passive, ..HealthSettings::default() })),
            ..BackendTraffic::default()
        };
        let upstream = upstream_with(&[recovered, other], traffic);
        let failed =
            Outcome { status: Some(StatusCode::INTERNAL_SERVER_ERROR), ..Outcome::of(OutcomeClass::Responded) };
        upstream.report(recovered, &failed);
        let availability = || {
            let reports = upstream.endpoint_reports();
            reports
                .iter()
                .find(|report| report.address == Some(recovered))
                .unwrap()
                .health
                .as_ref()
                .unwrap()
                .availability
        };
        assert_ne!(availability(), Availability::Available);
        sleep(10 * ejection).await; // Ejections end by the clock, without an event.
        let caller = caller(false);
        for is_mirror in [true, true, true, true, false, false, false, false] {
            let policy = AttemptPolicy { is_mirror, ..AttemptPolicy::default() };
            let destination = Destination { policy, ..plain_destination(&upstream) };
            let request = Request::get("/").header(HOST, "a.example").body(Full::new(Bytes::new())).unwrap();
            let (outcome, _) = forward_in_time(&caller, destination, request, &mut Attempts::default()).await;
            assert!(outcome.is_ok());
        }
        assert_eq!(availability(), Availability::Available);
    };
    LocalSet::new().run_until(test).await;
}

/// Starts a FastCGI server, which checks that it gets the whole request.
async fn start_fast_cgi() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut received = Vec::new();
            while !received.ends_with(&[1, 5, 0, 1, 0, 0, 0, 0]) {
                assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0, "{received:?}");
            }
            let has = |text: &[u8]| received.windows(text.len()).any(|part| part == text);
            assert!(has(b"SCRIPT_NAME/a.php") && has(b"CONTENT_LENGTH4") && has(b"body"), "{received:?}");
            let head = b"Status: 201\r\n\r\n";
            let response = [&[1, 6, 0, 1, 0, 15, 0, 0], &head[..], &[1, 3, 0, 1, 0, 8, 0, 0], &[0; 8]].concat();
            stream.write_all(&response).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn fast_cgi_servers_get_each_attempt_with_its_parameters() {
    let once = TimeoutsAndRetries {
        retry: Some(RetryPolicy {
            max_retries: 1,
            // Because of it, bodies are kept.
            codes: [503].into(),
            backoff: Duration::from_millis(1),
            scope: RetryScope::default(),
        }),
        ..TimeoutsAndRetries::default()
    };
    let unsupported = RequestError::InvalidRule(crate::snapshot::rule::RouteFailure::Unsupported);
    let all = async {
        for (first, has_params, expected) in [
            (None, true, Ok(201)),
            (Some(Endpoint::Refuses), true, Ok(201)),
            (Some(Endpoint::Closes), true, Ok(201)),
            (None, false, Err(unsupported)),
        ] {
            let mut addresses = Vec::new();
            let mut reserved = None;
            if let Some(endpoint) = first {
                let (address, socket) = start(endpoint).await;
                addresses.push(address);
                reserved = socket;
            }
            addresses.push(start_fast_cgi().await);
            let upstream = Upstream::new(UpstreamKey { protocol: UpstreamProtocol::FastCgi, ..UpstreamKey::default() });
            let mut endpoints: Vec<_> = addresses.iter().map(|address| EndpointAddress::Ip(*address)).collect();
            endpoints.sort();
            upstream.set_endpoints(Endpoints { addresses: endpoints, ..Endpoints::default() });
            let upstream = Arc::new(upstream);
            let policy = AttemptPolicy { rule: Some(&once), ..AttemptPolicy::default() };
            let destination =
                Destination { pinned: addresses.first().copied(), policy, ..plain_destination(&upstream) };
            let mut request = Request::put("/a.php").body(Full::new(Bytes::from_static(b"body"))).unwrap();
            if has_params {
                let mut params = FastCgiParams::default();
                params.push(b"SCRIPT_NAME", b"/a.php");
                request.extensions_mut().insert(Arc::new(params));
            }
            let mut attempts = Attempts::default();
            let (outcome, _) = forward_in_time(&caller(false), destination, request, &mut attempts).await;
            let found = outcome.map(|response| response.status().as_u16()).map_err(|error| error.error);
            assert_eq!(found, expected, "{first:?}");
            drop(reserved);
        }
    };
    LocalSet::new().run_until(all).await;
}
