//! Tests of TTLs and retries under paused time, and of queries to a real server on loopback.

use std::net::{Ipv4Addr, SocketAddr};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::proto::rr::Name;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::server_resolver::ServerResolver;
use super::source::DnsFamily;
use super::*;

/// Scripted results, returned in order; the last one repeats.
struct ScriptedResolver {
    results: Mutex<Vec<Option<ResolvedName>>>,
    queries: mpsc::Sender<(String, Instant)>,
}

impl ResolveName for ScriptedResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ResolvedName, ResolveError>> {
        async move {
            self.queries.send((name.to_owned(), Instant::now())).await.unwrap();
            let mut results = self.results.lock();
            let result = if results.len() > 1 { results.remove(0) } else { results[0].clone() };
            result.ok_or(ResolveError::NotFound)
        }
        .boxed()
    }
}

type Changes = mpsc::Receiver<(String, Vec<IpAddr>)>;
type QueryLog = mpsc::Receiver<(String, Instant)>;

fn scripted(script: Vec<Option<ResolvedName>>) -> (DnsFollower, QueryLog, Changes) {
    let (sender, queries) = mpsc::channel(1);
    let (dns, changes) = follower(Box::new(ScriptedResolver { results: Mutex::new(script), queries: sender }), BOUNDS);
    (dns, queries, changes)
}

fn follower(resolver: Box<dyn ResolveName>, bounds: RefreshBounds) -> (DnsFollower, Changes) {
    let (changed, changes) = mpsc::channel(16);
    let dns = DnsFollower::new(resolver, bounds, move |name, addresses| {
        changed.try_send((name.to_owned(), addresses.to_vec())).unwrap();
    });
    (dns, changes)
}

fn result(ttl: u64, addresses: &[&str]) -> Option<ResolvedName> {
    Some(ResolvedName { addresses: ips(addresses), ttl: Duration::from_secs(ttl), failed_family: None })
}

fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

fn names(names: &[&str]) -> BTreeMap<Arc<str>, UsingNamespaces> {
    names_of(&[("shop", names)])
}

/// Names with the namespaces that use them.
fn names_of(by_namespace: &[(&str, &[&str])]) -> BTreeMap<Arc<str>, UsingNamespaces> {
    let mut all: BTreeMap<Arc<str>, UsingNamespaces> = BTreeMap::new();
    for (namespace, names) in by_namespace {
        for name in *names {
            all.entry(Arc::from(*name)).or_default().insert(Arc::from(*namespace));
        }
    }
    all
}

/// The time between two queries.
async fn pause(queries: &mut QueryLog, last: &mut Instant) -> Duration {
    let (_, at) = queries.recv().await.unwrap();
    let pause = at - *last;
    *last = at;
    pause
}

/// Whether a pause has this length; the timer rounds up to its resolution.
fn is_about(pause: Duration, seconds: u64) -> bool {
    let expected = Duration::from_secs(seconds);
    pause >= expected && pause <= expected + Duration::from_millis(2)
}

#[tokio::test(start_paused = true)]
async fn results_are_refreshed_at_their_bounded_ttl() {
    let script = vec![result(60, &["10.0.0.1"]), result(0, &["10.0.0.1"]), result(90_000, &["10.0.0.1"])];
    let (mut dns, mut queries, _changes) = scripted(script);
    let mut last = Instant::now();
    dns.follow(names(&["web.test"]));
    assert!(is_about(pause(&mut queries, &mut last).await, 0));
    assert!(is_about(pause(&mut queries, &mut last).await, 60));
    assert!(is_about(pause(&mut queries, &mut last).await, 1));
    assert!(is_about(pause(&mut queries, &mut last).await, 300));
}

