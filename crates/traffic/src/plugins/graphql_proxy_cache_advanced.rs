//! `graphql-proxy-cache-advanced`: stores responses to GraphQL queries, and sends them again without a request to the
//! backend.
//!
//! ```yaml
//! plugin: graphql-proxy-cache-advanced
//! config: {strategy: memory, cache_ttl: 60, vary_headers: [Accept-Language]}
//! ```
//!
//! A response is sent again to requests with the same document, apart from white space, commas and comments, the same
//! variables and operation, on the same route, and of the same client: its consumer, the subjects of its credentials
//! and its groups. What authorization servers have decided about is part of the key, too, as with `proxy-cache`, which
//! shares the memory and its limits. Mutations and subscriptions are forwarded, and so is what the plugin does not
//! understand: batches, persisted queries, variables with fractions, and bodies of more than 1 MiB or of unknown
//! length. `X-Cache-Status` is then `Bypass`, also for requests with cookies unless `vary_headers` has `Cookie`.
//!
//! Responses with status 200 and JSON are stored, unless they have `errors` or set cookies. To read them, the plugin
//! removes `Accept-Encoding` from queries that may be stored.

use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH};
use http::{Method, request};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::proxy_cache::build_for_content;
use super::proxy_cache::cache::SharedCache;
use super::proxy_cache::config::{ContentCacheConfig, Strategy};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::consumers::{Sha256Digest, sha256};
use crate::plugin_api::dumped_fields::DumpedFields;
use crate::plugin_api::{
    AccessOutcome, AfterForwardCx, BeforeForwardCx, BuildCx, ChangedFields, Phases, Plugin, PluginKind, Reply,
    optional_record, record,
};
use crate::plugin_formats::graphql::{
    CheckedDocument, DocumentLimits, GraphqlRequest, OperationKind, has_graphql_type, normalized,
};
use crate::plugin_kit::redis::RedisConfig;
use crate::plugin_kit::redis::dumped_fields::{NO_CLOUD_LOGIN, UNSET_SERVER};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Where responses are stored: in the `memory` of each replica, or at a `redis` server that replicas share.
    strategy: Strategy,
    /// The server for `strategy: redis`.
    #[serde(deserialize_with = "optional_record")]
    redis: Option<RedisConfig>,
    /// How many seconds a response is sent again.
    cache_ttl: u32,
    /// The fields of the request on which the response depends, in addition to those that `Vary` names.
    vary_headers: Vec<String>,
    /// Whether requests are forwarded while the server of `strategy: redis` does not respond. Otherwise they get 500.
    bypass_on_err: bool,
    /// Accepted as in Kong.
    #[serde(deserialize_with = "record")]
    memory: Memory,
    /// The largest body in bytes that is stored, at most 64 MiB, and at most 1 MiB with `strategy: redis`.
    /// `--max-cache-bytes` limits all of them together.
    max_body_size: u32,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Memory {
    /// Without effect: all caches share the memory of `--max-cache-bytes`, of which each namespace has its part.
    dictionary_name: String,
}

impl Default for Memory {
    fn default() -> Self {
        Memory { dictionary_name: "kong_db_cache".to_owned() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            strategy: Strategy::Memory,
            redis: None,
            cache_ttl: 300,
            vary_headers: Vec::new(),
            bypass_on_err: false,
            memory: Memory::default(),
            max_body_size: 1 << 20,
        }
    }
}

pub(crate) struct GraphqlProxyCache(SharedCache);

impl PluginKind for GraphqlProxyCache {
    const NAME: &'static str = "graphql-proxy-cache-advanced";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 99;
    const PHASES: Phases = Phases::BEFORE_FORWARD;
    const FAIL_CLOSED: bool = false;
    const DUMPED_FIELDS: &'static [DumpedFields] = &[
        DumpedFields::new(&["redis.cloud_authentication"], NO_CLOUD_LOGIN, "3.13"),
        DumpedFields::new(&["redis"], UNSET_SERVER, "3.7").unless("strategy", "redis"),
    ];
    type Config = Config;
    type Plugin = GraphqlProxyCache;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let Config { strategy, redis, cache_ttl, vary_headers, bypass_on_err, memory: _, max_body_size } = config;
        let content_type = STORED_TYPES.map(str::to_owned).into();
        let config = ContentCacheConfig {
            strategy,
            redis,
            bypass_on_err,
            cache_ttl,
            vary_headers,
            max_body_size,
            content_type,
            accepts_body: is_without_errors,
        };
        build_for_content(Self::NAME, config, cx).map(GraphqlProxyCache)
    }
}

