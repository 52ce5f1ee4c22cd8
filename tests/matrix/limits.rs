//! Each limit of docs/limits.md is of one message, connection or object, or it has shares: for namespaces, and for the
//! clients of one. A test shows that what one namespace or client holds leaves room for others, or the row says why it
//! need not.

use std::collections::BTreeSet;
use std::fs;

use self::Division::{One, Shared};
use self::Share::{Tested, Undivided};
use crate::harness::program::root;

/// How a limit is divided.
#[derive(Clone, Copy, Debug)]
enum Division {
    /// It is that of one message, connection, endpoint, plugin or object, which shares it with nothing of others.
    One,
    /// Several namespaces and clients take from it.
    Shared { namespaces: Share, clients: Share },
}

#[derive(Clone, Copy, Debug)]
enum Share {
    /// `FILE::FUNCTION` of the test which shows that one leaves room for others.
    Tested(&'static str),
    /// Why one cannot keep others from what they need.
    Undivided(&'static str),
}

/// The rows of a page: the heading, and the first cell.
fn rows(page: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = page.lines().collect();
    let (mut rows, mut heading) = (Vec::new(), "");
    for (index, line) in lines.iter().enumerate() {
        let is_head = lines.get(index + 1).is_some_and(|next| next.starts_with("| ---"));
        if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim();
        } else if line.starts_with("| ") && !line.starts_with("| ---") && !is_head {
            let cell = line.split('|').nth(1).unwrap_or_default().trim();
            rows.push((heading.to_owned(), cell.to_owned()));
        }
    }
    rows
}

#[test]
fn every_limit_says_how_it_is_divided() {
    let page = fs::read_to_string(root().join("docs/limits.md")).unwrap();
    let rows = rows(&page);
    let is_of = |(heading, cell): &(String, String), (of, begin, _): &(&str, &str, Division)| {
        heading == of && cell.starts_with(begin)
    };
    let without: Vec<_> = rows.iter().filter(|row| !LIMITS.iter().any(|limit| is_of(row, limit))).collect();
    assert!(without.is_empty(), "add these rows to LIMITS, with the tests of their shares: {without:#?}");
    for limit in LIMITS {
        let count = rows.iter().filter(|row| is_of(row, limit)).count();
        assert!(count >= 1, "docs/limits.md has no row {limit:?}");
        assert!(count == 1 || limit.1.starts_with("the same"), "{count} rows begin like {limit:?}");
    }
}

#[test]
fn shares_of_limits_have_tests() {
    let mut missing = BTreeSet::new();
    let mut tested = 0;
    for (heading, begin, division) in LIMITS {
        let Shared { namespaces, clients } = division else { continue };
        for share in [namespaces, clients] {
            match share {
                Tested(test) => {
                    let (file, function) = test.split_once("::").expect("FILE::FUNCTION");
                    let text = fs::read_to_string(root().join(file)).unwrap_or_default();
                    let declaration = format!("fn {function}(");
                    let before = text.split_once(&declaration).map(|(before, _)| before);
                    let attributes = before.and_then(|before| before.rsplit("\n\n").next()).unwrap_or_default();
                    if !["#[test]", "#[tokio::test"].iter().any(|attribute| attributes.contains(attribute)) {
                        missing.insert(format!("{heading}: {begin}: {test}"));
                    }
                    tested += 1;
                }
                Undivided(reason) => assert!(reason.len() > 5, "{begin}: {reason}"),
            }
        }
    }
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
    assert!(tested > 20, "{tested}");
}

/// By heading and the beginning of the row.
const LIMITS: &[(&str, &str, Division)] = &[
    // Clients
    (
        "Clients",
        "connections, over all ports",
        Shared {
            namespaces: Undivided("a connection has requests for all namespaces"),
            clients: Undivided("idle ones give way to new ones"),
        },
    ),
    ("Clients", "time for a TLS", One),
    ("Clients", "ClientHello of a TLS", One),
    (
        "Clients",
        "TLS handshakes at the",
        Shared {
            namespaces: Undivided("a handshake precedes the requests"),
            clients: Tested(
                "crates/proxy/src/proxy/connection/handshake_permits.rs::handshakes_of_the_busiest_client_are_given_up_first",
            ),
        },
    ),
    ("Clients", "time for a PROXY", One),
    ("Clients", "time to send a", One),
    ("Clients", "size of a request's", One),
    ("Clients", "size of a request target,", One),
    ("Clients", "fields in a request's", One),
    ("Clients", "Portico processes that forward", One),
    ("Clients", "steps of regular expressions", One),
    ("Clients", "chunks of a body,", One),
    ("Clients", "chunk extensions in a", One),
    ("Clients", "time without a request", One),
    ("Clients", "the same until an", One),
    ("Clients", "read timeout for a", One),
    ("Clients", "bytes of a request", One),
    ("Clients", "bytes of a response", One),
    ("Clients", "time that clients may", One),
    ("Clients", "idle timeout of an", One),
    ("Clients", "idle timeout of a connection", One),
    ("Clients", "ports of a Gateway", One),
    ("Clients", "idle timeout of a session", One),
    (
        "Clients",
        "sessions of UDP listeners,",
        Shared {
            namespaces: Undivided("the session that is idle for longest ends"),
            clients: Tested("tests/proxy/udp_options.rs::sessions_of_one_client_are_limited"),
        },
    ),
    ("Clients", "connections of one client", One),
    ("Clients", "sessions of one client", One),
    ("Clients", "size of a datagram", One),
    ("Clients", "time an upgraded connection", One),
    ("Clients", "bytes of an upgraded", One),
    ("Clients", "rest of a request", One),
    ("Clients", "after a listener is", One),
    (
        "Clients",
        "TLS sessions kept for",
        Shared {
            namespaces: Undivided("a client without its session makes a full handshake"),
            clients: Undivided("the same"),
        },
    ),
    ("Clients", "size of a body", One),
    ("Clients", "values of one [session](tasks/session-persistence.md)", One),
    // Clients of HTTP/2
    ("Clients of HTTP/2", "streams at a time", One),
    ("Clients of HTTP/2", "bytes a client may", One),
    (
        "Clients of HTTP/2",
        "the same of all connections together",
        Shared {
            namespaces: Undivided("a connection has requests for all namespaces"),
            clients: Tested("tests/proxy/unsent.rs::unread_responses_of_all_connections_are_limited"),
        },
    ),
    ("Clients of HTTP/2", "small frames that a", One),
    ("Clients of HTTP/2", "size of a frame", One),
    ("Clients of HTTP/2", "CONTINUATION frames of a", One),
    ("Clients of HTTP/2", "response bytes written ahead", One),
    (
        "Clients of HTTP/2",
        "the same of all connections together,",
        Shared {
            namespaces: Undivided("a connection has requests for all namespaces"),
            clients: Tested("tests/proxy/unsent.rs::unread_responses_of_all_connections_are_limited"),
        },
    ),
    ("Clients of HTTP/2", "ping interval and timeout", One),
    ("Clients of HTTP/2", "streams that the client", One),
    ("Clients of HTTP/2", "streams reset because of", One),
    ("Clients of HTTP/2", "RST_STREAM frames", One),
    ("Clients of HTTP/2", "SETTINGS, PING, PRIORITY and", One),
    ("Clients of HTTP/2", "empty DATA frames without", One),
    ("Clients of HTTP/2", "WINDOW_UPDATE frames", One),
    // Backends
    ("Backends", "time to connect", One),
    ("Backends", "response timeout: the endpoint", One),
    ("Backends", "read timeout for a", One),
    ("Backends", "the same if the", One),
    ("Backends", "size of a response header,", One),
    (
        "Backends",
        "connections to endpoints in",
        Shared {
            namespaces: Tested(
                "tests/proxy/exhaustion.rs::hanging_services_of_a_namespace_leave_connections_for_other_namespaces",
            ),
            clients: Tested(
                "tests/proxy/exhaustion.rs::hanging_requests_of_a_client_leave_connections_for_other_clients",
            ),
        },
    ),
    (
        "Backends",
        "connections to the endpoints of the",
        Shared {
            namespaces: Tested(
                "tests/proxy/exhaustion.rs::hanging_services_of_a_namespace_leave_connections_for_other_namespaces",
            ),
            clients: Tested(
                "tests/proxy/exhaustion.rs::hanging_requests_of_a_client_leave_connections_for_other_clients",
            ),
        },
    ),
    ("Backends", "connections to the endpoints of one", One),
    ("Backends", "requests and forwarded connections", One),
    (
        "Backends",
        "requests of one endpoint",
        Shared {
            namespaces: Undivided("the Service sets it, for its own endpoints"),
            clients: Undivided("the row says that one client can take all places"),
        },
    ),
    ("Backends", "requests on a connection of HTTP/2", One),
    ("Backends", "requests that wait for", One),
    ("Backends", "requests, connections and retries", One),
    ("Backends", "requests at a time", One),
    ("Backends", "bytes an endpoint may", One),
    ("Backends", "small frames that an", One),
    ("Backends", "SETTINGS, PING, RST_STREAM, WINDOW_UPDATE", One),
    ("Backends", "informational responses of an", One),
    ("Backends", "ping interval and timeout", One),
    ("Backends", "idle connections kept, by", One),
    ("Backends", "pairs of a worker", One),
    (
        "Backends",
        "DNS names of backends",
        Shared {
            namespaces: Tested(
                "crates/upstream/src/upstream/dns/tests.rs::names_that_are_never_resolved_do_not_delay_those_of_other_namespaces",
            ),
            clients: Undivided("no client causes lookups"),
        },
    ),
    (
        "Backends",
        "the same for names",
        Shared {
            namespaces: Tested(
                "crates/upstream/src/upstream/dns/tests.rs::names_that_are_never_resolved_do_not_delay_those_of_other_namespaces",
            ),
            clients: Undivided("no client causes lookups"),
        },
    ),
    ("Backends", "time to resolve a", One),
    ("Backends", "time for an early", One),
    (
        "Backends",
        "TLS sessions kept to",
        Shared {
            namespaces: Undivided("a connection without one makes a full handshake"),
            clients: Undivided("the same"),
        },
    ),
    ("Backends", "connections whose request was", One),
    ("Backends", "time an idle connection", One),
    ("Backends", "time a connection may", One),
    ("Backends", "time between [probes](tasks/health.md#how-an-endpoint-returns) of", One),
    ("Backends", "time a probe may", One),
    (
        "Backends",
        "probes of all endpoints",
        Shared {
            namespaces: Undivided("a probe ends after a second, or three with TLS"),
            clients: Undivided("no client causes probes"),
        },
    ),
    ("Backends", "time the state of", One),
    (
        "Backends",
        "[active health checks](tasks/active-health-checks.md) that",
        Shared {
            namespaces: Tested(
                "crates/upstream/src/upstream/health_checks/schedule.rs::many_checks_of_one_namespace_do_not_delay_those_of_others",
            ),
            clients: Undivided("no client causes checks"),
        },
    ),
    (
        "Backends",
        "connections of active health",
        Shared {
            namespaces: Tested(
                "crates/upstream/src/upstream/socket_budget/tests.rs::one_namespace_cannot_take_all_sockets",
            ),
            clients: Undivided("no client causes checks"),
        },
    ),
    ("Backends", "body of a response to", One),
    ("Backends", "endpoints attempted for one", One),
    ("Backends", "time before datagrams try", One),
    ("Backends", "body of a request that a", One),
    ("Backends", "time in which a", One),
    ("Backends", "replay buffer of a", One),
    ("Backends", "time for an [authorization", One),
    ("Backends", "size of a response of", One),
    (
        "Backends",
        "copies for mirrors that are being sent",
        Shared {
            namespaces: Tested("tests/proxy/mirror.rs::copies_for_one_namespace_leave_places_for_those_of_others"),
            clients: Tested("tests/proxy/mirror.rs::incomplete_requests_leave_the_places_to_others"),
        },
    ),
    (
        "Backends",
        "copies of requests for `mirror-target`",
        Shared {
            namespaces: Tested(
                "crates/locations/src/location_guards/mirror/tests.rs::copies_of_one_namespace_leave_places_for_others",
            ),
            clients: Undivided("a request without a copy has the same response"),
        },
    ),
    ("Backends", "body of a request of which `mirror-target`", One),
    ("Backends", "body of a response that", One),
    ("Backends", "body that [jq](plugins/jq.md) transforms,", One),
    ("Backends", "fields of values into", One),
    (
        "Backends",
        "memory of the encoder",
        Shared {
            namespaces: Tested("crates/proxy/src/proxy/buffer_budget/mod.rs::one_namespace_leaves_room_for_others"),
            clients: Tested(
                "crates/proxy/src/proxy/buffer_budget/mod.rs::bodies_of_one_client_leave_room_for_those_of_others_in_its_namespace",
            ),
        },
    ),
    ("Backends", "message that [grpc-gateway](plugins/grpc-gateway.md) translates,", One),
    ("Backends", "message that [grpc-web](plugins/grpc-web.md) translates", One),
    ("Backends", "parameters of a query", One),
    ("Backends", "body of a request that [compression](plugins/compression.md)", One),
    ("Backends", "body and message of", One),
    ("Backends", "body of a request that [forward-proxy](plugins/forward-proxy.md)", One),
    ("Backends", "response of a Kafka", One),
    ("Backends", "templates of a plugin", One),
    ("Backends", "document of a GraphQL", One),
    ("Backends", "body of a request with", One),
    ("Backends", "response of a server", One),
    ("Backends", "body of a request that is", One),
    ("Backends", "time for a mirror", One),
    // Bodies in memory
    (
        "Bodies in memory",
        "bytes of bodies in",
        Shared {
            namespaces: Tested("crates/proxy/src/proxy/buffer_budget/mod.rs::one_namespace_leaves_room_for_others"),
            clients: Tested(
                "crates/proxy/src/proxy/buffer_budget/mod.rs::bodies_of_one_client_leave_room_for_those_of_others_in_its_namespace",
            ),
        },
    ),
    ("Bodies in memory", "a plugin that reads", One),
    ("Bodies in memory", "an [authorization server](tasks/external-auth.md#bodies) that", One),
    ("Bodies in memory", "a response of an", One),
    ("Bodies in memory", "[aws-lambda](plugins/aws-lambda.md) and [aggregate](plugins/aggregate.md), whose", One),
    ("Bodies in memory", "a plugin that transforms", One),
    ("Bodies in memory", "`retry`, or an HTTP/2", One),
    ("Bodies in memory", "a mirror", One),
    // Plugins
    (
        "Plugins",
        "identifiers, such as client",
        Shared {
            namespaces: Tested(
                "crates/plugin_kit/src/plugin_kit/counting/entry_budget.rs::tables_of_a_namespace_have_one_share_however_many_they_are",
            ),
            clients: Undivided("without room, identifiers share counters, which no client can exceed"),
        },
    ),
    (
        "Plugins",
        "plans of usage-plan, and",
        Shared {
            namespaces: Tested("crates/plugin_kit/src/plugin_kit/counting/kept_tables.rs::namespaces_have_a_share"),
            clients: Undivided("no client causes plans"),
        },
    ),
    // Stored responses
    (
        "Stored responses",
        "bytes of [stored responses](tasks/caching.md)",
        Shared { namespaces: Tested(HOSTILE_TARGETS), clients: Undivided("what is used is not removed") },
    ),
    ("Stored responses", "the body of a", One),
    ("Stored responses", "responses for one key", One),
    ("Stored responses", "fields that `Vary` names", One),
    ("Stored responses", "names for purges of", One),
    ("Stored responses", "requests that wait for", One),
    (
        "Stored responses",
        "validations in the background,",
        Shared {
            namespaces: Tested("crates/base/src/shared_limit.rs::one_owner_leaves_room_for_others"),
            clients: Undivided("the client waits for the validation"),
        },
    ),
    // Connections and queues of plugins
    (
        "Connections and queues of plugins",
        "connections of all plugins",
        Shared {
            namespaces: Tested(
                "crates/services/src/plugin_services/tests.rs::plugins_of_one_namespace_leave_requests_and_connections_to_others",
            ),
            clients: Tested(PLUGINS_THAT_DECIDE),
        },
    ),
    (
        "Connections and queues of plugins",
        "requests at the same",
        Shared {
            namespaces: Tested(
                "crates/services/src/plugin_services/connection_limits.rs::many_clients_fill_the_share_of_their_namespace",
            ),
            clients: Tested(
                "crates/services/src/plugin_services/connection_limits.rs::slow_client_leaves_requests_of_its_namespace_to_others",
            ),
        },
    ),
    (
        "Connections and queues of plugins",
        "requests of plugins that a client",
        Shared {
            namespaces: Tested(
                "crates/services/src/plugin_services/tests.rs::plugins_of_one_namespace_leave_requests_and_connections_to_others",
            ),
            clients: Tested(
                "crates/services/src/plugin_services/tests/clients.rs::one_client_leaves_requests_to_others",
            ),
        },
    ),
    (
        "Connections and queues of plugins",
        "bytes of the entries",
        Shared { namespaces: Tested(QUEUES_OF_CLUSTER_PLUGINS), clients: Undivided("the oldest entries are dropped") },
    ),
    ("Connections and queues of plugins", "a value in an", One),
    (
        "Connections and queues of plugins",
        "grants of [oauth2](plugins/oauth2.md) in",
        Shared {
            namespaces: Tested(
                "crates/logins/src/plugins/oauth2/memory_grants.rs::the_oldest_grant_of_the_same_plugin_makes_room",
            ),
            clients: Undivided("the oldest grant gives way"),
        },
    ),
    ("Connections and queues of plugins", "a request of http-log", One),
    ("Connections and queues of plugins", "timeout of a request,", One),
    ("Connections and queues of plugins", "delay before retries after", One),
    ("Connections and queues of plugins", "a request that failed", One),
    ("Connections and queues of plugins", "a reply of Redis,", One),
    ("Connections and queues of plugins", "bytes of commands to", One),
    ("Connections and queues of plugins", "masters of a Redis", One),
    ("Connections and queues of plugins", "requests that one object", One),
    ("Connections and queues of plugins", "header of a response", One),
    ("Connections and queues of plugins", "a set of keys", One),
    ("Connections and queues of plugins", "connections of one [ldap-auth](plugins/ldap-auth.md)", One),
    ("Connections and queues of plugins", "a message of a", One),
    ("Connections and queues of plugins", "a username and a", One),
    (
        "Connections and queues of plugins",
        "passwords that are compared",
        Shared {
            namespaces: Tested(
                "crates/plugin_api/src/plugin_api/password/checks.rs::passwords_are_checked_at_the_same_time_within_the_limit",
            ),
            clients: Undivided("a check ends by itself"),
        },
    ),
    ("Connections and queues of plugins", "cost of a hash", One),
    ("Connections and queues of plugins", "a password that is", One),
    (
        "Connections and queues of plugins",
        "stored responses of [authorization",
        Shared {
            namespaces: Undivided("the server decides again without a stored response"),
            clients: Undivided("the server decides again without a stored response"),
        },
    ),
    ("Connections and queues of plugins", "headers that a client", One),
    ("Connections and queues of plugins", "a signed body, and", One),
    ("Connections and queues of plugins", "body of a response", One),
    ("Connections and queues of plugins", "text of a server", One),
    // Stopping
    ("Stopping", "time to continue serving", One),
    ("Stopping", "time for requests to", One),
    // Configuration and logs
    ("Configuration and logs", "size of an object", One),
    ("Configuration and logs", "nesting of YAML", One),
    ("Configuration and logs", "listeners of a Gateway,", One),
    (
        "Configuration and logs",
        "lines of the access",
        Shared {
            namespaces: Undivided("only the operator has it"),
            clients: Undivided("lines are dropped, and counted"),
        },
    ),
    ("Configuration and logs", "clients of the status", One),
    ("Configuration and logs", "time for such a", One),
    ("Configuration and logs", "metrics that such clients", One),
    (
        "Configuration and logs",
        "label sets of request",
        Shared {
            namespaces: Undivided("only the operator has it"),
            clients: Undivided("further ones are counted as other"),
        },
    ),
    (
        "Configuration and logs",
        "label sets of the [metrics of ingress-nginx]",
        Shared {
            namespaces: Undivided("only the operator has it"),
            clients: Undivided("their values of labels are counted as other"),
        },
    ),
    (
        "Configuration and logs",
        "endpoints in metrics, with",
        Shared { namespaces: Undivided("only the operator has it"), clients: Undivided("no client adds endpoints") },
    ),
    (
        "Configuration and logs",
        "requests in a second",
        Shared {
            namespaces: Undivided("only the operator has it"),
            clients: Undivided("others are traced as without the header"),
        },
    ),
    ("Configuration and logs", "interval of [metrics by", One),
    // What objects may expand to
    ("What objects may expand to", "size of an object", One),
    ("What objects may expand to", "lists and objects inside", One),
    ("What objects may expand to", "size of what Secrets", One),
    ("What objects may expand to", "steps of a path", One),
    ("What objects may expand to", "states of one regular", One),
    ("What objects may expand to", "regular expressions of one", One),
    ("What objects may expand to", "compiled regular expressions of", One),
    ("What objects may expand to", "`konghq.com/host-aliases` of one object", One),
    ("What objects may expand to", "hosts of an HTTPRoute", One),
    ("What objects may expand to", "entries of `konghq.com/snis`, of", One),
    ("What objects may expand to", "annotations `konghq.com/headers.NAME` of one", One),
    ("What objects may expand to", "entries of `konghq.com/plugins` of", One),
    ("What objects may expand to", "annotations `konghq.com/headers.NAME` of an", One),
    ("What objects may expand to", "states of the regular", One),
    ("What objects may expand to", "what the HTTPRoutes and", One),
    ("What objects may expand to", "HTTPRoute, GRPCRoute", One),
    ("What objects may expand to", "Ingress", One),
    ("What objects may expand to", "TLSRoute, TCPRoute, UDPRoute", One),
    ("What objects may expand to", "Gateway", One),
    ("What objects may expand to", "KongPlugin, KongClusterPlugin", One),
    ("What objects may expand to", "BackendTLSPolicy", One),
    ("What objects may expand to", "KongConsumerGroup", One),
    ("What objects may expand to", "names in [`server-alias`]", One),
    ("What objects may expand to", "a [snippet of ingress-nginx]", One),
    ("What objects may expand to", "any other, such as", One),
];

const HOSTILE_TARGETS: &str = "crates/traffic/src/plugins/proxy_cache/store/tests.rs::hostile_targets_do_not_exceed_the_limit_or_remove_what_is_used";
const PLUGINS_THAT_DECIDE: &str = "crates/services/src/plugin_services/tests/through_proxies.rs::requests_of_clients_leave_connections_to_plugins_that_decide";
const QUEUES_OF_CLUSTER_PLUGINS: &str = "crates/plugin_api/src/plugin_api/batch_queue/tests.rs::entries_of_a_cluster_plugin_count_for_the_namespaces_of_the_routes";
