//! Checks the rules for sources and documents of this repository. Each finding names the file, the line and what to do.

#[path = "tidy/citations.rs"]
mod citations;
#[path = "tidy/cycles.rs"]
mod cycles;
#[path = "tidy/dialects.rs"]
mod dialects;
#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/file_graph.rs"]
mod file_graph;
#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/interface_source.rs"]
mod interface_source;
#[path = "tidy/language.rs"]
mod language;
#[path = "tidy/layered_folders.rs"]
mod layered_folders;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/lock.rs"]
mod lock;
#[path = "tidy/manifests.rs"]
mod manifests;
#[path = "tidy/module_source.rs"]
mod module_source;
#[path = "tidy/named_tests.rs"]
mod named_tests;
#[path = "tidy/prose.rs"]
mod prose;
#[path = "tidy/public_items.rs"]
mod public_items;
#[path = "tidy/recipes.rs"]
mod recipes;
#[path = "tidy/reply_reasons.rs"]
mod reply_reasons;
#[path = "tidy/sleeps.rs"]
mod sleeps;
#[path = "tidy/sources.rs"]
mod sources;
#[path = "tidy/test_programs.rs"]
mod test_programs;
#[path = "tidy/tokens.rs"]
mod tokens;
#[path = "tidy/toml_entries.rs"]
mod toml_entries;
#[path = "tidy/tree.rs"]
mod tree;
#[path = "tidy/type_names.rs"]
mod type_names;
#[path = "tidy/width.rs"]
mod width;
#[path = "tidy/words.rs"]
mod words;

use std::env;
use std::path::Path;
use std::process::Command;

use cycles::CycleSize;
use imports::{EVERYTHING, Row};
use layered_folders::LayeredFolder;
use tree::File;

/// The architecture inside the crates with several modules: the modules of the same crate, or items of them, that each
/// module may import. A new import between modules needs a change of this table, with reasons like any change of the
/// design.
const IMPORTS: &[Row] = &[
    // The dependencies between crates are in their manifests, so modules that are alone in their crate have no row.
    // base
    // Of the identifiers of traces.
    ("address_ranges", &[]),
    ("address_ranges", &[]),
    ("begun_trace", &["hex_digits"]),
    ("bind_address", &["transport_protocol"]),
    ("certified_key", &[]),
    ("cookie_prefix", &[]),
    ("counted_address", &[]),
    ("duration_bounds", &[]),
    ("forwarding_fields", &[]),
    ("hex_digits", &[]),
    ("hop_count", &[]),
    ("md5", &["hex_digits"]),
    ("persistent_map", &[]),
    ("quantity", &[]),
    // Also for what explains routing without a proxy.
    ("request_target", &[]),
    ("rewound", &[]),
    ("shared_limit", &[]),
    ("transport_protocol", &[]),
    ("turn_clock", &[]),
    // wire
    ("endpoint_tls", &["unverified_certificates"]),
    ("fast_cgi", &[]),
    // Sends bodies to FastCGI servers, and reads the heads of their responses.
    ("http1", &["fast_cgi"]),
    ("http2_frames", &[]),
    ("ssrf_guard", &[]),
    ("unverified_certificates", &[]),
    // objects
    ("api", &[]),
    ("diagnostic", &[]),
    ("schema", &["api", "diagnostic"]),
    // store
    ("store", &[]),
    ("verdict", &[]),
    // snapshot
    // What users write about lines of the access log.
    ("access_log_syntax", &[]),
    ("limits", &["snapshot::regex_steps::MAX_REGEX_STEPS"]),
    ("snapshot", &["access_log_syntax"]),
    // sources
    ("k8s", &[]),
    // Another format of objects, which it gives to `manifests` as a translator.
    ("kong_config", &["manifests"]),
    ("manifests", &[]),
    // logins, guards, traffic, bodies and logs
    // Clients of what the plugins of their crate share.
    ("plugins", EVERYTHING),
    ("client_certificate", &[]),
    ("introspection", &["token_binding", "token_purpose"]),
    ("jq_language", &[]),
    ("json_fields", &[]),
    ("kafka", &["log_delivery"]),
    ("log_delivery", &[]),
    ("logged_out_sessions", &["sealed_cookie"]),
    ("lua_functions", &["request_edits"]),
    ("otlp_delivery", &["log_delivery"]),
    ("rejection_log", &[]),
    ("request_edits", &["json_fields", "request_variables"]),
    ("request_variables", &[]),
    ("response_edits", &["json_fields"]),
    ("sealed_cookie", &[]),
    ("session_lock", &["sealed_cookie"]),
    ("statsd", &[]),
    ("stored_sessions", &["logged_out_sessions", "sealed_cookie", "session_lock"]),
    ("token_binding", &[]),
    ("token_purpose", &[]),
    ("tracer", &["log_delivery", "otlp_delivery"]),
    ("violations", &[]),
    // reports
    // The state of the running proxy is passed to these modules as plain values, so that they need not import the
    // request side.
    ("report", &[]),
    ("status", &[]),
    // A client of the admin listener, which reads the objects of manifests.
    ("verify", &["report::count", "report::escape_controls", "report::table"]),
    // ops: edges of the process.
    ("admin", &["http_server", "metrics::Exposition"]),
    ("drain", &[]),
    ("echo", &["http_server"]),
    ("http_server", &[]),
    ("metrics", &["version"]),
    ("process_log", &[]),
    ("ready", &[]),
    ("slo", &[]),
    ("version", &[]),
    // services
    ("cluster_keys", &[]),
    ("metrics_export", &[]),
    ("otlp_servers", &["tls_files"]),
    ("plugin_services", &["tls_files"]),
    ("tls_files", &[]),
    ("vaults", &[]),
    // Only in tests and fuzzing; in several crates.
    ("fuzzing", EVERYTHING),
    // Wiring: imports every module, and no module imports it.
    ("app", EVERYTHING),
    ("main", EVERYTHING),
];

