//! Every plugin that authenticates, with everything that stores or counts for clients: two subjects never share a
//! stored response, one subject never has two counters, and what a plugin accepts without a subject has neither.

mod authenticators;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use http::Response;
use serde_json::{Value, json};

use super::REGISTRY;
use crate::plugin_api::token::signature::Algorithm;
use crate::plugin_api::token::signature::signing::Signer;
use crate::plugin_chain::chain::Chain;
use crate::plugin_chain::testing::{TestOutcome, TestRequest};
use authenticators::{Authenticator, ClientLogin, consumers};

/// The plugins that accept no credentials, and may authorize, limit or change what others have accepted.
#[rustfmt::skip] // A table.
const OTHERS: &[&str] = &[
    "acl", "aggregate", "api-version", "aws-lambda", "azure-functions", "bot-detection", "canary", "compression",
    "correlation-id", "cors", "datadog", "degraphql", "error-pages", "file-log", "forward-proxy",
    "graphql-proxy-cache-advanced",
    "graphql-rate-limiting-advanced", "grpc-gateway", "grpc-web", "http-log", "identity-keys", "injection-protection",
    "internal-identity", "ip-restriction", "jq", "json-threat-protection", "kafka-log", "kafka-upstream", "loggly",
    "mask", "mocking", "oas-validation", "opa", "opentelemetry", "post-function", "pre-function", "prometheus",
    "proxy-cache",
    "proxy-cache-advanced", "rate-limiting", "rate-limiting-advanced", "redirect", "request-size-limiting",
    "request-termination", "request-transformer", "request-transformer-advanced", "request-validator",
    "response-ratelimiting", "response-transformer", "response-transformer-advanced", "route-by-header", "soap",
    "standard-webhooks", "statsd", "syslog", "tcp-log", "udp-log", "upstream-oauth", "upstream-timeout", "usage-plan",
    "websocket-size-limit", "xml-threat-protection", "zipkin",
];

#[tokio::test]
async fn every_plugin_that_authenticates_has_a_row() {
    let rows: BTreeSet<_> = authenticators::all().await.iter().map(Authenticator::name).collect();
    let others: BTreeSet<_> = OTHERS.iter().copied().collect();
    let kinds: BTreeSet<_> = REGISTRY.iter().map(|kind| kind.name()).collect();
    assert_eq!(rows.intersection(&others).count(), 0);
    let listed: BTreeSet<_> = rows.union(&others).copied().collect();
    assert_eq!(kinds, listed, "a new plugin needs a row in authenticators.rs, or an entry in OTHERS");
}

