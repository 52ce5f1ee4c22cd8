//! Starts a `dnsmasq` server for a test.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::harness::eventually;
use crate::harness::ports::free_port;
use crate::harness::site::own_address;

/// A running server, which is stopped on drop.
pub(super) struct Dnsmasq {
    pub(super) address: SocketAddr,
    process: Child,
}

/// The number of texts in the record of `large.test`.
pub(super) const LARGE_TEXTS: usize = 20;

impl Dnsmasq {
    /// Starts a server that responds with this address for `host.test`.
    pub(super) fn start(answer: &str) -> Dnsmasq {
        let address = SocketAddr::from((own_address(), free_port(own_address())));
        let large = vec!["x".repeat(200); LARGE_TEXTS].join(",");
        let mut command = Command::new(program());
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--pid-file=",
            "--user=",
            "--group=",
            "--log-facility=-",
        ]);
        command.arg(format!("--listen-address={}", address.ip()));
        command.arg(format!("--port={}", address.port()));
        command.arg(format!("--address=/host.test/{answer}"));
        command.arg(format!("--txt-record=large.test,{large}"));
        let log = NamedTempFile::new().unwrap();
        command.stdout(Stdio::null()).stderr(log.reopen().unwrap());
        let mut process = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start dnsmasq: {error}; scripts/setup.sh installs it"));
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        client.connect(address).unwrap();
        eventually("dnsmasq starts", || {
            let is_running = process.try_wait().unwrap().is_none();
            assert!(is_running, "dnsmasq exits: {}", std::fs::read_to_string(log.path()).unwrap());
            client.send(QUESTION).ok()?;
            client.recv(&mut [0; 512]).ok()
        });
        Dnsmasq { address, process }
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        // The server may already be stopped.
        let _stopped = self.process.kill().and_then(|()| self.process.wait());
    }
}

/// Only root has it in PATH.
fn program() -> &'static str {
    if std::path::Path::new("/usr/sbin/dnsmasq").exists() { "/usr/sbin/dnsmasq" } else { "dnsmasq" }
}

/// A question for the address of `host.test`.
const QUESTION: &[u8] = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x04host\x04test\0\0\x01\0\x01";
