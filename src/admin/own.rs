//! Whether a connection was made by this very process. Then a route leads here: whoever asks is a client of the proxy, and what
//! is for people on this machine is not for them. A Service may name any address, so this cannot be left to configuration.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::sync::{OnceCell, Semaphore};

use crate::http_server::Ends;

/// How connections of a listener are looked at.
pub(super) struct Checks {
    /// Reads files of the system, and so waits.
    made_by_us: fn(Ends) -> bool,
    room: Arc<Semaphore>,
}

/// Of one connection. Who made it stays the same as long as it is there.
pub(super) struct Check {
    ends: Ends,
    made_by_us: fn(Ends) -> bool,
    room: Arc<Semaphore>,
    found: OnceCell<bool>,
}

impl Checks {
    pub(super) fn new(made_by_us: fn(Ends) -> bool) -> Self {
        Checks { made_by_us, room: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    pub(super) fn of(&self, ends: Ends) -> Check {
        Check { ends, made_by_us: self.made_by_us, room: Arc::clone(&self.room), found: OnceCell::new() }
    }
}

impl Check {
    /// Finds it out when it is first asked.
    pub(super) async fn is_own(&self) -> bool {
        *self.found.get_or_init(|| self.look()).await
    }

    async fn look(&self) -> bool {
        let room = Arc::clone(&self.room).acquire_owned().await.expect("it is never closed");
        let (ends, made_by_us) = (self.ends, self.made_by_us);
        let looking = move || {
            let found = made_by_us(ends);
            drop(room);
            found
        };
        // Whether it was found out or not, nobody is let in by accident.
        tokio::task::spawn_blocking(looking).await.unwrap_or(true)
    }
}

/// A machine may have a million connections, all of which stand in the files that are read.
const AT_ONCE: usize = 2;

/// Looks for the client's end of a connection among the sockets of this process. Where the system has no such lists nothing is
/// ours; where they cannot be read for another reason, such as no room for one more file, everything is.
///
/// Headers would not do, since filters of a route can remove what a proxy adds.
pub(super) fn made_by_us(Ends { client, server }: Ends) -> bool {
    for table in [Table::V4, Table::V6] {
        let (Some(client), Some(server)) = (table.written(client), table.written(server)) else { continue };
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

/// Where the system lists its connections, and how it writes their ends.
#[derive(Clone, Copy)]
enum Table {
    V4,
    V6,
}

impl Table {
    fn path(self) -> &'static str {
        match self {
            Table::V4 => "/proc/self/net/tcp",
            Table::V6 => "/proc/self/net/tcp6",
        }
    }

    /// Address and port in hexadecimal digits, the address as words of this machine. None for what is not in this table.
    fn written(self, end: SocketAddr) -> Option<String> {
        let words: Vec<u32> = match (self, end.ip().to_canonical()) {
            (Table::V4, IpAddr::V4(address)) => vec![u32::from_ne_bytes(address.octets())],
            (Table::V4, IpAddr::V6(_)) => return None,
            // A socket for both families has addresses of the older one in this form.
            (Table::V6, IpAddr::V4(address)) => words(address.to_ipv6_mapped()),
            (Table::V6, IpAddr::V6(address)) => words(address),
        };
        let address: String = words.iter().map(|word| format!("{word:08X}")).collect();
        Some(format!("{address}:{:04X}", end.port()))
    }
}

fn words(address: Ipv6Addr) -> Vec<u32> {
    let octets = address.octets();
    octets.as_chunks::<4>().0.iter().map(|bytes| u32::from_ne_bytes(*bytes)).collect()
}

/// Of the socket whose own end is `client`, and whose other is `server`.
fn inode(table: &str, client: &str, server: &str) -> Option<String> {
    table.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let found = fields.next() == Some(client) && fields.next() == Some(server);
        // Behind state, queues, timer, retransmissions, user and timeout.
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
    fn a_connection_of_our_own_is_known() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // Not every machine has IPv6.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let server = listener.local_addr().unwrap();
            let stream = TcpStream::connect(server).unwrap();
            let client = stream.local_addr().unwrap();
            let (_accepted, _) = listener.accept().unwrap();
            assert!(made_by_us(Ends { client, server }), "{address}");
            assert!(!made_by_us(Ends { client: server, server }), "nobody connected from there");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn few_look_at_a_time() {
        static LOOKING: Mutex<usize> = Mutex::new(0);
        static ONE_MORE: Condvar = Condvar::new();
        static MOST: AtomicUsize = AtomicUsize::new(0);
        let checks = Checks::new(|_| {
            let mut looking = LOOKING.lock();
            *looking += 1;
            MOST.fetch_max(*looking, Ordering::SeqCst);
            ONE_MORE.notify_all();
            // Time enough for one too many, if anything lets it come.
            while *looking <= AT_ONCE && !ONE_MORE.wait_for(&mut looking, Duration::from_millis(100)).timed_out() {}
            *looking -= 1;
            false
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let all = (0..AT_ONCE * 3).map(|_| async {
            assert!(!checks.of(Ends { client: nowhere, server: nowhere }).is_own().await);
        });
        futures_util::future::join_all(all).await;
        assert_eq!(MOST.load(Ordering::SeqCst), AT_ONCE);
    }

    #[tokio::test]
    async fn what_cannot_be_found_out_is_ours() {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let checks = Checks::new(|_| panic!("as it may"));
        assert!(checks.of(Ends { client: nowhere, server: nowhere }).is_own().await);
    }

    #[test]
    fn the_socket_of_somebody_else_is_not_ours() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 0100007F:1F90 0100007F:1FA5 01 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 20 4 30 10 -1\n";
        assert_eq!(inode(table, "0100007F:1F90", "0100007F:1FA5").as_deref(), Some("4711"));
        assert_eq!(inode(table, "0100007F:1FA5", "0100007F:1F90"), None);
        assert!(!has_socket("0"), "what has ended has no number");
    }

    #[test]
    fn addresses_are_written_as_the_system_does() {
        let end = |text: &str| text.parse::<SocketAddr>().unwrap();
        let loopback = format!("{:08X}:1FA5", u32::from_ne_bytes([127, 0, 0, 1]));
        assert_eq!(Table::V4.written(end("127.0.0.1:8101")), Some(loopback.clone()));
        assert_eq!(Table::V4.written(end("[::ffff:127.0.0.1]:8101")), Some(loopback.clone()));
        assert_eq!(Table::V4.written(end("[::1]:8101")), None);
        let mapped = format!("0000000000000000{:08X}{loopback}", u32::from_ne_bytes([0, 0, 255, 255]));
        assert_eq!(Table::V6.written(end("127.0.0.1:8101")), Some(mapped));
    }
}
