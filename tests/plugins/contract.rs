//! Contract tests that every plugin in the registry must pass.

use http::{HeaderMap, HeaderValue};
use portico::plugin_api::{AnyPluginKind, ConsumerDirectory, Phases, Scopes};
use portico::plugin_chain::testing::{TestRequest, build, chain, consumer};
use portico::plugins::REGISTRY;
use serde_json::{Map, Value, json};

use crate::plugins::{fields, source};

/// The priority, phases, scopes and protocols of Kong's plugin, and whether Portico's plugin fails closed.
struct ExpectedKind {
    name: &'static str,
    priority: i32,
    phases: Phases,
    scopes: Scopes,
    protocols: &'static [&'static str],
    fails_closed: bool,
}

const HTTP: &[&str] = &["grpc", "grpcs", "http", "https"];
const ALL_PROTOCOLS: &[&str] = &["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"];
const HTTP_TCP_AND_TLS: &[&str] = &["grpc", "grpcs", "http", "https", "tcp", "tls"];

const fn expected(name: &'static str, priority: i32, phases: Phases) -> ExpectedKind {
    ExpectedKind { name, priority, phases, scopes: Scopes::ALL, protocols: HTTP, fails_closed: false }
}

impl ExpectedKind {
    const fn failing_closed(self) -> Self {
        ExpectedKind { fails_closed: true, ..self }
    }

    const fn without_consumers(self) -> Self {
        ExpectedKind { scopes: Scopes { consumer: false, ..Scopes::ALL }, ..self }
    }

    const fn without_consumers_and_groups(self) -> Self {
        ExpectedKind { scopes: Scopes { consumer: false, consumer_group: false, ..Scopes::ALL }, ..self }
    }

    const fn without_groups(self) -> Self {
        ExpectedKind { scopes: Scopes { consumer_group: false, ..Scopes::ALL }, ..self }
    }

    const fn with_protocols(self, protocols: &'static [&'static str]) -> Self {
        ExpectedKind { protocols, ..self }
    }
}

/// What looks at a request twice.
const ACCESS_AND_BEFORE_FORWARD: Phases = Phases { before_forward: true, ..Phases::ACCESS };

const TRACER: Phases = Phases { log: true, ..Phases::ACCESS_AND_RESPONSE };

const EXPECTED_KINDS: &[ExpectedKind] = &[
    expected("pre-function", 1_000_000, Phases { log: true, ..Phases::ACCESS_AND_RESPONSE })
        .failing_closed()
        .without_consumers_and_groups(),
    expected("post-function", -1000, Phases { log: true, ..Phases::ACCESS_AND_RESPONSE })
        .failing_closed()
        .without_consumers_and_groups(),
    expected("zipkin", 100_000, TRACER),
    expected("opentelemetry", 14, TRACER),
    expected("correlation-id", 100_001, Phases::ACCESS_AND_RESPONSE),
    expected("identity-keys", 1950, Phases::ACCESS).failing_closed().without_consumers_and_groups(),
    expected("oauth2-introspection", 1700, Phases::ACCESS).failing_closed().without_consumers_and_groups(),
    expected("mtls-auth", 1600, Phases::ACCESS).failing_closed().without_consumers_and_groups(),
    expected("forward-auth", 1040, Phases::ACCESS_AND_RESPONSE).failing_closed().without_consumers_and_groups(),
    expected("jwt-signer", 1020, Phases::ACCESS).failing_closed().without_consumers_and_groups(),
    expected("header-cert-auth", 1009, Phases::ACCESS).failing_closed().without_consumers_and_groups(),
    expected("api-version", 930, Phases::ACCESS_AND_RESPONSE).failing_closed(),
    expected("opa", 920, Phases::ACCESS).failing_closed(),
    expected("internal-identity", 905, Phases::ACCESS).failing_closed(),
    expected("upstream-oauth", 760, Phases::ACCESS_AND_RESPONSE).failing_closed(),
    expected("aggregate", 748, Phases::REPLACE_BACKEND).failing_closed(),
    expected("aws-lambda", 750, Phases::REPLACE_BACKEND).failing_closed(),
    expected("kafka-upstream", 751, Phases::REPLACE_BACKEND).failing_closed(),
    expected("azure-functions", 749, Phases::REPLACE_BACKEND).failing_closed(),
    expected("forward-proxy", 50, Phases::REPLACE_BACKEND).failing_closed().without_consumers_and_groups(),
    expected("bot-detection", 2500, Phases::ACCESS).failing_closed().without_consumers_and_groups(),
    expected("cors", 2000, Phases::ACCESS_AND_RESPONSE).without_consumers_and_groups(),
    expected("session", 1900, Phases::ACCESS_AND_RESPONSE).failing_closed().without_consumers_and_groups(),
    expected("jwt", 1450, Phases::ACCESS).failing_closed().without_consumers_and_groups(),
    expected("degraphql", 1500, ACCESS_AND_BEFORE_FORWARD).failing_closed().without_consumers_and_groups(),
    expected("oauth2", 1400, Phases::ACCESS).failing_closed().without_consumers_and_groups(),
    expected("key-auth", 1250, Phases::ACCESS).failing_closed().without_consumers_and_groups(),
    expected("ldap-auth", 1200, Phases::ACCESS).failing_closed().without_consumers_and_groups(),
    expected("ldap-auth-advanced", 1200, Phases::ACCESS).failing_closed().without_consumers_and_groups(),
    expected("basic-auth", 1100, Phases::ACCESS).failing_closed().without_consumers_and_groups(),
    expected("openid-connect", 1050, Phases::ACCESS_AND_RESPONSE).failing_closed().without_consumers_and_groups(),
    expected("hmac-auth", 1030, Phases::ACCESS).failing_closed().without_consumers_and_groups(),
    expected("compression", 1005, Phases::ACCESS_AND_RESPONSE),
    expected("grpc-web", 3, Phases::ACCESS_AND_RESPONSE),
    expected("error-pages", 1, Phases::RESPONSE).without_consumers_and_groups(),
    expected("json-threat-protection", 1009, Phases::ACCESS).failing_closed(),
    expected("xml-threat-protection", 1008, Phases::ACCESS).failing_closed(),
    expected("injection-protection", 1007, Phases::ACCESS).failing_closed(),
    expected("request-validator", 999, Phases::ACCESS).failing_closed(),
    expected("grpc-gateway", 998, Phases::ACCESS_AND_RESPONSE),
    expected("ip-restriction", 990, Phases::ACCESS_AND_STREAM_OPEN).failing_closed().with_protocols(HTTP_TCP_AND_TLS),
    expected("request-size-limiting", 951, Phases::ACCESS).failing_closed(),
    expected("acl", 950, Phases::ACCESS).failing_closed().without_consumers(),
    expected("rate-limiting", 910, Phases::ACCESS).failing_closed(),
    expected("oas-validation", 840, Phases::ACCESS_AND_RESPONSE).failing_closed(),
    expected("rate-limiting-advanced", 910, Phases::ACCESS).failing_closed(),
    expected("usage-plan", 909, Phases::ACCESS).failing_closed(),
    expected("graphql-rate-limiting-advanced", 902, ACCESS_AND_BEFORE_FORWARD).failing_closed(),
    expected("response-ratelimiting", 900, Phases::ACCESS_AND_RESPONSE).failing_closed(),
    expected("jq", 811, Phases::ACCESS_AND_RESPONSE).failing_closed(),
    expected("request-transformer-advanced", 802, Phases::ACCESS).failing_closed(),
    expected("request-transformer", 801, Phases::ACCESS).failing_closed(),
    expected("response-transformer", 800, Phases::RESPONSE).failing_closed(),
    expected("response-transformer-advanced", 800, Phases::RESPONSE).failing_closed(),
    expected("soap", 799, Phases::ACCESS_AND_RESPONSE).failing_closed(),
    expected("redirect", 779, Phases::ACCESS),
    expected("standard-webhooks", 760, Phases::ACCESS).failing_closed().without_consumers(),
    expected("proxy-cache", 100, Phases::BEFORE_FORWARD),
    expected("proxy-cache-advanced", 100, Phases::BEFORE_FORWARD),
    expected("graphql-proxy-cache-advanced", 99, Phases::BEFORE_FORWARD),
    expected("upstream-timeout", 400, Phases::ACCESS),
    expected("websocket-size-limit", 1003, Phases::ACCESS).failing_closed().without_groups(),
    expected("canary", 20, Phases::ACCESS).without_consumers_and_groups(),
    expected("route-by-header", 850, Phases::ACCESS).without_consumers_and_groups(),
    expected("mask", 16, Phases::ACCESS_AND_RESPONSE).failing_closed().without_consumers_and_groups(),
    expected("prometheus", 13, Phases::LOG).with_protocols(ALL_PROTOCOLS),
    expected("http-log", 12, Phases::LOG).with_protocols(ALL_PROTOCOLS),
    expected("statsd", 11, Phases::LOG).with_protocols(ALL_PROTOCOLS),
    expected("datadog", 10, Phases::LOG).with_protocols(ALL_PROTOCOLS),
    expected("file-log", 9, Phases::LOG).with_protocols(ALL_PROTOCOLS),
    expected("udp-log", 8, Phases::LOG).with_protocols(ALL_PROTOCOLS),
    expected("tcp-log", 7, Phases::LOG).with_protocols(ALL_PROTOCOLS),
    expected("loggly", 6, Phases::LOG).with_protocols(ALL_PROTOCOLS),
    expected("kafka-log", 5, Phases::LOG).with_protocols(ALL_PROTOCOLS),
    expected("syslog", 4, Phases::LOG).with_protocols(ALL_PROTOCOLS),
    expected("request-termination", 2, Phases::ACCESS).failing_closed(),
    expected("mocking", -1, Phases::REPLACE_BACKEND).failing_closed(),
];

