//! Detects listening sockets in a Pod.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::netns::Netns;

/// Whether this process has entered the Pod's network namespace and a socket listens there, on any port.
pub(crate) fn is_listening(netns: &Netns, process: u32) -> bool {
    let namespace_id = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    let process_namespace = namespace_id(Path::new(&format!("/proc/{process}/ns/net")));
    // Until the process has entered its namespace, these files show the sockets of the cluster's namespace.
    if process_namespace.is_none() || process_namespace != namespace_id(&Path::new("/run/netns").join(netns.name())) {
        return false;
    }
    [("tcp", LISTEN), ("tcp6", LISTEN), ("udp", UNCONNECTED), ("udp6", UNCONNECTED)].iter().any(|(table, state)| {
        let content = fs::read_to_string(format!("/proc/{process}/net/{table}"));
        content.is_ok_and(|content| has_socket_in_state(&content, state))
    })
}

/// The kernel's state number of a listening TCP socket.
const LISTEN: &str = "0A";
/// The kernel's state number of a UDP socket without a peer, which receives datagrams from all addresses.
const UNCONNECTED: &str = "07";

/// Whether a table has a socket in this state. Its columns: number, local address, remote address, state, …
fn has_socket_in_state(table: &str, state: &str) -> bool {
    table.lines().skip(1).any(|line| line.split_whitespace().nth(3) == Some(state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_sockets_count() {
        let heading =
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        let table = |state: &str| {
            format!(
                "{heading}\n   0: 00000000:0BB8 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 7"
            )
        };
        assert!(has_socket_in_state(&table("0A"), LISTEN));
        assert!(!has_socket_in_state(&table("01"), LISTEN));
        assert!(has_socket_in_state(&table("07"), UNCONNECTED));
        assert!(!has_socket_in_state(heading, LISTEN));
    }
}
