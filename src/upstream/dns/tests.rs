//! The life of answers under paused time, and questions to a real server on loopback.

use std::net::{Ipv4Addr, SocketAddr};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::proto::rr::Name;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::servers::Servers;
use super::source::Family;
use super::*;

/// Answers that were prepared, one after the other; the last one again and again.
struct Script {
    answers: Mutex<Vec<Option<Answer>>>,
    asked: mpsc::Sender<(String, Instant)>,
}

impl Source for Script {
    fn ask<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Answer, Unresolved>> {
        async move {
            self.asked.send((name.to_owned(), Instant::now())).await.unwrap();
            let mut answers = self.answers.lock();
            let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
            answer.ok_or(Unresolved::Absent)
        }
        .boxed()
    }
}

type Changes = mpsc::Receiver<(String, Vec<IpAddr>)>;
type Questions = mpsc::Receiver<(String, Instant)>;

fn scripted(answers: Vec<Option<Answer>>) -> (Dns, Questions, Changes) {
    let (asked, questions) = mpsc::channel(1);
    let (dns, changes) = observed(Box::new(Script { answers: Mutex::new(answers), asked }), BOUNDS);
    (dns, questions, changes)
}

fn observed(source: Box<dyn Source>, bounds: Bounds) -> (Dns, Changes) {
    let (changed, changes) = mpsc::channel(16);
    let dns = Dns::new(source, bounds, move |name, addresses| {
        changed.try_send((name.to_owned(), addresses.to_vec())).unwrap();
    });
    (dns, changes)
}

fn answer(ttl: u64, addresses: &[&str]) -> Option<Answer> {
    Some(Answer { addresses: ips(addresses), ttl: Duration::from_secs(ttl), missing: None })
}

fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

fn names(names: &[&str]) -> BTreeSet<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

/// The time between two questions.
async fn pause(questions: &mut Questions, last: &mut Instant) -> Duration {
    let (_, at) = questions.recv().await.unwrap();
    let pause = at - *last;
    *last = at;
    pause
}

/// The timer rounds up to its resolution.
fn about(pause: Duration, seconds: u64) -> bool {
    let wanted = Duration::from_secs(seconds);
    pause >= wanted && pause <= wanted + Duration::from_millis(2)
}

#[tokio::test(start_paused = true)]
async fn an_answer_lives_as_long_as_it_says_within_bounds() {
    let script = vec![answer(60, &["10.0.0.1"]), answer(0, &["10.0.0.1"]), answer(90_000, &["10.0.0.1"])];
    let (mut dns, mut questions, _changes) = scripted(script);
    let mut last = Instant::now();
    dns.follow(&names(&["web.test"]));
    assert!(about(pause(&mut questions, &mut last).await, 0));
    assert!(about(pause(&mut questions, &mut last).await, 60));
    assert!(about(pause(&mut questions, &mut last).await, 1));
    assert!(about(pause(&mut questions, &mut last).await, 300));
}

#[tokio::test(start_paused = true)]
async fn only_changes_are_told_and_the_order_of_answers_is_none() {
    let script = vec![
        answer(1, &["10.0.0.2", "10.0.0.1", "::1"]),
        answer(1, &["::1", "10.0.0.1", "10.0.0.2", "10.0.0.1"]),
        answer(1, &["10.0.0.3"]),
    ];
    let (mut dns, mut questions, mut changes) = scripted(script);
    dns.follow(&names(&["web.test"]));
    for _ in 0..5 {
        questions.recv().await.unwrap();
    }
    assert_eq!(changes.try_recv().unwrap(), ("web.test".to_owned(), ips(&["10.0.0.1", "10.0.0.2", "::1"])));
    assert_eq!(changes.try_recv().unwrap(), ("web.test".to_owned(), ips(&["10.0.0.3"])));
    assert!(changes.try_recv().is_err());
    assert_eq!(dns.addresses("web.test"), Some(ips(&["10.0.0.3"])));
    assert_eq!(dns.addresses("other.test"), None);
}

