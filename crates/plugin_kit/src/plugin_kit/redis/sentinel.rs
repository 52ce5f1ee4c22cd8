//! Asks Redis Sentinel which server is the master.
//!
//! <https://redis.io/docs/latest/develop/reference/sentinel-clients/> has the protocol: ask each Sentinel in turn, and
//! let the named server confirm its role.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use redis::Value;

use super::node::{LinkSettings, address_of, ask_once};
use crate::plugin_api::remote::Remote;
use crate::plugin_api::server_text::shorten;
use crate::plugin_api::services::PluginServices;

/// The servers of Sentinel for one master.
pub(super) struct Sentinels {
    pub(super) master_name: String,
    pub(super) servers: Vec<Remote>,
    pub(super) link: LinkSettings,
    /// The server that gave the last address. The next question goes to it first.
    last: AtomicUsize,
}

impl Sentinels {
    pub(super) fn new(master_name: String, servers: Vec<Remote>, link: LinkSettings) -> Self {
        Sentinels { master_name, servers, link, last: AtomicUsize::new(0) }
    }

    /// The address of the current master. The connection to it has the settings of those to the servers of Sentinel.
    pub(super) async fn find_master(&self, services: &dyn PluginServices) -> Result<Remote, String> {
        let (first, count) = (self.last.load(Relaxed), self.servers.len());
        let mut question = redis::cmd("SENTINEL");
        question.arg("get-master-addr-by-name").arg(&self.master_name);
        let mut failures = Vec::new();
        for index in (0..count).map(|offset| (first + offset) % count) {
            let server = &self.servers[index];
            match ask_once(services, server.clone(), &self.link, &question).await {
                Ok(reply) => match master_address(&reply) {
                    Some((host, port)) => {
                        self.last.store(index, Relaxed);
                        return Ok(Remote { host, port, ..server.clone() });
                    }
                    None => {
                        let (address, name) = (address_of(server), &self.master_name);
                        failures.push(format!("{address} knows no master {name}"));
                    }
                },
                Err(error) => failures.push(error),
            }
        }
        let failures = failures.join("; ");
        Err(format!("no Sentinel names the master {}: {}", self.master_name, shorten(&failures)))
    }
}

/// Host and port of a reply to `SENTINEL get-master-addr-by-name`.
fn master_address(reply: &Value) -> Option<(String, u16)> {
    let Value::Array(parts) = reply else { return None };
    let [Value::BulkString(host), Value::BulkString(port)] = parts.as_slice() else { return None };
    let host = std::str::from_utf8(host).ok().filter(|host| !host.is_empty() && host.len() <= MAX_HOST_BYTES)?;
    let port = std::str::from_utf8(port).ok()?.parse().ok().filter(|port| *port != 0)?;
    Some((host.to_owned(), port))
}

/// The longest name of a host, as in RFC 1035, section 2.3.4.
pub(super) const MAX_HOST_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_masters_are_read_strictly() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let address = |parts: &[&str]| master_address(&Value::Array(parts.iter().map(|part| text(part)).collect()));
        assert_eq!(address(&["10.0.0.1", "6379"]), Some(("10.0.0.1".to_owned(), 6379)));
        let long = "a".repeat(300);
        for invalid in [&["10.0.0.1"][..], &["", "6379"], &["a", "0"], &["a", "65536"], &["a", "-1"], &[&long, "1"]] {
            assert_eq!(address(invalid), None, "{invalid:?}");
        }
        assert_eq!(master_address(&Value::Nil), None);
        assert_eq!(master_address(&Value::Array(vec![Value::Int(1), Value::Int(2)])), None);
    }
}