/// The minimal configuration of a plugin.
pub(crate) fn minimal_config(kind: &dyn AnyPluginKind) -> Value {
    match kind.name() {
        "acl" => json!({"allow": ["staff"]}),
        "aggregate" => json!({"calls": [{"name": "user", "url": "http://users.example/me"}]}),
        "aws-lambda" => {
            json!({"aws_region": "eu-west-1", "aws_key": "a", "aws_secret": "b", "function_name": "thumbnails"})
        }
        "canary" => json!({"percentage": 10, "upstream_host": "next.a.80.svc"}),
        "mask" => json!({"kinds": ["email"]}),
        "route-by-header" => {
            json!({"rules": [{"condition": {"x-region": "eu"}, "upstream_name": "next.a.80.svc"}]})
        }
        "azure-functions" => json!({"appname": "shop", "functionname": "invoices"}),
        "websocket-size-limit" => json!({"client_max_payload": 4096}),
        "file-log" => json!({"path": "/dev/stdout"}),
        "error-pages" => json!({
            "pages": [{"statuses": [404], "bodies": [{"content_type": "text/plain", "template": "{{title}}"}]}],
        }),
        "api-version" => json!({"path": true, "versions": [{"name": "v1"}]}),
        "forward-auth" => json!({"address": "http://auth.example/check"}),
        "forward-proxy" => json!({"http_proxy_host": "proxy.example", "http_proxy_port": 3128}),
        "grpc-gateway" => json!({"proto": PROTO}),
        "header-cert-auth" => json!({
            "certificate_header_name": "x-client-cert", "certificate_header_format": "url_encoded",
            "ca_certificates": [AUTHORITY],
        }),
        "http-log" => json!({"http_endpoint": "https://logs.example/requests"}),
        "opentelemetry" => json!({"traces_endpoint": "http://collector.example:4318/v1/traces"}),
        "internal-identity" => json!({"issuer": "https://gateway.example", "keys": [SIGNING_KEY]}),
        "loggly" => json!({"key": "0123-abcd"}),
        "kafka-log" | "kafka-upstream" => {
            json!({"topic": "requests", "bootstrap_servers": [{"host": "kafka.example", "port": 9092}]})
        }
        "tcp-log" | "udp-log" => json!({"host": "logs.example", "port": 5170}),
        "jq" => json!({"request_jq_program": "."}),
        "jwt-signer" => json!({
            "access_token_jwks_uri": "https://issuer.example/keys", "access_token_signing_keys": [SIGNING_KEY],
        }),
        "mocking" => json!({"api_specification": API}),
        "mtls-auth" => json!({"ca_certificates": [AUTHORITY]}),
        "oauth2" => json!({"enable_client_credentials": true}),
        "proxy-cache" | "proxy-cache-advanced" => json!({"strategy": "memory"}),
        "oas-validation" => json!({"api_spec": API}),
        "request-validator" => json!({"body_schema": "[{\"a\": {\"type\": \"string\"}}]"}),
        "oauth2-introspection" => {
            json!({"introspection_url": "https://issuer.example/introspect", "authorization_value": "Basic YTpi"})
        }
        "opa" => json!({"opa_path": "/v1/data/shop/allow"}),
        "upstream-oauth" => json!({
            "oauth": {"token_endpoint": "https://issuer.example/token", "client_id": "a", "client_secret": "b"},
        }),
        "ip-restriction" => json!({"allow": ["10.0.0.0/8"]}),
        "openid-connect" => json!({"issuer": "https://login.example", "client_id": ["shop"]}),
        "ldap-auth" | "ldap-auth-advanced" => {
            json!({"ldap_host": "ldap.example", "base_dn": "ou=users,dc=example", "attribute": "uid"})
        }
        "rate-limiting" => json!({"minute": 5}),
        "rate-limiting-advanced" | "graphql-rate-limiting-advanced" => json!({"limit": [5], "window_size": [60]}),
        "redirect" => json!({"location": "https://shop.example"}),
        "response-ratelimiting" => json!({"limits": {"videos": {"minute": 5}}}),
        "soap" => json!({"operation": "GetPrice"}),
        "standard-webhooks" => json!({"secret_v1": "secret"}),
        "usage-plan" => json!({"plans": [{"name": "free", "quotas": {"day": 5}}]}),
        _ => json!({}),
    }
}

/// A document of an API with one operation, which a GET request for `/` has.
const API: &str =
    "openapi: 3.1.0\ninfo: {title: API, version: '1'}\npaths: {/: {get: {responses: {'200': {description: ok}}}}}";

