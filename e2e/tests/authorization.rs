//! The plugins that let other servers decide, with real servers: opa with Open Policy Agent, and forward-auth with
//! oauth2-proxy, whose users log in at Dex.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use portico_e2e::without_cluster::Program;
use portico_e2e::{programs, without_cluster};
use serde_json::{Value, json};

/// Rego as the language has been since version 1.0 of Open Policy Agent.
const POLICY: &str = r#"package shop

default decision := {"allow": false, "status": 451, "message": "not for sale", "headers": {"x-reason": "policy"}}

decision := {"allow": true, "headers": {"x-role": "buyer"}} if {
	input.request.http.method == "GET"
	input.request.http.headers["x-token"] == "valid"
	input.request.http.querystring.item == "1"
}

default allow := false

allow if input.request.http.path == "/boolean/yes"
"#;

#[test]
#[ignore = "only in make test-full: it builds Open Policy Agent, which takes minutes"]
fn open_policy_agent_decides_about_requests() {
    without_cluster::run("portico-opa", &[programs::opa], agent_decides);
}

async fn agent_decides() -> Result<()> {
    let opa = programs::opa()?;
    let folder = tempfile::tempdir()?;
    let policy = folder.path().join("shop.rego");
    fs::write(&policy, POLICY)?;
    let mut agent = Command::new(opa);
    agent.args(["run", "--server", "--disable-telemetry", "--addr", AGENT]).arg(policy);
    let agent = Program::start(agent, &folder.path().join("opa.log"), &[AGENT]).await?;
    let objects: String = ["decision", "boolean", "missing"]
        .map(|name| {
            let rule = if name == "boolean" { "allow" } else { name };
            let config = json!({"opa_host": "127.0.0.1", "opa_path": format!("/v1/data/shop/{rule}")});
            format!("{}{}", plugin(name, "opa", &config), route(name, &format!("/{name}"), Some(name), "echo", 9000))
        })
        .concat();
    let objects = format!("{}{objects}", without_cluster::GATEWAY);
    let _portico = Program::portico(folder.path(), &objects, &["127.0.0.1:8080"]).await?;
    let folder = folder.path();

    let valid = ["--header", "X-Token: valid", "--header", "X-Role: admin"];
    let allowed = send(folder, &valid, "http://127.0.0.1:8080/decision?item=1")?;
    ensure!(allowed.status == "200" && allowed.at_endpoint()?["x-role"] == json!(["buyer"]), "{allowed:?}");
    for (arguments, target) in [
        (&["--header", "X-Token: other"][..], "/decision?item=1"),
        (&valid, "/decision?item=2"),
        (&["--header", "X-Token: valid", "--request", "DELETE"], "/decision?item=1"),
    ] {
        let denied = send(folder, arguments, &format!("http://127.0.0.1:8080{target}"))?;
        ensure!(denied.status == "451" && denied.body.contains("not for sale"), "{target}: {denied:?}");
        ensure!(denied.header("x-reason") == Some("policy"), "{target}: {denied:?}");
    }
    for (target, status) in [("/boolean/yes", "200"), ("/boolean/no", "403"), ("/missing", "500")] {
        let decided = send(folder, &[], &format!("http://127.0.0.1:8080{target}"))?;
        ensure!(decided.status == status, "{target}: {decided:?}");
    }
    // Without the agent, requests are refused.
    drop(agent);
    let undecided = send(folder, &valid, "http://127.0.0.1:8080/decision?item=1")?;
    ensure!(undecided.status == "500" && !undecided.body.contains("x-token"), "{undecided:?}");
    Ok(())
}

#[test]
#[ignore = "only in make test-full: it builds oauth2-proxy, which takes minutes"]
fn oauth2_proxy_logs_users_in() {
    without_cluster::run("portico-oauth2-proxy", &[programs::dex, programs::oauth2_proxy], proxy_logs_in);
}

