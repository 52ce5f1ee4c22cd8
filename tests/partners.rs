//! Plugins and vaults with real servers and clients of others: OpenBao, an emulator of AWS, a SOAP server, and a client
//! of gRPC-Web. Their packages are installed the first time.

mod aws;
mod grpc_web;
mod openbao;
mod soap;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use crate::harness::client::{ClientResponse, Connection};
use crate::harness::program::{Program, portico, root};
use crate::harness::site::Site;

/// Python with the packages of a list in this folder.
fn python_packages(list: &str) -> PathBuf {
    // One test installs them, and the others wait.
    static INSTALLATION: Mutex<()> = Mutex::new(());
    let _guard = INSTALLATION.lock();
    let mut script = Command::new("bash");
    script.arg(root().join("scripts/python-packages.sh")).arg(partner_file(list));
    let output = script.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().into()
}

/// A file next to these tests.
fn partner_file(name: &str) -> PathBuf {
    root().join("tests/partners").join(name)
}

/// Portico with this declarative file, and with variables in its environment.
fn start_portico(site: &Site, file: &str, variables: &[(&str, &str)]) -> Program {
    site.save("kong.yml", file);
    let mut command = portico(site);
    command.args(["run", "--kong-config", "kong.yml", "--ingress-https-listen", "off", "--status-listen", "off"]);
    command.args(["--admin-listen", "off", "--workers", "1", "--access-log", "off"]);
    command.args(["--ingress-http-listen", &site.address_of("http")]).envs(variables.iter().copied());
    let program = Program::start(command);
    program.wait_started();
    program
}

/// The response of a route; with a body, to POST with JSON.
fn send(site: &Site, path: &str, body: Option<&str>) -> ClientResponse {
    let mut connection = Connection::open(&site.address_of("http")).unwrap();
    match body {
        None => connection.get("portico.example", path).unwrap(),
        Some(body) => {
            let length = body.len();
            let head = format!("POST {path} HTTP/1.1\r\nhost: portico.example\r\ncontent-type: application/json\r\n");
            connection.send(format!("{head}content-length: {length}\r\n\r\n{body}")).unwrap()
        }
    }
}