/// A service with one method that can be called by HTTP.
const PROTO: &str = "syntax = 'proto3'; import 'google/api/annotations.proto'; message M {} \
    service S { rpc Get(M) returns (M) { option (google.api.http) = { get: '/m' }; } }";

/// A key that signs tokens.
const SIGNING_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgqfVxfZlAaFgO3sGy
qn+4SEuNJy8AAR9RMz4OmG539R+hRANCAASxdOjWJiI78QrfzLpWR+Xy+pjXnx6R
EVbuFEyHGhfV4SiNBFNpFthPPSA2Bgf78UCnmkUX2PFwug3pShEXm51o
-----END PRIVATE KEY-----\n";

/// The certificate of an authority, which expires in 2126.
const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----
MIIBrDCCAVOgAwIBAgIUb1MUqO0zdXFux2GaYo+c2Fn7PkowCgYIKoZIzj0EAwIw
IzEhMB8GA1UEAwwYZXhhbXBsZSBjbGllbnQgYXV0aG9yaXR5MCAXDTI2MTEyNzEy
MzQ1NVoYDzIxMjYxMTAzMTIzNDU1WjAjMSEwHwYDVQQDDBhleGFtcGxlIGNsaWVu
dCBhdXRob3JpdHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARl5X8KJAMTSSNR
xP7hkwxn57F9Lgx5NeTu2ADzetnx16qJHRPb/Td4z7vRwXIW633L3mHUPfpGiJQ8
KF/OHbMwo2MwYTAdBgNVHQ4EFgQUfHE7ujc7WOOX7AatOOtmlTmcmcIwHwYDVR0j
BBgwFoAUfHE7ujc7WOOX7AatOOtmlTmcmcIwDwYDVR0TAQH/BAUwAwEB/zAOBgNV
HQ8BAf8EBAMCAQYwCgYIKoZIzj0EAwIDRwAwRAIgHl951y3voz1q4H7ndmF4t+Bu
5dzvJyFHr7V0ET1Hh4MCIGZN8bNe0zbeateMPu/JZw/w8ii4aT47eTuvPMPFlitN
-----END CERTIFICATE-----\n";

/// The configuration with a value at a path such as `redis.host`. Creates the objects on the path that are missing.
pub(super) fn with_value(config: &Value, path: &str, value: Value) -> Value {
    let mut config = config.clone();
    let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
    let mut parent = &mut config;
    for name in parents.split('.').filter(|name| !name.is_empty()) {
        if !parent[name].is_object() {
            parent[name] = Value::Object(Map::new());
        }
        parent = &mut parent[name];
    }
    parent[last] = value;
    config
}

// docs/kong-compatibility.md, 4.0
#[test]
fn priorities_phases_scopes_and_protocols_match_kong() {
    for kind in REGISTRY.iter() {
        let name = kind.name();
        let expected = EXPECTED_KINDS.iter().find(|expected| expected.name == name);
        let expected = expected.unwrap_or_else(|| panic!("{name} has no entry in EXPECTED_KINDS"));
        assert_eq!(kind.priority(), expected.priority, "{name}");
        assert_eq!(kind.phases(), expected.phases, "{name}");
        assert_eq!(kind.scopes(), expected.scopes, "{name}");
        assert_eq!(kind.protocols(), expected.protocols, "{name}");
        assert_eq!(kind.fails_closed(), expected.fails_closed, "{name}");
    }
}

#[test]
fn plugin_names_are_unique_and_sorted() {
    let names: Vec<&str> = REGISTRY.iter().map(AnyPluginKind::name).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "the registry lists {names:?}");
    for kind in REGISTRY.iter() {
        let found = REGISTRY.find(kind.name()).map(AnyPluginKind::priority);
        assert_eq!(found, Some(kind.priority()), "{}", kind.name());
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(kind.name().chars().all(is_allowed), "{}", kind.name());
    }
    assert!(REGISTRY.find("no-such-plugin").is_none());
}

#[test]
pub(super) fn minimal_configurations_build() {
    for kind in REGISTRY.iter() {
        let built = build(kind, &minimal_config(kind));
        assert!(built.is_ok(), "{}: {:?}", kind.name(), built.err());
    }
}

/// A plugin that reads credentials says where, or logs would contain them.
#[test]
fn plugins_with_credentials_say_where_they_are() {
    for kind in REGISTRY.iter() {
        let plugin = build(kind, &minimal_config(kind)).unwrap_or_else(|error| panic!("{}: {error:?}", kind.name()));
        let has_locations = plugin.credential_locations().is_some();
        // What `mask` hides depends on its configuration.
        assert_eq!(has_locations, kind.has_credentials() && kind.name() != "mask", "{}", kind.name());
    }
}

fn openid_connect(fields: Value) -> Value {
    let mut config = json!({"issuer": "https://login.example", "client_id": ["a"]});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    config
}

fn bearer_issuer() -> Value {
    json!({"issuer": "https://b.example", "audiences": ["a"]})
}

/// A configuration with one further issuer, which has these changes.
fn bearer_issuers(changes: Value) -> Value {
    let mut issuer = bearer_issuer();
    issuer.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    openid_connect(json!({"bearer_issuers": [issuer]}))
}

