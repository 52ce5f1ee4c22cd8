//! One upstream and the addresses that its requests may go to.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tracing::warn;

use super::health::{Health, Instants, Load};
use super::reach::{Loopback, NoBackend};
use super::tls::{Client, Name, Proven, Terms};

/// What endpoints are spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    #[default]
    Http1,
    /// HTTP/2, without TLS by prior knowledge.
    Http2,
}

/// Identity of an upstream: a port of a Service, and what it speaks. As long as it stays in use, its pools and cursors stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamKey {
    pub namespace: Arc<str>,
    pub service: Arc<str>,
    pub port: u16,
    pub protocol: Protocol,
    /// None if it is spoken to in plain text.
    pub tls: Option<Terms>,
    /// Who stands in for the Service and may share its requests in another way.
    pub facade: Option<Arc<str>>,
    /// Requests go to the address of the Service, which shares them out, and not to its endpoints.
    pub whole: bool,
}

/// `namespace/service:port`, for a facade `namespace/service:port as facade`.
impl fmt::Display for UpstreamKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}:{}", self.namespace, self.service, self.port)?;
        if let Some(facade) = &self.facade {
            write!(formatter, " as {facade}")?;
        }
        if self.whole { formatter.write_str(" as a whole") } else { Ok(()) }
    }
}

/// Where an endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    Ip(SocketAddr),
    /// A name to be resolved by DNS, whose answers are followed for as long as they live.
    Name {
        host: Arc<str>,
        port: u16,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => write!(formatter, "{address}"),
            Address::Name { host, port } => write!(formatter, "{host}:{port}"),
        }
    }
}

/// The endpoints that may be sent requests now, in sorted order without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    pub addresses: Vec<Address>,
    pub balance: Balance,
}

/// How it is decided which endpoint is next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn. Every worker has turns of its own, so that nothing is shared.
    #[default]
    RoundRobin,
    /// The one with the fewest requests in progress, over all workers; in turn among equals.
    LeastRequests,
}

/// An endpoint that can be connected to, with what is known about it. It keeps that for as long as its address stays.
#[derive(Clone, Debug)]
pub struct Reachable {
    pub address: SocketAddr,
    pub health: Arc<Health>,
}

/// Endpoints of an upstream, by how they fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    pub well: usize,
    /// Could not be connected to, and nobody has got through since.
    pub passed_over: usize,
}

/// How an endpoint fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub target: Address,
    /// None for a name that has no address that a backend can have.
    pub address: Option<SocketAddr>,
    /// Requests are sent there. If not, it could not be connected to, and has not been since.
    pub is_well: bool,
}

/// One upstream, shared by all routes and workers that use it.
///
/// Configuration says which endpoints there are (`set_endpoints`), DNS says where the named ones are (`set_resolved`).
/// Each keeps what the other said: an edit that leaves a name in place does not make its addresses forgotten, and an
/// answer that comes before the configuration names its host is not kept.
#[derive(Debug)]
pub struct Upstream {
    pub key: UpstreamKey,
    configured: ArcSwap<Endpoints>,
    /// Where to connect: `configured` with every name replaced by its addresses; a name without any is absent.
    reachable: ArcSwap<Vec<Reachable>>,
    /// Some endpoint could not be connected to, and has not been since.
    ailing: AtomicBool,
    /// Whether requests in progress count.
    least: AtomicBool,
    instants: Instants,
    /// For endpoints that are spoken to in TLS.
    pub(super) client: Option<Client>,
    proven: Proven,
    pub(super) loopback: Loopback,
    /// When it was last told that one of them cannot be.
    told: AtomicU64,
    /// What DNS said, by host. Its lock makes the two setters take turns; requests never take it.
    resolved: Mutex<BTreeMap<Arc<str>, Vec<IpAddr>>>,
}

impl Upstream {
    pub fn new(key: UpstreamKey) -> Self {
        Upstream {
            client: key.tls.as_ref().map(Terms::client),
            proven: Proven::default(),
            loopback: Loopback::default(),
            told: AtomicU64::new(0),
            key,
            configured: ArcSwap::default(),
            reachable: ArcSwap::default(),
            ailing: AtomicBool::new(false),
            least: AtomicBool::new(false),
            instants: Instants::default(),
            resolved: Mutex::new(BTreeMap::new()),
        }
    }

    /// The endpoints as configured.
    pub fn endpoints(&self) -> arc_swap::Guard<Arc<Endpoints>> {
        self.configured.load()
    }

