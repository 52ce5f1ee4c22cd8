//! The cases of the table: plugins with a usual configuration and the requests that they let pass, and which plugins
//! have no case.

/// A plugin on a route of its own, and the request that is sent to it.
pub(super) struct Case {
    /// The name of the plugin; empty for a route without plugins.
    pub(super) plugin: &'static str,
    /// What is special about the case, for readers.
    pub(super) setting: &'static str,
    /// The configuration in YAML, where `HTTP_PORT`, `TCP_PORT` and `UDP_PORT` are ports of the servers.
    pub(super) config: &'static str,
    /// Plugins that every case may attach in addition, by the names of their objects.
    pub(super) with: &'static [&'static str],
    pub(super) content: Content,
    pub(super) path: &'static str,
    pub(super) credential: Credential,
    /// Further fields of the request, with names in lower case.
    pub(super) fields: &'static [(&'static str, &'static str)],
    pub(super) status: u16,
}

/// The body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    None,
    Json,
    Xml,
    /// A query.
    Graphql,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Credential {
    Nothing,
    Key,
    Password,
    /// A JWT.
    Token,
    /// A token that only its issuer understands.
    Opaque,
    /// An HMAC.
    Signature,
}

/// Requests that the cases are compared with, by their bodies.
pub(super) const PLAIN: [Case; 4] = [
    Case { setting: "GET", ..GET },
    Case { setting: "POST of JSON", content: Content::Json, ..GET },
    Case { setting: "POST of XML", content: Content::Xml, ..GET },
    Case { setting: "POST of a GraphQL query", content: Content::Graphql, ..GET },
];

const GET: Case = Case {
    plugin: "",
    setting: "",
    config: "{}",
    with: &[],
    content: Content::None,
    path: "/orders/7",
    credential: Credential::Nothing,
    fields: &[],
    status: 200,
};

const fn get(plugin: &'static str, setting: &'static str, config: &'static str) -> Case {
    Case { plugin, setting, config, ..GET }
}

const fn post(plugin: &'static str, setting: &'static str, config: &'static str) -> Case {
    Case { content: Content::Json, ..get(plugin, setting, config) }
}

impl Case {
    const fn credential(self, credential: Credential) -> Case {
        Case { credential, ..self }
    }

    const fn field(self, fields: &'static [(&'static str, &'static str)]) -> Case {
        Case { fields, ..self }
    }

    const fn after_key_auth(self) -> Case {
        Case { with: &["key-auth"], credential: Credential::Key, ..self }
    }
}