/// Configurations that Kong's schema of the plugin refuses, each with the beginning of the field that the message
/// names. Every plugin has at least one.
fn configurations_that_kong_rejects(kind: &str) -> Vec<(Value, &'static str)> {
    match kind {
        "acl" => vec![
            (json!({}), "config"),
            (json!({"hide_groups_header": true}), "config"),
            (json!({"allow": ["staff"], "deny": ["guests"]}), "config"),
        ],
        "aggregate" => {
            let call = json!({"name": "user", "url": "http://users.example/me"});
            vec![
                (json!({}), "config.calls"),
                (json!({"calls": [call, call]}), "config.calls[1].name"),
                (json!({"calls": [call], "template": {"a": {"$call": "b"}}}), "config.template.a"),
            ]
        }
        "aws-lambda" => vec![
            (json!({"aws_region": "eu-west-1", "aws_key": "a", "function_name": "f"}), "config.aws_secret"),
            (json!({"aws_region": "eu-west-1", "function_name": "f", "unhandled_status": 99}), "config.unhandled"),
        ],
        "azure-functions" => {
            vec![(json!({"functionname": "f"}), "config.appname"), (json!({"appname": "a"}), "config.functionname")]
        }
        "basic-auth" => vec![(json!({"realm": 5}), "config.realm")],
        "bot-detection" => vec![(json!({"allow": ["("]}), "config.allow"), (json!({"deny": ["["]}), "config.deny")],
        "correlation-id" => vec![(json!({"generator": "uuid4"}), "config.generator")],
        "cors" => vec![
            (json!({"methods": ["GETT"]}), "config.methods"),
            (json!({"origins": ["https://[a.example"]}), "config.origins"),
        ],
        "hmac-auth" => vec![
            (json!({"algorithms": ["hmac-md5"]}), "config.algorithms"),
            (json!({"clock_skew": 0}), "config.clock_skew"),
        ],
        "forward-proxy" => vec![
            (json!({}), "config.http_proxy_host"),
            (json!({"https_proxy_host": "proxy.example"}), "config.https_proxy_port"),
        ],
        "forward-auth" => vec![(json!({}), "config.address"), (json!({"address": "auth.example"}), "config.address")],
        "header-cert-auth" => vec![
            (
                json!({"certificate_header_name": "a", "certificate_header_format": "url_encoded"}),
                "config.ca_certificates",
            ),
            (
                json!({"certificate_header_format": "url_encoded", "ca_certificates": [AUTHORITY]}),
                "config.certificate_header_name",
            ),
            (
                json!({"certificate_header_name": "a", "ca_certificates": [AUTHORITY]}),
                "config.certificate_header_format",
            ),
        ],
        "identity-keys" => vec![(json!({"max_age": 86_401}), "config.max_age")],
        "internal-identity" => vec![
            (json!({"keys": [SIGNING_KEY]}), "config.issuer"),
            (json!({"issuer": "https://gateway.example"}), "config.keys"),
        ],
        "jwt-signer" => vec![
            (json!({}), "config.access_token_jwks_uri"),
            (json!({"access_token_jwks_uri": "https://issuer.example/keys"}), "config.access_token_signing_keys"),
        ],
        "injection-protection" => vec![
            (json!({"injection_types": ["xss"]}), "config.injection_types"),
            (json!({"locations": ["cookies"]}), "config.locations"),
            (json!({"error_status_code": 500}), "config.error_status_code"),
            (json!({"custom_injections": [{"name": "a"}]}), "config.custom_injections"),
        ],
        "json-threat-protection" => vec![
            (json!({"error_status_code": 500}), "config.error_status_code"),
            (json!({"enforcement_mode": "off"}), "config.enforcement_mode"),
            (json!({"max_body_size": -2}), "config.max_body_size"),
        ],
        "mocking" => vec![(json!({}), "config.api_specification")],
        "oas-validation" => vec![(json!({}), "config.api_spec")],
        "request-validator" => vec![
            (json!({}), "config.body_schema"),
            (json!({"body_schema": "{"}), "config.body_schema"),
            (json!({"version": "draft3", "body_schema": "{}"}), "config.version"),
            (json!({"parameter_schema": [{"name": "a", "in": "body", "required": true}]}), "config.parameter_schema"),
        ],
        "xml-threat-protection" => vec![
            (json!({"checked_content_types": ["xml"]}), "config.checked_content_types"),
            (json!({"max_depth": -1}), "config.max_depth"),
        ],
        "mtls-auth" => vec![
            (json!({}), "config.ca_certificates"),
            (json!({"ca_certificates": [AUTHORITY], "consumer_by": ["id"]}), "config.consumer_by"),
        ],
        "oauth2" => vec![
            (json!({}), "config"),
            (json!({"enable_authorization_code": true}), "config.provision_key"),
            (json!({"enable_client_credentials": true, "mandatory_scope": true}), "config.mandatory_scope"),
            (json!({"enable_client_credentials": true, "pkce": "always"}), "config.pkce"),
            (json!({"enable_client_credentials": true, "scopes": ["a b"]}), "config.scopes[0]"),
            (json!({"enable_client_credentials": true, "redis": {"port": 1}}), "config.redis.host"),
        ],
        "oauth2-introspection" => vec![
            (json!({"authorization_value": "a"}), "config.introspection_url"),
            (json!({"introspection_url": "https://issuer.example/"}), "config.authorization_value"),
        ],
        "opa" => vec![(json!({}), "config.opa_path"), (json!({"opa_path": "v1/data"}), "config.opa_path")],
        "upstream-oauth" => vec![
            (json!({}), "config.oauth.token_endpoint"),
            (
                json!({"oauth": {"token_endpoint": "https://issuer.example/", "grant_type": "password"}}),
                "config.oauth.username",
            ),
        ],
        "datadog" => vec![(json!({"host": ""}), "config.host"), (json!({"port": 0}), "config.port")],
        "file-log" => vec![(json!({}), "config.path"), (json!({"path": "requests.log"}), "config.path")],
        "loggly" => vec![
            (json!({}), "config.key"),
            (json!({"key": "a b"}), "config.key"),
            (json!({"key": "a", "tags": ["a b"]}), "config.tags[0]"),
            (json!({"key": "a", "log_level": "fatal"}), "config.log_level"),
        ],
        "statsd" => vec![
            (json!({"host": ""}), "config.host"),
            (json!({"allow_status_codes": ["2xx"]}), "config.allow_status_codes[0]"),
        ],
        "syslog" => vec![(json!({"port": 514}), "config.port"), (json!({"facility": "none"}), "config.facility")],
        "kafka-log" | "kafka-upstream" => vec![
            (json!({"topic": "requests"}), "config.bootstrap_servers"),
            (json!({"bootstrap_servers": [{"host": "a.example", "port": 1}]}), "config.topic"),
            (json!({"topic": "requests", "producer_request_acks": 3}), "config.producer_request_acks"),
        ],
        "tcp-log" => vec![
            (json!({"port": 1}), "config.host"),
            (json!({"host": "logs.example"}), "config.port"),
            (json!({"host": "logs.example", "port": 1, "timeout": 0}), "config.timeout"),
            (json!({"host": "logs.example", "port": 1, "keepalive": 0}), "config.keepalive"),
            (json!({"host": "logs.example", "port": 1, "tls_sni": "a.example"}), "config.tls_sni"),
        ],
        "udp-log" => vec![
            (json!({"port": 1}), "config.host"),
            (json!({"host": "logs.example"}), "config.port"),
            (json!({"host": "logs.example", "port": 1, "timeout": 0}), "config.timeout"),
        ],
        "http-log" => vec![
            (json!({}), "config"),
            (json!({"http_endpoint": "logs.example"}), "config.http_endpoint"),
            (json!({"http_endpoint": "ftp://logs.example"}), "config.http_endpoint"),
            (json!({"http_endpoint": "http://logs.example", "method": "GET"}), "config.method"),
            (json!({"http_endpoint": "http://logs.example", "content_type": "text/plain"}), "config.content_type"),
            (json!({"http_endpoint": "http://logs.example", "headers": {"Host": "a"}}), "config.headers"),
            (json!({"http_endpoint": "http://logs.example", "headers": {"content-length": "1"}}), "config.headers"),
            (json!({"http_endpoint": "http://logs.example", "headers": {"Content-Type": "a/b"}}), "config.headers"),
        ],
        "opentelemetry" => vec![
            (json!({}), "config.traces_endpoint"),
            (json!({"endpoint": "collector"}), "config.endpoint"),
            (json!({"logs_endpoint": "ftp://a.example"}), "config.logs_endpoint"),
            (json!({"traces_endpoint": "http://a.example", "sampling_rate": 2}), "config.sampling_rate"),
        ],
        "zipkin" => vec![
            (json!({"http_endpoint": "zipkin"}), "config.http_endpoint"),
            (json!({"sample_ratio": -1}), "config.sample_ratio"),
            (json!({"traceid_byte_count": 4}), "config.traceid_byte_count"),
            (json!({"static_tags": [{"name": "lc", "value": "a"}]}), "config.static_tags"),
        ],
        "ip-restriction" => vec![
            (json!({}), "config"),
            (json!({"message": "no"}), "config"),
            (json!({"allow": ["10.0.0"]}), "config.allow"),
            (json!({"deny": ["10.0.0.0/33"]}), "config.deny"),
        ],
        "jwt" => vec![
            (json!({"claims_to_verify": ["aud"]}), "config.claims_to_verify"),
            (json!({"maximum_expiration": 60}), "config"),
            (json!({"maximum_expiration": 31_536_001, "claims_to_verify": ["exp"]}), "config.maximum_expiration"),
        ],
        "key-auth" => vec![(json!({"key_names": ["a key"]}), "config.key_names")],
        "openid-connect" => vec![
            (json!({"client_id": ["shop"]}), "config.issuer"),
            (json!({"issuer": "login.example", "client_id": ["shop"]}), "config.issuer"),
            (json!({"issuer": "https://login.example", "client_id": ["a"], "auth_methods": ["saml"]}), "config.auth"),
            (openid_connect(json!({"extra_jwks_uris": ["https://b.example/keys"]})), "config.extra_jwks_uris"),
            (openid_connect(json!({"bearer_issuers": [{"issuer": "https://b.example"}]})), "config.bearer_issuers[0]"),
            (bearer_issuers(json!({"audiences": []})), "config.bearer_issuers[0].audiences"),
            (bearer_issuers(json!({"audiences": ["a", ""]})), "config.bearer_issuers[0].audiences"),
            (bearer_issuers(json!({"issuer": ""})), "config.bearer_issuers[0].issuer"),
            (bearer_issuers(json!({"issuer": "robots"})), "config.bearer_issuers[0].issuer"),
            (bearer_issuers(json!({"issuer": "https://login.example/"})), "config.bearer_issuers[0].issuer"),
            (bearer_issuers(json!({"jwks_uri": "ftp://b.example"})), "config.bearer_issuers[0].jwks_uri"),
            (bearer_issuers(json!({"jwks_uri": "http://169.254.169.254/"})), "config.bearer_issuers[0].jwks_uri"),
            (
                openid_connect(json!({"bearer_issuers": [bearer_issuer(), bearer_issuer()]})),
                "config.bearer_issuers[1].issuer",
            ),
            (openid_connect(json!({"bearer_issuers": vec![bearer_issuer(); 17]})), "config.bearer_issuers"),
            (
                openid_connect(json!({"bearer_issuers": [bearer_issuer()], "auth_methods": ["introspection"]})),
                "config.bearer_issuers",
            ),
            (openid_connect(json!({"allow_id_tokens": true})), "config.allow_id_tokens"),
            (
                openid_connect(json!({"allow_id_tokens": true, "bearer_issuers": [bearer_issuer()]})),
                "config.allow_id_tokens",
            ),
            (
                openid_connect(json!({"allow_id_tokens": true, "auth_methods": ["introspection"]})),
                "config.allow_id_tokens",
            ),
        ],
        "ldap-auth" | "ldap-auth-advanced" => vec![
            (json!({}), "config"),
            (json!({"ldap_host": "a", "base_dn": "dc=a"}), "config"),
            (
                json!({"ldap_host": "a", "base_dn": "dc=a", "attribute": "uid", "ldaps": true, "start_tls": true}),
                "config.start_tls",
            ),
        ],
        "prometheus" => vec![(json!({"per_consumer": "yes"}), "config.per_consumer")],
        "rate-limiting" => vec![
            (json!({}), "config"),
            (json!({"limit_by": "ip"}), "config"),
            (json!({"minute": 0}), "config.minute"),
            (json!({"second": 5, "minute": 4}), "config.minute"),
            (json!({"minute": 5, "limit_by": "header"}), "config.limit_by"),
            (json!({"minute": 5, "limit_by": "path"}), "config.limit_by"),
            (json!({"minute": 5, "policy": "redis"}), "config.redis"),
            (json!({"minute": 5, "policy": "redis", "redis": {"host": "a"}, "sync_rate": 0.001}), "config.sync_rate"),
        ],
        "proxy-cache" | "proxy-cache-advanced" => vec![
            (json!({}), "config"),
            (json!({"strategy": "memory", "response_code": [206]}), "config.response_code[0]"),
            (json!({"strategy": "memory", "response_code": []}), "config.response_code"),
            (json!({"strategy": "memory", "content_type": []}), "config.content_type"),
            (json!({"strategy": "memory", "request_method": ["TRACE"]}), "config.request_method[0]"),
            (json!({"strategy": "memory", "cache_ttl": 0}), "config.cache_ttl"),
        ],
        "degraphql" => vec![
            (json!({"graphql_server_path": "graphql"}), "config.graphql_server_path"),
            (json!({"routes": [{"uri": "/", "query": "{"}]}), "config.routes[0].query"),
        ],
        "graphql-proxy-cache-advanced" => {
            vec![(json!({"cache_ttl": 0}), "config.cache_ttl"), (json!({"strategy": "redis"}), "config.redis")]
        }
        "graphql-rate-limiting-advanced" => vec![
            (json!({}), "config.limit"),
            (json!({"limit": [5], "window_size": [60], "strategy": "cluster"}), "config.strategy"),
            (json!({"limit": [5], "window_size": [60], "score_factor": 0}), "config.score_factor"),
        ],
        "rate-limiting-advanced" => vec![
            (json!({}), "config.limit"),
            (json!({"limit": [5], "window_size": [60, 3600]}), "config.window_size"),
            (json!({"limit": [5], "window_size": [60], "strategy": "cluster"}), "config.strategy"),
            (json!({"limit": [5], "window_size": [60], "strategy": "redis"}), "config.sync_rate"),
        ],
        "response-ratelimiting" => vec![
            (json!({}), "config.limits"),
            (json!({"limits": {"videos": {"minute": 5}}, "policy": "redis"}), "config.redis"),
        ],
        "usage-plan" => vec![(json!({}), "config.plans"), (json!({"plans": [{"name": "free"}]}), "config.plans[0]")],
        "redirect" => vec![
            (json!({}), "config"),
            (json!({"location": "/cart"}), "config.location"),
            (json!({"location": "https://a.example", "status_code": 99}), "config.status_code"),
            (json!({"location": "https://a.example", "status_code": 600}), "config.status_code"),
        ],
        "soap" => vec![
            (json!({}), "config.operation"),
            (json!({"operation": "a b"}), "config.operation"),
            (json!({"template": "<a>"}), "config.template"),
            (json!({"operation": "a", "fault_statuses": {"Server": 200}}), "config.fault_statuses[Server]"),
        ],
        "request-size-limiting" => vec![
            (json!({"size_unit": "gigabytes"}), "config.size_unit"),
            (json!({"allowed_payload_size": 1.5}), "config.allowed_payload_size"),
            (json!({"content_types": {"json": 1}}), "config.content_types.json"),
        ],
        "post-function" | "pre-function" => vec![
            (json!({"access": "kong.log('a')"}), "config.access"),
            (json!({"access": ["not Lua"]}), "config.access[0]"),
            (json!({"log": [1]}), "config.log[0]"),
        ],
        "compression" => vec![
            (json!({"levels": {"gzip": 10}}), "config.levels.gzip"),
            (json!({"codings": ["deflate"]}), "config.codings[0]"),
            (json!({"types": ["html"]}), "config.types[0]"),
        ],
        "error-pages" => vec![(json!({"pages": []}), "config.pages")],
        "grpc-gateway" => vec![
            (json!({}), "config.proto"),
            (json!({"proto": "shop.proto"}), "config.proto"),
            (json!({"proto": "syntax = 'proto3'; message M {}"}), "config.proto"),
            (json!({"proto": PROTO, "max_message_bytes": 0}), "config.max_message_bytes"),
        ],
        "grpc-web" => vec![
            (json!({"proto": "shop.proto"}), "config.proto"),
            (json!({"descriptor_set": "?"}), "config.descriptor_set"),
            (json!({"allow_origin_header": ""}), "config.allow_origin_header"),
        ],
        "request-termination" => vec![
            (json!({"status_code": 99}), "config.status_code"),
            (json!({"status_code": 600}), "config.status_code"),
            (json!({"message": "a", "body": "b"}), "config"),
            (json!({"message": "a", "content_type": "text/plain"}), "config"),
            (json!({"content_type": "text/plain"}), "config"),
            (json!({"echo": true, "body": "a"}), "config"),
        ],
        "request-transformer" => vec![
            (json!({"http_method": "GETT"}), "config.http_method"),
            (json!({"add": {"headers": ["x"]}}), "config.add.headers[0]"),
            (json!({"append": {"querystring": ["x"]}}), "config.append.querystring[0]"),
            (json!({"replace": {"body": ["x"]}}), "config.replace.body[0]"),
            (json!({"rename": {"headers": ["x"]}}), "config.rename.headers[0]"),
            (json!({"remove": {"headers": ["a b"]}}), "config.remove.headers[0]"),
            (json!({"add": {"headers": ["x:$(os.exit())"]}}), "config.add.headers[0]"),
        ],
        "jq" => vec![
            (json!({"request_jq_program": 5}), "config.request_jq_program"),
            (
                json!({"response_jq_program": ".", "response_if_status_code": [600]}),
                "config.response_if_status_code[0]",
            ),
        ],
        "request-transformer-advanced" => vec![
            (json!({"http_method": "GETT"}), "config.http_method"),
            (json!({"add": {"body": ["a:1"], "json_types": ["integer"]}}), "config.add.json_types"),
            (json!({"add": {"headers": ["x"]}}), "config.add.headers[0]"),
            (json!({"rename": {"headers": ["x"]}}), "config.rename.headers[0]"),
        ],
        "response-transformer-advanced" => vec![
            (json!({"add": {"json": ["a:1"], "json_types": ["integer"]}}), "config.add.json_types"),
            (json!({"remove": {"if_status": ["abc"]}}), "config.remove.if_status[0]"),
            (json!({"rename": {"headers": ["x"]}}), "config.rename.headers[0]"),
        ],
        "response-transformer" => vec![
            (json!({"add": {"headers": ["x"]}}), "config.add.headers[0]"),
            (json!({"add": {"json": ["a:1"], "json_types": ["integer"]}}), "config.add.json_types"),
            (json!({"rename": {"headers": ["x"]}}), "config.rename.headers[0]"),
            (json!({"remove": {"headers": ["a b"]}}), "config.remove.headers[0]"),
        ],
        "session" => vec![
            (json!({"storage": "memcached"}), "config.storage"),
            (json!({"cookie_same_site": "strict"}), "config.cookie_same_site"),
            (json!({"response_headers": ["name"]}), "config.response_headers"),
        ],
        "standard-webhooks" => {
            vec![(json!({}), "config"), (json!({"secret_v1": "a", "tolerance_second": -1}), "config.tolerance_second")]
        }
        "canary" => vec![
            (json!({"upstream_host": "next.a.80.svc", "percentage": 101}), "config.percentage"),
            (json!({"upstream_host": "next.a.80.svc", "percentage": 1, "steps": 0}), "config.steps"),
            (json!({"percentage": 1}), "config.upstream_host"),
        ],
        "mask" => vec![(json!({}), "config"), (json!({"patterns": ["("]}), "config.patterns[0]")],
        "route-by-header" => vec![
            (json!({"rules": [{"condition": {"a": "b"}}]}), "config.rules[0]"),
            (json!({"rules": [{"upstream_name": "next.a.80.svc"}]}), "config.rules[0]"),
        ],
        "upstream-timeout" => vec![
            (json!({"connect_timeout": 0.5}), "config.connect_timeout"),
            (json!({"send_timeout": -1}), "config.send_timeout"),
            (json!({"read_timeout": 2_147_483_647_u32}), "config.read_timeout"),
        ],
        "websocket-size-limit" => vec![
            (json!({}), "config"),
            (json!({"client_max_payload": 0}), "config.client_max_payload"),
            (json!({"upstream_max_payload": 33_554_433}), "config.upstream_max_payload"),
        ],
        "api-version" => vec![
            (json!({"path": true}), "config.versions"),
            (json!({"versions": [{"name": "v1"}]}), "config"),
            (json!({"path": true, "versions": [{"name": "v1"}], "default_version": "v2"}), "config.default_version"),
        ],
        other => panic!("add configurations that Kong's {other} refuses"),
    }
}

