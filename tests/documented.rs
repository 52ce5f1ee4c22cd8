//! Compares the user guide with the program: every condition code and every limit has a row, and every mentioned flag
//! exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use portico::limits::ProxyLimits;
use portico::verdict::{Code, ConditionTarget};

use crate::root;

#[test]
fn conditions_page_lists_all_codes() {
    let reported: BTreeSet<(String, String, String)> = Code::ALL
        .iter()
        .map(|code| {
            let status = if code.status() { "True" } else { "False" };
            let condition = format!("{}={status}", code.condition());
            (heading(code.target()).to_owned(), condition, code.reason().to_owned())
        })
        .collect();
    let documented = rows(&fs::read_to_string(root().join("docs/conditions.md")).unwrap());
    let missing: Vec<_> = reported.difference(&documented).collect();
    let stale: Vec<_> = documented.difference(&reported).collect();
    assert!(missing.is_empty() && stale.is_empty(), "docs/conditions.md lacks {missing:#?} and has unknown {stale:#?}");
}

#[test]
fn every_mentioned_flag_exists() {
    let known = flags_of_the_program();
    let mut findings = Vec::new();
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        for (index, line) in text.lines().enumerate() {
            let unknown = |flag: &String| !known.contains(flag) && !FLAGS_OF_OTHER_PROGRAMS.contains(&flag.as_str());
            for flag in flags(line).filter(unknown) {
                let document = path.strip_prefix(root()).unwrap().display();
                findings.push(format!("{document}:{}: portico has no {flag}", index + 1));
            }
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

/// Every limit of the proxy has a row with its default.
#[test]
fn limits_page_matches_the_defaults() {
    let ProxyLimits {
        header_timeout,
        max_request_head,
        max_request_fields,
        max_regex_steps,
        max_hops,
        handshake_timeout,
        max_handshakes,
        proxy_header_timeout,
        client_idle_timeout,
        park_after,
        request_body_timeout,
        client_min_rate,
        response_min_rate,
        min_rate_grace_period,
        response_timeout,
        stall_timeout,
        scarce_stall_timeout,
        max_streams,
        stream_window,
        connection_window,
        ping_interval,
        ping_timeout,
        upgrade_idle_timeout,
        stream_idle_timeout,
        udp_idle_timeout,
        max_udp_sessions,
        max_stream_connections_per_client,
        max_udp_sessions_per_client,
        tunnel_grace_period,
        listener_grace_period,
        max_connections,
        max_upstream_connections,
        connect_timeout,
        max_response_head,
        max_response_fields,
        max_idle_per_endpoint,
        max_upstream_streams,
        upstream_ping_interval,
        upstream_idle_timeout,
        max_idle_for_unrepeatable,
        max_buffered_bytes,
        max_unforwarded_bytes,
        max_replay_body,
        authorization_timeout,
        max_mirror_copies,
        max_mirror_body,
        mirror_timeout,
    } = ProxyLimits::DEFAULT;
    assert_eq!(max_connections, max_upstream_connections, "the page documents one value for both");
    let seconds = |time: Duration| format!("{} s", time.as_secs());
    let size = |bytes: usize| match bytes >> 20 {
        0 => format!("{} KiB", bytes >> 10),
        mebibytes => format!("{mebibytes} MiB"),
    };
    let pings_every = |interval| format!("{}, {}", seconds(interval), seconds(ping_timeout));
    let expected = [
        ("connections, over all ports", max_connections.to_string()),
        ("time for a TLS handshake", seconds(handshake_timeout)),
        ("TLS handshakes at the same time", max_handshakes.to_string()),
        ("time for a PROXY header", seconds(proxy_header_timeout)),
        ("time to send a request's header", seconds(header_timeout)),
        ("size of a request's header", size(max_request_head)),
        ("fields in a request's header", max_request_fields.to_string()),
        ("Portico processes that forward a request", max_hops.to_string()),
        ("steps of regular expressions", format!("{},000,000", max_regex_steps / 1_000_000)),
        ("time without a request on a connection", seconds(client_idle_timeout)),
        ("the same until an HTTP/1 connection is parked", seconds(park_after)),
        ("read timeout for a request body", seconds(request_body_timeout)),
        ("bytes of a request body that a client must send in a second", client_min_rate.to_string()),
        ("bytes of a response that a client must read in a second", response_min_rate.to_string()),
        ("time that clients may take in addition to these rates", seconds(min_rate_grace_period)),
        ("idle timeout of an upgraded connection", format!("{} min", upgrade_idle_timeout.as_secs() / 60)),
        (
            "idle timeout of a connection of a TCP or TLS listener",
            format!("{} min", stream_idle_timeout.as_secs() / 60),
        ),
        ("idle timeout of a session of a UDP listener", seconds(udp_idle_timeout)),
        ("sessions of UDP listeners", max_udp_sessions.to_string()),
        ("connections of one client", max_stream_connections_per_client.to_string()),
        ("sessions of one client", max_udp_sessions_per_client.to_string()),
        ("time an upgraded connection is kept", seconds(tunnel_grace_period)),
        ("streams at a time on a connection", max_streams.to_string()),
        (
            "bytes a client may send ahead",
            format!("{}, {}", size(stream_window as usize), size(connection_window as usize)),
        ),
        // The limit is half of the connection window.
        ("small frames that a client may", size(connection_window as usize / 2)),
        ("ping interval and timeout of a client connection", pings_every(ping_interval)),
        ("time to connect", seconds(connect_timeout)),
        ("response timeout", seconds(response_timeout)),
        ("read timeout for a response", format!("{} min", stall_timeout.as_secs() / 60)),
        ("the same if the client does not read", seconds(scarce_stall_timeout)),
        ("size of a response header", format!("{}, {max_response_fields}", size(max_response_head))),
        ("requests at a time on a connection of HTTP/2", max_upstream_streams.to_string()),
        ("ping interval and timeout of an HTTP/2 connection", pings_every(upstream_ping_interval)),
        ("idle connections kept", max_idle_per_endpoint.to_string()),
        ("time an idle connection is kept", seconds(upstream_idle_timeout)),
        ("time a connection may be idle to get a request", seconds(max_idle_for_unrepeatable)),
        ("bytes of bodies in memory", size(max_buffered_bytes)),
        ("the same of all connections together", size(max_unforwarded_bytes)),
        ("body of a request that a rule with `retry`", size(max_replay_body)),
        ("replay buffer", size(max_replay_body)),
        ("time for an [authorization server]", seconds(authorization_timeout)),
        ("copies for mirrors", max_mirror_copies.to_string()),
        ("body of a request that is mirrored", size(max_mirror_body)),
        ("time for a mirror", seconds(mirror_timeout)),
        ("time for requests to finish", seconds(listener_grace_period)),
    ];
    let page = fs::read_to_string(root().join("docs/limits.md")).unwrap();
    for (limit, default) in expected {
        let row = page.lines().find_map(|line| line.strip_prefix("| ")?.strip_prefix(limit));
        let cell = row.and_then(|row| row.split(" | ").nth(1)).unwrap_or_else(|| panic!("no row for {limit}"));
        let after_default =
            cell.strip_prefix(&default).unwrap_or_else(|| panic!("{limit}: {cell:?} is not {default:?}"));
        assert!(
            !after_default.starts_with(|next: char| next.is_ascii_alphanumeric()),
            "{limit}: {cell:?} is not {default:?}"
        );
    }
}

/// Each flag with a number, a duration or a size has a row with its default.
#[test]
fn limits_page_matches_the_flags() {
    let page = fs::read_to_string(root().join("docs/limits.md")).unwrap();
    let program = portico::args::command();
    let run = program.find_subcommand("run").unwrap();
    let is_limit = |flag: &&clap::Arg| {
        let value = flag.get_value_names().and_then(<[_]>::first).map(|name| name.as_str());
        matches!(value, Some("NUMBER" | "DURATION" | "SIZE")) && !flag.get_default_values().is_empty()
    };
    let mut compared = 0;
    for flag in run.get_arguments().filter(is_limit) {
        let name = format!("`--{}`", flag.get_long().unwrap());
        let row = page.lines().find(|line| line.starts_with("| ") && line.contains(&name));
        let cell = row.and_then(|row| row.split(" | ").nth(1)).unwrap_or_else(|| panic!("no row has {name}"));
        let default = flag.get_default_values()[0].to_str().unwrap();
        let documented = cell.replace(" min", "m").replace(' ', "");
        let after_default =
            documented.strip_prefix(default).unwrap_or_else(|| panic!("{name}: {cell:?} is not {default:?}"));
        assert!(
            !after_default.starts_with(|next: char| next.is_ascii_alphanumeric()),
            "{name}: {cell:?} is not {default:?}"
        );
        compared += 1;
    }
    assert!(compared >= 12, "only {compared} flags were compared");
}

/// Flags of other programs that the documents mention.
const FLAGS_OF_OTHER_PROGRAMS: &[&str] = &[
    // kubectl and curl.
    "--all",
    "--as",
    "--cert",
    "--compressed",
    "--data-binary",
    "--data-urlencode",
    "--dry-run",
    "--for",
    "--from-file",
    "--ignore-not-found",
    "--image",
    "--interface",
    "--key",
    "--next",
    "--port",
    "--previous",
    "--raw",
    "--replicas",
    "--server-side",
    "--target-port",
    "--type",
    "--validate",
    // ingress-nginx.
    "--annotations-prefix",
    "--disable-catch-all",
    "--ingress-class-by-name",
    "--tcp-services-configmap",
    "--udp-services-configmap",
    "--watch-ingress-without-class",
    "--watch-namespace-selector",
    // Helm, and kubectl in part.
    "--atomic",
    "--create-namespace",
    "--force-conflicts",
    "--namespace",
    "--reset-then-reuse-values",
    "--reuse-values",
    "--rollback-on-failure",
    "--set",
    "--take-ownership",
    "--timeout",
    "--values",
    "--wait",
    // curl.
    "--cacert",
    "--http1",
    "--http2-prior-knowledge",
    "--insecure",
    "--max-time",
    "--resolve",
    // Redis.
    "--requirepass",
    "--save",
    // cargo.
    "--features",
    "--ignored",
    "--nocapture",
    "--release",
    "--test",
    "--workspace",
    // protoc.
    "--descriptor",
    "--include",
    // The load generator.
    "--case",
    "--idle",
    "--json",
    "--nginx",
    "--rate",
    "--rounds",
    "--seconds",
    // The bench on a cluster.
    "--each",
    "--foreign",
    "--listener-sets",
    "--one-host",
    "--routes",
    "--routes-per-set",
    "--samples",
    "--scale",
    "--slice-changes",
    "--slices",
    // chrt.
    "--fifo",
    // docker.
    "--platform",
    // Prometheus.
    "--enable-feature",
];

/// The heading of the section of docs/conditions.md about this target.
fn heading(target: ConditionTarget) -> &'static str {
    match target {
        ConditionTarget::GatewayClass => "GatewayClass",
        ConditionTarget::Gateway => "Gateway",
        ConditionTarget::ListenerSet => "ListenerSet",
        ConditionTarget::Listener => "Listener",
        ConditionTarget::RouteParent => "Route, for each parent",
        ConditionTarget::ServicePolicyAncestor => "Policy for Services, for each Gateway",
        ConditionTarget::BackendPolicyAncestor => "BackendPolicy, for each Gateway or target",
        ConditionTarget::XBackendAncestor => "XBackend, for each Gateway",
        ConditionTarget::Object => "Plugin, consumer and the like",
    }
}

/// Heading, condition with status, and reason of each table row; one entry for each condition of a row.
fn rows(document: &str) -> BTreeSet<(String, String, String)> {
    let mut rows = BTreeSet::new();
    let mut heading = "";
    for line in document.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            heading = title;
        }
        if !line.starts_with('|') {
            continue;
        }
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        if let (Some(conditions), Some(reason)) = (cells.next(), cells.next()) {
            for condition in conditions.split(", ").filter(|condition| condition.contains('=')) {
                rows.insert((heading.to_owned(), condition.to_owned(), reason.to_owned()));
            }
        }
    }
    rows
}

