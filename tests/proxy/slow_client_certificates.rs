//! Clients that stop in the middle of sending their certificate: they delay the handshakes of others only for a limited
//! time, and those of the client with the most handshakes end first.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use portico::bind_address::BindAddress;
use portico::limits::ProxyLimits;
use portico::proxy::BindState;
use portico::snapshot::client_validation::ClientValidationMode;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConnection, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::accounting::scrape;
use crate::client_certificates::{ClientAuthority, snapshot, status};
use crate::harness::{Endpoint, Options, TEST_TIMEOUT, TestServer, reserve_address, with_timeout};
use crate::tls_harness::TestTlsConnector;

/// Handshakes at a time.
const PERMITS: usize = 4;
/// After which time a handshake gives way to others, and a little more.
const STALLED_AFTER: Duration = Duration::from_millis(2_100);
/// Bytes of the messages with its certificate that a slow client sends. They are longer.
const SENT: usize = 100;

/// A handshake whose client has sent a part of its certificate.
struct HalfSent {
    session: ClientConnection,
    socket: TcpStream,
    /// What the client has not sent.
    rest: Vec<u8>,
}

impl HalfSent {
    /// Connects, and sends a part of the certificate. None if the server ends the handshake.
    async fn start(connector: &TestTlsConnector, mut socket: TcpStream) -> Option<HalfSent> {
        let mut session = connector.session("a.example");
        let mut hello = Vec::new();
        session.write_tls(&mut hello).unwrap();
        socket.write_all(&hello).await.ok()?;
        let mut messages = Vec::new();
        while messages.len() <= SENT {
            receive(&mut session, &mut socket).await?;
            while session.wants_write() {
                session.write_tls(&mut messages).unwrap();
            }
        }
        let rest = messages.split_off(SENT);
        socket.write_all(&messages).await.ok()?;
        Some(HalfSent { session, socket, rest })
    }

    /// Sends the rest and a request, and returns the beginning of the response.
    async fn finish(mut self) -> String {
        self.session.writer().write_all(b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").unwrap();
        let mut response = vec![0; 12];
        let mut received = 0;
        let exchange = async {
            self.socket.write_all(&self.rest).await.unwrap();
            while received < response.len() {
                let mut messages = Vec::new();
                while self.session.wants_write() {
                    self.session.write_tls(&mut messages).unwrap();
                }
                self.socket.write_all(&messages).await.unwrap();
                receive(&mut self.session, &mut self.socket).await.expect("the server continues");
                // An error if nothing has arrived.
                received += self.session.reader().read(&mut response[received..]).unwrap_or(0);
            }
        };
        with_timeout("the response", exchange).await;
        String::from_utf8(response).unwrap()
    }
}

/// Passes received bytes to the session. None at the end of the connection.
async fn receive(session: &mut ClientConnection, socket: &mut TcpStream) -> Option<()> {
    let mut buffer = [0; 4096];
    let received = socket.read(&mut buffer).await.ok().filter(|received| *received > 0)?;
    let mut bytes = &buffer[..received];
    while !bytes.is_empty() {
        session.read_tls(&mut bytes).unwrap();
        session.process_new_packets().ok()?;
    }
    Some(())
}

/// Connects from an address that ends with this number.
async fn connect_from(server: SocketAddr, number: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 2, number], 0))).unwrap();
    socket.connect(server).await.unwrap()
}

async fn start_server(endpoint: &Endpoint, authority: &ClientAuthority) -> TestServer {
    let (address, reserved) = reserve_address();
    let snapshot = snapshot(endpoint.address, &[(address, authority.validation(ClientValidationMode::Required))]);
    // Only handshakes that give way to others end early.
    let limits = ProxyLimits { max_handshakes: PERMITS, handshake_timeout: TEST_TIMEOUT, ..ProxyLimits::default() };
    let server = TestServer::start(Options { limits, ..Options::default() }, address, reserved, snapshot);
    assert_eq!(server.proxy.reconcile().await.get(&BindAddress::tcp(address)), Some(&BindState::Bound));
    server
}

/// Starts handshakes of one client that stop within the certificate, and waits until this number of them have stopped.
async fn start_slow(connector: &TestTlsConnector, server: &TestServer, count: usize, stopping: usize) -> JoinSet<()> {
    let (sender, mut stopped) = mpsc::channel(count);
    let mut handshakes = JoinSet::new();
    for _ in 0..count {
        let (connector, sender) = (connector.clone(), sender.clone());
        let socket = connect_from(server.address, 2).await;
        handshakes.spawn(async move {
            let Some(mut slow) = HalfSent::start(&connector, socket).await else { return };
            sender.send(()).await.ok();
            // Until the server gives up.
            drop(slow.socket.read_to_end(&mut Vec::new()).await);
        });
    }
    for _ in 0..stopping {
        with_timeout("a handshake that stops", stopped.recv()).await.unwrap();
    }
    handshakes
}

fn stalled(server: &TestServer) -> f64 {
    scrape(server)["portico_tls_handshakes_total{outcome=\"stalled\"}"]
}

#[tokio::test]
async fn slow_certificates_of_a_client_leave_handshakes_to_others() {
    // Both at the same time, because each waits until handshakes are taken for stalled.
    tokio::join!(check_others(&TLS12), check_others(&TLS13));
}

/// Most handshakes of the slow client wait for a permit.
async fn check_others(version: &'static SupportedProtocolVersion) {
    let endpoint = Endpoint::ok().await;
    let authority = ClientAuthority::new();
    let connector = TestTlsConnector::with_version(version).with_client_certificate(&authority.issue());
    let server = start_server(&endpoint, &authority).await;
    let mut slow = start_slow(&connector, &server, 20, PERMITS).await;
    let others = (3..9).map(async |number| {
        let socket = connect_from(server.address, number).await;
        status(connector.connect_over(socket, "a.example").await).await
    });
    assert_eq!(futures_util::future::join_all(others).await, [Some(200); 6], "{version:?}");
    assert!(stalled(&server) >= 1.0, "{version:?}");
    slow.shutdown().await;
}

#[tokio::test]
async fn one_slow_certificate_outlasts_those_of_a_client_with_many() {
    tokio::join!(check_patience(&TLS12), check_patience(&TLS13));
}

async fn check_patience(version: &'static SupportedProtocolVersion) {
    let endpoint = Endpoint::ok().await;
    let authority = ClientAuthority::new();
    let connector = TestTlsConnector::with_version(version).with_client_certificate(&authority.issue());
    let server = start_server(&endpoint, &authority).await;
    // The oldest of all slow handshakes is the only one of its client.
    let only = HalfSent::start(&connector, connect_from(server.address, 1).await).await.unwrap();
    let mut slow = start_slow(&connector, &server, PERMITS - 1, PERMITS - 1).await;
    // From then on, all of them have to give way to others.
    sleep(STALLED_AFTER).await; // There is no event to wait for.
    let socket = connect_from(server.address, 3).await;
    assert_eq!(status(connector.connect_over(socket, "a.example").await).await, Some(200), "{version:?}");
    assert_eq!(stalled(&server), 1.0, "{version:?}");
    assert_eq!(only.finish().await, "HTTP/1.1 200", "{version:?}");
    slow.shutdown().await;
}
