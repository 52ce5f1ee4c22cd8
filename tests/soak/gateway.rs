//! The program under test with an editable manifests folder.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::polling::becomes_true;

pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    /// The address with TLS.
    pub(crate) secure: SocketAddr,
    folder: TempDir,
    child: Child,
    /// Keep other processes from using the ports.
    _reserved: [Socket; 2],
}

impl Gateway {
    /// Starts the program with a Service for each of these backends.
    pub(crate) fn start(services: &[(&str, SocketAddr)]) -> Gateway {
        let ((address, plain), (secure, tls)) = (reserve(), reserve());
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("manifests")).unwrap();
        fs::write(folder.path().join("manifests/gateway.yaml"), manifest(address.port(), secure.port(), services))
            .unwrap();
        let output = File::create(folder.path().join("output")).unwrap();
        // SOAK_PORTICO selects another binary, such as a release build.
        let binary = std::env::var_os("SOAK_PORTICO").unwrap_or_else(|| env!("CARGO_BIN_EXE_portico").into());
        let child = Command::new(binary)
            .args(["run", "--workers", "2", "--admin-listen", "off", "--status-listen", "127.0.0.1:0"])
            .arg("--access-log")
            .arg(folder.path().join("access.log"))
            .arg("--manifests")
            .arg(folder.path().join("manifests"))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Gateway { address, secure, folder, child, _reserved: [plain, tls] }
    }

    /// Replaces a file atomically.
    pub(crate) fn write(&self, file: &str, text: &str) {
        let folder = self.folder.path().join("manifests");
        let temporary = folder.join(format!(".{file}.new"));
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, folder.join(file)).unwrap();
    }

    /// Waits until a request for `path` is redirected to `/revision-N`.
    pub(crate) async fn wait_for_revision(&self, path: &str, revision: usize) {
        let expected_location = format!("/revision-{revision}\r\n");
        let is_redirected = becomes_true(|| async {
            self.get(path).await.is_some_and(|response| response.contains(&expected_location))
        });
        assert!(is_redirected.await, "{path} was never redirected to revision {revision}:\n{}", self.output());
    }

    async fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: soak.example\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await.ok()?;
        Some(response)
    }

    fn output(&self) -> String {
        fs::read_to_string(self.folder.path().join("output")).unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Reserves a free port by binding a socket that does not listen.
fn reserve() -> (SocketAddr, Socket) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    (socket.local_addr().unwrap().as_socket().unwrap(), socket)
}

fn manifest(port: u16, secure: u16, services: &[(&str, SocketAddr)]) -> String {
    let mut text = format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata:
  name: portico
spec:
  controllerName: portico.dev/gateway-controller
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: soak
spec:
  gatewayClassName: portico
  listeners:
    - name: http
      port: {port}
      protocol: HTTP
    - name: https
      port: {secure}
      protocol: HTTPS
      tls:
        certificateRefs:
          - name: certificate
"
    );
    for (name, address) in services {
        let (ip, port) = (address.ip(), address.port());
        text += &format!(
            "---
apiVersion: v1
kind: Service
metadata:
  name: {name}
  annotations:
    portico.dev/address: {ip}
spec:
  ports:
    - port: 80
      targetPort: {port}
"
        );
    }
    text
}
