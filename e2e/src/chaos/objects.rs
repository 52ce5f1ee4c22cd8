//! The objects of the scenario: Services and their endpoints, a Gateway, routes, a plugin that counts in Redis, and
//! what disruptions break and fix.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::Api;
use kube::api::{ApiResource, DynamicObject};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::dns_server;
use super::endpoints::Endpoint;
use super::redis_server;
use crate::cluster::{ADDRESS, Cluster};
use crate::wait::until;

/// The name of the Gateway and the Service of most routes.
pub(super) const NAME: &str = "chaos";
/// The host of the polite client.
pub(super) const CLIENT_HOST: &str = "polite.chaos.example";
/// The host of the routes that disruptions break, and of the certificate that they break.
pub(super) const BROKEN_HOST: &str = "broken.chaos.example";
/// The response header with the name of the route.
pub(super) const ROUTE: &str = "x-route";
/// The response header with the number of the last edit of an edited route.
pub(super) const EDIT: &str = "x-edit";
/// Number of routes that are edited all the time.
pub(super) const EDITED_ROUTES: usize = 10;
/// The route that is edited to see whether edits are served.
pub(super) const MARKED_ROUTE: &str = "marked";
/// The upstream of most routes, as in metrics.
pub(super) const UPSTREAM: &str = "default/chaos:80";
/// How long a disruption may take to have its effect, and the effect to end, on a busy machine.
pub(super) const EFFECT_TIMEOUT: Duration = Duration::from_secs(90);

const GATEWAY_API: &str = "gateway.networking.k8s.io";

pub(super) fn routes(cluster: &Cluster) -> Api<DynamicObject> {
    api(cluster, "HTTPRoute", "httproutes")
}

pub(super) fn gateways(cluster: &Cluster) -> Api<DynamicObject> {
    api(cluster, "Gateway", "gateways")
}

fn api(cluster: &Cluster, kind: &str, plural: &str) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: GATEWAY_API.to_owned(),
        version: "v1".to_owned(),
        api_version: format!("{GATEWAY_API}/v1"),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    };
    Api::namespaced_with(cluster.client(), "default", &resource)
}

pub(super) async fn apply(cluster: &Cluster, objects: &[Value]) -> Result<()> {
    cluster.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string()).await.map(drop)
}

/// Creates everything except routes that disruptions break, and returns the address of the Gateway.
pub(super) async fn create(
    cluster: &Cluster,
    endpoints: &[Endpoint],
    named: &Endpoint,
    flooded: SocketAddr,
    authority: &Authority,
) -> Result<IpAddr> {
    let addresses: Vec<SocketAddr> = endpoints.iter().map(|endpoint| endpoint.address).collect();
    let mut objects = service(NAME, &addresses);
    objects.extend(service("flooded", &[flooded]));
    objects.push(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "named" },
        "spec": {
            "type": "ExternalName", "externalName": dns_server::NAME,
            "ports": [{ "port": 80, "targetPort": named.address.port() }],
        },
    }));
    objects.push(json!({
        "apiVersion": "configuration.konghq.com/v1", "kind": "KongPlugin", "metadata": { "name": "limits" },
        "plugin": "rate-limiting",
        "config": {
            "year": 1_000_000_000, "policy": "redis",
            "redis": { "host": ADDRESS, "port": redis_server::PORT, "timeout": 300 },
        },
    }));
    objects.push(authority.secret("client-certificate", CLIENT_HOST)?);
    objects.push(authority.secret("broken-certificate", BROKEN_HOST)?);
    objects.push(gateway());
    for name in ["steady", "slow", MARKED_ROUTE] {
        objects.push(route(name, CLIENT_HOST, NAME));
    }
    for number in 0..EDITED_ROUTES {
        objects.push(route(&format!("edited-{number}"), CLIENT_HOST, NAME));
    }
    let mut limited = route("limited", CLIENT_HOST, NAME);
    limited["metadata"]["annotations"] = json!({ "konghq.com/plugins": "limits" });
    objects.extend([limited, route("named", CLIENT_HOST, "named")]);
    let mut flooded = route("flooded", portico_load::FLOODED_HOST, "flooded");
    flooded["spec"]["rules"][0]["matches"][0]["path"]["value"] = json!("/");
    objects.push(flooded);
    apply(cluster, &objects).await?;
    let api = gateways(cluster);
    until("the Gateway has an address", EFFECT_TIMEOUT, async || {
        let gateway = api.get(NAME).await?;
        let address = gateway.data["status"]["addresses"][0]["value"].as_str().context("no address")?;
        address.parse().context("not an IP address")
    })
    .await
}

fn gateway() -> Value {
    let https = |name: &str, host: &str, secret: &str| {
        json!({
            "name": name, "port": 443, "protocol": "HTTPS", "hostname": host,
            "tls": { "certificateRefs": [{ "name": secret }] },
        })
    };
    let listeners = [
        json!({ "name": "http", "port": 80, "protocol": "HTTP" }),
        https("https", CLIENT_HOST, "client-certificate"),
        https("broken", BROKEN_HOST, "broken-certificate"),
    ];
    json!({
        "apiVersion": format!("{GATEWAY_API}/v1"), "kind": "Gateway", "metadata": { "name": NAME },
        "spec": { "gatewayClassName": "portico", "listeners": listeners },
    })
}

/// A route for the path with its name. Its responses contain its name, and the number of its last edit.
pub(super) fn route(name: &str, host: &str, service: &str) -> Value {
    let headers = [json!({ "name": ROUTE, "value": name }), json!({ "name": EDIT, "value": "0" })];
    let rule = json!({
        "matches": [{ "path": { "type": "PathPrefix", "value": format!("/{name}") } }],
        "filters": [{ "type": "ResponseHeaderModifier", "responseHeaderModifier": { "set": headers } }],
        "backendRefs": [{ "name": service, "port": 80 }],
        "retry": { "attempts": 3, "backoff": "25ms" },
    });
    json!({
        "apiVersion": format!("{GATEWAY_API}/v1"), "kind": "HTTPRoute", "metadata": { "name": name },
        "spec": { "parentRefs": [{ "name": NAME }], "hostnames": [host], "rules": [rule] },
    })
}

/// The path in a route of the number of its last edit.
pub(super) const EDIT_POINTER: &str = "/spec/rules/0/filters/0/responseHeaderModifier/set/1/value";

/// A Service without a selector, and its EndpointSlices: one for each endpoint, since their ports differ.
fn service(name: &str, endpoints: &[SocketAddr]) -> Vec<Value> {
    let port = json!({ "name": "http", "port": 80 });
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": { "ports": [port] },
    })];
    objects.extend(endpoints.iter().enumerate().map(|(number, address)| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": format!("{name}-{number}"), "labels": { "kubernetes.io/service-name": name } },
            "endpoints": [{ "addresses": [address.ip()], "conditions": { "ready": true } }],
            "ports": [{ "name": "http", "port": address.port(), "protocol": "TCP" }],
        })
    }));
    objects
}

/// The authority that the polite client trusts.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn create() -> Result<Authority> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?);
        Ok(Authority(issuer.context("cannot create the authority of the scenario")?))
    }

    /// A Secret with a new certificate for this host.
    pub(super) fn secret(&self, name: &str, host: &str) -> Result<Value> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([host.to_owned()])?.signed_by(&key, &self.0)?;
        Ok(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": { "name": name },
            "stringData": { "tls.crt": certificate.pem(), "tls.key": key.serialize_pem() },
        }))
    }

    pub(super) fn client_config(&self) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone())?;
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = config.with_safe_default_protocol_versions().context("cannot set up TLS for the client")?;
        Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
    }
}