#[tokio::test(start_paused = true)]
async fn a_failure_keeps_the_last_addresses_and_is_retried_more_and_more_slowly() {
    let mut script = vec![answer(10, &["10.0.0.1"])];
    script.extend(std::iter::repeat_n(None, 7));
    script.extend([answer(10, &["10.0.0.1"]), None, answer(10, &["10.0.0.2"])]);
    let (mut dns, mut questions, mut changes) = scripted(script);
    let mut last = Instant::now();
    dns.follow(&names(&["web.test"]));
    assert!(about(pause(&mut questions, &mut last).await, 0));
    assert!(about(pause(&mut questions, &mut last).await, 10));
    for most in [1, 2, 4, 8, 16, 30, 30] {
        let pause = pause(&mut questions, &mut last).await;
        let most = Duration::from_secs(most);
        assert!(pause >= most / 2 && pause <= most + Duration::from_millis(2), "{pause:?} of {most:?}");
        assert_eq!(dns.addresses("web.test"), Some(ips(&["10.0.0.1"])));
    }
    // It was answered in between, so the next failure is a first one again.
    assert!(about(pause(&mut questions, &mut last).await, 10));
    assert!(pause(&mut questions, &mut last).await <= Duration::from_millis(1002));
    assert_eq!(changes.recv().await.unwrap().1, ips(&["10.0.0.1"]));
    assert_eq!(changes.recv().await.unwrap().1, ips(&["10.0.0.2"]));
}

