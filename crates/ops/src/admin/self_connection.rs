//! Detects connections that this process opens to its own admin listener. A route whose backend is the admin address
//! would let every proxy client reach it, and validation cannot exclude that, since a Service may name any address.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::sync::{OnceCell, Semaphore};

use crate::http_server::ConnectionAddresses;

/// Creates the checks for the connections of a listener.
pub(super) struct SelfConnectionDetector {
    /// Blocks, since it reads files of the operating system.
    is_from_this_process: fn(ConnectionAddresses) -> bool,
    permits: Arc<Semaphore>,
}

/// The check of one connection. It runs once, since its result cannot change while the connection is open.
pub(super) struct SelfConnectionCheck {
    addresses: ConnectionAddresses,
    is_from_this_process: fn(ConnectionAddresses) -> bool,
    permits: Arc<Semaphore>,
    result: OnceCell<bool>,
}

impl SelfConnectionDetector {
    pub(super) fn new(is_from_this_process: fn(ConnectionAddresses) -> bool) -> Self {
        SelfConnectionDetector { is_from_this_process, permits: Arc::new(Semaphore::new(MAX_CONCURRENT_CHECKS)) }
    }

    pub(super) fn for_connection(&self, addresses: ConnectionAddresses) -> SelfConnectionCheck {
        SelfConnectionCheck {
            addresses,
            is_from_this_process: self.is_from_this_process,
            permits: Arc::clone(&self.permits),
            result: OnceCell::new(),
        }
    }
}

impl SelfConnectionCheck {
    /// Runs the check on the first call.
    pub(super) async fn is_self_connection(&self) -> bool {
        *self.result.get_or_init(|| self.run()).await
    }

    async fn run(&self) -> bool {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        let (addresses, is_from_this_process) = (self.addresses, self.is_from_this_process);
        let check = move || {
            let result = is_from_this_process(addresses);
            drop(permit);
            result
        };
        // If the check panics, access is denied.
        tokio::task::spawn_blocking(check).await.unwrap_or(true)
    }
}

/// The maximum number of concurrent checks. Each reads a file that may list a million connections of the machine.
const MAX_CONCURRENT_CHECKS: usize = 2;

/// Whether the client end of a connection is a socket of this process, according to the socket lists in `/proc`.
///
/// On an operating system without these lists, the result is false, since all requests to the admin listener would be
/// rejected otherwise. If the lists exist but cannot be read, for example because of too many open files, the
/// result is true, so that access is denied.
pub(super) fn is_from_this_process(ConnectionAddresses { client, server }: ConnectionAddresses) -> bool {
    for list in [SocketList::V4, SocketList::V6] {
        let (Some(client), Some(server)) = (list.format_address(client), list.format_address(server)) else { continue };
        let content = match fs::read_to_string(list.path()) {
            Ok(content) => content,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(_) => return true,
        };
        if let Some(inode) = client_inode(&content, &client, &server) {
            return has_socket(&inode);
        }
    }
    false
}

/// A socket list of the operating system, and its address format.
#[derive(Clone, Copy)]
enum SocketList {
    V4,
    V6,
}

impl SocketList {
    fn path(self) -> &'static str {
        match self {
            SocketList::V4 => "/proc/self/net/tcp",
            SocketList::V6 => "/proc/self/net/tcp6",
        }
    }

    /// Address and port as in the list: hexadecimal, the address as 32-bit words in native byte order. `None` for an
    /// IPv6 address in the list for IPv4.
    fn format_address(self, address: SocketAddr) -> Option<String> {
        let words: Vec<u32> = match (self, address.ip().to_canonical()) {
            (SocketList::V4, IpAddr::V4(ip)) => vec![u32::from_ne_bytes(ip.octets())],
            (SocketList::V4, IpAddr::V6(_)) => return None,
            // An IPv4 connection of a dual-stack socket is listed with mapped addresses: `::ffff:192.0.2.1`.
            (SocketList::V6, IpAddr::V4(ip)) => ipv6_words(ip.to_ipv6_mapped()),
            (SocketList::V6, IpAddr::V6(ip)) => ipv6_words(ip),
        };
        let ip: String = words.iter().map(|word| format!("{word:08X}")).collect();
        Some(format!("{ip}:{:04X}", address.port()))
    }
}

fn ipv6_words(ip: Ipv6Addr) -> Vec<u32> {
    let octets = ip.octets();
    octets.as_chunks::<4>().0.iter().map(|bytes| u32::from_ne_bytes(*bytes)).collect()
}

