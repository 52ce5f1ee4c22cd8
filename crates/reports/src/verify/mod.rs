//! `portico verify`: sends requests that the routes of manifests match to a running gateway, and compares what served
//! them with the manifests.
//!
//! ```text
//!   HTTPRoute, GRPCRoute, Ingress ─▶ Expectation ──┐
//!   admin listener: /debug/snapshot ─▶ listeners ──┴▶ RouteRequest ─ sent to the gateway ─▶ GatewayRecord ─▶ result
//!                                                       └ a token that the admin listener has registered ┘
//! ```
//!
//! What served a request is what the gateway recorded while it served it. Nothing here computes a route.

mod admin_client;
mod balancing;
mod expectation;
mod explanation;
mod gateway_routes;
mod hosts;
mod ingresses;
mod judgment;
mod planned_requests;
mod regex_sample;
mod served_routes;
mod test_client;
mod verification_report;

pub use verification_report::{VerificationResult, VerifiedRequest, json, text};

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use aws_lc_rs::rand;
use http::{HeaderValue, Method};

use admin_client::{AdminClient, GatewayRecord};
use balancing::ServedBalancing;
use expectation::Expectation;
use judgment::{Judgment, judge};
use planned_requests::{Plan, PlannedRequest};
use served_routes::{ServedListener, ServedRoutes};
use test_client::{MissingResponse, RouteRequest};
use verification_report::ServedBy;

use crate::api::Object;
use crate::api::gateway::{GrpcRoute, HttpRoute};
use crate::api::networking::Ingress;

/// How to verify.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address of the admin listener.
    pub admin: SocketAddr,
    /// Addresses to connect to instead of those that the gateway listens on.
    pub connect_to: Vec<ConnectTo>,
    pub mode: SendMode,
    /// The timeout of each request.
    pub timeout: Duration,
}

/// Which requests reach a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendMode {
    /// None.
    Never,
    /// Those with GET, HEAD or OPTIONS.
    Safe,
    All,
}

/// An address to connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectTo {
    /// The port that the gateway listens on; `None` for all ports.
    pub port: Option<u16>,
    pub address: SocketAddr,
}

/// What manifests say about routes.
#[derive(Default)]
pub struct Expectations(Vec<Expectation>);

impl Expectations {
    pub fn add_http_route(&mut self, route: &Object<HttpRoute>) {
        self.0.extend(gateway_routes::of_http_route(route));
    }

    pub fn add_grpc_route(&mut self, route: &Object<GrpcRoute>) {
        self.0.extend(gateway_routes::of_grpc_route(route));
    }