#[tokio::test(start_paused = true)]
async fn only_changed_address_sets_are_reported() {
    let script = vec![
        result(1, &["10.0.0.2", "10.0.0.1", "::1"]),
        result(1, &["::1", "10.0.0.1", "10.0.0.2", "10.0.0.1"]),
        result(1, &["10.0.0.3"]),
    ];
    let (mut dns, mut queries, mut changes) = scripted(script);
    dns.follow(names(&["web.test"]));
    for _ in 0..5 {
        queries.recv().await.unwrap();
    }
    assert_eq!(changes.try_recv().unwrap(), ("web.test".to_owned(), ips(&["10.0.0.1", "10.0.0.2", "::1"])));
    assert_eq!(changes.try_recv().unwrap(), ("web.test".to_owned(), ips(&["10.0.0.3"])));
    assert!(changes.try_recv().is_err());
    assert_eq!(dns.addresses("web.test"), Some(ips(&["10.0.0.3"])));
    assert_eq!(dns.addresses("other.test"), None);
}

#[tokio::test(start_paused = true)]
async fn failures_keep_addresses_and_back_off() {
    let mut script = vec![result(10, &["10.0.0.1"])];
    script.extend(std::iter::repeat_n(None, 7));
    script.extend([result(10, &["10.0.0.1"]), None, result(10, &["10.0.0.2"])]);
    let (mut dns, mut queries, mut changes) = scripted(script);
    let mut last = Instant::now();
    dns.follow(names(&["web.test"]));
    assert!(is_about(pause(&mut queries, &mut last).await, 0));
    assert!(is_about(pause(&mut queries, &mut last).await, 10));
    for limit in [1, 2, 4, 8, 16, 30, 30] {
        let pause = pause(&mut queries, &mut last).await;
        let limit = Duration::from_secs(limit);
        assert!(pause >= limit / 2 && pause <= limit + Duration::from_millis(2), "{pause:?} of {limit:?}");
        assert_eq!(dns.addresses("web.test"), Some(ips(&["10.0.0.1"])));
    }
    // A success in between resets the delay.
    assert!(is_about(pause(&mut queries, &mut last).await, 10));
    assert!(pause(&mut queries, &mut last).await <= Duration::from_millis(1002));
    assert_eq!(changes.recv().await.unwrap().1, ips(&["10.0.0.1"]));
    assert_eq!(changes.recv().await.unwrap().1, ips(&["10.0.0.2"]));
}

/// Never responds for names that begin with `silent`, whose lookups it logs, fails the first time for those that begin
/// with `late`, and finds all others.
struct PartlySilentResolver {
    late: Mutex<std::collections::BTreeSet<String>>,
    silent: mpsc::Sender<(String, Instant)>,
}

impl ResolveName for PartlySilentResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ResolvedName, ResolveError>> {
        async move {
            if name.starts_with("silent") {
                self.silent.try_send((name.to_owned(), Instant::now())).unwrap();
                return std::future::pending().await;
            }
            if name.starts_with("late") && self.late.lock().insert(name.to_owned()) {
                return Err(ResolveError::NotFound);
            }
            result(60, &["10.0.0.1"]).ok_or(ResolveError::NotFound)
        }
        .boxed()
    }
}

fn partly_silent() -> (DnsFollower, QueryLog, Changes) {
    let (silent, lookups) = mpsc::channel(100_000);
    let (dns, changes) = follower(Box::new(PartlySilentResolver { late: Mutex::default(), silent }), BOUNDS);
    (dns, lookups, changes)
}