/// The inode of the socket with the local address `client` and the remote address `server`.
fn client_inode(list_content: &str, client: &str, server: &str) -> Option<String> {
    list_content.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let is_client_socket = fields.next() == Some(client) && fields.next() == Some(server);
        // The fields before the inode are state, queues, timer, retransmissions, user and timeout.
        fields.nth(6).filter(|_| is_client_socket).map(str::to_owned)
    })
}

/// Whether this process has the socket open; true if its open files cannot be listed.
fn has_socket(inode: &str) -> bool {
    let link = format!("socket:[{inode}]");
    let Ok(files) = fs::read_dir("/proc/self/fd") else { return true };
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == link.as_str()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use parking_lot::{Condvar, Mutex};

    use super::*;

    #[test]
    fn connections_of_this_process_are_detected() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // Not every machine has IPv6.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let server = listener.local_addr().unwrap();
            let stream = TcpStream::connect(server).unwrap();
            let client = stream.local_addr().unwrap();
            let (_accepted, _) = listener.accept().unwrap();
            assert!(is_from_this_process(ConnectionAddresses { client, server }), "{address}");
            assert!(
                !is_from_this_process(ConnectionAddresses { client: server, server }),
                "no socket of this process has the client address"
            );
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn concurrent_checks_are_limited() {
        static RUNNING: Mutex<usize> = Mutex::new(0);
        static STARTED: Condvar = Condvar::new();
        static MAX_RUNNING: AtomicUsize = AtomicUsize::new(0);
        let detector = SelfConnectionDetector::new(|_| {
            let mut running = RUNNING.lock();
            *running += 1;
            MAX_RUNNING.fetch_max(*running, Ordering::SeqCst);
            STARTED.notify_all();
            // On a busy machine, the other checks up to the limit may start late.
            while MAX_RUNNING.load(Ordering::SeqCst) < MAX_CONCURRENT_CHECKS
                && !STARTED.wait_for(&mut running, Duration::from_secs(20)).timed_out()
            {}
            // Gives a check above the limit enough time to start, in case the limit does not work.
            while *running <= MAX_CONCURRENT_CHECKS
                && !STARTED.wait_for(&mut running, Duration::from_millis(100)).timed_out()
            {}
            *running -= 1;
            false
        });
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let results = (0..MAX_CONCURRENT_CHECKS * 3).map(|_| async {
            assert!(
                !detector
                    .for_connection(ConnectionAddresses { client: address, server: address })
                    .is_self_connection()
                    .await
            );
        });
        futures_util::future::join_all(results).await;
        assert_eq!(MAX_RUNNING.load(Ordering::SeqCst), MAX_CONCURRENT_CHECKS);
    }

    #[tokio::test]
    async fn failed_checks_deny_access() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let detector = SelfConnectionDetector::new(|_| panic!("the check fails"));
        assert!(
            detector
                .for_connection(ConnectionAddresses { client: address, server: address })
                .is_self_connection()
                .await
        );
    }

    #[test]
    fn client_sockets_are_found_by_their_addresses() {
        let list_content = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout \
                     inode\n   0: 0100007F:1F90 0100007F:1FA5 01 00000000:00000000 00:00000000 00000000     0        0 \
                     4711 1 0 20 4 30 10 -1\n";
        assert_eq!(client_inode(list_content, "0100007F:1F90", "0100007F:1FA5").as_deref(), Some("4711"));
        assert_eq!(client_inode(list_content, "0100007F:1FA5", "0100007F:1F90"), None);
        assert!(!has_socket("0"), "inode 0 stands for closed sockets");
    }

    #[test]
    fn addresses_are_formatted_as_in_proc_net_tcp() {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        let loopback = format!("{:08X}:1FA5", u32::from_ne_bytes([127, 0, 0, 1]));
        assert_eq!(SocketList::V4.format_address(parse("127.0.0.1:8101")), Some(loopback.clone()));
        assert_eq!(SocketList::V4.format_address(parse("[::ffff:127.0.0.1]:8101")), Some(loopback.clone()));
        assert_eq!(SocketList::V4.format_address(parse("[::1]:8101")), None);
        let mapped = format!("0000000000000000{:08X}{loopback}", u32::from_ne_bytes([0, 0, 255, 255]));
        assert_eq!(SocketList::V6.format_address(parse("127.0.0.1:8101")), Some(mapped));
    }
}