// docs/kong-compatibility.md, 4.0
#[test]
fn configurations_that_kong_rejects_are_rejected() {
    for kind in REGISTRY.iter() {
        let name = kind.name();
        for (config, field) in configurations_that_kong_rejects(name) {
            let Err(invalid) = build(kind, &config) else { panic!("{name}: {config} was accepted") };
            let names_field = invalid.iter().any(|invalid| invalid.field.starts_with(field));
            assert!(names_field, "{name}: {config}: {invalid:?}");
        }
    }
}

// docs/kong-compatibility.md, 4.7
#[test]
fn null_fields_count_as_unset() {
    for kind in REGISTRY.iter() {
        let minimal = minimal_config(kind);
        let mut config = minimal.clone();
        for field in fields::list(kind).iter().filter(|field| !field.path.contains(['.', '['])) {
            if minimal.get(&field.path).is_none() {
                config[&field.path] = Value::Null;
            }
        }
        let built = build(kind, &config);
        assert!(built.is_ok(), "{}: {config}: {:?}", kind.name(), built.err());
    }
}

#[test]
fn documented_defaults_can_be_set_explicitly() {
    for kind in REGISTRY.iter() {
        let minimal = minimal_config(kind);
        let mut config = minimal.clone();
        for field in fields::list(kind).iter().filter(|field| !field.path.contains(['.', '['])) {
            if let (Some(default), None) = (&field.default, minimal.get(&field.path)) {
                config[&field.path] = default.clone();
            }
        }
        let built = build(kind, &config);
        assert!(built.is_ok(), "{}: {config}: {:?}", kind.name(), built.err());
    }
}

