//! Uses an existing cluster instead of starting one: a TCP proxy makes its API server reachable from the test's network
//! namespace. Nothing else changes in the machine's network; in the cluster, only the objects that scenarios apply
//! change.

use std::error::Error;
use std::fmt;
use std::net::{TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::cluster::API_SERVER;
use crate::netns::Netns;
use crate::pki::write_private_file;
use crate::programs::Programs;
use crate::progress::report;

/// The environment variable with the path of the existing cluster's kubeconfig. No other kubeconfig is used: neither
/// `KUBECONFIG` nor ~/.kube/config.
pub const KUBECONFIG_VARIABLE: &str = "PORTICO_E2E_KUBECONFIG";

/// The kubeconfig of the existing cluster, if one is to be used.
pub fn kubeconfig() -> Option<PathBuf> {
    std::env::var_os(KUBECONFIG_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Why an existing cluster is not suitable for a scenario.
#[derive(Debug)]
pub struct UnsuitableCluster(pub String);

impl fmt::Display for UnsuitableCluster {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Error for UnsuitableCluster {}

/// Address and credentials of an existing cluster: a self-contained kubeconfig.
#[derive(Clone, Debug)]
pub struct ExistingCluster {
    config: Value,
    /// Host and port of the API server.
    server: String,
}

/// Forwards connections to the API server until dropped.
#[derive(Debug)]
pub struct ApiServerForwarder {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ExistingCluster {
    /// Reads the current context of the kubeconfig. Must be called in the machine's network namespace.
    pub fn read(path: &Path, programs: &Programs) -> Result<ExistingCluster> {
        ensure!(path.is_file(), "{KUBECONFIG_VARIABLE}: file {} does not exist", path.display());
        let mut kubectl = Command::new(programs.kubectl());
        kubectl.args(["config", "view", "--raw", "--flatten", "--minify", "--output=json"]).env("KUBECONFIG", path);
        let output = kubectl.env("KUBECTL_KUBERC", "false").output().context("cannot start kubectl")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{KUBECONFIG_VARIABLE}: cannot read {}: {}", path.display(), stderr.trim());
        let config: Value = serde_json::from_slice(&output.stdout).context("the output of kubectl is not JSON")?;
        ExistingCluster::parse(config).with_context(|| format!("{KUBECONFIG_VARIABLE}: {}", path.display()))
    }

    fn parse(mut config: Value) -> Result<ExistingCluster> {
        let cluster = &mut config["clusters"][0]["cluster"];
        let url = cluster["server"].as_str().context("server: missing in the current context")?.to_owned();
        let uri: http::Uri = url.parse().with_context(|| format!("server: `{url}` is not a URL"))?;
        ensure!(uri.scheme_str() == Some("https"), "server: `{url}` must start with https://");
        ensure!(uri.path() == "/" || uri.path().is_empty(), "server: `{url}` has a path, which is not supported");
        ensure!(cluster["proxy-url"].is_null(), "proxy-url: proxies are not supported");
        let host = uri.host().with_context(|| format!("server: `{url}` has no host"))?.to_owned();
        let server = format!("{host}:{}", uri.port_u16().unwrap_or(443));
        if cluster["tls-server-name"].is_null() {
            // The certificate is still for the original host.
            cluster["tls-server-name"] = json!(host.trim_start_matches('[').trim_end_matches(']'));
        }
        cluster["server"] = json!(format!("https://{API_SERVER}"));
        let user = &config["users"][0]["user"];
        if !user["exec"].is_null() || !user["auth-provider"].is_null() {
            bail!("users[0].user: exec and auth-provider are not supported; use a client certificate or a token");
        }
        Ok(ExistingCluster { config, server })
    }

    /// Host and port of the API server, for messages.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Writes a kubeconfig for programs in the test's network namespace, with this token or the original credentials.
    pub fn write(&self, path: &Path, token: Option<&str>) -> Result<()> {
        let mut config = self.config.clone();
        if let Some(token) = token {
            config["users"][0]["user"] = json!({ "token": token });
        }
        // JSON is YAML.
        write_private_file(path, &format!("{config:#}\n"))
    }

    /// Makes the API server reachable at [`API_SERVER`] in this network namespace.
    pub fn forward_api_server(&self, netns: &Netns) -> Result<ApiServerForwarder> {
        let target = self.server.clone();
        let mut addresses = target.to_socket_addrs().with_context(|| format!("cannot resolve {target}"))?;
        ensure!(addresses.next().is_some(), "{target} resolves to no address");
        let bind =
            async || TcpListener::bind(API_SERVER).context("the API server's port is in use in the network namespace");
        let listener = netns.run(bind)?;
        listener.set_nonblocking(true)?;
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // A socket stays in the namespace in which it was opened: this thread opens its sockets in the machine's
        // namespace.
        let thread = std::thread::spawn(move || runtime.block_on(forward_connections(listener, target, stopped)));
        Ok(ApiServerForwarder { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for ApiServerForwarder {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended already.
            _ = stop.send(());
        }
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            report(format_args!("The proxy to the API server panicked"));
        }
    }
}

async fn forward_connections(listener: TcpListener, target: String, mut stopped: oneshot::Receiver<()>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return report(format_args!("Cannot forward to the API server: {error}")),
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            accepted = listener.accept() => {
                while connections.try_join_next().is_some() {}
                let (Ok((mut client, _)), target) = (accepted, target.clone()) else { continue };
                connections.spawn(async move {
                    // Each side sees when the other closes the connection. If the API server is unreachable, the
                    // client's connection is closed.
                    if let Ok(mut server) = TcpStream::connect(target).await {
                        drop(copy_bidirectional(&mut client, &mut server).await);
                    }
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(cluster: Value, user: Value) -> Value {
        json!({ "clusters": [{ "name": "a", "cluster": cluster }], "users": [{ "name": "a", "user": user }] })
    }

    #[test]
    fn server_address_is_replaced_and_its_name_kept() {
        for (server, host, expected) in [
            ("https://192.0.2.1:6443", "192.0.2.1", "192.0.2.1:6443"),
            ("https://api.example", "api.example", "api.example:443"),
            ("https://[2001:db8::1]:6443/", "2001:db8::1", "[2001:db8::1]:6443"),
        ] {
            let existing =
                ExistingCluster::parse(config(json!({ "server": server }), json!({ "token": "t" }))).unwrap();
            assert_eq!(existing.server(), expected);
            let cluster = &existing.config["clusters"][0]["cluster"];
            assert_eq!(cluster["tls-server-name"], host);
            assert_eq!(cluster["server"], format!("https://{API_SERVER}"));
        }
        let with_tls_server_name = json!({ "server": "https://192.0.2.1:6443", "tls-server-name": "kubernetes" });
        let existing = ExistingCluster::parse(config(with_tls_server_name, json!({}))).unwrap();
        assert_eq!(existing.config["clusters"][0]["cluster"]["tls-server-name"], "kubernetes");
    }

    #[test]
    fn unsupported_kubeconfigs_are_rejected_with_their_field() {
        let url = "https://192.0.2.1:6443";
        for (cluster, user, expected) in [
            (json!({}), json!({}), "server: missing"),
            (json!({ "server": "http://192.0.2.1" }), json!({}), "https://"),
            (json!({ "server": "https://192.0.2.1/k8s/clusters/c" }), json!({}), "has a path"),
            (json!({ "server": url, "proxy-url": "http://192.0.2.2" }), json!({}), "proxy-url"),
            (json!({ "server": url }), json!({ "exec": { "command": "login" } }), "users[0].user"),
        ] {
            let error = ExistingCluster::parse(config(cluster, user)).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
