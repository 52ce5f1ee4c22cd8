//! Free ports for servers that tests start, and for addresses on which nothing may listen.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Mutex;

/// Ports with five digits that the kernel does not choose for other sockets: it begins at 32768 by default. Otherwise,
/// it could give a reserved port to a listener or to a connection before the server of the test has it.
const RANGE: std::ops::Range<u16> = 10_000..30_000;

/// The ports of this process. The name of an abstract socket reserves a port in the network namespace until the process
/// ends.
static RESERVED: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// A port that is free for TCP and UDP, and that no other test gets while this process runs.
pub(crate) fn free_port(address: impl Into<IpAddr>) -> u16 {
    let address = address.into();
    let start = RandomState::new().hash_one(address);
    let count = u64::from(RANGE.end - RANGE.start);
    let ports = (0..count).map(|index| {
        let offset = (start.wrapping_add(index)) % count;
        RANGE.start + u16::try_from(offset).expect("the range has less than 65,536 ports")
    });
    for port in ports {
        let name = SocketAddr::from_abstract_name(format!("portico-test-port-{port}")).expect("the name is short");
        let Ok(reservation) = UnixListener::bind_addr(&name) else { continue };
        if TcpListener::bind((address, port)).is_ok() && UdpSocket::bind((address, port)).is_ok() {
            RESERVED.lock().unwrap().push(reservation);
            return port;
        }
    }
    panic!("no port of {address} from {} to {} is free", RANGE.start, RANGE.end - 1);
}