#[tokio::test(start_paused = true)]
async fn names_that_are_never_resolved_do_not_delay_those_of_other_namespaces() {
    let silent: Vec<String> = (0..400).map(|number| format!("silent{number}.test")).collect();
    let silent: Vec<&str> = silent.iter().map(String::as_str).collect();
    for hostile in [&["hostile"][..], &["hostile1", "hostile2", "hostile3", "hostile4", "hostile5"]] {
        let (mut dns, _lookups, mut changes) = partly_silent();
        // The share of each namespace has other names.
        let parts: Vec<_> = hostile.iter().copied().zip(silent.chunks(400 / hostile.len())).collect();
        let follow =
            |dns: &mut DnsFollower, others: &[(&str, &[&str])]| dns.follow(names_of(&[&parts[..], others].concat()));
        // At first all names are new, and later they have failed.
        for age in [Duration::from_millis(10), Duration::from_secs(600)] {
            follow(&mut dns, &[(hostile[0], &["waiting-moved.test", "waiting-shared.test"])]);
            tokio::time::sleep(age).await; // Time is paused.
            while changes.try_recv().is_ok() {}
            // Both may still wait for the other namespace, whose names before them in the alphabet are looked up first.
            let (moved, shared) =
                (dns.addresses("waiting-moved.test").is_some(), dns.addresses("waiting-shared.test").is_some());
            let start = Instant::now();
            let others = [
                (hostile[0], &["waiting-shared.test"][..]),
                ("shop", &["new.test", "waiting-moved.test", "waiting-shared.test"]),
            ];
            follow(&mut dns, &others);
            let mut expected = vec!["new.test"];
            expected.extend((!moved).then_some("waiting-moved.test"));
            expected.extend((!shared).then_some("waiting-shared.test"));
            while !expected.is_empty() {
                let (name, _) = changes.recv().await.unwrap();
                expected.retain(|expected| *expected != name);
            }
            assert!(start.elapsed() <= Duration::from_millis(1010), "{:?}, {hostile:?}, {age:?}", start.elapsed());
            follow(&mut dns, &[]);
        }
        // A name that failed is looked up again after at most a second, and waits for no permit of others.
        if hostile.len() == 1 {
            let start = Instant::now();
            follow(&mut dns, &[("shop", &["late.test"])]);
            assert_eq!(changes.recv().await.unwrap().0, "late.test");
            assert!(start.elapsed() <= Duration::from_millis(1010), "{:?}", start.elapsed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn failing_lookups_get_less_time() {
    let (mut dns, mut lookups, _changes) = partly_silent();
    dns.follow(names(&["silent.test"]));
    let mut starts = Vec::new();
    for _ in 0..4 {
        starts.push(lookups.recv().await.unwrap().1);
    }
    let pauses: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let between = |pause: Duration, least: u64, most: u64| {
        pause >= Duration::from_millis(least) && pause <= Duration::from_millis(most + 5)
    };
    assert!(between(pauses[0], 1_000, 1_000), "continues among the slow lookups: {pauses:?}");
    assert!(between(pauses[1], 30_500, 31_000), "the time of the first lookup, then a delay: {pauses:?}");
    assert!(between(pauses[2], 6_000, 7_000), "less time, then twice the delay: {pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn failed_family_keeps_its_addresses() {
    let partial =
        ResolvedName { addresses: ips(&["10.0.0.2"]), ttl: Duration::ZERO, failed_family: Some(DnsFamily::V6) };
    let script = vec![result(1, &["10.0.0.1", "::1"]), Some(partial), result(1, &["10.0.0.2"])];
    let (mut dns, mut queries, mut changes) = scripted(script);
    dns.follow(names(&["web.test"]));
    for expected in [&["10.0.0.1", "::1"][..], &["10.0.0.2", "::1"], &["10.0.0.2"]] {
        queries.recv().await.unwrap();
        assert_eq!(changes.recv().await.unwrap().1, ips(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn names_are_followed_until_removed() {
    let (mut dns, mut queries, mut changes) = scripted(vec![result(5, &["10.0.0.1"])]);
    dns.follow(names(&["a.test", "b.test"]));
    let mut first = [queries.recv().await.unwrap().0, queries.recv().await.unwrap().0];
    first.sort();
    assert_eq!(first, ["a.test", "b.test"]);
    changes.recv().await.unwrap();
    changes.recv().await.unwrap();
    let begin = Instant::now();
    dns.follow(names(&["b.test", "c.test"]));
    assert_eq!(dns.addresses("a.test"), None);
    assert_eq!(dns.addresses("b.test"), Some(ips(&["10.0.0.1"])));
    // The new name is resolved at once, the old one only when its TTL expires.
    let (name, at) = queries.recv().await.unwrap();
    assert_eq!((name.as_str(), at), ("c.test", begin));
    assert_eq!(changes.recv().await.unwrap().0, "c.test");
    let (name, at) = queries.recv().await.unwrap();
    assert_eq!(name, "b.test");
    assert!(is_about(at - begin, 5));
    assert_eq!(queries.recv().await.unwrap().0, "c.test");
    // A name that is followed again is reported again, for callers that have dropped it.
    dns.follow(names(&["a.test"]));
    assert_eq!(queries.recv().await.unwrap().0, "a.test");
    assert_eq!(changes.recv().await.unwrap().0, "a.test");
    // Ended tasks are not kept.
    dns.follow(names(&["a.test"]));
    assert_eq!(dns.tasks.len(), 1);
}

/// A DNS server with configured replies.
struct FakeDnsServer {
    address: SocketAddr,
    replies: Arc<Mutex<BTreeMap<(&'static str, RecordKind), FakeReply>>>,
    queries: Arc<Mutex<Vec<String>>>,
    _task: JoinSet<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum RecordKind {
    A = 1,
    Aaaa = 28,
}

#[derive(Clone, Debug)]
enum FakeReply {
    /// TTL in seconds, and addresses.
    Found(u32, Vec<IpAddr>),
    Refused,
}

impl FakeDnsServer {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (replies, queries) = (Arc::<Mutex<BTreeMap<_, _>>>::default(), Arc::<Mutex<Vec<_>>>::default());
        let mut task = JoinSet::new();
        task.spawn({
            let (replies, queries) = (replies.clone(), queries.clone());
            async move {
                let mut packet = [0; 1500];
                loop {
                    let (length, client) = socket.recv_from(&mut packet).await.unwrap();
                    let (name, kind, end) = parse_query(&packet[..length]);
                    let reply = replies.lock().get(&(name.as_str(), kind)).cloned();
                    queries.lock().push(format!("{name} {kind:?}"));
                    socket.send_to(&respond(&packet[..end], reply), client).await.unwrap();
                }
            }
        });
        FakeDnsServer { address, replies, queries, _task: task }
    }

    fn set_reply(&self, name: &'static str, kind: RecordKind, reply: FakeReply) {
        self.replies.lock().insert((name, kind), reply);
    }

    fn resolver(&self, search: &[&str], hosts: &str) -> ServerResolver {
        let mut server = NameServerConfig::udp(Ipv4Addr::LOCALHOST.into());
        server.connections[0].port = self.address.port();
        let search = search.iter().map(|domain| Name::from_ascii(domain).unwrap()).collect();
        let config = ResolverConfig::from_parts(None, search, vec![server]);
        let mut servers = ServerResolver::new(config, ResolverOpts::default()).unwrap();
        servers.hosts_file = hosts.into();
        servers
    }
}

/// The name and type of the single question in a query, and its end offset.
fn parse_query(packet: &[u8]) -> (String, RecordKind, usize) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while packet[at] != 0 {
        let end = at + 1 + usize::from(packet[at]);
        labels.push(String::from_utf8(packet[at + 1..end].to_vec()).unwrap());
        at = end;
    }
    let kind = if packet[at + 2] == RecordKind::A as u8 { RecordKind::A } else { RecordKind::Aaaa };
    (labels.join("."), kind, at + 5)
}

/// A response to the question that `query` ends with; NXDOMAIN without a reply.
fn respond(query: &[u8], reply: Option<FakeReply>) -> Vec<u8> {
    // The codes are NOERROR, REFUSED and NXDOMAIN.
    let (code, ttl, addresses) = match reply {
        Some(FakeReply::Found(ttl, addresses)) => (0, ttl, addresses),
        Some(FakeReply::Refused) => (5, 0, vec![]),
        None => (3, 0, vec![]),
    };
    let mut response = query[..2].to_vec();
    response.extend([0x81, 0x80 | code, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
    response.extend(&query[12..]);
    for address in addresses {
        let (kind, data) = match address {
            IpAddr::V4(address) => (RecordKind::A, address.octets().to_vec()),
            IpAddr::V6(address) => (RecordKind::Aaaa, address.octets().to_vec()),
        };
        // The name is the one at offset 12.
        response.extend([0xc0, 12, 0, kind as u8, 0, 1]);
        response.extend(ttl.to_be_bytes());
        response.extend([0, data.len() as u8]);
        response.extend(data);
    }
    response
}

const NO_HOSTS: &str = "/nonexistent/hosts";

#[tokio::test]
async fn both_families_are_queried_and_the_lower_ttl_counts() {
    let server = FakeDnsServer::start().await;
    server.set_reply("web.test", RecordKind::A, FakeReply::Found(60, ips(&["10.0.0.1", "10.0.0.2"])));
    server.set_reply("web.test", RecordKind::Aaaa, FakeReply::Found(20, ips(&["fd00::1"])));
    let found = server.resolver(&[], NO_HOSTS).resolve("web.test").await.unwrap();
    assert_eq!(Some(found), result(20, &["10.0.0.1", "10.0.0.2", "fd00::1"]));
}

#[tokio::test]
async fn missing_records_and_failures_are_distinguished() {
    let server = FakeDnsServer::start().await;
    server.set_reply("v4.test", RecordKind::A, FakeReply::Found(60, ips(&["10.0.0.1"])));
    server.set_reply("half.test", RecordKind::A, FakeReply::Found(60, ips(&["10.0.0.1"])));
    server.set_reply("half.test", RecordKind::Aaaa, FakeReply::Refused);
    server.set_reply("refused.test", RecordKind::A, FakeReply::Refused);
    server.set_reply("refused.test", RecordKind::Aaaa, FakeReply::Refused);
    server.set_reply("unsure.test", RecordKind::A, FakeReply::Refused);
    let resolver = server.resolver(&[], NO_HOSTS);
    assert_eq!(resolver.resolve("v4.test").await.unwrap().failed_family, None);
    assert_eq!(resolver.resolve("half.test").await.unwrap().failed_family, Some(DnsFamily::V6));
    assert!(matches!(resolver.resolve("refused.test").await, Err(ResolveError::Failed(_))));
    assert!(matches!(resolver.resolve("unsure.test").await, Err(ResolveError::Failed(_))));
    assert!(matches!(resolver.resolve("absent.test").await, Err(ResolveError::NotFound)));
    let long = "x".repeat(64);
    for name in ["", ".", "a..b", long.as_str()] {
        assert!(matches!(resolver.resolve(name).await, Err(ResolveError::InvalidName)), "{name:?}");
    }
}

#[tokio::test]
async fn tenant_names_get_no_search_domains() {
    let (sender, mut queries) = mpsc::channel(1);
    let results = Mutex::new(vec![result(5, &["10.0.0.1"])]);
    let resolver = AbsoluteNames(ScriptedResolver { results, queries: sender });
    for (name, expected) in [
        ("db", "db."),
        ("db.b", "db.b."),
        ("api.example.com", "api.example.com."),
        ("api.example.com.", "api.example.com."),
        ("web.shop.svc", "web.shop.svc"),
    ] {
        resolver.resolve(name).await.unwrap();
        assert_eq!(queries.recv().await.unwrap().0, expected);
    }
}

#[tokio::test]
async fn dotted_names_are_tried_before_search_domains() {
    let server = FakeDnsServer::start().await;
    let resolver = server.resolver(&["ns.test", "other.test"], NO_HOSTS);
    let cases: [(&str, &[&str]); 3] = [
        ("web.example", &["web.example", "web.example.ns.test", "web.example.other.test"]),
        ("web", &["web.ns.test", "web.other.test", "web"]),
        ("web.example.", &["web.example"]),
    ];
    for (name, expected) in cases {
        assert!(matches!(resolver.resolve(name).await, Err(ResolveError::NotFound)));
        let mut queries: Vec<_> = std::mem::take(&mut *server.queries.lock());
        queries.retain_mut(|query| query.strip_suffix(" A").map(str::to_owned).map(|name| *query = name).is_some());
        queries.dedup();
        assert_eq!(queries, expected, "{name}");
    }
}

#[tokio::test]
async fn hosts_file_takes_precedence_and_is_reread() {
    let server = FakeDnsServer::start().await;
    server.set_reply("web.test", RecordKind::A, FakeReply::Found(60, ips(&["10.0.0.1"])));
    let file = tempfile::NamedTempFile::new().unwrap();
    let resolver = server.resolver(&["ns.test"], file.path().to_str().unwrap());
    assert_eq!(resolver.resolve("web.test").await.unwrap().addresses, ips(&["10.0.0.1"]));
    std::fs::write(file.path(), "127.0.0.1 localhost\n192.0.2.1 other WEB.test # comment\n192.0.2.2 db.ns.test\n")
        .unwrap();
    assert_eq!(resolver.resolve("web.test").await.unwrap().addresses, ips(&["192.0.2.1"]));
    assert_eq!(resolver.resolve("db").await.unwrap().addresses, ips(&["192.0.2.2"]));
    // The file takes precedence for `localhost`, too, which without it also has the address `::1`.
    assert_eq!(resolver.resolve("localhost").await.unwrap().addresses, ips(&["127.0.0.1"]));
}

#[tokio::test]
async fn localhost_resolves_without_file_and_server() {
    let server = FakeDnsServer::start().await;
    let mut found = server.resolver(&[], NO_HOSTS).resolve("localhost").await.unwrap().addresses;
    found.sort();
    assert_eq!(found, ips(&["127.0.0.1", "::1"]));
    assert!(server.queries.lock().is_empty());
    let system = SystemResolver::from_resolv_conf();
    assert!(system.resolve("localhost").await.unwrap().addresses.iter().all(IpAddr::is_loopback));
}

#[tokio::test]
async fn c_library_resolves_until_servers_are_configured() {
    let server = FakeDnsServer::start().await;
    server.set_reply("localhost.test", RecordKind::A, FakeReply::Found(60, ips(&["10.0.0.1"])));
    let file = tempfile::NamedTempFile::new().unwrap();
    let servers = Mutex::new(vec![server.resolver(&[], NO_HOSTS)]);
    let configured = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let system = SystemResolver::new(file.path().to_owned(), {
        let configured = configured.clone();
        move || match configured.load(std::sync::atomic::Ordering::SeqCst) {
            true => Ok(servers.lock().pop().expect("read once per change")),
            false => Err("no nameservers found in config".into()),
        }
    });
    let found = system.resolve("localhost").await.unwrap();
    assert!(found.ttl == Duration::from_secs(30) && found.addresses.iter().all(IpAddr::is_loopback), "{found:?}");
    // The configuration is valid now, but it is not read again before the file changes.
    configured.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(system.resolve("localhost").await.unwrap(), found);
    std::fs::write(file.path(), "nameserver 127.0.0.1\n").unwrap();
    for _ in 0..2 {
        assert_eq!(Some(system.resolve("localhost.test").await.unwrap()), result(60, &["10.0.0.1"]));
    }
}

#[tokio::test]
async fn changes_arrive_and_outages_keep_addresses() {
    let server = FakeDnsServer::start().await;
    let interval = Duration::from_millis(5);
    let bounds = RefreshBounds {
        shortest_ttl: interval,
        longest_ttl: interval,
        first_retry_delay: interval,
        longest_retry_delay: interval,
    };
    let (mut dns, mut changes) = follower(Box::new(server.resolver(&[], NO_HOSTS)), bounds);
    server.set_reply("web.test", RecordKind::A, FakeReply::Found(0, ips(&["10.0.0.1"])));
    dns.follow(names(&["web.test"]));
    assert_eq!(changes.recv().await.unwrap(), ("web.test".to_owned(), ips(&["10.0.0.1"])));
    server.set_reply("web.test", RecordKind::A, FakeReply::Refused);
    server.set_reply("web.test", RecordKind::Aaaa, FakeReply::Refused);
    let queries = server.queries.lock().len();
    while server.queries.lock().len() < queries + 6 {
        tokio::task::yield_now().await;
    }
    assert!(changes.try_recv().is_err());
    assert_eq!(dns.addresses("web.test"), Some(ips(&["10.0.0.1"])));
    server.set_reply("web.test", RecordKind::A, FakeReply::Found(0, ips(&["10.0.0.2"])));
    server.replies.lock().remove(&("web.test", RecordKind::Aaaa));
    assert_eq!(changes.recv().await.unwrap(), ("web.test".to_owned(), ips(&["10.0.0.2"])));
}