    /// `literal_paths`: the dialect of the Ingress has no regular expressions.
    pub fn add_ingress(&mut self, ingress: &Object<Ingress>, literal_paths: bool) {
        self.0.extend(ingresses::of_ingress(ingress, literal_paths));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Verifies all expectations, and reports the number of verified and of all requests meanwhile. An error if the admin
/// listener cannot be used.
pub async fn verify(
    settings: &Settings,
    expectations: &Expectations,
    mut progress: impl FnMut(usize, usize),
) -> anyhow::Result<Vec<VerifiedRequest>> {
    let mut admin = AdminClient::new(settings.admin);
    let served: ServedRoutes = admin.view("snapshot").await?;
    let balancing = ServedBalancing::read(&mut admin).await?;
    let plans = planned_requests::plan(&expectations.0, &served, settings);
    let mut verdicts: Option<serde_json::Value> = None;
    let mut requests = Vec::new();
    for (index, planned) in plans.iter().enumerate() {
        progress(index, plans.len());
        requests.push(match &planned.plan {
            Plan::Send { listener, candidates } => {
                verify_request(settings, &mut admin, planned, listener, candidates).await?
            }
            Plan::NotDerived { reason } => planned.result(Judgment::NotDerived(reason.clone())),
            Plan::NotAttached { problem } => {
                let verdicts = match &mut verdicts {
                    Some(verdicts) => verdicts,
                    missing => missing.insert(admin.view("verdicts").await?),
                };
                let why = why_not_served(verdicts, planned.expectation);
                planned.result(Judgment::Differs(format!("{problem}: {why}")))
            }
        });
    }
    requests.iter_mut().for_each(|request| request.set_balancing(&balancing));
    progress(plans.len(), plans.len());
    Ok(requests)
}

/// Sends the candidates until one of them is served as expected. If none is, the first one is reported.
async fn verify_request(
    settings: &Settings,
    admin: &mut AdminClient,
    planned: &PlannedRequest<'_>,
    listener: &ServedListener,
    candidates: &[RouteRequest],
) -> anyhow::Result<VerifiedRequest> {
    let mut first: Option<VerifiedRequest> = None;
    for candidate in candidates {
        let dry_run = match settings.mode {
            SendMode::Never => true,
            SendMode::Safe => ![Method::GET, Method::HEAD, Method::OPTIONS].contains(&candidate.method),
            SendMode::All => false,
        };
        let mut verified = VerifiedRequest {
            request: Some(candidate.description()),
            dry_run,
            ..planned.result(Judgment::Agrees(None))
        };
        match observe(settings, admin, candidate, dry_run).await? {
            Ok(observation) => {
                verified.set_judgment(judge(planned.expectation, listener, &observation));
                verified.served_by = Some(ServedBy::from(observation));
            }
            Err(failure) => verified.set_judgment(Judgment::Differs(failure)),
        }
        let earlier = first.get_or_insert_with(|| verified.clone());
        if verified.result() == VerificationResult::Agrees {
            // Another rule serves a part of the match.
            if let (None, VerificationResult::Differs, Some(difference)) =
                (&verified.message, earlier.result(), &earlier.message)
            {
                let request = earlier.request.as_deref().unwrap_or_default();
                verified.message = Some(format!("not for {request}: {difference}"));
            }
            return Ok(verified);
        }
    }
    first.context("a planned request has no candidate")
}

/// Sends a request, and returns what the gateway recorded, or why there is no record.
async fn observe(
    settings: &Settings,
    admin: &mut AdminClient,
    request: &RouteRequest,
    dry_run: bool,
) -> anyhow::Result<Result<GatewayRecord, String>> {
    // The gateway closes old connections to its admin listener, and forgets their tokens. The second attempt has a new
    // one.
    for _ in 0..2 {
        let token = new_token()?;
        admin.register(&token, dry_run).await?;
        let field = HeaderValue::from_str(&token).context("a token is not a header value")?;
        let sent = async {
            let response = request.send(field, dry_run, settings.timeout).await;
            // The record is complete when the response has ended, or when this client has disconnected.
            if matches!(response, Ok(_) | Err(MissingResponse::Timeout { .. })) {
                tokio::time::sleep(RECORD_TIMEOUT).await;
            }
            response.map_err(|failure| failure.to_string())
        };
        let response = tokio::select! {
            biased;
            observation = admin.observation(&token) => match observation? {
                Some(observation) => return Ok(Ok(observation)),
                None => continue,
            },
            response = sent => response,
        };
        admin.close();
        return Ok(Err(match response {
            Ok(status) => format!(
                "the request got status {status}, but not from the process of the admin listener; verify against one \
                 replica, and check with --connect-to which process the request reaches"
            ),
            Err(failure) => failure,
        }));
    }
    Ok(Err("the gateway did not record the request".to_owned()))
}

/// Why the gateway does not serve a route, from the conditions of its verdict.
fn why_not_served(verdicts: &serde_json::Value, expectation: &Expectation) -> String {
    let object = &expectation.object;
    let is_object = |verdict: &&serde_json::Value| {
        verdict["kind"] == object.kind.name()
            && verdict["name"] == *object.key.name
            && verdict["namespace"].as_str().unwrap_or_default() == &*object.key.namespace
    };
    let Some(verdict) = verdicts.as_array().and_then(|verdicts| verdicts.iter().find(is_object)) else {
        return format!("it does not have {object}, or none of its classes or Gateways serves it");
    };
    let mut problems = Vec::new();
    collect_problems(&verdict["status"], &mut problems);
    if problems.is_empty() { "its verdict has no error".to_owned() } else { problems.join("; ") }
}

/// The conditions with status `False` below a value.
fn collect_problems(value: &serde_json::Value, problems: &mut Vec<String>) {
    if value["status"] == "False"
        && let (Some(reason), Some(message)) = (value["reason"].as_str(), value["message"].as_str())
    {
        let problem = format!("{reason}: {message}");
        // Each parent of a route has the same problems of its references.
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    match value {
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect_problems(value, problems)),
        serde_json::Value::Object(fields) => fields.values().for_each(|value| collect_problems(value, problems)),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

/// 32 random hexadecimal digits.
fn new_token() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system has no random numbers"))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// How long the record of a request may take after its response.
const RECORD_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::{Kind, ObjectId, ObjectKey};

    #[test]
    fn tokens_are_random_digits() {
        let tokens = [new_token().unwrap(), new_token().unwrap()];
        assert_ne!(tokens[0], tokens[1]);
        assert!(tokens.iter().all(|token| token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }

    #[test]
    fn verdict_says_why_a_route_is_not_served() {
        let parent = json!({ "conditions": [
            { "type": "Accepted", "status": "False", "reason": "NoMatchingParent", "message": "no such Gateway" },
            { "type": "ResolvedRefs", "status": "False", "reason": "BackendNotFound", "message": "no Service a" },
            { "type": "Other", "status": "True", "reason": "Other", "message": "" },
        ] });
        let verdicts = json!([{
            "kind": "HTTPRoute", "namespace": "default", "name": "shop", "status": { "parents": [parent, parent] },
        }]);
        let expectation = |name: &str| Expectation {
            object: ObjectId::new(Kind::HttpRoute, ObjectKey::new("default", name)),
            rule: None,
            field: String::new(),
            served_path: None,
            hosts: Vec::new(),
            parents: Vec::new(),
            requires_https: false,
            requests: Err(String::new()),
            action: expectation::ExpectedAction::NotCompared,
        };
        assert_eq!(
            why_not_served(&verdicts, &expectation("shop")),
            "NoMatchingParent: no such Gateway; BackendNotFound: no Service a"
        );
        assert!(why_not_served(&verdicts, &expectation("cart")).starts_with("it does not have HTTPRoute default/cart"));
    }
}