/// The layers inside each top-level module. A module imports only modules of the layers before its own.
const LAYERS: &[Row] = &[
    ("access_log_syntax", &["fields variable", "parts", "builder", "apache envoy nginx", "rules template", "sampling"]),
    ("admin", &["response self_connection", "cache_purges observations renderings", "views", "debug status"]),
    (
        "api",
        &[
            "core kind networking",
            "gateway",
            "crd",
            "ingress_nginx kong portico",
            "definitions foreign_annotations names",
            "meta",
        ],
    ),
    (
        "app",
        &[
            "cache_meters certificate_metrics change_meters crds endpoint_names file_descriptors \
             fingerprint_cache health_meters host_addresses ingress kong_config kong_metrics overload_meters \
             problem_counts progress queue_meters rate_limit_meters request_tracer settings_json shutdown \
             source_overlap stdout upstream_events usage_meters watch_meters",
            "addressing nginx_meters state_meters upstream_views verify",
            "data_plane",
            "control plugin_runtime",
            "announce cluster diagnostic_meters foreign_policies views",
            "exports gateway_services offline own_listeners status_publisher",
            "check control_loop convert",
            "run",
        ],
    ),
    (
        "args",
        &[
            "cluster_access environment object_name",
            "access_log budgets kong location network nginx_metrics otlp output_format tls",
            "label_selector tracing",
            "nginx_classes",
            "slo",
            "cluster gateways",
            "convert ingress",
            "run",
            "check verify",
        ],
    ),
    (
        "compile",
        &[
            "addresses affected classes objects paths run verdicts",
            "budgets certificates ingress_class testing",
            "context gateways policies",
            "backend parents",
            "kong",
            "alternatives ingress routes",
            "verdict_updates",
            "policy_kinds",
            "compiler",
        ],
    ),
    ("endpoint_tls", &["anchors identity protocol sessions verified_names", "config_cache verifier"]),
    ("fast_cgi", &["params record", "fields stdout"]),
    (
        "http1",
        &[
            "head_end invalid_message joined_data known_names receive recycled request_version trailer_names",
            "fields name_case",
            "chunk_decoder received_fields record_body",
            "message_head",
            "body_decoder outgoing_message",
            "request_reader response_reader",
            "cgi_response",
            "fuzzing",
        ],
    ),
    ("http2_frames", &["frame_rates huffman table_size trailer_marker", "field_table", "rejected_heads"]),
    (
        "k8s",
        &[
            "backoff delivery discovery_schedule first_list leader_write_guard middleware timestamps",
            "client raw",
            "api_error watch_health",
            "listing services status_client watch",
            "collect discovery events key_secret lease",
            "permissions referenced",
            "supervisor",
            "source",
        ],
    ),
    (
        "manifests",
        &[
            "attachments changed documents foreign mounts position translated unserved_kinds",
            "diagnostic object_kind outline text",
            "read_object walk yaml",
            "fuzzing location watcher",
            "record",
            "claims",
            "source",
        ],
    ),
    (
        "kong_config",
        &[
            "entity_types fields host_header names paths route_hosts settings",
            "environment model service_location",
            "objects",
            "certificates credentials custom_entities upstreams vaults",
            "consumers services",
            "routes",
            "plugins",
            "admin_calls",
        ],
    ),
    (
        "plugin_api",
        &[
            "aws_environment body_budget changed_fields chosen_backend content_coding cookies decimal \
             dumped_fields endpoint_timeouts field_names header_spoofing http_version login lua_value masking \
             media_type message_limits multipart named_backend plugin_regex remote repeated_query reply \
             request_body_changes route_description scheme server_text shared_keys state stream_cx timing",
            "assertions body_filter client_info fields hidden_texts http_proxy remote_request shared_values \
             vault",
            "completed_request own_url streamed_response",
            "ended_session services trace",
            "kind scripted_server",
            "batch_queue instance password token",
            "consumers",
            "endpoint_token otlp_messages subjects",
            "identity",
            "context",
            "request_assertions",
        ],
    ),
    ("plugin_chain", &["background chain", "stream_chain", "factory", "testing"]),
    ("plugin_formats", &["grpc json_schema openapi template unique_json xml", "graphql"]),
    (
        "plugin_kit",
        &[
            "authentication aws_signature credential_values default_limits digest_cache form_body log_entry \
             observed_stream relayed_response request_json server_diagnostics shared_fetch weighted_list",
            "aws_credentials idle_connections redis remote_server sent_headers session_entry",
            "counting log_fields remote_client",
        ],
    ),
    (
        "plugins",
        &[
            "acl aggregate api_version aws_lambda azure_functions basic_auth bot_detection canary combined_auth_tests \
             compression correlation_id cors datadog degraphql error_pages file_log forward_auth \
             forward_proxy graphql_rate_limiting_advanced grpc_gateway grpc_web header_cert_auth hmac_auth http_log identity_keys \
             injection_protection internal_identity ip_restriction jq json_threat_protection jwt jwt_signer kafka_log \
             kafka_upstream key_auth ldap_auth loggly mask mocking mtls_auth oas_validation oauth2 \
             oauth2_introspection opa openid_connect opentelemetry post_function pre_function prometheus proxy_cache \
             rate_limiting rate_limiting_advanced redirect request_size_limiting request_termination \
             request_transformer request_transformer_advanced request_validator response_ratelimiting \
             response_transformer response_transformer_advanced route_by_header session soap standard_webhooks statsd \
             syslog tcp_log udp_log upstream_oauth upstream_timeout usage_plan websocket_size_limit \
             xml_threat_protection zipkin",
            // The same plugins with other fields and defaults, or for other requests.
            "graphql_proxy_cache_advanced ldap_auth_advanced proxy_cache_advanced",
            // Tests of all plugins that authenticate, with the directory of the tests of ldap_auth.
            "subject_matrix",
        ],
    ),
    ("location_guards", &["address_list server_url", "access limits mirror"]),
    ("client_certificate", &["test_authority", "distinguished_name trust", "names", "policy"]),
    (
        "kafka",
        &[
            "checksum scram wire",
            "message protocol",
            "connection record_batch",
            "cluster",
            "producer",
            "config delivery",
        ],
    ),
    ("log_delivery", &["reports server severity", "datagrams entry_stream http_requests"]),
    (
        "jq_language",
        &[
            "library tokens value",
            "budget document",
            "format operators paths",
            "builtins",
            "program",
            "parse run",
            "binding calls control regexes",
            "evaluate",
        ],
    ),
    ("lua_functions", &["arguments", "access header_filter log"]),
    ("otlp_delivery", &["grpc_client", "response"]),
    ("request_edits", &["edits", "body_fields fields multipart_fields", "body config fuzzing"]),
    ("response_edits", &["entry", "operations", "header_edits json_edits"]),
    ("sealed_cookie", &["attributes sealing_keys timeouts", "cookies", "session"]),
    ("plugin_services", &["client_shares datagrams metadata_endpoints name_resolver tls", "connection_limits"]),
    ("process_log", &["stderr targets"]),
    (
        "proxy",
        &[
            "client_counts",
            "buffer_budget connection ipv4_text rejected_paths unforwarded_budget",
            "telemetry",
            "worker",
            "http stream",
            "udp",
            "process",
            "fuzzing",
        ],
    ),
    ("report", &["diagnostic plain", "json summary terminal", "migration table", "changes"]),
    ("request_target", &["error path_encoding", "host path", "fuzzing"]),
    (
        "schema",
        &[
            "nearest patterns quote",
            "path",
            "report",
            "cel_rule pattern_description syntax",
            "core format",
            "tree",
            "kinds remedy rules",
            "metadata walk",
        ],
    ),
    (
        "snapshot",
        &[
            "access_logs cors error_backend escape external_auth gateway_traces handshake_limits host \
             own_udp_listeners regex regex_steps response_rate timeouts_and_retries",
            "client_validation next_upstream path_edit path_reach path_regex path_regexes",
            "certs",
            "redirect uri_template",
            "fuzzing location_path upstream_path",
            "location_snippet",
            "location_steps",
            "rule_telemetry",
            "fast_cgi",
            "rule_options",
            "rule",
            "router stream",
            "port_tls",
            "bind_map dump",
            "fingerprint ingress_routes routing",
        ],
    ),
    (
        "status",
        &[
            "event_rotation features json merge notices stable_cause",
            "event_queue installed occurrences",
            "queue",
            "event_writer status_writer",
        ],
    ),
    (
        "store",
        &[
            "acceptance object_size unserved",
            "bounded_value",
            "dependencies dependency_index object table",
            "reduced_route",
            "readable_route",
            "unparseable",
            "oversized",
        ],
    ),
    (
        "upstream",
        &[
            "dns endpoint_choice endpoint_error head_reader local_shortage outcome own_sockets proxy_protocol \
             response_streams route_balancing settings single_writer_counter sliding_count socket_budget",
            "response_times",
            "attempt_settings check_report endpoint_load health retry_counters",
            "counters endpoint_state",
            "load_balancing counted_connection retry_budget affinity upstream_key circuit_breaker outlier_detection",
            "alternatives endpoint_trial limits",
            "check_queue configured_endpoints locality upstream_availability worker_subset",
            "admission worker_endpoints",
            "http2 registry socket upstream",
            "outcome_observers target",
            "connect connect_attempt endpoint_body raw_connection upgraded",
            "http1",
            "pool",
            "endpoint_search",
            "health_checks raw_connecting",
        ],
    ),
    ("vaults", &["secret_reading", "aws logins", "google hashicorp", "client"]),
    (
        "verify",
        &[
            "admin_client hosts regex_sample served_routes test_client",
            "balancing expectation",
            "explanation gateway_routes ingresses",
            "judgment",
            "verification_report",
            "planned_requests",
        ],
    ),
];