    /// Where a request can be sent to now, sorted by address.
    pub fn reachable(&self) -> arc_swap::Guard<Arc<Vec<Reachable>>> {
        self.reachable.load()
    }

    /// Every endpoint as configured, at each of its addresses, for whoever looks at it from outside.
    pub fn standings(&self) -> Vec<Standing> {
        let resolved = self.resolved.lock();
        let standing = |target: &Address, address: SocketAddr| {
            let is_well = self.health(address).is_none_or(|health| health.is_well());
            Standing { target: target.clone(), address: Some(address), is_well }
        };
        let mut standings = Vec::new();
        for target in &self.configured.load().addresses {
            match target {
                Address::Ip(address) => standings.push(standing(target, *address)),
                Address::Name { host, port } => {
                    let addresses = resolved.get(host).into_iter().flatten().filter(|address| self.may_be(**address));
                    let before = standings.len();
                    standings.extend(addresses.map(|address| standing(target, SocketAddr::new(*address, *port))));
                    if standings.len() == before {
                        standings.push(Standing { target: target.clone(), address: None, is_well: false });
                    }
                }
            }
        }
        standings
    }

    /// Which endpoint is next, by whose turn it is and how they fare, but none of `avoid`. An endpoint that could not be
    /// connected to is passed over for a while; if there is no other it is tried all the same.
    pub fn next(&self, turn: usize, avoid: &[SocketAddr]) -> Option<SocketAddr> {
        let reachable = self.reachable.load();
        let in_turn = |index: usize| &reachable[(turn.wrapping_add(index)) % reachable.len()];
        let least = self.least.load(Relaxed);
        if !least && avoid.is_empty() && !self.is_ailing() {
            return (!reachable.is_empty()).then(|| in_turn(0).address);
        }
        let allowed = || (0..reachable.len()).map(in_turn).filter(|endpoint| !avoid.contains(&endpoint.address));
        if self.is_ailing() {
            let now = self.instants.now();
            // One request finds out whether it is back. The others do not wait for that.
            if let Some(first) = allowed().next()
                && first.health.claim_probe(now)
            {
                return Some(first.address);
            }
        }
        let well: SmallVec<[&Reachable; 16]> = allowed().filter(|endpoint| endpoint.health.is_well()).collect();
        let chosen = match &well[..] {
            [] => allowed().next(),
            well if least => well.iter().copied().min_by_key(|endpoint| endpoint.health.requests()),
            // Not just the next one: that would get the turns of all that are passed over before it.
            well => Some(well[turn % well.len()]),
        };
        chosen.map(|endpoint| endpoint.address)
    }

    /// A connection could not be made.
    pub fn failed(&self, address: SocketAddr) {
        if let Some(health) = self.health(address) {
            health.failed(self.instants.now());
            self.ailing.store(true, Relaxed);
        }
    }

    /// A connection was made, or an answer came over one that was there.
    pub fn succeeded(&self, address: SocketAddr) {
        if !self.is_ailing() {
            return;
        }
        if let Some(health) = self.health(address) {
            health.succeeded();
            self.look_for_ailments();
        }
    }

    /// A connection was not made, for a reason that says nothing about the endpoint. If that was to find out whether it is
    /// back, the next request may.
    pub(super) fn undecided(&self, address: SocketAddr) {
        if !self.is_ailing() {
            return;
        }
        if let Some(health) = self.health(address) {
            health.undecided(self.instants.now());
        }
    }

    /// Hands were shaken under this name.
    pub(super) fn proved(&self, name: &Name) {
        self.proven.note(name, self.instants.now());
    }

    /// Whether some endpoint has lately shaken hands under this name.
    pub(super) fn is_proven(&self, name: &Name) -> bool {
        self.proven.contains(name, self.instants.now())
    }

    /// How the endpoints fare.
    pub fn tally(&self) -> Tally {
        let reachable = self.reachable.load();
        let well = reachable.iter().filter(|endpoint| endpoint.health.is_well()).count();
        Tally { well, passed_over: reachable.len() - well }
    }

    /// Whether it is time to tell again what is wrong with its endpoints, which every request finds out about.
    pub(super) fn is_to_be_told(&self) -> bool {
        // Never 0, which is never.
        let (now, last) = (self.instants.now() + 1, self.told.load(Relaxed));
        let is_time = last == 0 || now.saturating_sub(last) >= SILENCE;
        is_time && self.told.compare_exchange(last, now, Relaxed, Relaxed).is_ok()
    }

    /// Counts a request in progress, if that decides which endpoint is next.
    pub fn load(&self, address: SocketAddr) -> Option<Load> {
        if self.least.load(Relaxed) { self.health(address).map(Load::new) } else { None }
    }

