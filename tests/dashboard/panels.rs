//! Rows and panels of the dashboards. `$job`, `$route` and `$backend` in queries are dashboard variables.

pub(crate) struct Dashboard {
    /// Its name in the folder `charts/portico/dashboards`.
    pub(crate) file: &'static str,
    pub(crate) uid: &'static str,
    pub(crate) title: &'static str,
    pub(crate) description: &'static str,
    pub(crate) rows: &'static [Row],
}

pub(crate) struct Row {
    pub(crate) title: &'static str,
    /// The variable, besides `$job`, by which all queries of the row filter.
    pub(crate) filter: Option<&'static str>,
    pub(crate) panels: &'static [Panel],
}

pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) description: &'static str,
    /// Grafana's identifier of the unit.
    pub(crate) unit: &'static str,
    pub(crate) form: PanelForm,
    /// In columns of the grid, which has 24.
    pub(crate) width: u64,
    /// Queries and their legends.
    pub(crate) queries: &'static [(&'static str, &'static str)],
}

pub(crate) enum PanelForm {
    Lines,
    Number,
    Table,
}

/// A chart of time series, a third of a row wide.
const fn lines(title: &'static str, unit: &'static str, description: &'static str, queries: Queries) -> Panel {
    Panel { title, description, unit, form: PanelForm::Lines, width: 8, queries }
}

/// The current value, a sixth of a row wide.
const fn number(title: &'static str, unit: &'static str, description: &'static str, queries: Queries) -> Panel {
    Panel { title, description, unit, form: PanelForm::Number, width: 4, queries }
}

type Queries = &'static [(&'static str, &'static str)];

pub(crate) const DASHBOARDS: &[Dashboard] = &[
    Dashboard {
        file: "portico.json",
        uid: "portico",
        title: "Portico",
        description: "All requests, and the control plane",
        rows: &[
            Row { title: "Overview", filter: None, panels: OVERVIEW },
            Row { title: "Control plane", filter: None, panels: CONTROL },
        ],
    },
    Dashboard {
        file: "portico-routes.json",
        uid: "portico-routes",
        title: "Portico / Routes",
        description: "Requests of routes",
        rows: &[Row { title: "Routes", filter: Some("route"), panels: ROUTES }],
    },
    Dashboard {
        file: "portico-endpoints.json",
        uid: "portico-endpoints",
        title: "Portico / Endpoints",
        description: "Backends, and with --endpoint-metrics each of their endpoints",
        rows: &[
            Row { title: "Backends", filter: None, panels: UPSTREAMS },
            Row { title: "Endpoints", filter: Some("backend"), panels: ENDPOINTS },
        ],
    },
    Dashboard {
        file: "portico-plugins.json",
        uid: "portico-plugins",
        title: "Portico / Plugins and limits",
        description: "Durations and queues of plugins, and limits of the process",
        rows: &[
            Row { title: "Plugins", filter: None, panels: PLUGINS },
            Row { title: "Queues", filter: None, panels: QUEUES },
            Row { title: "Limits", filter: None, panels: LIMITS },
        ],
    },
];