/// How many files the largest cycle of imports in each top-level module has. Numbers only get lower, so that files come
/// apart and stay apart.
const CYCLES: &[CycleSize] = &[
    ("api", 7),
    ("args", 7),
    ("compile", 3),
    ("endpoint_tls", 6),
    ("http_server", 2),
    ("k8s", 6),
    ("plugin_api", 7),
    ("plugin_chain", 3),
    ("plugin_formats", 5),
    ("plugin_kit", 2),
    ("plugins", 6),
    ("proxy", 5),
    ("request_edits", 6),
    ("snapshot", 4),
    ("status", 2),
    ("upstream", 4),
    ("verify", 2),
];

/// The layers of files in folders whose modules are one layer of `LAYERS`. A file imports only files of its own layer
/// and of layers before it.
const LAYERED_FOLDERS: &[LayeredFolder] = &[LayeredFolder {
    path: "proxy/http",
    layers: &["fields", "record", "forwarding", "exchange", "steps", "client"],
    upward: 0,
}];

#[test]
fn modules_import_only_what_the_table_allows() {
    tree::expect_none(imports::findings(&checkout(), IMPORTS));
}

#[test]
fn modules_inside_a_module_form_layers() {
    tree::expect_none(layers::findings(&checkout(), LAYERS));
}

