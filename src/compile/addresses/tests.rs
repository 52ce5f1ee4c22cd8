//! Address assignment, with and without earlier state.

use serde_json::{Value, json};

use super::*;

fn spec(addresses: Value) -> GatewaySpec {
    serde_json::from_value(json!({"gatewayClassName": "portico", "listeners": [], "addresses": addresses})).unwrap()
}

fn assign(
    addresses: &mut GatewayAddresses,
    pool: &GatewayAddressPool,
    memory: &AddressState,
    gateways: &[(&str, Value)],
) -> Vec<String> {
    let gateways: Vec<_> =
        gateways.iter().map(|(name, value)| (ObjectKey::new("ns", name), spec(value.clone()))).collect();
    addresses.assign(&AddressProvider::Pool(pool.clone()), memory, gateways.iter().map(|(key, spec)| (key, spec)));
    gateways
        .iter()
        .map(|(key, _)| {
            let assigned = addresses.get(key).unwrap();
            let problems = [&assigned.unsupported, &assigned.unusable, &assigned.unassigned];
            let problems = problems.into_iter().flatten().map(|problem| format!("!{}", problem.field));
            let all: Vec<_> = assigned.reported_addresses.iter().cloned().chain(problems).collect();
            format!("{}={}", key.name, all.join(","))
        })
        .collect()
}

#[test]
fn gateways_keep_addresses_and_new_ones_get_the_lowest_free() {
    let pool = GatewayAddressPool::loopback(vec![]);
    let mut addresses = GatewayAddresses::default();
    let none = json!([]);
    let two = [("b", none.clone()), ("c", none.clone())];
    assert_eq!(assign(&mut addresses, &pool, &AddressState::default(), &two), ["b=127.0.0.1", "c=127.0.0.2"]);
    let three = [("a", none.clone()), ("b", none.clone()), ("c", none.clone())];
    assert_eq!(
        assign(&mut addresses, &pool, &AddressState::default(), &three),
        ["a=127.0.0.3", "b=127.0.0.1", "c=127.0.0.2"]
    );
    assert_eq!(assign(&mut addresses, &pool, &AddressState::default(), &[("c", none.clone())]), ["c=127.0.0.2"]);
    assert_eq!(
        assign(&mut addresses, &pool, &AddressState::default(), &[("c", none.clone()), ("d", none)]),
        ["c=127.0.0.2", "d=127.0.0.1"]
    );
}

#[test]
fn requested_addresses_are_assigned_or_rejected() {
    let explicit = GatewayAddressPool::explicit(vec!["198.18.0.0/30".parse().unwrap()], vec![]);
    let ip = |value: &str| json!({"type": "IPAddress", "value": value});
    for (pool, wanted, expected) in [
        (&explicit, json!([ip("198.18.0.2")]), "g=198.18.0.2"),
        (&explicit, json!([ip("192.0.2.1")]), "g=!spec.addresses[0].value"),
        (&explicit, json!([ip("198.18.0.2"), ip("192.0.2.1")]), "g=!spec.addresses[1].value"),
        (&explicit, json!([ip("nonsense")]), "g=!spec.addresses[0].value"),
        (&explicit, json!([{"type": "Hostname", "value": "a.example"}]), "g=!spec.addresses[0].type"),
        (&explicit, json!([{"type": "IPAddress"}]), "g=198.18.0.1"),
        (&explicit, json!([{"type": "IPAddress", "routability": "Cluster"}]), "g=!spec.addresses[0].routability"),
        (&GatewayAddressPool::loopback(vec![]), json!([ip("192.0.2.1")]), "g=192.0.2.1"),
        (&GatewayAddressPool::loopback(vec!["192.0.2.7".parse().unwrap()]), json!([ip("0.0.0.0")]), "g=192.0.2.7"),
        (
            &GatewayAddressPool::explicit(vec!["0.0.0.0/32".parse().unwrap()], vec!["192.0.2.7".parse().unwrap()]),
            json!([]),
            "g=192.0.2.7",
        ),
        (
            &GatewayAddressPool::explicit(
                vec!["0.0.0.0/32".parse().unwrap(), "::/128".parse().unwrap()],
                vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
            ),
            json!([]),
            "g=192.0.2.7,2001:db8::7",
        ),
    ] {
        let mut addresses = GatewayAddresses::default();
        let gateways = [("g", wanted)];
        assert_eq!(assign(&mut addresses, pool, &AddressState::default(), &gateways), [expected]);
        assert_eq!(
            assign(&mut addresses, pool, &AddressState::default(), &gateways),
            [expected],
            "assignment is stable"
        );
    }
}

