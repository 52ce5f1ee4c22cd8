//! A declarative file of Kong, converted and applied to the API server, gets the same responses as the file itself.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use portico_e2e::cluster::{ADDRESS, Cluster};
use portico_e2e::portico::program;
use portico_e2e::without_cluster::Program;
use serde_json::Value;

use crate::scenarios::backend::Backend;
use crate::scenarios::client::Target;
use crate::scenarios::objects::until;

/// Where Portico serves the Ingresses of the cluster in this scenario.
pub(crate) const INGRESS_ADDRESS: &str = "198.18.255.1:8000";
const FILE_ADDRESS: &str = "198.18.255.1:8010";

const FILE: &str = r#"_format_version: "3.0"
services:
- name: shop
  url: http://BACKEND/base
  routes:
  - {name: stripped, paths: [/strip], strip_path: true}
  - {name: kept, paths: [/keep], strip_path: false}
  - {name: expression, paths: ["~/numbers/\\d+$"], strip_path: false}
  - {name: by-host, hosts: [files.example], paths: [/keep], strip_path: false, plugins: [{name: request-termination, config: {status_code: 418, message: by host}}]}
  - name: guarded
    paths: [/guarded]
    plugins:
    - {name: key-auth}
    - {name: acl, config: {allow: [staff]}}
- name: balanced
  host: pool
  routes: [{name: balanced, paths: [/balanced]}]
upstreams:
- {name: pool, targets: [{target: "BACKEND", weight: 10}, {target: "BACKEND", weight: 0}]}
consumers:
- {username: ann, keyauth_credentials: [{key: of-ann}], acls: [{group: staff}]}
- {username: bob, keyauth_credentials: [{key: of-bob}]}
- username: eve
  keyauth_credentials: [{key: of-eve}]
  acls: [{group: staff}]
  plugins: [{name: request-termination, config: {status_code: 403, message: not eve}}]
"#;

const REQUESTS: [(&str, &str, Option<&str>); 11] = [
    ("a.example", "/strip/x", None),
    ("a.example", "/keep/x", None),
    ("a.example", "/numbers/12", None),
    ("a.example", "/numbers/x", None),
    ("files.example", "/keep/x", None),
    ("a.example", "/balanced/x", None),
    ("a.example", "/guarded", None),
    ("a.example", "/guarded", Some("of-ann")),
    ("a.example", "/guarded", Some("of-bob")),
    ("a.example", "/guarded", Some("of-eve")),
    ("a.example", "/none", None),
];

/// Needs a Portico that serves Ingresses at [`INGRESS_ADDRESS`], and the definitions of Kong's kinds.
pub(crate) async fn converted_file_gets_the_same_responses(cluster: &Cluster) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let backend = Backend::listen("files", SocketAddr::from((ADDRESS, 0))).await?;
    let file = folder.path().join("kong.yml");
    std::fs::write(&file, FILE.replace("BACKEND", &backend.address().to_string()))?;
    let mut from_file = Command::new(program()?);
    from_file.args(["run", "--access-log", "off", "--ingress-https-listen", "off", "--status-listen", "off"]);
    from_file.args(["--admin-listen", "off", "--ingress-http-listen", FILE_ADDRESS, "--kong-config"]).arg(&file);
    let _from_file = Program::start(from_file, &folder.path().join("file.log"), &[FILE_ADDRESS]).await?;

    let converted = Command::new(program()?).args(["convert", "kong"]).arg(&file).output()?;
    ensure!(converted.status.success(), "{}", String::from_utf8_lossy(&converted.stderr));
    let manifests = String::from_utf8(converted.stdout)?;
    cluster.apply(&manifests).await?;
    let expected = responses(FILE_ADDRESS).await?;
    let statuses: Vec<u16> = expected.iter().map(|(status, _)| *status).collect();
    ensure!(statuses == [200, 200, 200, 404, 418, 200, 401, 200, 403, 403, 404], "{expected:?}");
    until("the converted file is served like the file", async || {
        let found = responses(INGRESS_ADDRESS).await?;
        ensure!(found == expected, "{found:?} instead of {expected:?}");
        Ok(())
    })
    .await?;
    let objects = folder.path().join("manifests.yaml");
    std::fs::write(&objects, manifests)?;
    let objects = objects.to_str().context("the path is UTF-8")?;
    cluster.kubectl(&["delete", "-f", objects]).await.map(drop)
}

/// The status of each response, and its body or the message in it.
async fn responses(address: &str) -> Result<Vec<(u16, String)>> {
    let mut responses = Vec::new();
    for (host, path, key) in REQUESTS {
        let mut target = Target::new(address.parse()?, host, path);
        target.key = key.map(str::to_owned);
        let response = target.request().await?;
        let message = serde_json::from_str::<Value>(&response.body).ok();
        let message = message.and_then(|body| body["message"].as_str().map(str::to_owned));
        responses.push((response.status, message.unwrap_or(response.body)));
    }
    Ok(responses)
}