#[test]
fn files_form_no_larger_cycles_than_the_table_allows() {
    let graph = file_graph::graph(&checkout());
    // A list for work on a cycle; too long to be printed with every failure.
    if env::var_os("CYCLES").is_some() {
        for line in cycles::describe(&graph) {
            println!("{line}");
        }
    }
    tree::expect_none(cycles::findings(&graph, CYCLES));
}

#[test]
fn files_of_layered_folders_import_no_layer_above() {
    tree::expect_none(layered_folders::findings(&file_graph::graph(&checkout()), LAYERED_FOLDERS));
}

#[test]
fn neutral_code_names_no_dialect() {
    tree::expect_none(dialects::findings(&checkout()));
}

#[test]
fn source_files_say_what_they_are_about_and_stay_short() {
    let files = checkout();
    for line in sources::long_files(&files) {
        println!("{line}");
    }
    tree::expect_none(sources::findings(&files));
}

#[test]
fn no_file_holds_promises_machine_paths_or_registry_hosts() {
    tree::expect_none(words::findings(&checkout()));
}

#[test]
fn documents_lead_to_things_that_exist() {
    tree::expect_none(documents::findings(&checkout()));
}

#[test]
fn reasons_of_replies_are_documented() {
    tree::expect_none(reply_reasons::findings(&checkout()));
}

