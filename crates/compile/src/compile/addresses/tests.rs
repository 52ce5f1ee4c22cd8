//! Tests of address assignment, with and without earlier state.

use serde_json::{Value, json};

use super::*;
use crate::diagnostic::WAITING;

fn spec(addresses: Value) -> GatewaySpec {
    serde_json::from_value(json!({"gatewayClassName": "portico", "listeners": [], "addresses": addresses})).unwrap()
}

/// Assigns addresses to these Gateways. Describes each as `NAME=ADDRESSES`, with `!FIELD` for each problem.
fn assign(
    addresses: &mut GatewayAddresses,
    pool: &GatewayAddressPool,
    state: &AddressState,
    gateways: &[(&str, Value)],
) -> Vec<String> {
    let gateways: Vec<_> =
        gateways.iter().map(|(name, value)| (ObjectKey::new("ns", name), spec(value.clone()))).collect();
    addresses.assign(&AddressProvider::Pool(pool.clone()), state, gateways.iter().map(|(key, spec)| (key, spec)));
    gateways
        .iter()
        .map(|(key, _)| {
            let assigned = addresses.get(key).unwrap();
            let problems = [&assigned.unsupported, &assigned.unusable, &assigned.unassigned];
            let problems = problems.into_iter().flatten().map(|problem| format!("!{}", problem.field));
            let addresses: Vec<_> = assigned.reported_addresses.iter().cloned().chain(problems).collect();
            format!("{}={}", key.name, addresses.join(","))
        })
        .collect()
}

#[test]
fn gateways_keep_addresses_and_new_ones_get_the_lowest_free() {
    let pool = GatewayAddressPool::loopback(vec![]);
    let mut addresses = GatewayAddresses::default();
    let no_request = json!([]);
    let two = [("b", no_request.clone()), ("c", no_request.clone())];
    assert_eq!(assign(&mut addresses, &pool, &AddressState::default(), &two), ["b=127.0.0.1", "c=127.0.0.2"]);
    let three = [("a", no_request.clone()), ("b", no_request.clone()), ("c", no_request.clone())];
    assert_eq!(
        assign(&mut addresses, &pool, &AddressState::default(), &three),
        ["a=127.0.0.3", "b=127.0.0.1", "c=127.0.0.2"]
    );
    assert_eq!(assign(&mut addresses, &pool, &AddressState::default(), &[("c", no_request.clone())]), ["c=127.0.0.2"]);
    assert_eq!(
        assign(&mut addresses, &pool, &AddressState::default(), &[("c", no_request.clone()), ("d", no_request)]),
        ["c=127.0.0.2", "d=127.0.0.1"]
    );
}

