//! Detects connections that this process opens to its own admin listener. A route whose backend is the admin address
//! would let every proxy client reach it, and validation cannot exclude that, since a Service may name any address.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::sync::{OnceCell, Semaphore};

use crate::http_server::ConnectionAddresses;

/// Checks the connections of a listener.
pub(super) struct SelfConnectionChecks {
    /// Reads files of the operating system, so it blocks.
    is_from_this_process: fn(ConnectionAddresses) -> bool,
    permits: Arc<Semaphore>,
}

/// The check of one connection, whose result stays the same while it is open.
pub(super) struct SelfConnectionCheck {
    ends: ConnectionAddresses,
    is_from_this_process: fn(ConnectionAddresses) -> bool,
    permits: Arc<Semaphore>,
    found: OnceCell<bool>,
}

impl SelfConnectionChecks {
    pub(super) fn new(is_from_this_process: fn(ConnectionAddresses) -> bool) -> Self {
        SelfConnectionChecks { is_from_this_process, permits: Arc::new(Semaphore::new(MAX_CONCURRENT_CHECKS)) }
    }

    pub(super) fn for_connection(&self, ends: ConnectionAddresses) -> SelfConnectionCheck {
        SelfConnectionCheck {
            ends,
            is_from_this_process: self.is_from_this_process,
            permits: Arc::clone(&self.permits),
            found: OnceCell::new(),
        }
    }
}

impl SelfConnectionCheck {
    /// Runs the check on the first call.
    pub(super) async fn is_self_connection(&self) -> bool {
        *self.found.get_or_init(|| self.run()).await
    }

    async fn run(&self) -> bool {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        let (ends, made_by_us) = (self.ends, self.is_from_this_process);
        let check = move || {
            let found = made_by_us(ends);
            drop(permit);
            found
        };
        // If the check panics, access is denied.
        tokio::task::spawn_blocking(check).await.unwrap_or(true)
    }
}

/// The maximum number of concurrent checks: the files may list a million connections of the machine.
const MAX_CONCURRENT_CHECKS: usize = 2;

/// Whether the client end of a connection is a socket of this process. If the operating system has no socket lists, the
/// result is false; if they cannot be read for another reason, such as too many open files, it is true.
///
/// A marker header would not do instead, since the filters of a route can remove it.
pub(super) fn is_from_this_process(ConnectionAddresses { client, server }: ConnectionAddresses) -> bool {
    for table in [SocketTable::V4, SocketTable::V6] {
        let (Some(client), Some(server)) = (table.format_end(client), table.format_end(server)) else { continue };
        let text = match fs::read_to_string(table.path()) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(_) => return true,
        };
        if let Some(inode) = inode(&text, &client, &server) {
            return has_socket(&inode);
        }
    }
    false
}

/// A socket list of the operating system, and its address format.
#[derive(Clone, Copy)]
enum SocketTable {
    V4,
    V6,
}

impl SocketTable {
    fn path(self) -> &'static str {
        match self {
            SocketTable::V4 => "/proc/self/net/tcp",
            SocketTable::V6 => "/proc/self/net/tcp6",
        }
    }

    /// Address and port in hexadecimal, the address as words in native byte order. `None` if the table has no such
    /// address.
    fn format_end(self, end: SocketAddr) -> Option<String> {
        let words: Vec<u32> = match (self, end.ip().to_canonical()) {
            (SocketTable::V4, IpAddr::V4(address)) => vec![u32::from_ne_bytes(address.octets())],
            (SocketTable::V4, IpAddr::V6(_)) => return None,
            // A dual-stack socket lists IPv4 addresses in mapped form.
            (SocketTable::V6, IpAddr::V4(address)) => words(address.to_ipv6_mapped()),
            (SocketTable::V6, IpAddr::V6(address)) => words(address),
        };
        let address: String = words.iter().map(|word| format!("{word:08X}")).collect();
        Some(format!("{address}:{:04X}", end.port()))
    }
}

fn words(address: Ipv6Addr) -> Vec<u32> {
    let octets = address.octets();
    octets.as_chunks::<4>().0.iter().map(|bytes| u32::from_ne_bytes(*bytes)).collect()
}

/// The inode of the socket with the local end `client` and the remote end `server`.
fn inode(table: &str, client: &str, server: &str) -> Option<String> {
    table.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let found = fields.next() == Some(client) && fields.next() == Some(server);
        // After state, queues, timer, retransmissions, user and timeout.
        fields.nth(6).filter(|_| found).map(str::to_owned)
    })
}

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
    fn own_connections_are_detected() {
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
                "no socket of this process has this end"
            );
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn concurrent_checks_are_limited() {
        static LOOKING: Mutex<usize> = Mutex::new(0);
        static ONE_MORE: Condvar = Condvar::new();
        static MOST: AtomicUsize = AtomicUsize::new(0);
        let checks = SelfConnectionChecks::new(|_| {
            let mut looking = LOOKING.lock();
            *looking += 1;
            MOST.fetch_max(*looking, Ordering::SeqCst);
            ONE_MORE.notify_all();
            // Enough time for a check above the limit to start, if the limit fails.
            while *looking <= MAX_CONCURRENT_CHECKS
                && !ONE_MORE.wait_for(&mut looking, Duration::from_millis(100)).timed_out()
            {}
            *looking -= 1;
            false
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let all = (0..MAX_CONCURRENT_CHECKS * 3).map(|_| async {
            assert!(
                !checks
                    .for_connection(ConnectionAddresses { client: nowhere, server: nowhere })
                    .is_self_connection()
                    .await
            );
        });
        futures_util::future::join_all(all).await;
        assert_eq!(MOST.load(Ordering::SeqCst), MAX_CONCURRENT_CHECKS);
    }

    #[tokio::test]
    async fn failed_checks_deny_access() {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let checks = SelfConnectionChecks::new(|_| panic!("the check fails"));
        assert!(
            checks.for_connection(ConnectionAddresses { client: nowhere, server: nowhere }).is_self_connection().await
        );
    }

    #[test]
    fn sockets_of_other_processes_are_not_own() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout \
                     inode\n   0: 0100007F:1F90 0100007F:1FA5 01 00000000:00000000 00:00000000 00000000     0        0 \
                     4711 1 0 20 4 30 10 -1\n";
        assert_eq!(inode(table, "0100007F:1F90", "0100007F:1FA5").as_deref(), Some("4711"));
        assert_eq!(inode(table, "0100007F:1FA5", "0100007F:1F90"), None);
        assert!(!has_socket("0"), "a closed socket has no inode");
    }

    #[test]
    fn addresses_are_formatted_as_in_proc_net_tcp() {
        let end = |text: &str| text.parse::<SocketAddr>().unwrap();
        let loopback = format!("{:08X}:1FA5", u32::from_ne_bytes([127, 0, 0, 1]));
        assert_eq!(SocketTable::V4.format_end(end("127.0.0.1:8101")), Some(loopback.clone()));
        assert_eq!(SocketTable::V4.format_end(end("[::ffff:127.0.0.1]:8101")), Some(loopback.clone()));
        assert_eq!(SocketTable::V4.format_end(end("[::1]:8101")), None);
        let mapped = format!("0000000000000000{:08X}{loopback}", u32::from_ne_bytes([0, 0, 255, 255]));
        assert_eq!(SocketTable::V6.format_end(end("127.0.0.1:8101")), Some(mapped));
    }
}