impl Plugin for GraphqlProxyCache {
    fn body_buffer_limit(&self) -> Option<usize> {
        Some(MAX_BODY)
    }

    fn buffers_body(&self, head: &request::Parts) -> bool {
        let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        head.method == Method::POST
            && length.is_some_and(|length| length <= MAX_BODY)
            && has_graphql_type(&head.headers)
    }

    fn before_forward<'a>(&'a self, cx: &'a mut BeforeForwardCx<'_>) -> AccessOutcome<'a> {
        let digest = digest(cx);
        if digest.is_some() {
            cx.head.headers.remove(ACCEPT_ENCODING);
        }
        self.0.stand_in(cx, digest)
    }

    fn after_forward(&self, cx: &mut AfterForwardCx<'_>) -> Option<Box<Reply>> {
        self.0.after_forward(cx)
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.request.add(&ACCEPT_ENCODING);
        self.0.declare_fields(fields);
    }
}

/// Whether a value contains a number that may have lost digits, so that another request may have the same value.
fn is_imprecise(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(values) => values.iter().any(is_imprecise),
        Value::Object(members) => members.values().any(is_imprecise),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// What a query asks for. `None` if the request is not one.
fn digest(cx: &BeforeForwardCx<'_>) -> Option<Sha256Digest> {
    let body = cx.whole_body()?;
    let request = GraphqlRequest::read(&cx.head.method, cx.head.uri.query(), &cx.head.headers, &body).ok()?;
    let document = CheckedDocument::parse(&request.query, &DocumentLimits::USUAL).ok()?;
    let operation = document.operation(request.operation_name.as_deref()).ok()?;
    // Servers may read more than the query, such as the name of a stored document.
    if operation.kind != OperationKind::Query || request.has_other_members {
        return None;
    }
    if request.variables.values().any(is_imprecise) {
        return None;
    }
    let mut variables = Value::Object(request.variables);
    variables.sort_all_objects();
    let texts = [
        normalized(&request.query, &DocumentLimits::USUAL).ok()?,
        request.operation_name.unwrap_or_default(),
        variables.to_string(),
    ];
    // Each with its length, so that no two requests have the same parts in other places.
    let mut parts = Vec::with_capacity(texts.iter().map(|text| text.len() + 8).sum());
    for text in texts {
        parts.extend_from_slice(&(text.len() as u64).to_be_bytes());
        parts.extend_from_slice(text.as_bytes());
    }
    Some(sha256(&parts))
}

/// Whether a body is the response to a query, without errors, which may be over when the query is repeated.
fn is_without_errors(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Response {
        data: IgnoredAny,
        errors: Option<IgnoredAny>,
    }
    serde_json::from_slice::<Response>(body).is_ok_and(|Response { data: IgnoredAny, errors }| errors.is_none())
}

const MAX_BODY: usize = 1 << 20;
/// The parameters are compared exactly.
const STORED_TYPES: [&str; 4] = [
    "application/json",
    "application/json; charset=utf-8",
    "application/graphql-response+json",
    "application/graphql-response+json; charset=utf-8",
];

#[cfg(test)]
mod tests {
    use http::header::CONTENT_LENGTH;
    use serde_json::json;

    use super::*;
    use crate::plugin_api::RegisteredKind;
    use crate::plugin_chain::chain::Chain;
    use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain};

    const KIND: &RegisteredKind<GraphqlProxyCache> = &RegisteredKind::<GraphqlProxyCache>::NEW;

    async fn run(chain: &Chain, mut request: TestRequest, response: &str) -> (String, bool) {
        let length = request.request.body().len();
        if length > 0 {
            request = request.header("content-length", &length.to_string());
        }
        request.upstream_response =
            http::Response::builder().header("content-type", "application/json; charset=utf-8").body(()).unwrap();
        request.upstream_body = response.to_owned().into();
        let outcome: TestOutcome = request.run(chain).await;
        (outcome.response_header("x-cache-status").unwrap_or_default().to_owned(), outcome.reply.is_some())
    }

    fn post(body: &Value) -> TestRequest {
        TestRequest::post("/graphql", "application/json", body.to_string())
    }

    const DATA: &str = r#"{"data": {"a": 1}}"#;

    #[tokio::test]
    async fn queries_with_the_same_meaning_have_one_response() {
        let chain = chain(&[(KIND, json!({"vary_headers": ["Accept-Language"]}))]);
        let query = |text: &str, variables: Value| json!({"query": text, "variables": variables});
        let first = query("query q($a: Int) { a(b: $a) }", json!({"a": 1, "b": {"c": 1, "d": 2}}));
        assert_eq!(run(&chain, post(&first), DATA).await, ("Miss".to_owned(), false));
        let same = query("query q ($a : Int) {\n  a(b: $a), # text\n}", json!({"b": {"d": 2, "c": 1}, "a": 1}));
        assert_eq!(run(&chain, post(&same), DATA).await, ("Hit".to_owned(), true));
        for other in [
            query("query q($a: Int) { a(b: $a) }", json!({"a": 2, "b": {"c": 1, "d": 2}})),
            query("query q($a: Int) { a(b: $a) c }", json!({"a": 1, "b": {"c": 1, "d": 2}})),
            query("query r($a: Int) { a(b: $a) }", json!({"a": 1, "b": {"c": 1, "d": 2}})),
        ] {
            assert_eq!(run(&chain, post(&other), DATA).await.0, "Miss", "{other}");
        }
        assert_eq!(run(&chain, post(&first).header("accept-language", "de"), DATA).await.0, "Miss");
        let other_path = TestRequest::post("/other", "application/json", first.to_string());
        assert_eq!(run(&chain, other_path, DATA).await.0, "Miss");
        assert_eq!(run(&chain, TestRequest::get("/graphql?query=%7Ba%7D"), DATA).await.0, "Miss");
        assert_eq!(run(&chain, TestRequest::get("/graphql?query=%7Ba%7D"), DATA).await, ("Hit".to_owned(), true));
    }

    /// Of one document with several operations, each has responses of its own.
    #[tokio::test]
    async fn other_requests_are_forwarded() {
        let chain = chain(&[(KIND, json!({}))]);
        for (request, response) in [
            (post(&json!({"query": "mutation { a }"})), DATA),
            (post(&json!({"query": "subscription { a }"})), DATA),
            (post(&json!({"query": "query q { a } mutation m { a }", "operationName": "m"})), DATA),
            (post(&json!([{"query": "{ a }"}])), DATA),
            (post(&json!({"query": "{ a"})), DATA),
            (post(&json!({"extensions": {"persistedQuery": {}}})), DATA),
            (TestRequest::post("/graphql", "text/plain", "{ a }"), DATA),
            (TestRequest::get("/graphql"), DATA),
            (post(&json!({"query": "{ a }"})).header("authorization", "Bearer a"), DATA),
        ] {
            let uri = request.request.uri().clone();
            assert_eq!(run(&chain, request, response).await, ("Bypass".to_owned(), false), "{uri}");
        }
        // Nothing of these is stored.
        for response in [r#"{"data": null, "errors": [{}]}"#, "{}", "<html>", ""] {
            let request = json!({"query": format!("{{ a{} }}", response.len())});
            for _ in 0..2 {
                assert_eq!(run(&chain, post(&request), response).await, ("Miss".to_owned(), false), "{response}");
            }
        }
        let unread = post(&json!({"query": "{ a }"}));
        assert!(unread.request.headers().get(CONTENT_LENGTH).is_none());
        assert_eq!(unread.run(&chain).await.response_header("x-cache-status"), Some("Bypass"), "of unknown length");
    }

    #[test]
    fn wrong_configurations_are_refused_with_their_field() {
        for (config, field) in [
            (json!({"strategy": "redis"}), "config.redis"),
            (json!({"redis": {"host": "a"}}), "config.redis"),
            (json!({"strategy": "redis", "redis": {"host": "a"}, "max_body_size": 2_000_000}), "config.max_body_size"),
            (json!({"cache_ttl": 0}), "config.cache_ttl"),
            (json!({"vary_headers": ["a b"]}), "config.vary_headers[0]"),
            (json!({"max_body_size": 70_000_000}), "config.max_body_size"),
        ] {
            let invalid = build(KIND, &config).err().unwrap_or_default();
            let fields: Vec<_> = invalid.iter().map(|problem| problem.field.as_str()).collect();
            assert_eq!(fields, [field], "{config}");
        }
    }
}
