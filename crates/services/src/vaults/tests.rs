//! Tests of what is known of values while servers respond, refuse and are away.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::HOST;
use http::{HeaderValue, Method};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::sleep;

use super::*;
use crate::plugin_api::PluginState;
use crate::plugin_api::aws_environment::{AwsEnvironment, AwsKeys};
use crate::plugin_api::remote_request::{RemoteRequest, RemoteResponse};
use crate::plugin_api::scripted_server::{ScriptedServer, response};
use crate::plugin_api::token::signature::Algorithm;
use crate::plugin_api::token::signature::signing::Signer;
use crate::plugin_api::vault::{
    AppRoleSecret, AwsSecretsManager, GoogleAccount, GoogleSecretManager, HashicorpVault, KvVersion, VaultApi,
    VaultLogin, VaultServer, VaultToken,
};
use crate::ssrf_guard::AddressPolicy;

fn server(kv: KvVersion, login: VaultLogin) -> VaultServer {
    let api = VaultApi::Hashicorp(HashicorpVault {
        host: "vault.example".to_owned(),
        port: 8200,
        is_secure: true,
        verify: true,
        namespace: Some("team".to_owned()),
        mount: "secret".to_owned(),
        kv,
        login,
    });
    server_of(api)
}

fn server_of(api: VaultApi) -> VaultServer {
    VaultServer {
        object: "KongVault/v".to_owned(),
        api,
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

/// A server that accepts requests and never responds to those for this host.
struct SilentHost(Arc<ScriptedServer>, &'static str);

impl PluginServices for SilentHost {
    fn address_policy(&self) -> AddressPolicy {
        self.0.address_policy()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.spawn(task);
    }

    fn send(&self, request: RemoteRequest) -> BoxFuture<'static, Result<RemoteResponse, String>> {
        let (is_silent, timeout) = (request.remote.host == self.1, request.timeout);
        let response = self.0.send(request);
        async move {
            if !is_silent {
                return response.await;
            }
            sleep(timeout).await; // Paused time.
            Err("timeout".to_owned())
        }
        .boxed()
    }

    fn report(&self, object: &str, diagnostic: Option<Diagnostic>) {
        self.0.report(object, diagnostic);
    }
}

#[tokio::test(start_paused = true)]
async fn silent_server_does_not_delay_others() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "account-token").unwrap();
    let at = |host: &str, path: &str| {
        let login = VaultLogin::Kubernetes {
            role: "shop".to_owned(),
            auth_path: "kubernetes".to_owned(),
            token_file: token_file.clone(),
        };
        let mut server = server(KvVersion::V1, login);
        server.object = format!("KongVault/{host}");
        if let VaultApi::Hashicorp(api) = &mut server.api {
            api.host = host.to_owned();
        }
        query(server, path, None)
    };
    let scripted = ScriptedServer::new(|request: &RemoteRequest| match request.method {
        Method::POST => Ok(response(200, "", r#"{"auth": {"client_token": "s.issued", "lease_duration": 3600}}"#)),
        _ => found("v"),
    });
    let values = VaultValues::of(&PluginState::default());
    let silent: Vec<_> = (0..20).map(|number| at("dead", &format!("p{number}"))).collect();
    let wanted: BTreeSet<_> = silent.iter().cloned().chain([at("alive", "p")]).collect();
    values.want(wanted.clone());
    tokio::spawn(follow_vaults(Arc::clone(&values), Arc::new(SilentHost(Arc::clone(&scripted), "dead"))));
    until(&values, &at("alive", "p")).await;
    assert_eq!(values.response(&silent[0]), None, "the login of the other server is in progress");
    // A value that is wanted meanwhile is read meanwhile.
    values.want(wanted.into_iter().chain([at("later", "p")]).collect());
    until(&values, &at("later", "p")).await;
    assert_eq!(values.response(&silent[0]), None);
    sleep(Duration::from_secs(7)).await; // Paused time.
    let failed = Some(Err("the vault: timeout".to_owned()));
    assert!(silent.iter().all(|query| text(&values, query) == failed), "all fail with the first login");
    let logins = || {
        let requests = scripted.requests.lock();
        requests.iter().filter(|request| request.remote.host == "dead").count()
    };
    assert_eq!(logins(), 1);
    sleep(Duration::from_secs(15)).await; // Paused time.
    assert_eq!(logins(), 2, "the next round logs in once more");
    assert_eq!(scripted.reports.lock().len(), 1);
}

/// Waits for the value of a query, for less time than any timeout of a server.
async fn until(values: &VaultValues, query: &VaultQuery) {
    for _ in 0..20 {
        if values.response(query).is_some() {
            return;
        }
        sleep(Duration::from_millis(100)).await; // Paused time.
    }
    panic!("there is no value at {}", query.path);
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
    let client = VaultClient::new(&scripted.services());
    for _ in 0..2 {
        assert_eq!(client.read(&query).await.unwrap()["k"], "v");
    }
    let targets: Vec<_> = scripted.requests.lock().iter().map(|request| request.target.to_string()).collect();
    let login = "/v1/auth/kubernetes/login";
    let expected = [login, "/v1/secret/p", login, "/v1/secret/p", "/v1/secret/p"];
    assert_eq!(targets, expected, "the token of the second login is kept");
}

#[tokio::test]
async fn secret_of_an_approle_is_exchanged() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("id");
    for secret in [AppRoleSecret::Text(VaultToken::new("of a Secret")), AppRoleSecret::File(file.clone())] {
        let of_file = matches!(secret, AppRoleSecret::File(_));
        let login = VaultLogin::AppRole { id: VaultToken::new("role"), secret, auth_path: "team/approle".to_owned() };
        let query = query(server(KvVersion::V1, login), "p", None);
        let scripted = ScriptedServer::new(move |request: &RemoteRequest| {
            if request.method == Method::POST {
                assert_eq!(request.target.as_str(), "/v1/auth/team/approle/login");
                let expected =
                    json!({"role_id": "role", "secret_id": if of_file { "of a file" } else { "of a Secret" }});
                assert_eq!(serde_json::from_slice::<serde_json::Value>(&request.body).unwrap(), expected);
                return Ok(response(200, "", r#"{"auth": {"client_token": "s.issued", "lease_duration": 3600}}"#));
            }
            assert_eq!(request.headers["x-vault-token"], "s.issued");
            found("v")
        });
        let client = VaultClient::new(&scripted.services());
        if of_file {
            let unreadable = "the file with the secret of the AppRole cannot be read".to_owned();
            assert_eq!(client.read(&query).await, Err(ReadError::Unavailable(unreadable)));
            std::fs::write(&file, "of a file\n").unwrap();
            // A failure lasts for a pause.
            let client = VaultClient::new(&scripted.services());
            assert_eq!(client.read(&query).await.unwrap()["k"], "v");
        } else {
            assert_eq!(client.read(&query).await.unwrap()["k"], "v");
        }
    }
}

/// The keys of a secret of a cloud, whose server responds as `script` says, and the requests that were sent.
async fn read_once(
    query: &Arc<VaultQuery>,
    environment: Option<AwsEnvironment>,
    script: impl Fn(&RemoteRequest) -> RemoteResponse + Send + Sync + 'static,
) -> (Option<VaultResponse>, Vec<RemoteRequest>) {
    let server = ScriptedServer::in_aws(environment, move |request: &RemoteRequest| Ok(script(request)));
    let values = VaultValues::of(&PluginState::default());
    values.want([Arc::clone(query)].into());
    let following = tokio::spawn(follow_vaults(Arc::clone(&values), server.services()));
    sleep(Duration::from_secs(1)).await; // Paused time.
    following.abort();
    let requests = server.requests.lock().clone();
    (values.response(query), requests)
}

fn keys_of(response: Option<VaultResponse>) -> Result<Vec<(String, String)>, String> {
    match response.expect("the vault has responded") {
        VaultResponse::Found(found) => Ok(found.iter().map(|(key, value)| (key.clone(), value.clone())).collect()),
        VaultResponse::Failed(reason) => Err(reason),
    }
}

#[tokio::test(start_paused = true)]
async fn secrets_of_aws_are_read_with_signed_requests() {
    let api = VaultApi::AwsSecretsManager(AwsSecretsManager {
        region: "eu-west-1".to_owned(),
        endpoint: None,
        role: None,
        sts_endpoint: None,
    });
    let query = query(server_of(api), "prod/db", None);
    let keys = AwsKeys { access_key: "AKID".to_owned(), secret_key: "hidden".to_owned(), session_token: None };
    let environment = || Some(AwsEnvironment { keys: Some(keys.clone()), ..AwsEnvironment::default() });
    let text = r#"{"user":"anna","port":5}"#;
    let body = json!({ "Name": "prod/db", "SecretString": text }).to_string();
    let (found, requests) = read_once(&query, environment(), move |_| response(200, "", &body)).await;
    let expected = [("", text), ("port", "5"), ("user", "anna")];
    assert_eq!(keys_of(found).unwrap(), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let [request] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(request.remote.host, "secretsmanager.eu-west-1.amazonaws.com");
    assert!(request.remote.tls.as_ref().is_some_and(|tls| tls.verify));
    assert_eq!(request.headers["x-amz-target"], "secretsmanager.GetSecretValue");
    assert_eq!(request.body, r#"{"SecretId":"prod/db"}"#);
    let authorization = request.headers["authorization"].to_str().unwrap();
    assert!(authorization.contains("/eu-west-1/secretsmanager/aws4_request"), "{authorization}");
    assert!(authorization.contains("content-type;host;x-amz-date;x-amz-target"), "{authorization}");

    let binary = |_: &RemoteRequest| response(200, "", r#"{"SecretBinary": "cGxhaW4="}"#);
    let (found, _) = read_once(&query, environment(), binary).await;
    assert_eq!(keys_of(found).unwrap(), [(String::new(), "plain".to_owned())]);
    for (status, code, expected) in [
        (400, "ResourceNotFoundException", "AWS Secrets Manager has no secret prod/db"),
        (400, "AccessDeniedException", "has responded with 400 AccessDeniedException to the request for prod/db"),
        (500, "", "has responded with 500"),
    ] {
        let body = json!({ "__type": format!("com.amazonaws#{code}"), "Message": "hidden" }).to_string();
        let (found, _) = read_once(&query, environment(), move |_| response(status, "", &body)).await;
        let reason = keys_of(found).unwrap_err();
        assert!(reason.contains(expected) && !reason.contains("hidden"), "{reason}");
    }
    let (found, requests) = read_once(&query, None, |_| response(200, "", "{}")).await;
    assert!(keys_of(found).unwrap_err().contains("may not be used") && requests.is_empty());
}

#[tokio::test(start_paused = true)]
async fn secrets_of_google_are_read_with_the_token_of_the_account() {
    let pem = Signer::for_algorithm(Algorithm::Rs256).private_pem();
    let key = json!({ "client_email": "portico@shop.example", "private_key": pem, "private_key_id": "k1" }).to_string();
    let of = |account| {
        let api = VaultApi::GoogleSecretManager(GoogleSecretManager { project: "shop".to_owned(), account });
        query(server_of(api), "db", Some(3))
    };
    let script = |request: &RemoteRequest| match request.method {
        Method::POST => response(200, "", r#"{"access_token": "t1", "expires_in": 3600}"#),
        _ if request.target.path().starts_with("/computeMetadata") => {
            response(200, "", r#"{"access_token": "t2", "expires_in": 3600}"#)
        }
        _ => response(200, "", r#"{"payload": {"data": "eyJhIjoiYiJ9"}}"#),
    };
    let (found, requests) = read_once(&of(GoogleAccount::Key(VaultToken::new(&key))), None, script).await;
    let expected = [("", r#"{"a":"b"}"#), ("a", "b")];
    assert_eq!(keys_of(found).unwrap(), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let [login, read] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!((&*login.remote.host, login.target.path()), ("oauth2.googleapis.com", "/token"));
    let body = std::str::from_utf8(&login.body).unwrap();
    let assertion = body.split("assertion=").nth(1).expect("there is an assertion");
    let parts: Vec<serde_json::Value> = assertion
        .split('.')
        .take(2)
        .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
        .collect();
    assert_eq!(parts[0], json!({ "typ": "JWT", "alg": "RS256", "kid": "k1" }));
    assert_eq!(
        (&parts[1]["iss"], &parts[1]["aud"]),
        (&json!("portico@shop.example"), &json!("https://oauth2.googleapis.com/token"))
    );
    assert_eq!(read.headers["authorization"], "Bearer t1");
    assert_eq!(read.target.path(), "/v1/projects/shop/secrets/db/versions/3:access");

    let (found, requests) = read_once(&of(GoogleAccount::Machine), None, script).await;
    assert!(found.is_some());
    assert_eq!(requests[0].headers["metadata-flavor"], "Google");
    assert_eq!(requests[1].headers["authorization"], "Bearer t2");
    for (status, expected) in
        [(404, "the project has no secret db"), (403, "has responded with 403"), (401, "with 401")]
    {
        let refusing = move |request: &RemoteRequest| match request.target.path().starts_with("/v1/") {
            true => response(status, "", ""),
            false => response(200, "", r#"{"access_token": "t", "expires_in": 1}"#),
        };
        let (found, _) = read_once(&of(GoogleAccount::Machine), None, refusing).await;
        assert!(keys_of(found).unwrap_err().contains(expected));
    }
}