    fn health(&self, address: SocketAddr) -> Option<Arc<Health>> {
        let reachable = self.reachable.load();
        let index = reachable.binary_search_by_key(&address, |endpoint| endpoint.address).ok()?;
        Some(Arc::clone(&reachable[index].health))
    }

    fn is_ailing(&self) -> bool {
        self.ailing.load(Relaxed)
    }

    /// Somebody may fail between the look and the note; the next failure of it notes it again.
    fn look_for_ailments(&self) {
        let ailing = self.reachable.load().iter().any(|endpoint| !endpoint.health.is_well());
        self.ailing.store(ailing, Relaxed);
    }

    /// The hosts that DNS is to be asked about.
    pub fn names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<_> = hosts(&self.configured.load()).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    /// What configuration says. Addresses of names that stay are kept.
    pub fn set_endpoints(&self, endpoints: Endpoints) {
        let mut resolved = self.resolved.lock();
        if **self.configured.load() == endpoints {
            return;
        }
        resolved.retain(|host, _| hosts(&endpoints).any(|name| name == host));
        self.least.store(endpoints.balance == Balance::LeastRequests, Relaxed);
        self.configured.store(Arc::new(endpoints));
        self.publish(&resolved);
    }

    /// What DNS says about a host; no addresses means that it is not to be reached. Ignored if no endpoint has this name.
    pub fn set_resolved(&self, host: &str, addresses: Vec<IpAddr>) {
        let mut resolved = self.resolved.lock();
        let Some(name) = hosts(&self.configured.load()).find(|name| &***name == host).cloned() else { return };
        if resolved.get(&name) == Some(&addresses) {
            return;
        }
        let refused = |address: &IpAddr| Some((*address, NoBackend::of(*address, self.loopback)?));
        if let Some((address, why)) = addresses.iter().find_map(refused)
            && self.is_to_be_told()
        {
            let remedy = why.remedy();
            warn!(upstream = %self.key, "DNS says {address} of {host}, which is {why}, so nothing is sent there; {remedy}");
        }
        resolved.insert(name, addresses);
        self.publish(&resolved);
    }

    /// Takes over what DNS said about the hosts of another one, which this one is to take the place of.
    pub(super) fn inherit(&self, other: &Upstream) {
        let known = other.resolved.lock().clone();
        *self.resolved.lock() = known;
    }

    /// Whether a backend can have this address.
    fn may_be(&self, address: IpAddr) -> bool {
        NoBackend::of(address, self.loopback).is_none()
    }

    fn publish(&self, resolved: &BTreeMap<Arc<str>, Vec<IpAddr>>) {
        let mut addresses = Vec::new();
        for address in &self.configured.load().addresses {
            match address {
                Address::Ip(address) => addresses.push(*address),
                Address::Name { host, port } => {
                    let resolved = resolved.get(host).into_iter().flatten();
                    addresses.extend(resolved.map(|address| SocketAddr::new(*address, *port)));
                }
            }
        }
        addresses.retain(|address| self.may_be(address.ip()));
        // Two names may lead to one address: it is one endpoint then, not one with a double share.
        addresses.sort();
        addresses.dedup();
        if self.reachable.load().iter().map(|endpoint| endpoint.address).eq(addresses.iter().copied()) {
            return;
        }
        let reachable = addresses
            .into_iter()
            .map(|address| Reachable { address, health: self.health(address).unwrap_or_default() })
            .collect();
        self.reachable.store(Arc::new(reachable));
        self.look_for_ailments();
    }
}

/// Milliseconds.
const SILENCE: u64 = 60_000;