/// A plugin that stores responses, and the requests that it stores responses to.
type TestedCache = (&'static str, Value, fn() -> TestRequest);

fn caches() -> Vec<TestedCache> {
    let get = || TestRequest::get("/a");
    let query = || {
        let body = r#"{"query":"{ me }"}"#;
        TestRequest::post("/a", "application/json", body).header("content-length", &body.len().to_string())
    };
    vec![
        ("proxy-cache", json!({"strategy": "memory", "content_type": ["application/json"]}), get),
        ("proxy-cache", json!({"strategy": "memory", "mode": "rfc9111"}), get),
        ("proxy-cache-advanced", json!({"strategy": "memory", "content_type": ["application/json"]}), get),
        ("proxy-cache-advanced", json!({"strategy": "memory", "mode": "rfc9111"}), get),
        ("graphql-proxy-cache-advanced", json!({"strategy": "memory", "vary_headers": ["cookie"]}), query),
    ]
}

async fn run(chain: &Chain, request: TestRequest, login: &ClientLogin, body: &str) -> TestOutcome {
    let mut request = login(request).with_consumers(&consumers());
    let response = Response::builder().header("content-type", "application/json").header("x-kong-limit", "all=1");
    request.upstream_response = response.header("cache-control", "public, max-age=60").body(()).unwrap();
    request.upstream_body = format!(r#"{{"data":"{body}"}}"#).into();
    request.run(chain).await
}

#[tokio::test]
async fn two_subjects_never_share_a_stored_response() {
    for authenticator in authenticators::all().await {
        for (cache, config, request) in caches() {
            let what = format!("{} with {cache} {config}", authenticator.name());
            let chain = authenticator.chain(&[(cache, config)]);
            for (number, logins) in authenticator.subjects.iter().enumerate() {
                for login in logins {
                    let first = run(&chain, request(), login, &number.to_string()).await;
                    assert!(
                        first.reply.is_none() || first.message() == Some(&format!(r#"{{"data":"{number}"}}"#)),
                        "{what}: subject {number} gets {:?}",
                        first.message()
                    );
                    let second = run(&chain, request(), login, "not stored").await;
                    assert_eq!(second.message(), Some(&*format!(r#"{{"data":"{number}"}}"#)), "{what}");
                }
            }
            for login in &authenticator.unknown {
                for _ in 0..2 {
                    let outcome = run(&chain, request(), login, "unknown").await;
                    assert_eq!(outcome.message(), None, "{what}: a client without a subject");
                }
            }
        }
    }
}

/// Two plugins may verify one request, such as the key of an application and the token of its user.
#[tokio::test]
async fn two_pairs_of_subjects_never_share_a_stored_response() {
    let has_key = |other: &Authenticator| other.plugins.iter().any(|(kind, _)| *kind == "key-auth");
    for authenticator in authenticators::all().await.iter().filter(|other| !has_key(other)) {
        for (cache, config, request) in caches() {
            let chain = authenticator.chain(&[("key-auth", json!({})), (cache, config.clone())]);
            for (number, logins) in authenticator.subjects.iter().enumerate() {
                for key in ["alice", "bob"] {
                    let what = format!("{} with {cache} {config}", authenticator.name());
                    let body = format!("{key}-{number}");
                    let request = || request().header("apikey", key);
                    let first = run(&chain, request(), &logins[0], &body).await;
                    assert_eq!(first.message(), None, "{what}: the first request of {body}");
                    let second = run(&chain, request(), &logins[0], "not stored").await;
                    let own = format!(r#"{{"data":"{body}"}}"#);
                    assert_eq!(second.message(), Some(&*own), "{what}: {body}");
                }
            }
        }
    }
}

fn limits() -> [(&'static str, Value); 5] {
    [
        ("rate-limiting", json!({"minute": 2, "limit_by": "credential"})),
        ("rate-limiting-advanced", json!({"limit": [2], "window_size": [60], "identifier": "credential"})),
        (
            "graphql-rate-limiting-advanced",
            json!({"limit": [2], "window_size": [60], "identifier": "credential", "cost_strategy": "node_quantifier"}),
        ),
        (
            "response-ratelimiting",
            json!({"limits": {"all": {"minute": 2}}, "limit_by": "credential", "block_on_first_violation": true}),
        ),
        ("usage-plan", json!({"plans": [{"name": "all", "quotas": {"day": 2}}], "limit_by": "credential"})),
    ]
}

/// Whether a request is within the limit.
async fn is_within(chain: &Chain, limit: &str, address: IpAddr, login: &ClientLogin) -> bool {
    let request = if limit.starts_with("graphql") {
        TestRequest::post("/a", "application/json", r#"{"query":"{ me }"}"#)
    } else {
        TestRequest::get("/a")
    };
    let outcome = run(chain, TestRequest { address, ..request }, login, "").await;
    let status = outcome.reply_status().map(|status| status.as_u16());
    assert!(matches!(status, None | Some(429)), "{limit}: {status:?} {:?}", outcome.message());
    status.is_none()
}

#[tokio::test]
async fn one_subject_has_one_counter_and_no_part_in_those_of_others() {
    for authenticator in authenticators::all().await {
        for (limit, config) in limits() {
            let what = format!("{} with {limit}", authenticator.name());
            let chain = authenticator.chain(&[(limit, config)]);
            let mut address = 0;
            // Another one for each request: the address is not what is counted.
            let mut next_address = || {
                address += 1;
                IpAddr::from([10, 0, 0, address])
            };
            for (number, logins) in authenticator.subjects.iter().enumerate() {
                let in_turn = || logins.iter().cycle();
                for (count, login) in in_turn().take(2 + logins.len()).enumerate() {
                    let expected = count < 2 && (number == 0 || !authenticator.shares_counter);
                    let is_within = is_within(&chain, limit, next_address(), login).await;
                    assert_eq!(is_within, expected, "{what}: subject {number}, request {count}");
                }
            }
            for (number, login) in authenticator.unknown.iter().enumerate() {
                let addresses = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
                for (count, address) in addresses.into_iter().enumerate() {
                    let is_within = is_within(&chain, limit, address, login).await;
                    assert!(is_within, "{what}: client {number} without a subject, address {count}");
                }
            }
            for login in &authenticator.unknown {
                let address = IpAddr::from([192, 0, 2, 1]);
                assert!(!is_within(&chain, limit, address, login).await, "{what}: they are counted by address");
            }
        }
    }
}

#[tokio::test]
async fn tokens_for_endpoints_name_one_subject_in_one_way() {
    let key = Signer::for_algorithm(Algorithm::Es256).private_pem();
    let config = json!({"issuer": "https://gateway.example", "keys": [key], "user_header": "x-subject"});
    for authenticator in authenticators::all().await {
        let chain = authenticator.chain(&[("internal-identity", config.clone())]);
        // Whom each name stands for: several subjects of one consumer have the same name.
        let mut owners = BTreeMap::new();
        for (number, logins) in authenticator.subjects.iter().enumerate() {
            // A token may name a consumer that others of its subject do not name: then the consumer is the subject.
            let (mut of_consumers, mut of_subject) = (BTreeSet::new(), BTreeSet::new());
            for login in logins {
                let outcome = run(&chain, TestRequest::get("/a"), login, "").await;
                let name = outcome.upstream_header("x-subject").unwrap().to_owned();
                let (of_login, owner) = match &outcome.state.identity.consumer {
                    Some(consumer) => (&mut of_consumers, format!("consumer {}", consumer.id)),
                    None => (&mut of_subject, format!("subject {number}")),
                };
                of_login.insert(name.clone());
                let known = owners.entry(name.clone()).or_insert_with(|| owner.clone());
                assert_eq!(*known, owner, "{}: two have the name {name}", authenticator.name());
            }
            let of_one_subject = of_consumers.len() <= 1 && of_subject.len() <= 1;
            assert!(of_one_subject, "{}: {of_consumers:?} {of_subject:?}", authenticator.name());
        }
    }
}

/// Only the client that no plugin has accepted is to authenticate.
#[tokio::test]
async fn accepted_clients_without_a_group_are_forbidden_and_not_unauthenticated() {
    for authenticator in authenticators::all().await {
        let chain = authenticator.chain(&[("acl", json!({"allow": ["staff"]}))]);
        for login in authenticator.subjects.iter().flatten().chain(&authenticator.unknown) {
            let outcome = run(&chain, TestRequest::get("/a"), login, "").await;
            let status = outcome.reply_status().map(|status| status.as_u16());
            assert_eq!(status, Some(403), "{}", authenticator.name());
        }
    }
}

/// Two tokens of one user may permit different requests.
#[tokio::test]
async fn what_an_endpoint_learns_about_a_client_separates_its_responses() {
    let authenticator = authenticators::with_scopes();
    for (cache, config, request) in caches() {
        let chain = authenticator.chain(&[(cache, config.clone())]);
        for (number, login) in authenticator.subjects[0].iter().enumerate() {
            let outcome = run(&chain, request(), login, &number.to_string()).await;
            assert_eq!(outcome.message(), None, "{cache} {config}: scope {number}");
        }
    }
}