#[test]
fn schemas_reject_unknown_fields() {
    for kind in REGISTRY.iter() {
        let schema = kind.schema().to_value();
        for (path, object) in fields::objects(&schema) {
            let additional = object.get("additionalProperties");
            let is_map = object.get("properties").is_none() && additional.is_some_and(Value::is_object);
            assert!(is_map || additional == Some(&Value::Bool(false)), "{} at {path}: {object}", kind.name());
        }
    }
}

#[test]
fn unknown_fields_are_rejected_with_their_path() {
    for kind in REGISTRY.iter() {
        let objects = fields::list(kind)
            .into_iter()
            .filter(|field| field.has_fields && !field.type_name.starts_with("list"))
            // Those of the elements of lists.
            .filter(|field| !field.path.contains("[]"));
        let paths = objects.map(|field| format!("{}.no_such_field", field.path));
        for path in paths.chain(["no_such_field".to_owned()]) {
            let config = with_value(&minimal_config(kind), &path, json!(1));
            let Err(invalid) = build(kind, &config) else { panic!("{}: {config} was accepted", kind.name()) };
            let full_path = format!("config.{path}");
            let object_path = full_path.strip_suffix(".no_such_field").unwrap();
            let names_field = |invalid: &portico::diagnostic::Diagnostic| {
                invalid.field.starts_with(object_path) && invalid.message.contains("no_such_field")
            };
            assert!(invalid.iter().any(names_field), "{}: {config}: {invalid:?}", kind.name());
            assert!(invalid.iter().all(|invalid| !invalid.remedy.is_empty()), "{}: {invalid:?}", kind.name());
        }
    }
}

