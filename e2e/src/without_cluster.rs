//! Tests in a network namespace of their own without a control plane: programs on the loopback address, where all ports
//! are free.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpStream;

use crate::netns::Netns;
use crate::portico::program;
use crate::process::last_lines;
use crate::scenario;
use crate::wait::until;

/// Until a program listens, on a busy machine. Usually it takes a fraction of a second.
pub const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A Gateway `web` at port 8080.
pub const GATEWAY: &str = "---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: portico}
spec: {controllerName: portico.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: portico
  listeners: [{name: http, protocol: HTTP, port: 8080}]
";

/// The Service `echo`, which [`Program::portico`] serves.
pub const ECHO_SERVICE: &str = "---
apiVersion: v1
kind: Service
metadata: {name: echo, annotations: {portico.dev/address: 127.0.0.1}}
spec: {ports: [{port: 9000}]}
";

/// Runs a test in a new network namespace; if it fails, the caller fails with the complete error. Programs of the test
/// must have ended when it returns.
///
/// The programs that the test asks [`programs`](crate::programs) for are built before, because a build needs a network.
pub fn run(name: &str, programs: &[fn() -> Result<PathBuf>], test: impl AsyncFnOnce() -> Result<()> + Send) {
    if !scenario::is_enabled() {
        return;
    }
    let netns = Netns::named(scenario::checkout_name(name));
    let run = || -> Result<()> {
        // Removes what an interrupted test has left.
        netns.delete()?;
        for program in programs {
            program()?;
        }
        netns.create()?;
        let outcome = netns.run(async || test().await);
        netns.delete()?;
        outcome
    };
    if let Err(error) = run() {
        panic!("{error:#}\nWithout root, skip these tests with E2E=off");
    }
}

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Program(Child);

impl Program {
    /// Starts Portico with these objects and the Service `echo`, and waits until it listens on these addresses.
    pub async fn portico(folder: &Path, objects: &str, addresses: &[&str]) -> Result<Program> {
        let arguments = ["--echo", "127.0.0.1:9000", "--access-log", "off"];
        Program::portico_named("portico", folder, &format!("{objects}{ECHO_SERVICE}"), &arguments, addresses).await
    }

    /// Starts one of several Portico processes of a test with these objects and arguments. Its files in the folder have
    /// its name.
    pub async fn portico_named(
        name: &str,
        folder: &Path,
        objects: &str,
        arguments: &[&str],
        addresses: &[&str],
    ) -> Result<Program> {
        let portico = Program::portico_command(name, folder, objects, arguments)?;
        Program::start(portico, &folder.join(format!("{name}.log")), addresses).await
    }

    /// The same before it is started, for other changes of its environment.
    pub fn portico_command(name: &str, folder: &Path, objects: &str, arguments: &[&str]) -> Result<Command> {
        let manifests = folder.join(format!("{name}.yaml"));
        fs::write(&manifests, objects)?;
        let mut portico = Command::new(program()?);
        portico.arg("run").args(arguments).arg("--manifests").arg(manifests);
        Ok(portico)
    }

    /// Starts a program that writes its log to standard error, and waits until it listens on these addresses.
    pub async fn start(mut command: Command, log: &Path, addresses: &[&str]) -> Result<Program> {
        let file = File::create(log).with_context(|| format!("cannot write the log {}", log.display()))?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn();
        let program = Program(child.with_context(|| format!("cannot start {command:?}"))?);
        for address in addresses {
            let listens = async || Ok(TcpStream::connect(address).await.map(drop)?);
            let listening = until(&format!("a program listens on {address}"), START_TIMEOUT, listens).await;
            listening.with_context(|| format!("its log ends with:\n{}", last_lines(log, 15)))?;
        }
        Ok(program)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // These fail only if the program has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
