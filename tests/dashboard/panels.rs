//! What the dashboard shows. `$job` and `$route` are what its reader has chosen.

pub(crate) struct Row {
    pub(crate) title: &'static str,
    pub(crate) panels: &'static [Panel],
}

pub(crate) struct Panel {
    pub(crate) title: &'static str,
    /// What is to be made of it.
    pub(crate) says: &'static str,
    /// As Grafana calls it.
    pub(crate) unit: &'static str,
    pub(crate) form: Form,
    /// Of 24.
    pub(crate) width: u64,
    /// Each with its legend.
    pub(crate) queries: &'static [(&'static str, &'static str)],
}

pub(crate) enum Form {
    Lines,
    Number,
    Table,
}

const fn lines(title: &'static str, unit: &'static str, says: &'static str, queries: Queries) -> Panel {
    Panel { title, says, unit, form: Form::Lines, width: 8, queries }
}

const fn number(title: &'static str, unit: &'static str, says: &'static str, queries: Queries) -> Panel {
    Panel { title, says, unit, form: Form::Number, width: 4, queries }
}

type Queries = &'static [(&'static str, &'static str)];

pub(crate) const ROWS: &[Row] = &[
    Row { title: "Overview", panels: OVERVIEW },
    Row { title: "Routes", panels: ROUTES },
    Row { title: "Upstreams", panels: UPSTREAMS },
    Row { title: "Control plane", panels: CONTROL },
    Row { title: "Plugins", panels: PLUGINS },
];