#[test]
fn requested_addresses_are_assigned_or_rejected() {
    let (host_ipv4, host_ipv6): (IpAddr, IpAddr) = ("192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap());
    let (any_ipv4, any_ipv6) = ("0.0.0.0/32".parse().unwrap(), "::/128".parse().unwrap());
    let no_host_addresses = Vec::new;
    let explicit = GatewayAddressPool::explicit(vec!["198.18.0.0/30".parse().unwrap()], no_host_addresses());
    let loopback = GatewayAddressPool::loopback(no_host_addresses());
    let loopback_and_host = GatewayAddressPool::loopback(vec![host_ipv4]);
    let all_ipv4_interfaces = GatewayAddressPool::explicit(vec![any_ipv4], vec![host_ipv4]);
    let all_interfaces = GatewayAddressPool::explicit(vec![any_ipv4, any_ipv6], vec![host_ipv4, host_ipv6]);
    let ip = |value: &str| json!({"type": "IPAddress", "value": value});
    for (pool, requested, expected) in [
        (&explicit, json!([ip("198.18.0.2")]), "g=198.18.0.2"),
        (&explicit, json!([ip("192.0.2.1")]), "g=!spec.addresses[0].value"),
        (&explicit, json!([ip("198.18.0.2"), ip("192.0.2.1")]), "g=!spec.addresses[1].value"),
        (&explicit, json!([ip("nonsense")]), "g=!spec.addresses[0].value"),
        (&explicit, json!([{"type": "Hostname", "value": "a.example"}]), "g=!spec.addresses[0].type"),
        (&explicit, json!([{"type": "IPAddress"}]), "g=198.18.0.1"),
        (&explicit, json!([{"type": "IPAddress", "routability": "Cluster"}]), "g=!spec.addresses[0].routability"),
        // Only explicit ranges restrict which addresses a Gateway may request.
        (&loopback, json!([ip("192.0.2.1")]), "g=192.0.2.1"),
        (&loopback_and_host, json!([ip("0.0.0.0")]), "g=192.0.2.7"),
        (&all_ipv4_interfaces, json!([]), "g=192.0.2.7"),
        (&all_interfaces, json!([]), "g=192.0.2.7,2001:db8::7"),
    ] {
        let mut addresses = GatewayAddresses::default();
        let gateways = [("g", requested)];
        assert_eq!(assign(&mut addresses, pool, &AddressState::default(), &gateways), [expected]);
        assert_eq!(
            assign(&mut addresses, pool, &AddressState::default(), &gateways),
            [expected],
            "assignment is stable"
        );
    }
}

#[test]
fn gateways_on_all_interfaces_get_the_addresses_of_ready_pods() {
    let networks = ["0.0.0.0/32", "::/128"];
    let hosts = vec!["172.17.0.1".parse().unwrap()];
    let pool = GatewayAddressPool::explicit(networks.map(|network| network.parse().unwrap()).into(), hosts);
    let gateways = [("g", json!([]))];
    let state = |ready: Option<&[&str]>, written: &[&str], is_leader| AddressState {
        status_addresses: status_addresses(&[("g", written)]),
        ready_addresses: ready.map(|ready| ready.iter().map(|address| address.parse().unwrap()).collect()),
        is_leader,
        ..AddressState::default()
    };
    for (ready, written, expected) in [
        (None, &[][..], "g=172.17.0.1"),
        (Some(&["192.0.2.2", "2001:db8::2", "192.0.2.1"][..]), &["192.0.2.9"][..], "g=192.0.2.1,192.0.2.2,2001:db8::2"),
        (Some(&["192.0.2.1"]), &["192.0.2.1", "192.0.2.2"], "g=192.0.2.1"),
        // A restart does not withdraw addresses.
        (Some(&[]), &["192.0.2.1", "192.0.2.2"], "g=192.0.2.1,192.0.2.2"),
        (Some(&[]), &[], "g=!"),
    ] {
        for is_leader in [true, false] {
            let state = state(ready, written, is_leader);
            let found = assign(&mut GatewayAddresses::default(), &pool, &state, &gateways);
            assert_eq!(found, [expected], "{ready:?} {written:?} {is_leader}");
        }
    }
}

#[test]
fn exhausted_pool_is_reported() {
    let pool = GatewayAddressPool::explicit(vec!["198.18.0.1/32".parse().unwrap()], vec![]);
    let gateways = [("a", json!([])), ("b", json!([]))];
    let found = assign(&mut GatewayAddresses::default(), &pool, &AddressState::default(), &gateways);
    assert_eq!(found, ["a=198.18.0.1", "b=!spec.addresses"]);
}

/// The addresses in the status of an API server's Gateways.
fn status_addresses(gateways: &[(&str, &[&str])]) -> BTreeMap<ObjectKey, Vec<IpAddr>> {
    let parse = |(name, addresses): &(&str, &[&str])| {
        (ObjectKey::new("ns", name), addresses.iter().map(|address| address.parse().unwrap()).collect())
    };
    gateways.iter().map(parse).collect()
}

#[test]
fn restart_or_new_leader_keeps_addresses() {
    let pool = GatewayAddressPool::explicit(vec!["198.18.0.0/29".parse().unwrap()], vec![]);
    let status: &[(&str, &[&str])] = &[("a", &["198.18.0.3"]), ("b", &["198.18.0.1"]), ("c", &[])];
    let follower = AddressState { status_addresses: status_addresses(status), ..AddressState::default() };
    let three = ["a", "b", "c"].map(|name| (name, json!([])));
    let mut addresses = GatewayAddresses::default();
    let waiting = ["a=198.18.0.3", "b=198.18.0.1", "c=!spec.addresses"];
    assert_eq!(assign(&mut addresses, &pool, &follower, &three), waiting, "only the leader assigns new addresses");
    let leader = AddressState { is_leader: true, ..follower.clone() };
    let assigned = ["a=198.18.0.3", "b=198.18.0.1", "c=198.18.0.2"];
    assert_eq!(assign(&mut addresses, &pool, &leader, &three), assigned);
    assert_eq!(assign(&mut addresses, &pool, &leader, &three), assigned, "before the status is written");
    assert_eq!(assign(&mut addresses, &pool, &follower, &three), assigned, "a former leader keeps serving");
    let other: &[(&str, &[&str])] = &[("a", &["198.18.0.3"]), ("b", &["198.18.0.1"]), ("c", &["198.18.0.4"])];
    let follower = AddressState { status_addresses: status_addresses(other), ..AddressState::default() };
    let from_status = ["a=198.18.0.3", "b=198.18.0.1", "c=198.18.0.4"];
    assert_eq!(assign(&mut addresses, &pool, &follower, &three), from_status, "the status takes precedence");
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
    let any = json!([]);
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
            "replicas need no agreement on 0.0.0.0, which all Gateways share",
            &pool(&["0.0.0.0/32"]),
            &[("a", &[]), ("b", &["192.0.2.99"])],
            &any,
            ["a=192.0.2.7", "b=192.0.2.7"],
            ["a=192.0.2.7", "b=192.0.2.7"],
        ),
        (
            "single addresses take precedence over 0.0.0.0",
            &pool(&["198.18.0.1/32", "0.0.0.0/32"]),
            &[("a", &["192.0.2.99"]), ("b", &["198.18.0.1"])],
            &any,
            ["a=192.0.2.7", "b=198.18.0.1"],
            ["a=192.0.2.7", "b=198.18.0.1"],
        ),
        (
            "a Gateway without a status is from a file and does not wait",
            &single,
            &[("b", &[])],
            &any,
            ["a=198.18.0.1", "b=!spec.addresses"],
            ["a=198.18.0.1", "b=198.18.0.2"],
        ),
    ];
    for (description, pool, status, requested_by_a, on_follower, on_leader) in cases {
        let gateways = [("a", (*requested_by_a).clone()), ("b", json!([]))];
        let follower = AddressState { status_addresses: status_addresses(status), ..AddressState::default() };
        assert_eq!(assign(&mut GatewayAddresses::default(), pool, &follower, &gateways), *on_follower, "{description}");
        let leader = AddressState { is_leader: true, ..follower };
        assert_eq!(
            assign(&mut GatewayAddresses::default(), pool, &leader, &gateways),
            *on_leader,
            "{description}, on the leader"
        );
    }
}

