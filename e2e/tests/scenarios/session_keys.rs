//! The Secret `portico-keys`: the leader creates it with the permissions of the manifests, and two replicas open the
//! cookies of each other's sessions.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use portico_e2e::cluster::Cluster;
use portico_e2e::portico::{NAMESPACE, Portico};
use serde_json::json;

use crate::scenarios::backend::Backend;
use crate::scenarios::client::Target;
use crate::scenarios::objects::{apply, gateway, prefix, route, until, wait_until_programmed};
use crate::scenarios::plugins::{consumer, plugin, secret};

const HOST: &str = "sessions.example";
/// The bytes of a key of AES-256-GCM-SIV.
const KEY_BYTES: usize = 32;

/// `one`: the only replica, which is replaced by another one and comes back.
pub(crate) async fn replicas_open_each_others_sessions(cluster: &Cluster, one: &mut Portico) -> Result<()> {
    let _backend = Backend::start(cluster, "sessions").await?;
    let consumers = [
        secret("eve-key", "key-auth", "key", "eve-1"),
        secret("eve-group", "acl", "group", "readers"),
        consumer("eve", &["eve-key", "eve-group"]),
        consumer("guest", &[]),
        plugin("sessions", "session", json!({ "cookie_secure": false })),
        plugin("key-or-session", "key-auth", json!({ "anonymous": "guest" })),
        plugin("readers", "acl", json!({ "allow": ["readers"] })),
    ];
    let mut shop = route("sessions", "sessions", HOST, prefix("/"), "sessions");
    shop["metadata"]["annotations"] = json!({ "konghq.com/plugins": "sessions, key-or-session, readers" });
    apply(cluster, &consumers).await?;
    apply(cluster, &[gateway("sessions"), shop]).await?;
    let target = Target::new(wait_until_programmed(cluster, "sessions").await?, HOST, "/");
    let version = version_of_keys(cluster).await?;
    let of_one = log_in(&target).await.context("a login at the first replica")?;

    let without_ingresses = ["--ingress-http-listen", "off", "--ingress-https-listen", "off"];
    let mut two = Portico::start(cluster, "two", &without_ingresses).await?;
    one.stop().await?;
    until("the second replica opens the session of the first one", async || of_one.expect(200, "sessions").await)
        .await?;
    let of_two = log_in(&target).await.context("a login at the second replica")?;
    one.restart().await?;
    two.stop().await?;
    for session in [&of_two, &of_one] {
        until("the first replica opens the sessions of both", async || session.expect(200, "sessions").await).await?;
    }
    let forged = Target { cookie: of_two.cookie.map(|cookie| cookie.replace("=1.", "=1.A")), ..target.clone() };
    let response = forged.request().await?;
    ensure!(response.status != 200, "a forged session is accepted: {response:?}");
    ensure!(version_of_keys(cluster).await? == version, "a replica has written the Secret again");
    cluster.kubectl(&["delete", "httproute,gateway,service,endpointslice", "sessions"]).await?;
    cluster.kubectl(&["delete", "kongplugin", "sessions", "key-or-session", "readers"]).await?;
    cluster.kubectl(&["delete", "kongconsumer", "eve", "guest"]).await?;
    cluster.kubectl(&["delete", "secret", "eve-key", "eve-group"]).await.map(drop)
}

/// The version of the Secret with the keys, which has two different ones.
async fn version_of_keys(cluster: &Cluster) -> Result<Option<String>> {
    let secrets: Api<Secret> = Api::namespaced(cluster.client(), NAMESPACE);
    let keys = until("the Secret with the keys exists", async || Ok(secrets.get("portico-keys").await?)).await?;
    let data = keys.data.unwrap_or_default();
    let names: Vec<_> = data.iter().map(|(name, key)| (name.as_str(), key.0.len())).collect();
    ensure!(names == [("current", KEY_BYTES), ("former", KEY_BYTES)], "{names:?}");
    ensure!(data["current"].0 != data["former"].0, "both keys are the same");
    Ok(keys.metadata.resource_version)
}

/// Logs in with a key. The result has the cookie of the session instead.
async fn log_in(target: &Target) -> Result<Target> {
    let with_key = Target { key: Some("eve-1".to_owned()), ..target.clone() };
    let response = until("a login is accepted", async || {
        let response = with_key.request().await?;
        ensure!(response.status == 200, "{response:?}");
        Ok(response)
    })
    .await?;
    let cookie = response.cookie.context("the response has no session")?;
    ensure!(cookie.starts_with("session=1."), "{cookie} has another form");
    let session = Target { cookie: Some(cookie), ..target.clone() };
    session.expect(200, "sessions").await?;
    let status = target.request().await?.status;
    ensure!(status != 200, "a request without a session gets {status}");
    Ok(session)
}