const OVERVIEW: &[Panel] = &[
    number("Ready", "short", "Replicas that take requests", &[(r#"sum(portico_ready{job=~"$job"})"#, "")]),
    number(
        "Requests",
        "reqps",
        "Requests answered per second",
        &[(r#"sum(rate(portico_requests_total{job=~"$job"}[$__rate_interval]))"#, "")],
    ),
    number(
        "Errors",
        "percentunit",
        "Share of requests answered 5xx",
        &[(
            r#"(sum(rate(portico_requests_total{job=~"$job",code_class="5xx"}[$__rate_interval])) or vector(0)) / sum(rate(portico_requests_total{job=~"$job"}[$__rate_interval]))"#,
            "",
        )],
    ),
    number(
        "p99",
        "s",
        "What the slowest percent of requests takes at least",
        &[(
            r#"histogram_quantile(0.99, sum by (le) (rate(portico_request_duration_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
            "",
        )],
    ),
    number(
        "Problems",
        "short",
        "Errors in what is configured",
        &[(r#"sum(max by (job, kind) (portico_problems{job=~"$job",severity="error"}))"#, "")],
    ),
    number(
        "Snapshots",
        "short",
        "Different snapshots that replicas serve now; more than one for long is an alert",
        &[(r#"count(count by (job, hash) (count_values by (job) ("hash", portico_snapshot_hash{job=~"$job"})))"#, "")],
    ),
    lines(
        "Requests by answer",
        "reqps",
        "1xx are upgraded connections",
        &[(r#"sum by (code_class) (rate(portico_requests_total{job=~"$job"}[$__rate_interval]))"#, "{{code_class}}")],
    ),
    lines(
        "Connections",
        "short",
        "Of clients, those of HTTP/2 among them, upgraded ones, and to endpoints",
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
        "By how they ended",
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
        "Lost records",
        "ops",
        "Lines of the access log that were lost, label sets that were folded, clients that had to wait",
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
        says: "Which build each replica is",
        unit: "short",
        form: Form::Table,
        width: 24,
        queries: &[(r#"sum by (instance, version, commit, platform) (portico_build_info{job=~"$job"})"#, "")],
    },
];

const ROUTES: &[Panel] = &[
    lines(
        "Requests",
        "reqps",
        "The twenty busiest",
        &[(
            r#"topk(20, sum by (route) (rate(portico_requests_total{job=~"$job",route=~"$route"}[$__rate_interval])))"#,
            "{{route}}",
        )],
    ),
    lines(
        "Errors",
        "percentunit",
        "Share of requests answered 5xx",
        &[(
            r#"topk(20, sum by (route) (rate(portico_requests_total{job=~"$job",route=~"$route",code_class="5xx"}[$__rate_interval])) / sum by (route) (rate(portico_requests_total{job=~"$job",route=~"$route"}[$__rate_interval])))"#,
            "{{route}}",
        )],
    ),
    lines(
        "Refused",
        "reqps",
        "Requests answered 4xx",
        &[(
            r#"topk(20, sum by (route) (rate(portico_requests_total{job=~"$job",route=~"$route",code_class="4xx"}[$__rate_interval])))"#,
            "{{route}}",
        )],
    ),
    lines(
        "p50",
        "s",
        "Half of the requests are quicker",
        &[(
            r#"topk(20, histogram_quantile(0.5, sum by (route, le) (rate(portico_request_duration_seconds_bucket{job=~"$job",route=~"$route"}[$__rate_interval]))))"#,
            "{{route}}",
        )],
    ),
    lines(
        "p99",
        "s",
        "What the slowest percent of requests takes at least",
        &[(
            r#"topk(20, histogram_quantile(0.99, sum by (route, le) (rate(portico_request_duration_seconds_bucket{job=~"$job",route=~"$route"}[$__rate_interval]))))"#,
            "{{route}}",
        )],
    ),
    lines(
        "Bodies",
        "Bps",
        "Bytes of bodies, requests below",
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
        "Those that can be connected to, as the replica sees it that has the fewest",
        &[(r#"min by (upstream) (portico_upstream_endpoints{job=~"$job",state="well"})"#, "{{upstream}}")],
    ),
    lines(
        "Passed over",
        "short",
        "Endpoints that could not be connected to",
        &[(r#"max by (upstream) (portico_upstream_endpoints{job=~"$job",state="passed_over"})"#, "{{upstream}}")],
    ),
    lines(
        "Faults",
        "reqps",
        "Requests that no backend answered, or not to the end, by reason",
        &[(r#"sum by (reason) (rate(portico_faults_total{job=~"$job"}[$__rate_interval]))"#, "{{reason}}")],
    ),
    lines(
        "Connections begun",
        "ops",
        "By what became of them, and how many requests needed none",
        &[
            (
                r#"sum by (outcome) (rate(portico_upstream_connects_total{job=~"$job"}[$__rate_interval]))"#,
                "{{outcome}}",
            ),
            (r#"sum(rate(portico_upstream_reuses_total{job=~"$job"}[$__rate_interval]))"#, "kept connection used"),
        ],
    ),
    lines(
        "Sent again",
        "reqps",
        "Because nobody had looked at it, because the rule asks for it, and copies for mirrors",
        &[
            (r#"sum(rate(portico_upstream_replays_total{job=~"$job"}[$__rate_interval]))"#, "replays"),
            (r#"sum(rate(portico_upstream_retries_total{job=~"$job"}[$__rate_interval]))"#, "retries"),
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
        "From the first sign of a change to the snapshot that is served; compiling is a part of it",
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
        "Served since the start, and routers of hosts that were built for them",
        &[
            (r#"portico_snapshot_revision{job=~"$job"}"#, "{{instance}}"),
            (r#"sum(rate(portico_routers_built_total{job=~"$job"}[$__rate_interval]))"#, "routers per second"),
        ],
    ),
    lines(
        "Problems",
        "short",
        "With what is configured, by kind of object",
        &[(r#"max by (kind, severity) (portico_problems{job=~"$job"})"#, "{{kind}} {{severity}}")],
    ),
    lines(
        "Age of what is known",
        "s",
        "0 while the watches work",
        &[(r#"max by (instance) (portico_watch_age_seconds{job=~"$job"})"#, "{{instance}}")],
    ),
    lines(
        "Events",
        "ops",
        "That watches reported, and lists that they began with",
        &[
            (r#"sum by (kind) (rate(portico_watch_events_total{job=~"$job"}[$__rate_interval]))"#, "{{kind}}"),
            (r#"sum(rate(portico_watch_lists_total{job=~"$job"}[$__rate_interval]))"#, "lists"),
        ],
    ),
    lines(
        "Objects",
        "short",
        "That are known of the API server",
        &[(r#"max by (kind) (portico_watch_objects{job=~"$job"})"#, "{{kind}}")],
    ),
    lines(
        "Status writes",
        "ops",
        "By what became of them",
        &[(r#"sum by (result) (rate(portico_status_writes_total{job=~"$job"}[$__rate_interval]))"#, "{{result}}")],
    ),
    lines("Leader", "short", "Which replica writes", &[(r#"portico_leader{job=~"$job"}"#, "{{instance}}")]),
    lines(
        "Certificates",
        "s",
        "Until those end that end soonest",
        &[(r#"bottomk(20, min by (secret) (portico_certificate_expiry_seconds{job=~"$job"}))"#, "{{secret}}")],
    ),
];

const PLUGINS: &[Panel] = &[
    lines(
        "Calls",
        "ops",
        "Requests and answers that plugins looked at",
        &[(
            r#"sum by (plugin, phase) (rate(portico_plugin_duration_seconds_count{job=~"$job"}[$__rate_interval]))"#,
            "{{plugin}} {{phase}}",
        )],
    ),
    lines(
        "p99",
        "s",
        "What the slowest percent takes at least, waiting for other servers included",
        &[(
            r#"histogram_quantile(0.99, sum by (plugin, le) (rate(portico_plugin_duration_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
            "{{plugin}}",
        )],
    ),
    lines(
        "Time per second",
        "s",
        "That all requests together spend in a plugin",
        &[(
            r#"sum by (plugin) (rate(portico_plugin_duration_seconds_sum{job=~"$job"}[$__rate_interval]))"#,
            "{{plugin}}",
        )],
    ),
];