#[test]
fn exhausted_pool_is_reported() {
    let pool = GatewayAddressPool::explicit(vec!["198.18.0.1/32".parse().unwrap()], vec![]);
    let gateways = [("a", json!([])), ("b", json!([]))];
    let found = assign(&mut GatewayAddresses::default(), &pool, &AddressState::default(), &gateways);
    assert_eq!(found, ["a=198.18.0.1", "b=!spec.addresses"]);
}

/// Gateways of an API server, with the addresses in their status.
fn written(gateways: &[(&str, &[&str])]) -> BTreeMap<ObjectKey, Vec<IpAddr>> {
    let parse = |(name, addresses): &(&str, &[&str])| {
        (ObjectKey::new("ns", name), addresses.iter().map(|address| address.parse().unwrap()).collect())
    };
    gateways.iter().map(parse).collect()
}

#[test]
fn restart_or_new_leader_keeps_addresses() {
    let pool = GatewayAddressPool::explicit(vec!["198.18.0.0/29".parse().unwrap()], vec![]);
    let status: &[(&str, &[&str])] = &[("a", &["198.18.0.3"]), ("b", &["198.18.0.1"]), ("c", &[])];
    let follower = AddressState { status_addresses: written(status), ..AddressState::default() };
    let three = ["a", "b", "c"].map(|name| (name, json!([])));
    let mut addresses = GatewayAddresses::default();
    let waiting = ["a=198.18.0.3", "b=198.18.0.1", "c=!spec.addresses"];
    assert_eq!(assign(&mut addresses, &pool, &follower, &three), waiting, "only the leader assigns new addresses");
    let leader = AddressState { is_leader: true, ..follower.clone() };
    let led = ["a=198.18.0.3", "b=198.18.0.1", "c=198.18.0.2"];
    assert_eq!(assign(&mut addresses, &pool, &leader, &three), led);
    assert_eq!(assign(&mut addresses, &pool, &leader, &three), led, "before the status is written");
    assert_eq!(assign(&mut addresses, &pool, &follower, &three), led, "a former leader keeps serving");
    let other: &[(&str, &[&str])] = &[("a", &["198.18.0.3"]), ("b", &["198.18.0.1"]), ("c", &["198.18.0.4"])];
    let follower = AddressState { status_addresses: written(other), ..AddressState::default() };
    let followed = ["a=198.18.0.3", "b=198.18.0.1", "c=198.18.0.4"];
    assert_eq!(assign(&mut addresses, &pool, &follower, &three), followed, "the status takes precedence");
}

