//! A cluster that exists already, in place of one of our own: its API server is reached from our network as if it were
//! there, through a listener that passes bytes on. Nothing else of the machine's network is changed, and of the cluster
//! only what scenarios apply.

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
use crate::pki::write;
use crate::programs::Programs;
use crate::progress::say;

/// Names the kubeconfig of a cluster to use. No other is ever used: neither `KUBECONFIG` nor what is in the home folder.
pub const VARIABLE: &str = "PORTICO_E2E_KUBECONFIG";

/// The kubeconfig of the cluster that is to be used in place of one of our own, if there is one.
pub fn kubeconfig() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Why a cluster cannot stand in, although nothing is wrong with it.
#[derive(Debug)]
pub struct Unfit(pub String);

impl fmt::Display for Unfit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Error for Unfit {}

/// How such a cluster is logged in to and where it is: a kubeconfig that is whole in itself.
#[derive(Clone, Debug)]
pub struct Borrowed {
    config: Value,
    /// Host and port of its API server.
    server: String,
}

/// Passes connections on until it is dropped.
#[derive(Debug)]
pub struct Passage {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Borrowed {
    /// Reads the kubeconfig, in its current context. To be called in the machine's own network.
    pub fn read(path: &Path, programs: &Programs) -> Result<Borrowed> {
        ensure!(path.is_file(), "{VARIABLE}: there is no file {}", path.display());
        let mut kubectl = Command::new(programs.kubectl());
        kubectl.args(["config", "view", "--raw", "--flatten", "--minify", "--output=json"]).env("KUBECONFIG", path);
        let output = kubectl.env("KUBECTL_KUBERC", "false").output().context("cannot start kubectl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{VARIABLE}: cannot read {}: {}", path.display(), said.trim());
        let config: Value = serde_json::from_slice(&output.stdout).context("kubectl printed no JSON")?;
        Borrowed::of(config).with_context(|| format!("{VARIABLE}: {}", path.display()))
    }

    fn of(mut config: Value) -> Result<Borrowed> {
        let cluster = &mut config["clusters"][0]["cluster"];
        let url = cluster["server"].as_str().context("its current context names no server")?.to_owned();
        let uri: http::Uri = url.parse().with_context(|| format!("server: `{url}` is no URL"))?;
        ensure!(uri.scheme_str() == Some("https"), "server: `{url}` does not begin with https://");
        ensure!(uri.path() == "/" || uri.path().is_empty(), "server: `{url}` has a path, which is not passed on");
        ensure!(cluster["proxy-url"].is_null(), "proxy-url: a proxy is not gone through");
        let host = uri.host().with_context(|| format!("server: `{url}` has no host"))?.to_owned();
        let server = format!("{host}:{}", uri.port_u16().unwrap_or(443));
        if cluster["tls-server-name"].is_null() {
            // Its certificate is still for where it really is.
            cluster["tls-server-name"] = json!(host.trim_start_matches('[').trim_end_matches(']'));
        }
        cluster["server"] = json!(format!("https://{API_SERVER}"));
        let user = &config["users"][0]["user"];
        if !user["exec"].is_null() || !user["auth-provider"].is_null() {
            bail!("users[0].user: programs that log in cannot be run; name a client certificate or a token");
        }
        Ok(Borrowed { config, server })
    }

    /// The server's host and port, for people.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Writes a kubeconfig for programs in our network, which logs in with this token, or as the borrowed one does.
    pub fn write(&self, path: &Path, token: Option<&str>) -> Result<()> {
        let mut config = self.config.clone();
        if let Some(token) = token {
            config["users"][0]["user"] = json!({ "token": token });
        }
        // JSON is YAML.
        write(path, &format!("{config:#}\n"))
    }

    /// Makes the API server reachable in this network.
    pub fn open(&self, netns: &Netns) -> Result<Passage> {
        let target = self.server.clone();
        let mut addresses = target.to_socket_addrs().with_context(|| format!("cannot resolve {target}"))?;
        ensure!(addresses.next().is_some(), "{target} has no address");
        let bound = async || TcpListener::bind(API_SERVER).context("the API server's port is taken in our network");
        let listener = netns.run(bound)?;
        listener.set_nonblocking(true)?;
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // A socket stays in the network in which it was opened: those of this thread are in the machine's own.
        let thread = std::thread::spawn(move || runtime.block_on(pass_on(listener, target, ended)));
        Ok(Passage { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            // It may have ended by itself.
            _ = end.send(());
        }
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            say(format_args!("The passage to the API server has failed"));
        }
    }
}

async fn pass_on(listener: TcpListener, target: String, mut ended: oneshot::Receiver<()>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return say(format_args!("No passage to the API server: {error}")),
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut ended => return,
            accepted = listener.accept() => {
                while connections.try_join_next().is_some() {}
                let (Ok((mut near, _)), target) = (accepted, target.clone()) else { continue };
                connections.spawn(async move {
                    // How a connection ends is told to both ends by its end.
                    if let Ok(mut far) = TcpStream::connect(target).await {
                        drop(copy_bidirectional(&mut near, &mut far).await);
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
    fn the_server_is_where_it_was_by_name_and_in_our_network_by_address() {
        for (server, host, expected) in [
            ("https://192.0.2.1:6443", "192.0.2.1", "192.0.2.1:6443"),
            ("https://api.example", "api.example", "api.example:443"),
            ("https://[2001:db8::1]:6443/", "2001:db8::1", "[2001:db8::1]:6443"),
        ] {
            let borrowed = Borrowed::of(config(json!({ "server": server }), json!({ "token": "t" }))).unwrap();
            assert_eq!(borrowed.server(), expected);
            let cluster = &borrowed.config["clusters"][0]["cluster"];
            assert_eq!(cluster["tls-server-name"], host);
            assert_eq!(cluster["server"], format!("https://{API_SERVER}"));
        }
        let named = json!({ "server": "https://192.0.2.1:6443", "tls-server-name": "kubernetes" });
        let borrowed = Borrowed::of(config(named, json!({}))).unwrap();
        assert_eq!(borrowed.config["clusters"][0]["cluster"]["tls-server-name"], "kubernetes");
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_field() {
        let good = "https://192.0.2.1:6443";
        for (cluster, user, said) in [
            (json!({}), json!({}), "no server"),
            (json!({ "server": "http://192.0.2.1" }), json!({}), "https://"),
            (json!({ "server": "https://192.0.2.1/k8s/clusters/c" }), json!({}), "has a path"),
            (json!({ "server": good, "proxy-url": "http://192.0.2.2" }), json!({}), "proxy-url"),
            (json!({ "server": good }), json!({ "exec": { "command": "login" } }), "users[0].user"),
        ] {
            let error = Borrowed::of(config(cluster, user)).unwrap_err().to_string();
            assert!(error.contains(said), "{said}: {error}");
        }
    }
}