#[tokio::test(start_paused = true)]
async fn a_family_that_could_not_be_asked_for_keeps_its_addresses() {
    let partial = Answer { addresses: ips(&["10.0.0.2"]), ttl: Duration::ZERO, missing: Some(Family::V6) };
    let script = vec![answer(1, &["10.0.0.1", "::1"]), Some(partial), answer(1, &["10.0.0.2"])];
    let (mut dns, mut questions, mut changes) = scripted(script);
    dns.follow(&names(&["web.test"]));
    for expected in [&["10.0.0.1", "::1"][..], &["10.0.0.2", "::1"], &["10.0.0.2"]] {
        questions.recv().await.unwrap();
        assert_eq!(changes.recv().await.unwrap().1, ips(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn names_are_followed_until_they_are_not_any_more() {
    let (mut dns, mut questions, mut changes) = scripted(vec![answer(5, &["10.0.0.1"])]);
    dns.follow(&names(&["a.test", "b.test"]));
    let mut first = [questions.recv().await.unwrap().0, questions.recv().await.unwrap().0];
    first.sort();
    assert_eq!(first, ["a.test", "b.test"]);
    changes.recv().await.unwrap();
    changes.recv().await.unwrap();
    let begin = Instant::now();
    dns.follow(&names(&["b.test", "c.test"]));
    assert_eq!(dns.addresses("a.test"), None);
    assert_eq!(dns.addresses("b.test"), Some(ips(&["10.0.0.1"])));
    // The new one at once, and the old one when its answer has expired, not again because the set changed.
    let (name, at) = questions.recv().await.unwrap();
    assert_eq!((name.as_str(), at), ("c.test", begin));
    assert_eq!(changes.recv().await.unwrap().0, "c.test");
    let (name, at) = questions.recv().await.unwrap();
    assert_eq!(name, "b.test");
    assert!(about(at - begin, 5));
    assert_eq!(questions.recv().await.unwrap().0, "c.test");
    // A name that comes back is told again, for those who have forgotten it meanwhile.
    dns.follow(&names(&["a.test"]));
    assert_eq!(questions.recv().await.unwrap().0, "a.test");
    assert_eq!(changes.recv().await.unwrap().0, "a.test");
    // Ended tasks are not kept.
    dns.follow(&names(&["a.test"]));
    assert_eq!(dns.tasks.len(), 1);
}

/// A DNS server that says what it is told to.
struct Server {
    address: SocketAddr,
    replies: Arc<Mutex<BTreeMap<(&'static str, Kind), Reply>>>,
    questions: Arc<Mutex<Vec<String>>>,
    _task: JoinSet<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    A = 1,
    Aaaa = 28,
}

#[derive(Clone, Debug)]
enum Reply {
    /// Seconds to live, and addresses.
    Found(u32, Vec<IpAddr>),
    Refused,
}

impl Server {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (replies, questions) = (Arc::<Mutex<BTreeMap<_, _>>>::default(), Arc::<Mutex<Vec<_>>>::default());
        let mut task = JoinSet::new();
        task.spawn({
            let (replies, questions) = (replies.clone(), questions.clone());
            async move {
                let mut packet = [0; 1500];
                loop {
                    let (length, client) = socket.recv_from(&mut packet).await.unwrap();
                    let (name, kind, end) = question(&packet[..length]);
                    let reply = replies.lock().get(&(name.as_str(), kind)).cloned();
                    questions.lock().push(format!("{name} {kind:?}"));
                    socket.send_to(&respond(&packet[..end], reply), client).await.unwrap();
                }
            }
        });
        Server { address, replies, questions, _task: task }
    }

    fn say(&self, name: &'static str, kind: Kind, reply: Reply) {
        self.replies.lock().insert((name, kind), reply);
    }

    fn source(&self, search: &[&str], hosts: &str) -> Servers {
        let mut server = NameServerConfig::udp(Ipv4Addr::LOCALHOST.into());
        server.connections[0].port = self.address.port();
        let search = search.iter().map(|domain| Name::from_ascii(domain).unwrap()).collect();
        let config = ResolverConfig::from_parts(None, search, vec![server]);
        let mut servers = Servers::new(config, ResolverOpts::default()).unwrap();
        servers.hosts_file = hosts.into();
        servers
    }
}

/// The name and kind of the one question in a query, and where it ends.
fn question(packet: &[u8]) -> (String, Kind, usize) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while packet[at] != 0 {
        let end = at + 1 + usize::from(packet[at]);
        labels.push(String::from_utf8(packet[at + 1..end].to_vec()).unwrap());
        at = end;
    }
    let kind = if packet[at + 2] == Kind::A as u8 { Kind::A } else { Kind::Aaaa };
    (labels.join("."), kind, at + 5)
}

/// A response to the question that `query` ends with; NXDOMAIN without a reply.
fn respond(query: &[u8], reply: Option<Reply>) -> Vec<u8> {
    let (code, ttl, addresses) = match reply {
        Some(Reply::Found(ttl, addresses)) => (0, ttl, addresses),
        Some(Reply::Refused) => (5, 0, vec![]),
        None => (3, 0, vec![]),
    };
    let mut response = query[..2].to_vec();
    response.extend([0x81, 0x80 | code, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
    response.extend(&query[12..]);
    for address in addresses {
        let (kind, data) = match address {
            IpAddr::V4(address) => (Kind::A, address.octets().to_vec()),
            IpAddr::V6(address) => (Kind::Aaaa, address.octets().to_vec()),
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
async fn both_families_are_asked_for_and_the_shorter_life_counts() {
    let server = Server::start().await;
    server.say("web.test", Kind::A, Reply::Found(60, ips(&["10.0.0.1", "10.0.0.2"])));
    server.say("web.test", Kind::Aaaa, Reply::Found(20, ips(&["fd00::1"])));
    let found = server.source(&[], NO_HOSTS).ask("web.test").await.unwrap();
    assert_eq!(Some(found), answer(20, &["10.0.0.1", "10.0.0.2", "fd00::1"]));
}

#[tokio::test]
async fn none_and_no_answer_are_told_apart() {
    let server = Server::start().await;
    server.say("v4.test", Kind::A, Reply::Found(60, ips(&["10.0.0.1"])));
    server.say("half.test", Kind::A, Reply::Found(60, ips(&["10.0.0.1"])));
    server.say("half.test", Kind::Aaaa, Reply::Refused);
    server.say("refused.test", Kind::A, Reply::Refused);
    server.say("refused.test", Kind::Aaaa, Reply::Refused);
    server.say("unsure.test", Kind::A, Reply::Refused);
    let source = server.source(&[], NO_HOSTS);
    assert_eq!(source.ask("v4.test").await.unwrap().missing, None);
    assert_eq!(source.ask("half.test").await.unwrap().missing, Some(Family::V6));
    assert!(matches!(source.ask("refused.test").await, Err(Unresolved::Failed(_))));
    assert!(matches!(source.ask("unsure.test").await, Err(Unresolved::Failed(_))));
    assert!(matches!(source.ask("absent.test").await, Err(Unresolved::Absent)));
    let long = "x".repeat(64);
    for name in ["", ".", "a..b", long.as_str()] {
        assert!(matches!(source.ask(name).await, Err(Unresolved::NotAName)), "{name:?}");
    }
}

#[tokio::test]
async fn names_of_tenants_are_never_the_beginning_of_others() {
    let (asked, mut questions) = mpsc::channel(1);
    let answers = Mutex::new(vec![answer(5, &["10.0.0.1"])]);
    let whole = Whole(Script { answers, asked });
    for (written, expected) in [
        ("db", "db."),
        ("db.b", "db.b."),
        ("api.example.com", "api.example.com."),
        ("api.example.com.", "api.example.com."),
        ("web.shop.svc", "web.shop.svc"),
    ] {
        whole.ask(written).await.unwrap();
        assert_eq!(questions.recv().await.unwrap().0, expected);
    }
}

#[tokio::test]
async fn whole_names_are_asked_for_before_they_are_searched() {
    let server = Server::start().await;
    let source = server.source(&["ns.test", "other.test"], NO_HOSTS);
    let cases: [(&str, &[&str]); 3] = [
        ("web.example", &["web.example", "web.example.ns.test", "web.example.other.test"]),
        ("web", &["web.ns.test", "web.other.test", "web"]),
        ("web.example.", &["web.example"]),
    ];
    for (name, expected) in cases {
        assert!(matches!(source.ask(name).await, Err(Unresolved::Absent)));
        let mut asked: Vec<_> = std::mem::take(&mut *server.questions.lock());
        asked.retain_mut(|question| {
            question.strip_suffix(" A").map(str::to_owned).map(|name| *question = name).is_some()
        });
        asked.dedup();
        assert_eq!(asked, expected, "{name}");
    }
}

#[tokio::test]
async fn the_hosts_file_comes_first_and_edits_of_it_count() {
    let server = Server::start().await;
    server.say("web.test", Kind::A, Reply::Found(60, ips(&["10.0.0.1"])));
    let file = tempfile::NamedTempFile::new().unwrap();
    let source = server.source(&["ns.test"], file.path().to_str().unwrap());
    assert_eq!(source.ask("web.test").await.unwrap().addresses, ips(&["10.0.0.1"]));
    std::fs::write(file.path(), "127.0.0.1 localhost\n192.0.2.1 other WEB.test # comment\n192.0.2.2 db.ns.test\n")
        .unwrap();
    assert_eq!(source.ask("web.test").await.unwrap().addresses, ips(&["192.0.2.1"]));
    assert_eq!(source.ask("db").await.unwrap().addresses, ips(&["192.0.2.2"]));
    // Only what the file says, although ::1 could be thought of too.
    assert_eq!(source.ask("localhost").await.unwrap().addresses, ips(&["127.0.0.1"]));
}

#[tokio::test]
async fn localhost_needs_neither_a_file_nor_a_server() {
    let server = Server::start().await;
    let mut found = server.source(&[], NO_HOSTS).ask("localhost").await.unwrap().addresses;
    found.sort();
    assert_eq!(found, ips(&["127.0.0.1", "::1"]));
    assert!(server.questions.lock().is_empty());
    let system = System::of_this_machine();
    assert!(system.ask("localhost").await.unwrap().addresses.iter().all(IpAddr::is_loopback));
}

#[tokio::test]
async fn without_servers_the_c_library_resolves_until_there_are_some() {
    let server = Server::start().await;
    server.say("localhost.test", Kind::A, Reply::Found(60, ips(&["10.0.0.1"])));
    let file = tempfile::NamedTempFile::new().unwrap();
    let servers = Mutex::new(vec![server.source(&[], NO_HOSTS)]);
    let configured = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let system = System::new(file.path().to_owned(), {
        let configured = configured.clone();
        move || match configured.load(std::sync::atomic::Ordering::SeqCst) {
            true => Ok(servers.lock().pop().expect("read once per change")),
            false => Err("no nameservers found in config".into()),
        }
    });
    let found = system.ask("localhost").await.unwrap();
    assert!(found.ttl == Duration::from_secs(30) && found.addresses.iter().all(IpAddr::is_loopback), "{found:?}");
    // It is configured now, but nothing tells us before the file changes.
    configured.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(system.ask("localhost").await.unwrap(), found);
    std::fs::write(file.path(), "nameserver 127.0.0.1\n").unwrap();
    for _ in 0..2 {
        assert_eq!(Some(system.ask("localhost.test").await.unwrap()), answer(60, &["10.0.0.1"]));
    }
}

#[tokio::test]
async fn a_change_at_the_server_arrives_and_an_outage_changes_nothing() {
    let server = Server::start().await;
    let quick = Duration::from_millis(5);
    let bounds = Bounds { shortest_ttl: quick, longest_ttl: quick, first_retry: quick, last_retry: quick };
    let (mut dns, mut changes) = observed(Box::new(server.source(&[], NO_HOSTS)), bounds);
    server.say("web.test", Kind::A, Reply::Found(0, ips(&["10.0.0.1"])));
    dns.follow(&names(&["web.test"]));
    assert_eq!(changes.recv().await.unwrap(), ("web.test".to_owned(), ips(&["10.0.0.1"])));
    server.say("web.test", Kind::A, Reply::Refused);
    server.say("web.test", Kind::Aaaa, Reply::Refused);
    let asked = server.questions.lock().len();
    while server.questions.lock().len() < asked + 6 {
        tokio::task::yield_now().await;
    }
    assert!(changes.try_recv().is_err());
    assert_eq!(dns.addresses("web.test"), Some(ips(&["10.0.0.1"])));
    server.say("web.test", Kind::A, Reply::Found(0, ips(&["10.0.0.2"])));
    server.replies.lock().remove(&("web.test", Kind::Aaaa));
    assert_eq!(changes.recv().await.unwrap(), ("web.test".to_owned(), ips(&["10.0.0.2"])));
}