async fn proxy_logs_in() -> Result<()> {
    let (dex, proxy) = (programs::dex()?, programs::oauth2_proxy()?);
    let folder = tempfile::tempdir()?;
    let callback = "http://127.0.0.1:8080/oauth2/callback";
    let client = json!([{"id": "shop", "name": "shop", "secret": SECRET, "redirectURIs": [callback]}]);
    let mut provider = Command::new(dex);
    provider.args([DEX, "1h", &client.to_string()]);
    let _provider = Program::start(provider, &folder.path().join("dex.log"), &[DEX]).await?;
    let mut command = Command::new(proxy);
    command.args(["--provider", "oidc", "--client-id", "shop", "--client-secret", SECRET, "--email-domain", "*"]);
    command.args(["--http-address", PROXY, "--oidc-issuer-url", &format!("http://{DEX}/dex")]);
    command.args(["--cookie-secret", SECRET, "--cookie-secure=false", "--code-challenge-method", "S256"]);
    // The responses name the user, and after a login the browser returns to its page.
    command.args(["--set-xauthrequest", "--redirect-url", callback, "--whitelist-domain", "127.0.0.1:8080"]);
    command.args(["--upstream", "static://202", "--reverse-proxy"]);
    let proxy = Program::start(command, &folder.path().join("oauth2-proxy.log"), &[PROXY]).await?;
    let config = json!({
        "address": format!("http://{PROXY}/oauth2/auth"),
        "response_headers": ["x-auth-request-user", "x-auth-request-email"],
        "sign_in_url": "http://127.0.0.1:8080/oauth2/start",
    });
    let service = format!(
        "---\n{}\n",
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "oauth2-proxy", "annotations": {"portico.dev/address": "127.0.0.1"}},
            "spec": {"ports": [{"port": 4180}]},
        })
    );
    let objects = [
        without_cluster::GATEWAY,
        &plugin("login", "forward-auth", &config),
        &route("shop", "/cart", Some("login"), "echo", 9000),
        &route("oauth2-proxy", "/oauth2", None, "oauth2-proxy", 4180),
        &service,
    ];
    let _portico = Program::portico(folder.path(), &objects.concat(), &["127.0.0.1:8080"]).await?;
    let folder = folder.path();

    let page = "http://127.0.0.1:8080/cart?item=1";
    let forged = ["--header", "X-Auth-Request-User: admin", "--header", "X-Auth-Request-Email: admin@shop.example"];
    let unknown = send(folder, &forged, page)?;
    let start = "http://127.0.0.1:8080/oauth2/start?rd=";
    ensure!(unknown.status == "302" && unknown.header("location").is_some_and(|url| url.starts_with(start)));

    // As a browser: to the form of the provider, its consent, and back to the page.
    let form = send(folder, &["--location"], page)?;
    ensure!(form.url.starts_with(&format!("http://{DEX}/dex/auth/local/login")), "{form:?}");
    let user = ["--data-urlencode", "login=anna@shop.example", "--data-urlencode", "password=annas password"];
    let consent = send(folder, &["--location", user[0], user[1], user[2], user[3]], &form.url)?;
    ensure!(consent.url.starts_with(&format!("http://{DEX}/dex/approval")), "{consent:?}");
    let shown = send(folder, &["--location", "--data", "approval=approve"], &consent.url)?;
    ensure!(shown.status == "200" && shown.url == page, "{shown:?}");
    let with_session = send(folder, &forged, page)?;
    for shown in [shown, with_session] {
        let headers = shown.at_endpoint()?;
        ensure!(headers["x-auth-request-email"] == json!(["anna@shop.example"]), "{shown:?}");
        let users = headers["x-auth-request-user"].as_array().context("the endpoint gets the user")?;
        ensure!(users.len() == 1 && users[0] != "admin", "{shown:?}");
    }
    // Without the server that decides, requests are refused, also with a session.
    drop(proxy);
    let undecided = send(folder, &[], page)?;
    ensure!(undecided.status == "503", "{undecided:?}");
    Ok(())
}

fn plugin(name: &str, plugin: &str, config: &Value) -> String {
    let object = json!({
        "apiVersion": "configuration.konghq.com/v1", "kind": "KongPlugin", "metadata": {"name": name},
        "plugin": plugin, "config": config,
    });
    format!("---\n{object}\n")
}

fn route(name: &str, path: &str, plugin: Option<&str>, service: &str, port: u16) -> String {
    let annotations = plugin.map_or_else(|| json!({}), |plugin| json!({"konghq.com/plugins": plugin}));
    let object = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "parentRefs": [{"name": "web"}],
            "rules": [{
                "matches": [{"path": {"value": path}}], "backendRefs": [{"name": service, "port": port}],
            }],
        },
    });
    format!("---\n{object}\n")
}

/// What curl got in the end.
#[derive(Debug)]
struct Response {
    status: String,
    /// Where it came from, after redirects.
    url: String,
    /// Heads of all responses.
    heads: String,
    body: String,
}

impl Response {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.heads.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The headers of the request that the endpoint got.
    fn at_endpoint(&self) -> Result<Value> {
        let request: Value = serde_json::from_str(&self.body).with_context(|| format!("{self:?}"))?;
        Ok(request["headers"].clone())
    }
}

/// Sends a request with the cookies of earlier ones, which are in this folder.
fn send(folder: &Path, arguments: &[&str], url: &str) -> Result<Response> {
    let (cookies, heads) = (folder.join("cookies"), folder.join("heads"));
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "60", "--write-out", "\n%{http_code} %{url_effective}"]);
    curl.arg("--cookie").arg(&cookies).arg("--cookie-jar").arg(&cookies).arg("--dump-header").arg(&heads);
    let output = curl.args(arguments).arg(url).stdin(Stdio::null()).output().context("cannot start curl")?;
    ensure!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let (body, end) = text.rsplit_once('\n').context("curl prints the status")?;
    let (status, url) = end.split_once(' ').context("curl prints the URL")?;
    let heads = fs::read_to_string(heads)?;
    Ok(Response { status: status.to_owned(), url: url.to_owned(), heads, body: body.to_owned() })
}

/// The address of Open Policy Agent, with the plugin's default port.
const AGENT: &str = "127.0.0.1:8181";
/// The address of the provider.
const DEX: &str = "127.0.0.1:5556";
/// The address of oauth2-proxy.
const PROXY: &str = "127.0.0.1:4180";
/// That of the client, and of the cookies, which must have 32 bytes.
const SECRET: &str = "0123456789abcdef0123456789abcdef";
