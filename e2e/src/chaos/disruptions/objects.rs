//! Certificates, plugins and routes are broken and fixed. Only requests that need them are rejected.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::chaos::disruption::{Disruption, Step};
use crate::chaos::objects::{BROKEN_HOST, CLIENT_HOST, EFFECT_TIMEOUT, NAME, apply, gateways, route, routes};
use crate::chaos::site::ChaosSite;
use crate::wait::until;

/// The Secret of a listener contains no certificate. That of the polite client is replaced at the same time.
pub(in crate::chaos) struct CertificateBroken;

impl Disruption for CertificateBroken {
    fn name(&self) -> String {
        "certificate broken".to_owned()
    }

    fn begin<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            let mut broken = site.authority.secret("broken-certificate", BROKEN_HOST)?;
            broken["stringData"]["tls.crt"] = json!("not a certificate");
            apply(site.cluster, &[broken, site.authority.secret("client-certificate", CLIENT_HOST)?]).await?;
            until_listener_has(site, "False").await
        })
    }

    fn end<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            apply(site.cluster, &[site.authority.secret("broken-certificate", BROKEN_HOST)?]).await?;
            until_listener_has(site, "True").await
        })
    }
}

/// Waits until the condition `ResolvedRefs` of the listener with the broken certificate has this status.
async fn until_listener_has(site: &ChaosSite<'_>, status: &str) -> Result<()> {
    let api = gateways(site.cluster);
    until(&format!("the listener has ResolvedRefs={status}"), EFFECT_TIMEOUT, async || {
        let gateway = api.get(NAME).await?;
        let listeners = gateway.data["status"]["listeners"].as_array().context("the Gateway has no listeners")?;
        let listener = listeners.iter().find(|listener| listener["name"] == "broken").context("no status")?;
        ensure_condition(&listener["conditions"], "ResolvedRefs", status)
    })
    .await
}

/// A plugin that protects a route gets an unknown field: its route rejects all requests until the field is removed.
pub(in crate::chaos) struct PluginBroken;

impl Disruption for PluginBroken {
    fn name(&self) -> String {
        "plugin broken".to_owned()
    }

    fn begin<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            let mut guarded = route("guarded", BROKEN_HOST, NAME);
            guarded["metadata"]["annotations"] = json!({ "konghq.com/plugins": "keys" });
            apply(site.cluster, &[key_auth(json!({ "key_name": ["apikey"] })), guarded]).await?;
            site.until_status_is(BROKEN_HOST, "/guarded", 503).await
        })
    }

    fn end<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            apply(site.cluster, &[key_auth(json!({ "key_names": ["apikey"] }))]).await?;
            site.until_status_is(BROKEN_HOST, "/guarded", 401).await
        })
    }
}

fn key_auth(config: Value) -> Value {
    json!({
        "apiVersion": "configuration.konghq.com/v1", "kind": "KongPlugin", "metadata": { "name": "keys" },
        "plugin": "key-auth", "config": config,
    })
}

/// A route refers to a Service that does not exist.
pub(in crate::chaos) struct RouteBroken;

impl Disruption for RouteBroken {
    fn name(&self) -> String {
        "route broken".to_owned()
    }

    fn begin<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            apply(site.cluster, &[route("broken", BROKEN_HOST, "missing")]).await?;
            site.until_status_is(BROKEN_HOST, "/broken", 500).await?;
            until_route_has(site, "False").await
        })
    }

    fn end<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            apply(site.cluster, &[route("broken", BROKEN_HOST, NAME)]).await?;
            site.until_status_is(BROKEN_HOST, "/broken", 200).await?;
            until_route_has(site, "True").await
        })
    }
}

/// Waits until the condition `ResolvedRefs` of the route has this status.
async fn until_route_has(site: &ChaosSite<'_>, status: &str) -> Result<()> {
    let api = routes(site.cluster);
    until(&format!("the route has ResolvedRefs={status}"), EFFECT_TIMEOUT, async || {
        let route = api.get("broken").await?;
        ensure_condition(&route.data["status"]["parents"][0]["conditions"], "ResolvedRefs", status)
    })
    .await
}

fn ensure_condition(conditions: &Value, condition_type: &str, status: &str) -> Result<()> {
    let found = conditions.as_array().into_iter().flatten().find(|condition| condition["type"] == condition_type);
    let found = found.with_context(|| format!("no condition {condition_type} in {conditions}"))?;
    ensure!(found["status"] == status, "{found}");
    Ok(())
}