#[test]
fn remembered_addresses_are_kept_if_possible() {
    let pool = |ranges: &[&str]| {
        GatewayAddressPool::explicit(
            ranges.iter().map(|range| range.parse().unwrap()).collect(),
            vec!["192.0.2.7".parse().unwrap()],
        )
    };
    let single = pool(&["198.18.0.0/29"]);
    let ip = |value: &str| json!([{"type": "IPAddress", "value": value}]);
    let (two, any) = (["a", "b"], json!([]));
    type Status<'a> = &'a [(&'a str, &'a [&'a str])];
    /// Description, pool, status, `spec.addresses` of `a`, expected on a follower, expected on the leader.
    type Case<'a> = (&'a str, &'a GatewayAddressPool, Status<'a>, &'a Value, [&'a str; 2], [&'a str; 2]);
    let cases: &[Case<'_>] = &[
        (
            "of two with the same address the first keeps it",
            &single,
            &[("a", &["198.18.0.2"]), ("b", &["198.18.0.2"])],
            &any,
            ["a=198.18.0.2", "b=!spec.addresses"],
            ["a=198.18.0.2", "b=198.18.0.1"],
        ),
        (
            "an address of an earlier pool",
            &single,
            &[("a", &["192.0.2.1"]), ("b", &["198.18.0.1"])],
            &any,
            ["a=!spec.addresses", "b=198.18.0.1"],
            ["a=198.18.0.2", "b=198.18.0.1"],
        ),
        (
            "an address requested by another Gateway is not reused",
            &single,
            &[("a", &["198.18.0.3"]), ("b", &["198.18.0.1"])],
            &ip("198.18.0.3"),
            ["a=198.18.0.3", "b=198.18.0.1"],
            ["a=198.18.0.3", "b=198.18.0.1"],
        ),
        (
            "all interfaces need no agreement",
            &pool(&["0.0.0.0/32"]),
            &[("a", &[]), ("b", &["192.0.2.99"])],
            &any,
            ["a=192.0.2.7", "b=192.0.2.7"],
            ["a=192.0.2.7", "b=192.0.2.7"],
        ),
        (
            "single addresses take precedence over all interfaces",
            &pool(&["198.18.0.1/32", "0.0.0.0/32"]),
            &[("a", &["192.0.2.99"]), ("b", &["198.18.0.1"])],
            &any,
            ["a=192.0.2.7", "b=198.18.0.1"],
            ["a=192.0.2.7", "b=198.18.0.1"],
        ),
        (
            "a Gateway of a file does not wait",
            &single,
            &[("b", &[])],
            &any,
            ["a=198.18.0.1", "b=!spec.addresses"],
            ["a=198.18.0.1", "b=198.18.0.2"],
        ),
    ];
    for (what, pool, status, first, following, leading) in cases {
        let gateways = [(two[0], (*first).clone()), (two[1], json!([]))];
        let follower = AddressState { status_addresses: written(status), ..AddressState::default() };
        assert_eq!(assign(&mut GatewayAddresses::default(), pool, &follower, &gateways), *following, "{what}");
        let leader = AddressState { is_leader: true, ..follower };
        assert_eq!(assign(&mut GatewayAddresses::default(), pool, &leader, &gateways), *leading, "{what}, leading");
    }
}

#[test]
fn gateway_gets_addresses_of_its_service() {
    let front = |addresses: &[&str]| GatewayService {
        name: "g-portico".to_owned(),
        ports: BTreeMap::from([(80, 10080)]),
        addresses: addresses.iter().map(|&address| address.into()).collect(),
        problem: None,
    };
    let ip = |value: &str| json!({"type": "IPAddress", "value": value});
    let refused = GatewayService {
        problem: Some(Diagnostic::error("metadata.name", "refused", "do")),
        ..GatewayService::default()
    };
    let half = GatewayService { problem: refused.problem.clone(), ..front(&["192.0.2.1"]) };
    use ServiceType::{ClusterIp, LoadBalancer};
    for (kind, wanted, front, expected) in [
        (LoadBalancer, json!([]), None, "!"),
        (LoadBalancer, json!([]), Some(front(&[])), "0.0.0.0:10080 !"),
        (LoadBalancer, json!([]), Some(front(&["192.0.2.1", "lb.example"])), "0.0.0.0:10080 192.0.2.1 lb.example"),
        (LoadBalancer, json!([{"type": "IPAddress"}]), Some(front(&["192.0.2.1"])), "0.0.0.0:10080 192.0.2.1"),
        (LoadBalancer, json!([ip("192.0.2.1")]), Some(front(&[])), "0.0.0.0:10080 !"),
        (LoadBalancer, json!([ip("192.0.2.2")]), Some(front(&["2001:db8::1", "192.0.2.2"])), "0.0.0.0:10080 192.0.2.2"),
        (LoadBalancer, json!([ip("192.0.2.9")]), Some(front(&["192.0.2.1"])), "!spec.addresses"),
        (
            LoadBalancer,
            json!([ip("192.0.2.1"), ip("192.0.2.2")]),
            Some(front(&["192.0.2.1"])),
            "!spec.addresses[1].value",
        ),
        (ClusterIp, json!([ip("192.0.2.1")]), Some(front(&["192.0.2.1"])), "!spec.addresses[0].value"),
        (
            LoadBalancer,
            json!([{"type": "Hostname", "value": "a.example"}]),
            Some(front(&["192.0.2.1"])),
            "!spec.addresses[0].type",
        ),
        (LoadBalancer, json!([]), Some(refused), "0.0.0.0 !metadata.name"),
        (LoadBalancer, json!([]), Some(half), "0.0.0.0:10080 192.0.2.1 ?metadata.name"),
    ] {
        let key = ObjectKey::new("ns", "g");
        let mut memory = AddressState { status_addresses: written(&[("g", &[])]), ..AddressState::default() };
        memory.interfaces = vec!["0.0.0.0".parse().unwrap()];
        memory.gateway_services.extend(front.map(|front| (key.clone(), front)));
        let mut addresses = GatewayAddresses::default();
        let spec = spec(wanted.clone());
        assert!(addresses.assign(&AddressProvider::Services(kind), &memory, [(&key, &spec)].into_iter()));
        let assigned = addresses.get(&key).unwrap();
        let bind = assigned.bind_addresses.iter().map(|address| match assigned.ports.bound_port(80) {
            Some(port) => format!("{address}:{port}"),
            None => address.to_string(),
        });
        let problems = [&assigned.unsupported, &assigned.unusable, &assigned.unassigned];
        let problems = problems.into_iter().flatten().map(|problem| format!("!{}", problem.field));
        let remarks = assigned.notes.iter().map(|problem| format!("?{}", problem.field));
        let found: Vec<_> =
            bind.chain(assigned.reported_addresses.iter().cloned()).chain(problems).chain(remarks).collect();
        assert_eq!(found.join(" "), expected, "{wanted} {:?}", memory.gateway_services);
    }
}