pub(super) const CASES: &[Case] = &[
    get("key-auth", "", "{}").credential(Credential::Key),
    get("basic-auth", "", "{}").credential(Credential::Password),
    get("jwt", "RS256, the same token", "{claims_to_verify: [exp]}").credential(Credential::Token),
    get("hmac-auth", "HMAC-SHA256 of a date", "{}").credential(Credential::Signature),
    get(
        "oauth2-introspection",
        "response cached",
        "{introspection_url: 'http://127.0.0.1:HTTP_PORT/introspect', authorization_value: Basic YmVuY2g6YmVuY2g=}",
    )
    .credential(Credential::Opaque),
    get("acl", "with key-auth", "{allow: [staff]}").after_key_auth(),
    get("forward-auth", "a call for each request", "{address: 'http://127.0.0.1:HTTP_PORT/check'}"),
    get("opa", "a call for each request", "{opa_host: 127.0.0.1, opa_port: HTTP_PORT, opa_path: /v1/data/allow}"),
    get(
        "upstream-oauth",
        "token cached",
        "{oauth: {token_endpoint: 'http://127.0.0.1:HTTP_PORT/token', client_id: bench, client_secret: only-here}}",
    ),
    get("ip-restriction", "", "{allow: [127.0.0.0/8]}"),
    get("bot-detection", "", "{}"),
    get("cors", "", "{origins: ['https://shop.example']}").field(&[("origin", "https://shop.example")]),
    get("correlation-id", "", "{}"),
    get("rate-limiting", "local, one limit", "{minute: 100000000, policy: local}"),
    get(
        "rate-limiting",
        "local, three limits",
        "{second: 10000000, minute: 100000000, hour: 100000000, policy: local}",
    ),
    get("rate-limiting-advanced", "local, sliding window", "{limit: [100000000], window_size: [60], strategy: local}"),
    get("response-ratelimiting", "local", "{limits: {videos: {minute: 100000000}}, policy: local}"),
    get(
        "usage-plan",
        "in memory, a rate and a quota",
        "{plans: [{name: all, rate: {requests: 1000000, per: second}, quotas: {day: 1000000000}}], policy: memory}",
    ),
    get(
        "api-version",
        "version by header",
        "{header: x-api-version, versions: [{name: v1}, {name: v2}], default_version: v2}",
    )
    .field(&[("x-api-version", "v1")]),
    post("request-size-limiting", "", "{}"),
    post("json-threat-protection", "", "{max_container_depth: 16, max_array_element_count: 1000}"),
    Case { content: Content::Xml, ..get("xml-threat-protection", "", "{}") },
    post(
        "injection-protection",
        "path, query and body",
        "{injection_types: [sql, js], locations: [path_and_query, body]}",
    ),
    post(
        "request-validator",
        "JSON Schema",
        r#"{version: draft202012, body_schema: '{"type": "object", "required": ["id", "items"], "properties": {
            "id": {"type": "integer"},
            "items": {"type": "array", "maxItems": 100, "items": {"type": "object", "required": ["sku"], "properties": {
              "sku": {"type": "string", "pattern": "^[A-Z]-[0-9]+$"}, "price": {"type": "number"}}}}}}'}"#,
    ),
    get(
        "oas-validation",
        "path parameter",
        r#"{api_spec: '{"openapi": "3.1.0", "info": {"title": "Shop", "version": "1"}, "paths": {
            "/orders/{id}": {"get": {
            "parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "integer"}}],
            "responses": {"200": {"description": "The order"}}}}}}'}"#,
    ),
    get("request-transformer", "adds a header", "{add: {headers: ['x-plan:basic']}}"),
    post("request-transformer", "removes a field of the body", "{remove: {body: [notes]}}"),
    get("request-transformer-advanced", "adds a header", "{add: {headers: ['x-plan:basic']}}"),
    post(
        "request-transformer-advanced",
        "removes a nested field of the body",
        "{dots_in_keys: false, remove: {body: ['items[*].price']}}",
    ),
    get("response-transformer", "adds a header", "{add: {headers: ['x-frame-options:DENY']}}"),
    get("response-transformer", "removes a field of the body", "{remove: {json: [notes]}}"),
    get(
        "response-transformer-advanced",
        "removes a nested field of the body",
        "{dots_in_keys: false, remove: {json: ['items[*].price']}}",
    ),
    post("jq", "changes the request body", r#"{request_jq_program: 'del(.notes) | .source = "gateway"'}"#),
    get(
        "jq",
        "changes the response body",
        "{response_jq_program: '{id, total: ([.items[] | .price * .quantity] | add)}'}",
    ),
    get("compression", "gzip, 692 bytes", "{min_length: 100, codings: [gzip]}").field(&[("accept-encoding", "gzip")]),
    get("compression", "zstd, 692 bytes", "{min_length: 100, codings: [zstd]}").field(&[("accept-encoding", "zstd")]),
    get(
        "error-pages",
        "no error",
        "{pages: [{statuses: [404], bodies: [{content_type: text/plain, template: '{{title}}'}]}]}",
    ),
    get("proxy-cache", "hit", "{strategy: memory, content_type: [application/json], cache_ttl: 3600}"),
    get("proxy-cache-advanced", "hit", "{strategy: memory, content_type: [application/json], cache_ttl: 3600}"),
    get("upstream-timeout", "", "{connect_timeout: 2000, read_timeout: 120000}"),
    Case { status: 302, ..get("redirect", "", "{location: 'https://shop.example/', status_code: 302}") },
    Case { status: 503, ..get("request-termination", "", "{status_code: 503, message: Back at noon}") },
    get(
        "mocking",
        "",
        r#"{api_specification: '{"openapi": "3.1.0", "info": {"title": "Shop", "version": "1"}, "paths": {
            "/orders/{id}": {"get": {"responses": {"200": {
              "description": "The order", "content": {"application/json": {"example": {"id": 7}}}}}}}}}'}"#,
    ),
    get(
        "aggregate",
        "two calls",
        "{calls: [{name: user, url: 'http://127.0.0.1:HTTP_PORT/users/81'}, \
         {name: order, url: 'http://127.0.0.1:HTTP_PORT/orders/7'}]}",
    ),
    get("canary", "half of the requests", "{percentage: 50, hash: none, upstream_host: backend.default.80.svc}"),
    get(
        "route-by-header",
        "the second of two rules",
        "{rules: [{condition: {x-region: us}, upstream_name: backend.default.80.svc}, {condition: {x-region: eu}, \
         upstream_name: backend.default.80.svc}]}",
    )
    .field(&[("x-region", "eu")]),
    get("mask", "a field and a pattern of the response", "{fields: [customer.email], kinds: [payment-card]}"),
    get(
        "pre-function",
        "a condition and a header",
        "{access: ['if kong.request.get_header(\"x-api-version\") == \"1\" then kong.response.exit(410) end \
         kong.service.request.set_header(\"x-plan\", \"basic\")']}",
    ),
    get("post-function", "a response header", "{header_filter: ['kong.response.set_header(\"x-plan\", \"basic\")']}"),
    get(
        "degraphql",
        "a query with a variable",
        "{routes: [{uri: /orders/:id, query: 'query ($id: ID!) { order(id: $id) { state total } }'}]}",
    ),
    Case {
        content: Content::Graphql,
        ..get(
            "graphql-rate-limiting-advanced",
            "four fields",
            "{limit: [100000000], window_size: [60], introspection_url: 'http://127.0.0.1:HTTP_PORT/schema', \
            costs: [{type_path: Query.order, add_constant: 2}]}",
        )
    },
    Case {
        content: Content::Graphql,
        ..get("graphql-proxy-cache-advanced", "hit", "{strategy: memory, cache_ttl: 3600}")
    },
    get("prometheus", "", "{status_code_metrics: true, latency_metrics: true, bandwidth_metrics: true}"),
    get("file-log", "", "{path: /dev/stdout}"),
    get("http-log", "", "{http_endpoint: 'http://127.0.0.1:HTTP_PORT/log', queue: {max_batch_size: 100}}"),
    get("tcp-log", "", "{host: 127.0.0.1, port: TCP_PORT}"),
    get("udp-log", "", "{host: 127.0.0.1, port: UDP_PORT}"),
    get("syslog", "UDP", "{host: 127.0.0.1, port: UDP_PORT, protocol: udp}"),
    get("statsd", "", "{host: 127.0.0.1, port: UDP_PORT}"),
    get("datadog", "", "{host: 127.0.0.1, port: UDP_PORT}"),
    get(
        "opentelemetry",
        "every request recorded",
        "{traces_endpoint: 'http://127.0.0.1:HTTP_PORT/v1/traces', sampling_rate: 1}",
    ),
    get(
        "opentelemetry",
        "1 of 100 recorded",
        "{traces_endpoint: 'http://127.0.0.1:HTTP_PORT/v1/traces', sampling_rate: 0.01}",
    ),
    get(
        "zipkin",
        "every request recorded",
        "{http_endpoint: 'http://127.0.0.1:HTTP_PORT/api/v2/spans', sample_ratio: 1}",
    ),
];

/// Plugins without a case, and why.
pub(super) const NOT_COUNTED: &[(&str, &str)] = &[
    ("aws-lambda, azure-functions", "need the servers of their providers"),
    ("forward-proxy", "needs a proxy, and takes what a second connection takes"),
    ("grpc-gateway, grpc-web", "need a gRPC server"),
    ("header-cert-auth, mtls-auth", "need client certificates"),
    (
        "identity-keys, internal-identity, jwt-signer",
        "sign once for many requests; what they cost depends on their caches",
    ),
    ("kafka-log, kafka-upstream", "need a Kafka broker"),
    ("ldap-auth, ldap-auth-advanced", "need a directory"),
    ("loggly", "sends only to its provider"),
    ("oauth2, openid-connect, session", "need a login"),
    ("soap", "needs a SOAP server"),
    ("standard-webhooks", "accepts each signature for a few minutes only"),
    ("websocket-size-limit", "reads the headers of frames, which no request of this table has"),
];
