//! Keys of the ConfigMap of ingress-nginx that are no settings here, and what replaces them.

/// What replaces snippets for TCP and UDP.
pub(super) const STREAM_REMEDY: &str = "open the ports of TCP services with --nginx-tcp-services, and remove it";

/// Keys that restrict requests. Snippets may contain any restriction.
pub(super) const GUARDS: &[&str] =
    &["block-cidrs", "block-referers", "block-user-agents", "http-snippet", "server-snippet"];

/// Keys about the server that permits requests.
pub(super) const GLOBAL_AUTH: &[&str] = &[
    "global-auth-always-set-cookie",
    "global-auth-cache-duration",
    "global-auth-cache-key",
    "global-auth-method",
    "global-auth-request-redirect",
    "global-auth-response-headers",
    "global-auth-signin",
    "global-auth-signin-redirect-param",
    "global-auth-url",
];

/// Keys about the server for traces and what is recorded, and the flags that take their place.
pub(super) const REPLACED_BY_FLAGS: &[(&str, &str)] = &[
    ("otel-sampler", "--trace-sampling"),
    ("otel-sampler-parent-based", "--trusted-ips"),
    ("otel-sampler-ratio", "--trace-sampling"),
    ("otlp-collector-host", "--trace-otlp-endpoint"),
    ("otlp-collector-port", "--trace-otlp-endpoint"),
];

/// Keys about the inside of nginx, or about the controller itself.
pub(super) const INTERNAL: &[&str] = &[
    "client-body-buffer-size",
    "enable-multi-accept",
    "error-log-level",
    "max-worker-connections",
    "max-worker-open-files",
    "otel-max-export-batch-size",
    "otel-max-queuesize",
    "otel-schedule-delay-millis",
    "proxy-buffer-size",
    "proxy-buffering",
    "proxy-buffers-number",
    "proxy-busy-buffers-size",
    "proxy-headers-hash-bucket-size",
    "proxy-headers-hash-max-size",
    "proxy-max-temp-file-size",
    "proxy-request-buffering",
    "reuse-port",
    "server-name-hash-bucket-size",
    "server-name-hash-max-size",
    "ssl-buffer-size",
    "ssl-session-cache",
    "ssl-session-cache-size",
    "strict-validate-path-type",
    "upstream-keepalive-connections",
    "upstream-keepalive-requests",
    "upstream-keepalive-timeout",
    "variables-hash-bucket-size",
    "variables-hash-max-size",
    "worker-cpu-affinity",
    "worker-processes",
    "worker-shutdown-timeout",
];