#[test]
fn all_errors_of_a_configuration_are_reported() {
    let kind = REGISTRY.find("rate-limiting").unwrap();
    for (config, expected) in [
        (
            json!({"lifetime": 1, "second": -1, "color": 2, "minute": "5"}),
            &["config.lifetime", "config.second", "config.color", "config.minute"][..],
        ),
        (json!({"lifetime": 1, "minute": 5, "limit_by": "header"}), &["config.lifetime", "config.limit_by"]),
        // A misspelled limit is reported only as an unknown field, not as a missing limit, too.
        (json!({"minutes": 5}), &["config.minutes"]),
    ] {
        let Err(invalid) = build(kind, &config) else { panic!("{config} was accepted") };
        let mut fields: Vec<_> = invalid.iter().map(|invalid| invalid.field.as_str()).collect();
        let mut expected = expected.to_vec();
        fields.sort_unstable();
        expected.sort_unstable();
        assert_eq!(fields, expected, "{config}: {invalid:?}");
    }
}

#[test]
fn wrong_types_are_rejected_with_their_path() {
    for kind in REGISTRY.iter() {
        let has_type = |field: &&fields::Field| !field.path.contains("[]") && field.type_name != "any";
        for field in fields::list(kind).iter().filter(has_type) {
            let wrong =
                if field.has_fields || field.type_name == "map" { json!(["wrong"]) } else { json!({"wrong": true}) };
            let config = with_value(&minimal_config(kind), &field.path, wrong);
            let Err(invalid) = build(kind, &config) else { panic!("{}: {config} was accepted", kind.name()) };
            let path = format!("config.{}", field.path);
            assert!(
                invalid.iter().any(|invalid| invalid.field.starts_with(&path)),
                "{}: {config}: {invalid:?}",
                kind.name()
            );
        }
    }
}

#[test]
fn type_errors_do_not_reveal_values() {
    for kind in REGISTRY.iter() {
        for field in fields::list(kind).iter().filter(|field| !field.path.contains("[]") && field.choices.is_empty()) {
            // The second value contains the text that follows the value in messages of the deserializer.
            for secret in [json!(8_675_309), json!("8675309, expected ")] {
                let config = with_value(&minimal_config(kind), &field.path, secret);
                let Err(invalid) = build(kind, &config) else { continue };
                let type_errors = invalid.iter().filter(|invalid| invalid.message.ends_with("is not valid here"));
                for invalid in type_errors {
                    let text = format!("{invalid:?}");
                    assert!(!text.contains("8675309"), "{}: {}: {text}", kind.name(), field.path);
                }
            }
        }
    }
}

#[test]
fn type_errors_use_yaml_type_names() {
    let kind = REGISTRY.find("rate-limiting").unwrap();
    for (config, expected) in [
        (
            json!({"minute": "five"}),
            "config.minute: a string is not valid here; use an integer of at least 0, without quotes",
        ),
        (
            json!({"minute": -5}),
            "config.minute: this integer is not valid here; use an integer of at least 0, without quotes",
        ),
        (
            json!({"minute": [5]}),
            "config.minute: a list is not valid here; use an integer of at least 0, without quotes",
        ),
        (
            json!({"minute": 5, "fault_tolerant": "yes"}),
            "config.fault_tolerant: a string is not valid here; use true or false, without quotes",
        ),
        (json!({"minute": 5, "redis": "localhost"}), "config.redis: a string is not valid here; use an object"),
        (
            json!({"minute": 5, "header_name": 7}),
            "config.header_name: this integer is not valid here; use a string, in quotes if it looks like a number",
        ),
    ] {
        let Err(invalid) = build(kind, &config) else { panic!("{config} was accepted") };
        let found: Vec<_> = invalid.iter().map(|it| format!("{}: {}; {}", it.field, it.message, it.remedy)).collect();
        assert_eq!(found, [expected], "{config}");
    }
}

#[test]
fn configurations_must_be_objects() {
    for kind in REGISTRY.iter() {
        for config in [json!([]), json!("text"), json!(1), json!(true)] {
            assert!(build(kind, &config).is_err(), "{}: {config}", kind.name());
        }
    }
}

#[test]
fn every_field_has_a_description() {
    for kind in REGISTRY.iter() {
        for field in fields::list(kind) {
            let is_sentence = field.description.ends_with('.');
            assert!(is_sentence, "{}: the description of {} must be a sentence", kind.name(), field.path);
        }
    }
}

#[test]
fn declared_phases_are_implemented() {
    for kind in REGISTRY.iter() {
        let Phases { access, before_forward, replace_backend, response, log, stream_open } = kind.phases();
        // What is made for the backend before authorization and filters would not be what the backend gets.
        let has_earlier_phase = access || before_forward;
        assert!(!replace_backend || !has_earlier_phase, "{}: `replace_backend` is the first phase", kind.name());
        for (phase, is_declared) in [
            ("access", access),
            ("before_forward", before_forward),
            ("replace_backend", replace_backend),
            ("response", response),
            ("log", log),
            ("stream_open", stream_open),
        ] {
            let name = kind.name();
            assert_eq!(
                source::implements(name, phase),
                is_declared,
                "{name}: `PHASES` and `fn {phase}` in `impl Plugin` disagree"
            );
        }
    }
}

/// A configuration with which the plugin changes header fields of the request and of the response below, and a field
/// of each that is changed. `None` if the plugin changes no field of it.
struct ChangedHeads {
    config: Value,
    of_request: Option<&'static str>,
    of_response: Option<&'static str>,
}