const OVERVIEW: &[Panel] = &[
    number("Ready", "short", "Replicas that are ready for requests", &[(r#"sum(portico_ready{job=~"$job"})"#, "")]),
    number(
        "Requests",
        "reqps",
        "Completed requests per second",
        &[(r#"sum(rate(portico_requests_total{job=~"$job"}[$__rate_interval]))"#, "")],
    ),
    number(
        "Errors",
        "percentunit",
        "Share of requests with a 5xx response",
        &[(
            r#"(sum(rate(portico_requests_total{job=~"$job",code_class="5xx"}[$__rate_interval])) or vector(0)) / sum(rate(portico_requests_total{job=~"$job"}[$__rate_interval]))"#,
            "",
        )],
    ),
    number(
        "p99",
        "s",
        "99th percentile of the request duration",
        &[(
            r#"histogram_quantile(0.99, sum by (le) (rate(portico_request_duration_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
            "",
        )],
    ),
    number(
        "Diagnostics",
        "short",
        "Errors in the configuration",
        &[(r#"sum(max by (job, kind) (portico_diagnostics{job=~"$job",severity="error"}))"#, "")],
    ),
    number(
        "Snapshots",
        "short",
        "Distinct snapshots served by the replicas; more than one for long raises an alert",
        &[(r#"count(count by (job, hash) (count_values by (job) ("hash", portico_snapshot_hash{job=~"$job"})))"#, "")],
    ),
    lines(
        "Requests by response",
        "reqps",
        "1xx are upgraded connections",
        &[(r#"sum by (code_class) (rate(portico_requests_total{job=~"$job"}[$__rate_interval]))"#, "{{code_class}}")],
    ),
    lines(
        "Connections",
        "short",
        "From clients in total, with HTTP/2, upgraded, and to endpoints",
        &[
            (r#"sum(portico_connections{job=~"$job"})"#, "clients"),
            (r#"sum(portico_http2_connections{job=~"$job"})"#, "HTTP/2"),
            (r#"sum(portico_tunnels{job=~"$job"})"#, "upgraded"),
            (r#"sum(portico_upstream_connections{job=~"$job"})"#, "endpoints"),
        ],
    ),
    lines(
        "TLS handshakes",
        "ops",
        "By outcome",
        &[(r#"sum by (outcome) (rate(portico_tls_handshakes_total{job=~"$job"}[$__rate_interval]))"#, "{{outcome}}")],
    ),
    lines(
        "CPU",
        "short",
        "Cores in use",
        &[(r#"rate(process_cpu_seconds_total{job=~"$job"}[$__rate_interval])"#, "{{instance}}")],
    ),
    lines("Memory", "bytes", "Resident memory", &[(r#"process_resident_memory_bytes{job=~"$job"}"#, "{{instance}}")]),
    lines(
        "Dropped telemetry",
        "ops",
        "Dropped access log entries, folded label sets, delayed client connections",
        &[
            (
                r#"sum by (reason) (rate(portico_access_log_dropped_total{job=~"$job"}[$__rate_interval]))"#,
                "log lines: {{reason}}",
            ),
            (r#"sum(rate(portico_series_folded_total{job=~"$job"}[$__rate_interval]))"#, "folded"),
            (r#"sum(rate(portico_connections_delayed_total{job=~"$job"}[$__rate_interval]))"#, "delayed"),
        ],
    ),
    Panel {
        title: "Builds",
        description: "Build of each replica",
        unit: "short",
        form: PanelForm::Table,
        width: 24,
        queries: &[(r#"sum by (instance, version, commit, platform) (portico_build_info{job=~"$job"})"#, "")],
    },
];

const ROUTES: &[Panel] = &[
    lines(
        "Requests",
        "reqps",
        "The twenty busiest routes",
        &[(
            r#"topk(20, sum by (route) (rate(portico_requests_total{job=~"$job",route=~"$route"}[$__rate_interval])))"#,
            "{{route}}",
        )],
    ),
    lines(
        "Errors",
        "percentunit",
        "Share of requests with a 5xx response",
        &[(
            r#"topk(20, sum by (route) (rate(portico_requests_total{job=~"$job",route=~"$route",code_class="5xx"}[$__rate_interval])) / sum by (route) (rate(portico_requests_total{job=~"$job",route=~"$route"}[$__rate_interval])))"#,
            "{{route}}",
        )],
    ),
    lines(
        "Client errors",
        "reqps",
        "Requests with a 4xx response",
        &[(
            r#"topk(20, sum by (route) (rate(portico_requests_total{job=~"$job",route=~"$route",code_class="4xx"}[$__rate_interval])))"#,
            "{{route}}",
        )],
    ),
    lines(
        "p50",
        "s",
        "Median of the request duration",
        &[(
            r#"topk(20, histogram_quantile(0.5, sum by (route, le) (rate(portico_request_duration_seconds_bucket{job=~"$job",route=~"$route"}[$__rate_interval]))))"#,
            "{{route}}",
        )],
    ),
    lines(
        "p99",
        "s",
        "99th percentile of the request duration",
        &[(
            r#"topk(20, histogram_quantile(0.99, sum by (route, le) (rate(portico_request_duration_seconds_bucket{job=~"$job",route=~"$route"}[$__rate_interval]))))"#,
            "{{route}}",
        )],
    ),
    lines(
        "Bodies",
        "Bps",
        "Body bytes; requests are negative",
        &[
            (
                r#"topk(20, sum by (route) (rate(portico_response_bytes_total{job=~"$job",route=~"$route"}[$__rate_interval])))"#,
                "{{route}} out",
            ),
            (
                r#"-topk(20, sum by (route) (rate(portico_request_bytes_total{job=~"$job",route=~"$route"}[$__rate_interval])))"#,
                "{{route}} in",
            ),
        ],
    ),
    lines(
        "Responses",
        "reqps",
        "By class of the status; 1xx are upgraded connections",
        &[(
            r#"sum by (code_class) (rate(portico_requests_total{job=~"$job",route=~"$route"}[$__rate_interval]))"#,
            "{{code_class}}",
        )],
    ),
    lines(
        "Rules",
        "reqps",
        "The twenty busiest rules of the routes",
        &[(
            "topk(20, sum by (route, rule) \
             (rate(portico_requests_total{job=~\"$job\",route=~\"$route\"}[$__rate_interval])))",
            "{{route}} {{rule}}",
        )],
    ),
    lines(
        "Backends",
        "reqps",
        "The twenty busiest backends of the routes",
        &[(
            r#"topk(20, sum by (route, backend) (rate(portico_requests_total{job=~"$job",route=~"$route",backend!=""}[$__rate_interval])))"#,
            "{{route}} {{backend}}",
        )],
    ),
];

const ENDPOINTS: &[Panel] = &[
    lines(
        "Attempts",
        "reqps",
        "The twenty busiest endpoints",
        &[(
            r#"topk(20, sum by (backend, endpoint) (rate(portico_endpoint_attempts_total{job=~"$job",backend=~"$backend"}[$__rate_interval])))"#,
            "{{backend}} {{endpoint}}",
        )],
    ),
    lines(
        "Failures",
        "percentunit",
        "Share of attempts with a 5xx response or without one",
        &[(
            r#"topk(20, sum by (backend, endpoint) (rate(portico_endpoint_attempts_total{job=~"$job",backend=~"$backend",outcome=~"server_error|failed"}[$__rate_interval])) / sum by (backend, endpoint) (rate(portico_endpoint_attempts_total{job=~"$job",backend=~"$backend"}[$__rate_interval])))"#,
            "{{backend}} {{endpoint}}",
        )],
    ),
    lines(
        "Share of the busiest endpoint",
        "short",
        "Its attempts, as a multiple of the average of its backend: 1 if all have the same number",
        &[(
            r#"max by (backend) (sum by (backend, endpoint) (rate(portico_endpoint_attempts_total{job=~"$job",backend=~"$backend"}[$__rate_interval]))) / avg by (backend) (sum by (backend, endpoint) (rate(portico_endpoint_attempts_total{job=~"$job",backend=~"$backend"}[$__rate_interval])))"#,
            "{{backend}}",
        )],
    ),
    lines(
        "Mean response time",
        "s",
        "Until the head of the response, of the twenty slowest endpoints",
        &[(
            r#"topk(20, sum by (backend, endpoint) (rate(portico_endpoint_response_seconds_sum{job=~"$job",backend=~"$backend"}[$__rate_interval])) / sum by (backend, endpoint) (rate(portico_endpoint_response_seconds_count{job=~"$job",backend=~"$backend"}[$__rate_interval])))"#,
            "{{backend}} {{endpoint}}",
        )],
    ),
    lines(
        "p99 of response times",
        "s",
        "Until the head of the response, of the twenty slowest endpoints",
        &[(
            r#"topk(20, histogram_quantile(0.99, sum by (backend, endpoint, le) (rate(portico_endpoint_response_seconds_bucket{job=~"$job",backend=~"$backend"}[$__rate_interval]))))"#,
            "{{backend}} {{endpoint}}",
        )],
    ),
    lines(
        "Endpoints in use",
        "short",
        "Endpoints with attempts",
        &[(
            r#"count by (backend) (sum by (backend, endpoint) (rate(portico_endpoint_attempts_total{job=~"$job",backend=~"$backend"}[$__rate_interval])) > 0)"#,
            "{{backend}}",
        )],
    ),
];

const UPSTREAMS: &[Panel] = &[
    lines(
        "Requests",
        "reqps",
        "The twenty busiest backends",
        &[(
            r#"topk(20, sum by (backend) (rate(portico_requests_total{job=~"$job",backend!=""}[$__rate_interval])))"#,
            "{{backend}}",
        )],
    ),
    lines(
        "Endpoints",
        "short",
        "Healthy endpoints, minimum over all replicas",
        &[(r#"min by (upstream) (portico_upstream_endpoints{job=~"$job",state="healthy"})"#, "{{upstream}}")],
    ),
    lines(
        "Ejected endpoints",
        "short",
        "Endpoints without requests, by cause, maximum over all replicas",
        &[(r#"max by (upstream, cause) (portico_upstream_ejected_endpoints{job=~"$job"})"#, "{{upstream}} {{cause}}")],
    ),
    lines(
        "Circuit breakers",
        "short",
        "0 closed, 1 open, 2 half-open, 3 closing, maximum over all replicas",
        &[(r#"max by (upstream) (portico_circuit_state{job=~"$job"})"#, "{{upstream}}")],
    ),
    lines(
        "Rejected by limits",
        "reqps",
        "Requests, retries and connections, by Service and limit",
        &[(
            r#"sum by (upstream, limit) (rate(portico_upstream_rejections_total{job=~"$job"}[$__rate_interval])) > 0"#,
            "{{upstream}} {{limit}}",
        )],
    ),
    lines(
        "Failed health checks",
        "ops",
        "Active checks that failed or were skipped",
        &[(
            r#"sum by (upstream, outcome) (rate(portico_upstream_checks_total{job=~"$job",outcome!="passed"}[$__rate_interval]))"#,
            "{{upstream}} {{outcome}}",
        )],
    ),
    lines(
        "Request errors",
        "reqps",
        "Requests without a complete backend response, by reason",
        &[(r#"sum by (reason) (rate(portico_request_errors_total{job=~"$job"}[$__rate_interval]))"#, "{{reason}}")],
    ),
    lines(
        "Connections opened",
        "ops",
        "By outcome, and requests that reused a connection",
        &[
            (
                r#"sum by (outcome) (rate(portico_upstream_connects_total{job=~"$job"}[$__rate_interval]))"#,
                "{{outcome}}",
            ),
            (r#"sum(rate(portico_upstream_reuses_total{job=~"$job"}[$__rate_interval]))"#, "reused"),
        ],
    ),
    lines(
        "Retries",
        "reqps",
        "Configured retries by Service and outcome, and those that its budget has refused",
        &[
            (
                r#"sum by (upstream, outcome) (rate(portico_upstream_retries_total{job=~"$job"}[$__rate_interval])) > 0"#,
                "{{upstream}} {{outcome}}",
            ),
            (
                r#"sum by (upstream) (rate(portico_upstream_retries_refused_total{job=~"$job",why="budget"}[$__rate_interval])) > 0"#,
                "{{upstream}} over budget",
            ),
        ],
    ),
    lines(
        "Replays and mirrors",
        "reqps",
        "Replays of unprocessed requests, and mirrored copies",
        &[
            (r#"sum(rate(portico_upstream_replays_total{job=~"$job"}[$__rate_interval]))"#, "replays"),
            (
                r#"sum by (outcome) (rate(portico_mirrored_requests_total{job=~"$job"}[$__rate_interval]))"#,
                "mirrored: {{outcome}}",
            ),
        ],
    ),
];

const CONTROL: &[Panel] = &[
    lines(
        "Propagation",
        "s",
        "From the first sign of a change until its snapshot is served, including compilation",
        &[
            (
                r#"histogram_quantile(0.99, sum by (le) (rate(portico_propagation_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                "p99",
            ),
            (
                r#"histogram_quantile(0.99, sum by (le) (rate(portico_compile_duration_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                "p99 of compiling",
            ),
        ],
    ),
    lines(
        "Snapshots",
        "short",
        "Snapshots served since the start, and host routers built for them",
        &[
            (r#"portico_snapshot_revision{job=~"$job"}"#, "{{instance}}"),
            (r#"sum(rate(portico_routers_built_total{job=~"$job"}[$__rate_interval]))"#, "routers per second"),
        ],
    ),
    lines(
        "Diagnostics",
        "short",
        "Of the configuration, by kind of object",
        &[(r#"max by (kind, severity) (portico_diagnostics{job=~"$job"})"#, "{{kind}} {{severity}}")],
    ),
    lines(
        "Age of watched state",
        "s",
        "0 while the watches work",
        &[(r#"max by (instance) (portico_watch_age_seconds{job=~"$job"})"#, "{{instance}}")],
    ),
    lines(
        "Events",
        "ops",
        "Objects received by watches, and lists requested",
        &[
            (r#"sum by (kind) (rate(portico_watch_events_total{job=~"$job"}[$__rate_interval]))"#, "{{kind}}"),
            (r#"sum(rate(portico_watch_lists_total{job=~"$job"}[$__rate_interval]))"#, "lists"),
        ],
    ),
    lines(
        "Objects",
        "short",
        "Objects known from the API server",
        &[(r#"max by (kind) (portico_watch_objects{job=~"$job"})"#, "{{kind}}")],
    ),
    lines(
        "Status writes",
        "ops",
        "By result",
        &[(r#"sum by (result) (rate(portico_status_writes_total{job=~"$job"}[$__rate_interval]))"#, "{{result}}")],
    ),
    lines("Leader", "short", "The replica that writes statuses", &[(r#"portico_leader{job=~"$job"}"#, "{{instance}}")]),
    lines(
        "Certificates",
        "s",
        "Remaining validity of the certificates that expire first",
        &[(r#"bottomk(20, min by (secret) (portico_certificate_expiry_seconds{job=~"$job"}))"#, "{{secret}}")],
    ),
];

const PLUGINS: &[Panel] = &[
    lines(
        "Calls",
        "ops",
        "Requests and responses processed by plugins",
        &[(
            r#"sum by (plugin, phase) (rate(portico_plugin_duration_seconds_count{job=~"$job"}[$__rate_interval]))"#,
            "{{plugin}} {{phase}}",
        )],
    ),
    lines(
        "p99",
        "s",
        "99th percentile of the duration, including calls to other servers",
        &[(
            r#"histogram_quantile(0.99, sum by (plugin, le) (rate(portico_plugin_duration_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
            "{{plugin}}",
        )],
    ),
    lines(
        "Time per second",
        "s",
        "Total time of all requests in a plugin",
        &[(
            r#"sum by (plugin) (rate(portico_plugin_duration_seconds_sum{job=~"$job"}[$__rate_interval]))"#,
            "{{plugin}}",
        )],
    ),
];

const QUEUES: &[Panel] = &[
    lines(
        "Waiting entries",
        "short",
        "Entries of logs, traces and metrics that wait or are being sent, by object or flag",
        &[(r#"sum by (object) (portico_plugin_queue_entries{job=~"$job"})"#, "{{object}}")],
    ),
    lines(
        "Sent entries",
        "ops",
        "Entries that servers have accepted, and batches that were sent again",
        &[
            (r#"sum by (object) (rate(portico_plugin_queue_sent_total{job=~"$job"}[$__rate_interval]))"#, "{{object}}"),
            (
                r#"sum by (object) (rate(portico_plugin_queue_retries_total{job=~"$job"}[$__rate_interval]))"#,
                "{{object}} again",
            ),
        ],
    ),
    lines(
        "Dropped entries",
        "ops",
        "By object or flag, and reason",
        &[(
            r#"sum by (object, reason) (rate(portico_plugin_queue_dropped_total{job=~"$job"}[$__rate_interval]))"#,
            "{{object}}: {{reason}}",
        )],
    ),
];

const LIMITS: &[Panel] = &[
    lines(
        "Bytes of bodies",
        "percentunit",
        "Used shares of the limits of bytes that are kept, and that backends or clients have not read",
        &[
            (r#"max(portico_buffered_bytes{job=~"$job"} / portico_buffered_bytes_limit{job=~"$job"})"#, "kept"),
            (
                r#"max(portico_unforwarded_bytes{job=~"$job"} / portico_unforwarded_bytes_limit{job=~"$job"})"#,
                "unforwarded",
            ),
        ],
    ),
    lines(
        "State of plugins",
        "percentunit",
        "Used shares of the limits of queues, stored responses, and counted identifiers",
        &[
            (
                r#"max(portico_plugin_queue_bytes{job=~"$job"} / portico_plugin_queue_bytes_limit{job=~"$job"})"#,
                "queues",
            ),
            (r#"max(portico_cache_bytes{job=~"$job"} / portico_cache_bytes_limit{job=~"$job"})"#, "responses"),
            (
                r#"max(portico_rate_limit_entries{job=~"$job"} / portico_rate_limit_entries_limit{job=~"$job"})"#,
                "identifiers",
            ),
        ],
    ),
    lines(
        "Refused by limits",
        "ops",
        "Bodies that were not kept, pauses of connections, and requests counted together with others",
        &[
            (
                r#"sum by (use) (rate(portico_buffered_bytes_refused_total{job=~"$job"}[$__rate_interval]))"#,
                "bodies for {{use}}",
            ),
            (r#"sum(rate(portico_unforwarded_bytes_pauses_total{job=~"$job"}[$__rate_interval]))"#, "pauses"),
            (r#"sum(rate(portico_rate_limit_shared_counts_total{job=~"$job"}[$__rate_interval]))"#, "shared counts"),
        ],
    ),
];