#[test]
fn gateway_gets_addresses_of_its_service() {
    let service = |addresses: &[&str]| GatewayService {
        name: "g-portico".to_owned(),
        ports: BTreeMap::from([(TransportPort::tcp(80), 10080)]),
        addresses: addresses.iter().map(|&address| address.into()).collect(),
        problem: None,
    };
    let ip = |value: &str| json!({"type": "IPAddress", "value": value});
    let with_problem_only = GatewayService {
        problem: Some(Diagnostic::error("metadata.name", "a message", "a remedy")),
        ..GatewayService::default()
    };
    let with_problem_and_address =
        GatewayService { problem: with_problem_only.problem.clone(), ..service(&["192.0.2.1"]) };
    use ServiceType::{ClusterIp, LoadBalancer};
    // Expected: the bound and the reported addresses, `!FIELD` for each problem, and `?FIELD` for each note. The field
    // is empty if the whole Gateway is affected.
    for (kind, requested, gateway_service, expected) in [
        (LoadBalancer, json!([]), None, "!"),
        (LoadBalancer, json!([]), Some(service(&[])), "0.0.0.0:10080 !"),
        (LoadBalancer, json!([]), Some(service(&["192.0.2.1", "lb.example"])), "0.0.0.0:10080 192.0.2.1 lb.example"),
        (LoadBalancer, json!([{"type": "IPAddress"}]), Some(service(&["192.0.2.1"])), "0.0.0.0:10080 192.0.2.1"),
        (LoadBalancer, json!([ip("192.0.2.1")]), Some(service(&[])), "0.0.0.0:10080 !"),
        (
            LoadBalancer,
            json!([ip("192.0.2.2")]),
            Some(service(&["2001:db8::1", "192.0.2.2"])),
            "0.0.0.0:10080 192.0.2.2",
        ),
        (LoadBalancer, json!([ip("192.0.2.9")]), Some(service(&["192.0.2.1"])), "!spec.addresses"),
        (
            LoadBalancer,
            json!([ip("192.0.2.1"), ip("192.0.2.2")]),
            Some(service(&["192.0.2.1"])),
            "!spec.addresses[1].value",
        ),
        (ClusterIp, json!([ip("192.0.2.1")]), Some(service(&["192.0.2.1"])), "!spec.addresses[0].value"),
        (
            LoadBalancer,
            json!([{"type": "Hostname", "value": "a.example"}]),
            Some(service(&["192.0.2.1"])),
            "!spec.addresses[0].type",
        ),
        (LoadBalancer, json!([]), Some(with_problem_only), "0.0.0.0 !metadata.name"),
        (LoadBalancer, json!([]), Some(with_problem_and_address), "0.0.0.0:10080 192.0.2.1 ?metadata.name"),
    ] {
        let key = ObjectKey::new("ns", "g");
        let mut state = AddressState { status_addresses: status_addresses(&[("g", &[])]), ..AddressState::default() };
        state.unspecified_addresses = vec!["0.0.0.0".parse().unwrap()];
        state.gateway_services.extend(gateway_service.map(|service| (key.clone(), service)));
        let mut addresses = GatewayAddresses::default();
        let spec = spec(requested.clone());
        let changed = addresses.assign(&AddressProvider::Services(kind), &state, [(&key, &spec)].into_iter());
        assert_eq!(changed, BTreeSet::from([key.clone()]), "the first assignment is a change");
        let changed = addresses.assign(&AddressProvider::Services(kind), &state, [(&key, &spec)].into_iter());
        assert_eq!(changed, BTreeSet::new(), "nothing changed");
        let assigned = addresses.get(&key).unwrap();
        let bind =
            assigned.bind_addresses.iter().map(|address| match assigned.ports.bound_port(TransportPort::tcp(80)) {
                Some(port) => format!("{address}:{port}"),
                None => address.to_string(),
            });
        let problems = [&assigned.unsupported, &assigned.unusable, &assigned.unassigned];
        let problems = problems.into_iter().flatten().map(|problem| format!("!{}", problem.field));
        let notes = assigned.notes.iter().map(|problem| format!("?{}", problem.field));
        let found: Vec<_> =
            bind.chain(assigned.reported_addresses.iter().cloned()).chain(problems).chain(notes).collect();
        assert_eq!(found.join(" "), expected, "{requested} {:?}", state.gateway_services);
    }
}