fn flags_of_the_program() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    let commands =
        ["run", "check", "verify", "convert kong", "convert ingress-nginx", "slo", "echo", "version", "completion"];
    for command in commands {
        let words = command.split(' ').chain(["--help"]);
        let output = Command::new(env!("CARGO_BIN_EXE_portico")).args(words).output();
        let output = output.expect("cargo built the program").stdout;
        known.extend(flags(&String::from_utf8(output).expect("help is UTF-8")));
    }
    assert!(known.contains("--manifests"), "portico run --help shows {known:?}");
    known
}

/// Words that begin with two hyphens. A value after `=` is cut off. More hyphens begin a line of a PEM file.
fn flags(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.starts_with("--") && !word[2..].starts_with('-') && word.len() > 2).map(str::to_owned)
}

/// Pages for users.
fn documents() -> Vec<PathBuf> {
    let mut documents = vec![
        root().join("README.md"),
        root().join("SECURITY.md"),
        root().join("examples/quickstart/README.md"),
        root().join("examples/kong/README.md"),
    ];
    collect_files(&root().join("docs"), &mut documents);
    documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    // The flags on these pages are those of cargo and of the programs of the tests.
    documents.retain(|path| !path.starts_with(root().join("docs/development")));
    documents
}

fn collect_files(folder: &Path, documents: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is readable") {
        let path = entry.expect("the folder was opened").path();
        if path.is_dir() { collect_files(&path, documents) } else { documents.push(path) }
    }
}
