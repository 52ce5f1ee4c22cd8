//! A DNS server with one name, which can stop responding, respond late, or respond with an error.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::cluster::{ADDRESS, Cluster};
use crate::journal::JournalEntry;

/// The name that the server knows. It has the address of the cluster's node.
pub(super) const NAME: &str = "named.chaos.example";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DnsBehavior {
    Respond,
    Ignore,
    /// Responds after every resolver has given up.
    RespondLate,
    /// Responds with SERVFAIL.
    Fail,
}

/// A running server. It stops when dropped.
pub(super) struct DnsServer {
    behavior: Arc<Mutex<DnsBehavior>>,
    /// Number of queries since the last change of the behavior.
    queries: watch::Sender<usize>,
    _server: JoinSet<()>,
}

/// Longer than the timeout in `resolv.conf`.
const LATE: Duration = Duration::from_secs(3);
/// The TTL of the address in seconds: the shortest that Portico uses.
const TTL: u32 = 1;
/// Longer than the longest delay between two retries of Portico.
const QUERY_TIMEOUT: Duration = Duration::from_secs(90);
/// The folder from which `ip netns exec` mounts files over those in `/etc`.
const NETNS_FILES: &str = "/etc/netns";

impl DnsServer {
    /// Starts the server, and configures it as the resolver of programs that are started in the cluster's network
    /// namespace from now on.
    pub(super) async fn start(cluster: &Cluster) -> Result<DnsServer> {
        let socket = Arc::new(UdpSocket::bind((ADDRESS, 53)).await.context("cannot bind the port of the DNS server")?);
        let folder = std::path::Path::new(NETNS_FILES).join(cluster.netns().name());
        cluster.journal().record(&JournalEntry::Folder(folder.clone()))?;
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let configuration = format!("nameserver {ADDRESS}\noptions timeout:1 attempts:1\n");
        std::fs::write(folder.join("resolv.conf"), configuration).context("cannot write resolv.conf")?;
        let behavior = Arc::new(Mutex::new(DnsBehavior::Respond));
        let queries = watch::Sender::new(0);
        let mut server = JoinSet::new();
        server.spawn(serve(socket, Arc::clone(&behavior), queries.clone()));
        Ok(DnsServer { behavior, queries, _server: server })
    }

    pub(super) fn set(&self, behavior: DnsBehavior) {
        let mut current = self.behavior.lock();
        *current = behavior;
        self.queries.send_replace(0);
    }

    /// Waits for this number of queries since the last change of the behavior.
    pub(super) async fn wait_for_queries(&self, number: usize) -> Result<()> {
        let mut queries = self.queries.subscribe();
        let waited = timeout(QUERY_TIMEOUT, queries.wait_for(|count| *count >= number)).await;
        waited.with_context(|| format!("Portico sent fewer than {number} DNS queries"))?.map(drop)?;
        Ok(())
    }
}

async fn serve(socket: Arc<UdpSocket>, behavior: Arc<Mutex<DnsBehavior>>, queries: watch::Sender<usize>) {
    let mut late_responses = JoinSet::new();
    let mut query = [0; 512];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut query).await else { continue };
        while late_responses.try_join_next().is_some() {}
        let behavior = *behavior.lock();
        let Some(response) = response(&query[..length], behavior) else { continue };
        match behavior {
            DnsBehavior::Ignore => {}
            // The client is gone if sending fails.
            DnsBehavior::Respond | DnsBehavior::Fail => drop(socket.send_to(&response, client).await),
            DnsBehavior::RespondLate => {
                let socket = Arc::clone(&socket);
                late_responses.spawn(async move {
                    sleep(LATE).await;
                    drop(socket.send_to(&response, client).await);
                });
            }
        }
        queries.send_modify(|count| *count += 1);
    }
}

/// The response to a query (RFC 1035, section 4.1): an address for A queries of [`NAME`], NXDOMAIN for other names, and
/// no record for other types. None if the query is not understood.
fn response(query: &[u8], behavior: DnsBehavior) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    const A: [u8; 2] = [0, 1];
    let mut labels = Vec::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let is_address_query = query.get(at..at + 2)? == A;
    let question = query.get(HEADER..at + 4)?;
    let is_known = labels.join(".") == NAME;
    let has_address = is_known && is_address_query && behavior != DnsBehavior::Fail;
    let code = match behavior {
        DnsBehavior::Fail => 2,
        _ if is_known => 0,
        _ => 3,
    };
    // An authoritative response with recursion, one question, and no authority or additional records.
    let counts = [0, 1, 0, u8::from(has_address), 0, 0, 0, 0];
    let mut response = [query.get(..2)?, &[0x85, 0x80 | code], &counts, question].concat();
    if has_address {
        // A pointer to the name in the question, type A, class IN.
        response.extend([0xc0, 0x0c, 0, 1, 0, 1]);
        response.extend(TTL.to_be_bytes());
        response.extend([0, 4]);
        response.extend(Ipv4Addr::octets(&ADDRESS));
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A query for this name and record type.
    fn query(name: &str, record_type: u8) -> Vec<u8> {
        let mut query = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).unwrap());
            query.extend(label.as_bytes());
        }
        query.extend([0, 0, record_type, 0, 1]);
        query
    }

    #[test]
    fn known_name_has_an_address_unless_the_server_fails() {
        let found = response(&query(NAME, 1), DnsBehavior::Respond).unwrap();
        assert_eq!((found[0], found[3] & 0xf, found[7]), (7, 0, 1));
        assert!(found.ends_with(&ADDRESS.octets()));
        let other_type = response(&query(NAME, 28), DnsBehavior::Respond).unwrap();
        assert_eq!((other_type[3] & 0xf, other_type[7]), (0, 0));
        let unknown = response(&query("other.example", 1), DnsBehavior::Respond).unwrap();
        assert_eq!((unknown[3] & 0xf, unknown[7]), (3, 0));
        let failed = response(&query(NAME, 1), DnsBehavior::Fail).unwrap();
        assert_eq!((failed[3] & 0xf, failed[7]), (2, 0));
        assert_eq!(response(&query(NAME, 1)[..14], DnsBehavior::Respond), None);
    }
}
