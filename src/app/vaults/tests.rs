//! Tests of what is known of values while servers respond, refuse and are away.

use std::time::Duration;

use http::header::HOST;
use http::{HeaderValue, Method};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::sleep;

use super::*;
use crate::plugin_api::PluginState;
use crate::plugin_api::remote_request::{RemoteRequest, RemoteResponse};
use crate::plugin_api::scripted_server::{ScriptedServer, response};
use crate::plugin_api::vault::{KvVersion, VaultLogin, VaultServer, VaultToken};

fn server(kv: KvVersion, login: VaultLogin) -> VaultServer {
    VaultServer {
        object: "KongVault/v".to_owned(),
        host: "vault.example".to_owned(),
        port: 8200,
        is_secure: true,
        verify: true,
        namespace: Some("team".to_owned()),
        mount: "secret".to_owned(),
        kv,
        login,
        ttl: Some(Duration::from_secs(60)),
        retry_after: Duration::from_secs(10),
        resurrect_ttl: Some(Duration::from_secs(100)),
    }
}

fn query(server: VaultServer, path: &str, version: Option<u32>) -> Arc<VaultQuery> {
    Arc::new(VaultQuery { server: Arc::new(server), path: path.to_owned(), version })
}

fn token() -> VaultLogin {
    VaultLogin::Token(VaultToken::new("s.root"))
}

type Reply = Result<RemoteResponse, String>;

/// The values of one query, whose server responds as `script` says at the time of each request.
fn follow(query: &Arc<VaultQuery>, script: &Arc<Mutex<Reply>>) -> (Arc<VaultValues>, Arc<ScriptedServer>) {
    let replies = Arc::clone(script);
    let server = ScriptedServer::new(move |_: &RemoteRequest| replies.lock().clone());
    let values = VaultValues::of(&PluginState::default());
    values.want([Arc::clone(query)].into());
    tokio::spawn(follow_vaults(Arc::clone(&values), server.services()));
    (values, server)
}

/// The value at the key `k`, or why there is none.
fn text(values: &VaultValues, query: &VaultQuery) -> Option<Result<String, String>> {
    Some(match values.response(query)? {
        VaultResponse::Found(found) => Ok(found["k"].clone()),
        VaultResponse::Failed(reason) => Err(reason),
    })
}

fn found(text: &str) -> Reply {
    Ok(response(200, "", &json!({"data": {"k": text}}).to_string()))
}

#[tokio::test(start_paused = true)]
async fn last_value_stays_while_the_server_is_away() {
    let query = query(server(KvVersion::V1, token()), "shop/db", None);
    let script = Arc::new(Mutex::new(found("one")));
    let (values, server) = follow(&query, &script);
    assert!(values.is_waiting());
    sleep(Duration::from_secs(1)).await; // Paused time.
    assert_eq!(text(&values, &query), Some(Ok("one".to_owned())));
    assert!(!values.is_waiting());
    *script.lock() = found("two");
    sleep(Duration::from_secs(50)).await; // Paused time.
    assert_eq!((text(&values, &query), server.request_count()), (Some(Ok("one".to_owned())), 1), "within the ttl");
    sleep(Duration::from_secs(11)).await; // Paused time.
    assert_eq!(text(&values, &query), Some(Ok("two".to_owned())));
    // Read after 60 seconds; away from second 120 on, so the value ends 160 seconds after it was read.
    *script.lock() = Err("refused".to_owned());
    sleep(Duration::from_secs(155)).await; // Paused time.
    assert_eq!(text(&values, &query), Some(Ok("two".to_owned())));
    let reports = server.reports.lock().clone();
    assert!(reports.iter().flatten().any(|report| report.message.contains("refused")), "{reports:?}");
    sleep(Duration::from_secs(10)).await; // Paused time.
    assert_eq!(text(&values, &query), Some(Err("the vault: refused".to_owned())));
    *script.lock() = found("three");
    sleep(Duration::from_secs(11)).await; // Paused time.
    assert_eq!(text(&values, &query), Some(Ok("three".to_owned())));
    assert_eq!(server.reports.lock().last(), Some(&None), "the report is withdrawn");
}