fn changed_heads(name: &str) -> ChangedHeads {
    let authentication = json!({"anonymous": "guest"});
    let (config, of_request, of_response) = match name {
        "acl" => (json!({"allow": ["staff"]}), Some("x-consumer-groups"), None),
        "basic-auth" | "hmac-auth" | "jwt" | "key-auth" => (authentication, Some("x-consumer-username"), None),
        "internal-identity" => {
            let config = json!({
                "issuer": "https://gateway.example", "keys": [SIGNING_KEY], "allow_unauthenticated": true,
                "user_header": "x-old", "groups_header": "x-first",
            });
            (config, Some("x-old"), None)
        }
        "opentelemetry" => {
            let config = json!({
                "traces_endpoint": "http://collector.example", "http_response_header_for_traceid": "x-trace",
                "propagation": {"clear": ["x-old"]},
            });
            (config, Some("traceparent"), Some("x-trace"))
        }
        "zipkin" => {
            let config = json!({"http_response_header_for_traceid": "x-trace", "propagation": {"clear": ["x-old"]}});
            (config, Some("x-b3-traceid"), Some("x-trace"))
        }
        "post-function" | "pre-function" => {
            let access = "kong.service.request.set_header('x-set', 1) kong.service.request.clear_header('x-old')";
            let config = json!({"access": [access], "header_filter": ["kong.response.add_header('x-seen', 'yes')"]});
            (config, Some("x-set"), Some("x-seen"))
        }
        "correlation-id" => {
            let config = json!({"header_name": "x-correlation", "echo_downstream": true});
            (config, Some("x-correlation"), Some("x-correlation"))
        }
        "cors" => {
            let config = json!({"credentials": true, "exposed_headers": ["x-a"], "origins": ["https://a.example"]});
            (config, None, Some("access-control-allow-origin"))
        }
        "header-cert-auth"
        | "ldap-auth"
        | "ldap-auth-advanced"
        | "mtls-auth"
        | "oauth2"
        | "oauth2-introspection"
        | "openid-connect" => {
            let kind = REGISTRY.find(name).expect("the registry has the plugin");
            (with_value(&minimal_config(kind), "anonymous", json!("guest")), Some("x-consumer-username"), None)
        }
        "rate-limiting" => (json!({"minute": 5, "hour": 9}), None, Some("ratelimit-remaining")),
        "rate-limiting-advanced" => {
            (json!({"limit": [5], "window_size": [60]}), None, Some("x-ratelimit-remaining-minute"))
        }
        "response-ratelimiting" => {
            let config = json!({"limits": {"videos": {"minute": 5}}});
            (config, Some("x-ratelimit-remaining-videos"), Some("x-ratelimit-limit-videos-minute"))
        }
        "usage-plan" => (json!({"plans": [{"name": "free", "quotas": {"day": 5}}]}), None, Some("ratelimit-policy")),
        "request-transformer" | "request-transformer-advanced" => {
            let edits = |verb: &str| json!({"headers": [format!("x-{verb}:1")]});
            let config = json!({
                "remove": {"headers": ["x-old"]}, "rename": {"headers": ["x-first:x-second"]},
                "replace": edits("present"), "add": edits("added"), "append": edits("present"),
            });
            (config, Some("x-second"), None)
        }
        "response-transformer" | "response-transformer-advanced" => {
            let edits = |verb: &str| json!({"headers": [format!("x-{verb}:1")]});
            let config = json!({
                "remove": {"headers": ["x-old"]}, "rename": {"headers": ["x-first:x-second"]},
                "replace": edits("present"), "add": edits("added"), "append": edits("present"),
            });
            (config, None, Some("x-second"))
        }
        "soap" => (json!({"operation": "GetPrice"}), Some("soapaction"), None),
        "degraphql" => (json!({"routes": [{"uri": "/", "query": "{ me }"}]}), Some("content-type"), None),
        "mocking" => (json!({"api_specification": API}), None, Some("x-kong-mocking-plugin")),
        "grpc-gateway" => (json!({"proto": PROTO}), None, Some("access-control-allow-origin")),
        "grpc-web" => (json!({}), None, Some("access-control-allow-origin")),
        "session" => (json!({}), Some("x-consumer-id"), None),
        "api-version" => {
            let versions = json!([{"name": "v1", "deprecated": "2026-01-01", "sunset_link": "/end"}]);
            let config = json!({
                "path": true, "default_version": "v1", "versions": versions, "upstream_header": "x-old",
            });
            (config, Some("x-old"), Some("deprecation"))
        }
        "aggregate"
        | "aws-lambda"
        | "azure-functions"
        | "bot-detection"
        | "canary"
        | "datadog"
        | "file-log"
        | "compression"
        | "error-pages"
        | "forward-auth"
        | "forward-proxy"
        | "graphql-proxy-cache-advanced"
        | "graphql-rate-limiting-advanced"
        | "http-log"
        | "identity-keys"
        | "injection-protection"
        | "ip-restriction"
        | "jq"
        | "json-threat-protection"
        | "jwt-signer"
        | "kafka-log"
        | "kafka-upstream"
        | "loggly"
        | "mask"
        | "oas-validation"
        | "opa"
        | "prometheus"
        | "proxy-cache"
        | "proxy-cache-advanced"
        | "redirect"
        | "request-size-limiting"
        | "request-termination"
        | "request-validator"
        | "route-by-header"
        | "standard-webhooks"
        | "statsd"
        | "syslog"
        | "tcp-log"
        | "udp-log"
        | "upstream-oauth"
        | "upstream-timeout"
        | "websocket-size-limit"
        | "xml-threat-protection" => {
            let kind = REGISTRY.find(name).expect("the registry has the plugin");
            (minimal_config(kind), None, None)
        }
        other => panic!("{other}: add a configuration with which it changes all header fields that it may change"),
    };
    ChangedHeads { config, of_request, of_response }
}

/// Fields that are not declared would arrive in trailers and informational responses although the plugin changes them:
/// the chain of the test panics.
#[tokio::test]
async fn plugins_declare_all_header_fields_that_they_change() {
    let mut consumers = ConsumerDirectory::default();
    consumers.add(&consumer("guest", &["staff"]));
    for kind in REGISTRY.iter() {
        let name = kind.name();
        let ChangedHeads { config, of_request, of_response } = changed_heads(name);
        let mut plugins = vec![(kind, config)];
        if name == "acl" {
            plugins.push((REGISTRY.find("key-auth").unwrap(), json!({"anonymous": "guest"})));
        }
        let fields = ["x-old", "x-first", "x-present", "x-consumer-id", "x-consumer-groups", "x_consumer_username"];
        let mut request = fields.into_iter().fold(TestRequest::get("/"), |request, name| request.header(name, "0"));
        request = request.header("origin", "https://a.example").with_consumers(&consumers);
        for name in ["x-old", "x-first", "x-present"] {
            request.upstream_response.headers_mut().insert(name, HeaderValue::from_static("0"));
        }
        let before = (request.request.headers().clone(), request.upstream_response.headers().clone());
        let outcome = request.run(&chain(&plugins)).await;
        let is_changed = |field: Option<&str>, before: &HeaderMap, after: &HeaderMap| {
            field.is_none_or(|field| before.get(field) != after.get(field))
        };
        assert!(is_changed(of_request, &before.0, &outcome.request.headers), "{name}: {of_request:?}");
        assert!(is_changed(of_response, &before.1, &outcome.response.headers), "{name}: {of_response:?}");
    }
}