#[test]
fn recipes_show_the_code_as_it_is() {
    tree::expect_none(recipes::findings(&checkout()));
}

#[test]
fn prose_is_plain_and_cites_what_a_clone_has() {
    let files = checkout();
    let mut findings = language::findings(&files);
    findings.extend(citations::findings(&files));
    findings.extend(type_names::findings(&files));
    findings.extend(width::findings(&files));
    tree::expect_none(findings);
}

#[test]
fn public_items_of_crates_are_named_outside_of_their_crate() {
    tree::expect_none(public_items::findings(&checkout()));
}

#[test]
fn sleeps_in_tests_have_a_reason() {
    tree::expect_none(sleeps::findings(&checkout()));
}

#[test]
fn every_test_file_belongs_to_a_program() {
    tree::expect_none(test_programs::findings(&checkout()));
}

#[test]
fn tests_of_promises_and_reports_exist() {
    tree::expect_none(named_tests::findings(&checkout()));
}

#[test]
fn the_lock_file_has_one_of_each_and_only_releases() {
    tree::expect_none(lock::findings(&checkout()));
}

#[test]
fn manifests_leave_versions_and_settings_to_the_workspace() {
    tree::expect_none(manifests::findings(&checkout()));
}

#[test]
fn make_help_lists_every_target() {
    let files = checkout();
    let makefile = files.iter().find(|file| file.path == "Makefile").expect("the Makefile is in the root");
    let output = Command::new("make").args(["--silent", "help"]).current_dir(root()).output();
    let output = output.unwrap_or_else(|error| panic!("cannot start make: {error}; install it"));
    let help = String::from_utf8(output.stdout).unwrap();
    let listed: Vec<&str> =
        help.lines().filter(|line| line.starts_with("  ")).filter_map(|line| line.split_whitespace().next()).collect();
    let targets = documents::targets(makefile);
    assert!(!targets.is_empty());
    for target in targets {
        assert!(
            listed.contains(&target),
            "Makefile: `{target}` is not in `make help`; add a description after `##` to its rule"
        );
    }
}

fn checkout() -> Vec<File> {
    tree::read(root())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