#[tokio::test(start_paused = true)]
async fn secret_that_ceases_to_exist_has_no_value() {
    let query = query(server(KvVersion::V1, token()), "shop/db", None);
    let script = Arc::new(Mutex::new(found("one")));
    let (values, server) = follow(&query, &script);
    sleep(Duration::from_secs(1)).await; // Paused time.
    *script.lock() = Ok(response(404, "", r#"{"errors":[]}"#));
    sleep(Duration::from_secs(61)).await; // Paused time.
    assert_eq!(text(&values, &query), Some(Err("the vault has no secret shop/db".to_owned())));
    assert_eq!(server.reports.lock().len(), 0, "the server works");
    // Read again after neg_ttl, not before.
    let before = server.request_count();
    sleep(Duration::from_secs(25)).await; // Paused time.
    assert_eq!(server.request_count() - before, 2);
    values.want(BTreeSet::new());
    sleep(Duration::from_secs(25)).await; // Paused time.
    assert_eq!((values.response(&query), server.request_count() - before), (None, 2), "it is not wanted any more");
}

#[tokio::test(start_paused = true)]
async fn requests_have_the_form_of_the_api() {
    let query = query(server(KvVersion::V2, token()), "a b/c?d", Some(3));
    let body = json!({"data": {"data": {"k": "v", "n": 5}, "metadata": {"version": 3}}}).to_string();
    let (values, server) = follow(&query, &Arc::new(Mutex::new(Ok(response(200, "", &body)))));
    sleep(Duration::from_secs(1)).await; // Paused time.
    let request = server.last_request();
    assert_eq!((request.method, request.target.as_str()), (Method::GET, "/v1/secret/data/a%20b/c%3Fd?version=3"));
    for (name, expected) in [
        ("x-vault-token", "s.root"),
        ("x-vault-request", "true"),
        ("x-vault-namespace", "team"),
        (HOST.as_str(), "vault.example:8200"),
    ] {
        assert_eq!(request.headers.get(name), Some(&HeaderValue::from_static(expected)), "{name}");
    }
    assert!(request.remote.tls.is_some_and(|tls| tls.verify));
    let Some(VaultResponse::Found(found)) = values.response(&query) else { panic!("no value") };
    assert_eq!((&*found["k"], &*found["n"]), ("v", "5"));
    assert!(!format!("{:?} {values:?} {query:?}", values.response(&query)).contains("s.root"));
}

#[tokio::test(start_paused = true)]
async fn malformed_responses_are_no_values() {
    for body in ["", "[]", "{}", r#"{"data": null}"#, r#"{"data": ["k"]}"#] {
        let query = query(server(KvVersion::V1, token()), "p", None);
        let (values, _server) = follow(&query, &Arc::new(Mutex::new(Ok(response(200, "", body)))));
        sleep(Duration::from_secs(1)).await; // Paused time.
        assert_eq!(text(&values, &query), Some(Err("the response for p is not that of a secret".to_owned())), "{body}");
    }
}

#[tokio::test]
async fn token_of_the_service_account_is_exchanged() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "account-token\n").unwrap();
    let login = VaultLogin::Kubernetes { role: "shop".to_owned(), auth_path: "kubernetes".to_owned(), token_file };
    let query = query(server(KvVersion::V1, login), "p", None);
    let is_first = Mutex::new(true);
    let scripted = ScriptedServer::new(move |request: &RemoteRequest| {
        if request.method == Method::POST {
            let expected = json!({"role": "shop", "jwt": "account-token"});
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&request.body).unwrap(), expected);
            return Ok(response(200, "", r#"{"auth": {"client_token": "s.issued", "lease_duration": 3600}}"#));
        }
        assert_eq!(request.headers["x-vault-token"], "s.issued");
        // The first token is revoked, so the client logs in again.
        match std::mem::take(&mut *is_first.lock()) {
            true => Ok(response(403, "", "")),
            false => found("v"),
        }
    });
    let client = VaultClient::new(scripted.services());
    for _ in 0..2 {
        assert_eq!(client.read(&query).await.unwrap()["k"], "v");
    }
    let targets: Vec<_> = scripted.requests.lock().iter().map(|request| request.target.to_string()).collect();
    let login = "/v1/auth/kubernetes/login";
    let expected = [login, "/v1/secret/p", login, "/v1/secret/p", "/v1/secret/p"];
    assert_eq!(targets, expected, "the token of the second login is kept");
}