fn hosts(endpoints: &Endpoints) -> impl Iterator<Item = &Arc<str>> {
    endpoints.addresses.iter().filter_map(|address| match address {
        Address::Ip(_) => None,
        Address::Name { host, .. } => Some(host),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream() -> Upstream {
        Upstream::new(UpstreamKey { namespace: "ns".into(), service: "web".into(), port: 80, ..UpstreamKey::default() })
    }

    fn endpoints(texts: &[&str]) -> Endpoints {
        let addresses = texts.iter().map(|text| match text.parse() {
            Ok(address) => Address::Ip(address),
            Err(_) => {
                let (host, port) = text.rsplit_once(':').unwrap();
                Address::Name { host: host.into(), port: port.parse().unwrap() }
            }
        });
        Endpoints { addresses: addresses.collect(), ..Endpoints::default() }
    }

    fn reachable(upstream: &Upstream) -> Vec<String> {
        upstream.reachable().iter().map(|endpoint| endpoint.address.to_string()).collect()
    }

    #[test]
    fn nobody_is_led_to_what_is_no_backend() {
        let mut upstream = upstream();
        for (loopback, expected) in [
            (Loopback::Served, &["127.0.0.1:80", "127.0.0.1:81", "192.0.2.1:80", "192.0.2.7:81"][..]),
            (Loopback::Refused, &["192.0.2.1:80", "192.0.2.7:81"]),
        ] {
            upstream = Upstream { loopback, ..upstream };
            upstream.set_endpoints(Endpoints::default());
            upstream.set_endpoints(endpoints(&[
                "127.0.0.1:80",
                "192.0.2.1:80",
                "[64:ff9b::a9fe:a9fe]:80",
                "a.example:81",
            ]));
            let answer = ["169.254.169.254", "100.100.100.200", "127.0.0.1", "192.0.2.7"];
            upstream.set_resolved("a.example", answer.map(|address| address.parse().unwrap()).to_vec());
            assert_eq!(reachable(&upstream), expected);
        }
        let names = |upstream: &Upstream| -> Vec<_> {
            let named = |standing: &Standing| matches!(standing.target, Address::Name { .. });
            upstream
                .standings()
                .into_iter()
                .filter(named)
                .map(|standing| (standing.address, standing.is_well))
                .collect()
        };
        assert_eq!(names(&upstream), [(Some("192.0.2.7:81".parse().unwrap()), true)]);
        upstream.set_resolved("a.example", vec!["127.0.0.1".parse().unwrap()]);
        assert_eq!(names(&upstream), [(None, false)]);
        assert_eq!(reachable(&upstream), ["192.0.2.1:80"]);
    }

    #[test]
    fn a_name_is_no_endpoint_until_it_is_resolved() {
        let upstream = upstream();
        upstream.set_endpoints(endpoints(&["10.0.0.1:80", "db.example:81"]));
        assert_eq!(upstream.names(), [Arc::<str>::from("db.example")]);
        assert_eq!(reachable(&upstream), ["10.0.0.1:80"]);
        upstream.set_resolved("db.example", vec!["10.0.0.3".parse().unwrap(), "10.0.0.2".parse().unwrap()]);
        assert_eq!(reachable(&upstream), ["10.0.0.1:80", "10.0.0.2:81", "10.0.0.3:81"]);
        upstream.set_resolved("db.example", vec![]);
        assert_eq!(reachable(&upstream), ["10.0.0.1:80"]);
    }

    #[test]
    fn configuration_and_dns_do_not_lose_each_other() {
        let upstream = upstream();
        upstream.set_resolved("early.example", vec!["10.0.0.9".parse().unwrap()]);
        upstream.set_endpoints(endpoints(&["a.example:80", "early.example:80"]));
        assert_eq!(reachable(&upstream), [""; 0], "an answer nobody asked for yet is not kept");
        upstream.set_resolved("a.example", vec!["10.0.0.2".parse().unwrap()]);
        upstream.set_endpoints(endpoints(&["10.0.0.1:80", "a.example:8080"]));
        assert_eq!(reachable(&upstream), ["10.0.0.1:80", "10.0.0.2:8080"]);
        upstream.set_endpoints(endpoints(&["10.0.0.1:80"]));
        upstream.set_endpoints(endpoints(&["a.example:80"]));
        assert_eq!(reachable(&upstream), [""; 0], "a name that was gone is asked about anew");
    }

    #[tokio::test(start_paused = true)]
    async fn each_endpoint_stands_as_it_fares() {
        let upstream = upstream();
        upstream.set_endpoints(endpoints(&["10.0.0.1:80", "10.0.0.2:80", "a.example:81", "b.example:82"]));
        upstream.set_resolved("a.example", vec!["10.0.0.3".parse().unwrap(), "10.0.0.4".parse().unwrap()]);
        let standings = || -> Vec<String> {
            let text = |standing: Standing| {
                let address = standing.address.map(|address| address.to_string()).unwrap_or_default();
                format!("{} {address} {}", standing.target, standing.is_well)
            };
            upstream.standings().into_iter().map(text).collect()
        };
        let lost = "10.0.0.4:81".parse().unwrap();
        upstream.failed(lost);
        assert_eq!(
            standings(),
            [
                "10.0.0.1:80 10.0.0.1:80 true",
                "10.0.0.2:80 10.0.0.2:80 true",
                "a.example:81 10.0.0.3:81 true",
                "a.example:81 10.0.0.4:81 false",
                "b.example:82  false",
            ]
        );
        upstream.succeeded(lost);
        upstream.set_resolved("b.example", vec!["10.0.0.5".parse().unwrap()]);
        assert!(standings().iter().all(|standing| standing.ends_with(" true")), "{:?}", standings());
    }

    #[test]
    fn one_address_under_two_names_is_one_endpoint() {
        let upstream = upstream();
        upstream.set_endpoints(endpoints(&["a.example:80", "b.example:80"]));
        upstream.set_resolved("a.example", vec!["10.0.0.2".parse().unwrap()]);
        upstream.set_resolved("b.example", vec!["10.0.0.2".parse().unwrap()]);
        assert_eq!(reachable(&upstream), ["10.0.0.2:80"]);
    }

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 80))
    }

    fn three() -> Upstream {
        let upstream = upstream();
        upstream.set_endpoints(endpoints(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]));
        upstream
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_be_connected_to_is_passed_over_and_then_asked_once() {
        let upstream = three();
        let round = |avoid: &[SocketAddr]| (0..6).map(|turn| upstream.next(turn, avoid).unwrap()).collect::<Vec<_>>();
        let count = |round: &[SocketAddr], number| round.iter().filter(|chosen| **chosen == address(number)).count();
        assert_eq!([1, 2, 3].map(|number| count(&round(&[]), number)), [2, 2, 2]);
        upstream.failed(address(1));
        assert_eq!([1, 2, 3].map(|number| count(&round(&[]), number)), [0, 3, 3]);
        assert_eq!(upstream.next(0, &[address(2)]), Some(address(3)));
        assert_eq!(upstream.next(0, &[address(2), address(3)]), Some(address(1)), "better than nobody");
        assert_eq!(upstream.next(0, &[address(1), address(2), address(3)]), None);
        tokio::time::advance(std::time::Duration::from_millis(500)).await;
        assert_eq!(count(&round(&[]), 1), 1, "one request finds out");
        upstream.succeeded(address(1));
        assert_eq!([1, 2, 3].map(|number| count(&round(&[]), number)), [2, 2, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_out_nothing_leaves_it_to_the_next() {
        let upstream = three();
        upstream.failed(address(1));
        tokio::time::advance(std::time::Duration::from_millis(500)).await;
        for _ in 0..3 {
            assert_eq!(upstream.next(0, &[]), Some(address(1)));
            assert_ne!(upstream.next(0, &[]), Some(address(1)), "one request finds out");
            upstream.undecided(address(1));
        }
        upstream.undecided(address(2));
        assert_eq!(upstream.tally(), Tally { well: 2, passed_over: 1 });
        upstream.succeeded(address(1));
        upstream.undecided(address(1));
        assert_eq!(upstream.tally(), Tally { well: 3, passed_over: 0 });
    }

    #[test]
    fn if_all_are_down_all_are_tried() {
        let upstream = three();
        for number in 1..=3 {
            upstream.failed(address(number));
        }
        let tried: std::collections::BTreeSet<_> = (0..3).map(|turn| upstream.next(turn, &[]).unwrap()).collect();
        assert_eq!(tried.len(), 3);
    }

    #[test]
    fn what_is_known_about_an_endpoint_stays_while_it_does() {
        let upstream = three();
        upstream.failed(address(2));
        upstream.set_endpoints(endpoints(&["10.0.0.2:80", "10.0.0.4:80"]));
        assert!((0..4).all(|turn| upstream.next(turn, &[]) == Some(address(4))));
        upstream.set_endpoints(endpoints(&["10.0.0.4:80"]));
        upstream.set_endpoints(endpoints(&["10.0.0.2:80", "10.0.0.4:80"]));
        assert_eq!(upstream.next(0, &[]), Some(address(2)), "one that comes back is new");
    }

    #[test]
    fn least_requests_takes_the_idlest() {
        let upstream = upstream();
        let least = Endpoints { balance: Balance::LeastRequests, ..endpoints(&["10.0.0.1:80", "10.0.0.2:80"]) };
        assert!(upstream.load(address(1)).is_none());
        upstream.set_endpoints(least);
        let first = upstream.load(upstream.next(0, &[]).unwrap());
        let second = upstream.next(0, &[]).unwrap();
        assert_eq!(second, address(2), "the other one has a request");
        let second = upstream.load(second);
        drop(first);
        assert!((0..4).all(|turn| upstream.next(turn, &[]) == Some(address(1))));
        drop(second);
        assert_ne!(upstream.next(0, &[]), upstream.next(1, &[]), "in turn among equals");
    }
}
