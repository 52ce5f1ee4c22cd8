//! Keys of annotations and labels in manifests for Kong. All values are strings; lists are comma-separated, with or
//! without spaces.

/// Prefix of Kong's own annotations.
pub const ANNOTATION_PREFIX: &str = "konghq.com/";
/// Prefix of annotations that several Ingress controllers share.
pub const INGRESS_PREFIX: &str = "ingress.kubernetes.io/";

/// Class of an Ingress, a consumer and other resources; takes precedence over `spec.ingressClassName`.
pub const INGRESS_CLASS: &str = "kubernetes.io/ingress.class";
/// Marks, with the value `"true"`, the IngressClass of objects without a class.
pub const IS_DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

// Annotations of Services and KongServiceFacades. Some of them apply to other kinds, too.

/// Names of plugins, each `name` or `namespace:name`; applies to routes of all kinds, consumers and consumer groups,
/// too.
pub const PLUGINS: &str = "konghq.com/plugins";
/// Protocol of requests to the endpoints.
pub const PROTOCOL: &str = "konghq.com/protocol";
/// Prefix for the path that the endpoints receive.
pub const PATH: &str = "konghq.com/path";
pub const CLIENT_CERT: &str = "konghq.com/client-cert";
pub const CONNECT_TIMEOUT: &str = "konghq.com/connect-timeout";
pub const WRITE_TIMEOUT: &str = "konghq.com/write-timeout";
pub const READ_TIMEOUT: &str = "konghq.com/read-timeout";
pub const RETRIES: &str = "konghq.com/retries";
pub const HOST_HEADER: &str = "konghq.com/host-header";
/// Name of a KongIngress.
pub const OVERRIDE: &str = "konghq.com/override";
/// Name of a KongUpstreamPolicy.
pub const UPSTREAM_POLICY: &str = "konghq.com/upstream-policy";
pub const TLS_VERIFY: &str = "konghq.com/tls-verify";
pub const TLS_VERIFY_DEPTH: &str = "konghq.com/tls-verify-depth";
pub const CA_CERTIFICATES_SECRETS: &str = "konghq.com/ca-certificates-secrets";
pub const CA_CERTIFICATES_CONFIG_MAPS: &str = "konghq.com/ca-certificates-configmaps";
/// Tags; applies to plugins, consumers, consumer groups, credentials and routes, too.
pub const TAGS: &str = "konghq.com/tags";
pub const SERVICE_UPSTREAM: &str = "ingress.kubernetes.io/service-upstream";

// Annotations of Ingresses and of routes of all kinds.

pub const STRIP_PATH: &str = "konghq.com/strip-path";
pub const PRESERVE_HOST: &str = "konghq.com/preserve-host";
/// Protocols that clients must use.
pub const PROTOCOLS: &str = "konghq.com/protocols";
pub const HTTPS_REDIRECT_STATUS_CODE: &str = "konghq.com/https-redirect-status-code";
pub const FORCE_SSL_REDIRECT: &str = "ingress.kubernetes.io/force-ssl-redirect";
pub const REGEX_PRIORITY: &str = "konghq.com/regex-priority";
pub const METHODS: &str = "konghq.com/methods";
pub const SNIS: &str = "konghq.com/snis";
pub const HOST_ALIASES: &str = "konghq.com/host-aliases";
/// Prefix that is followed by the name of a header field.
pub const HEADERS_PREFIX: &str = "konghq.com/headers.";
pub const HEADERS_SEPARATOR: &str = "konghq.com/headers-separator";
pub const PATH_HANDLING: &str = "konghq.com/path-handling";
pub const REQUEST_BUFFERING: &str = "konghq.com/request-buffering";
pub const RESPONSE_BUFFERING: &str = "konghq.com/response-buffering";
pub const REGEX_PREFIX: &str = "konghq.com/regex-prefix";
pub const REWRITE: &str = "konghq.com/rewrite";

// Labels.

/// The type of the credential in a Secret.
pub const CREDENTIAL_LABEL: &str = "konghq.com/credential";
/// Marks, with the value `"true"`, a Secret or ConfigMap that contains a CA certificate.
pub const CA_CERT_LABEL: &str = "konghq.com/ca-cert";
/// The controller that created the object.
pub const MANAGED_BY_LABEL: &str = "konghq.com/managed-by";
/// Marks, with the value `"true"`, a KongClusterPlugin that runs on every route.
pub const GLOBAL_LABEL: &str = "global";

/// Splits a list, trims its entries and drops empty ones.
pub fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}