/// The log had an error for each new Gateway, which was gone in a moment.
#[test]
fn a_new_gateway_waits_for_its_service_and_has_no_error() {
    let key = ObjectKey::new("ns", "g");
    let service = |problem: Option<Diagnostic>| GatewayService {
        name: "g-portico".to_owned(),
        ports: BTreeMap::from([(TransportPort::tcp(80), 10080)]),
        addresses: Vec::new(),
        problem,
    };
    let problem = Diagnostic::error("metadata.name", "a message", "a remedy");
    for (gateway_service, is_waiting) in
        [(None, true), (Some(service(None)), true), (Some(service(Some(problem))), false)]
    {
        let mut state = AddressState { status_addresses: status_addresses(&[("g", &[])]), ..AddressState::default() };
        state.unspecified_addresses = vec!["0.0.0.0".parse().unwrap()];
        state.gateway_services.extend(gateway_service.map(|service| (key.clone(), service)));
        let mut addresses = GatewayAddresses::default();
        let spec = spec(json!([]));
        let provider = AddressProvider::Services(ServiceType::LoadBalancer);
        addresses.assign(&provider, &state, [(&key, &spec)].into_iter());
        let [unassigned] = &addresses.get(&key).unwrap().unassigned[..] else { panic!("it has no address") };
        assert_eq!(unassigned.reason == WAITING, is_waiting, "{unassigned:?}");
    }
}

/// Otherwise, a Gateway of any namespace could take the ports of another one.
#[test]
fn assigned_addresses_belong_to_one_gateway() {
    let ranges = vec!["192.0.2.0/29".parse().unwrap()];
    let pool = GatewayAddressPool::explicit(ranges, vec![]);
    let leader = AddressState { is_leader: true, ..AddressState::default() };
    let by_value = |address: &str| json!([{"type": "IPAddress", "value": address}]);
    // Earlier Gateways are older.
    let mut addresses = GatewayAddresses::default();
    let victim = ("victim", json!([]));
    assert_eq!(assign(&mut addresses, &pool, &leader, std::slice::from_ref(&victim)), ["victim=192.0.2.1"]);
    let older = ("older", by_value("192.0.2.1"));
    let younger = ("younger", by_value("192.0.2.1"));
    assert_eq!(
        assign(&mut addresses, &pool, &leader, &[older.clone(), victim.clone(), younger.clone()]),
        ["older=!spec.addresses[0].value", "victim=192.0.2.1", "younger=!spec.addresses[0].value"]
    );
    // A follower knows from the status to whom the address was assigned.
    let follower = AddressState {
        status_addresses: status_addresses(&[("older", &[]), ("victim", &["192.0.2.1"])]),
        ..AddressState::default()
    };
    assert_eq!(
        assign(&mut GatewayAddresses::default(), &pool, &follower, &[older.clone(), victim.clone()]),
        ["older=!spec.addresses[0].value", "victim=192.0.2.1"]
    );
    let sharing = ("victim", by_value("192.0.2.1"));
    assert_eq!(
        assign(&mut addresses, &pool, &leader, &[older.clone(), sharing, younger]),
        ["older=192.0.2.1", "victim=192.0.2.1", "younger=192.0.2.1"],
        "all request it by its value"
    );
    assert_eq!(assign(&mut addresses, &pool, &leader, &[older]), ["older=192.0.2.1"], "its owner was deleted");
}
