//! What isolates a Pod: a network namespace with an address of its own, and a folder that is its root.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::{Condvar, Mutex};

use super::Host;
use crate::cluster::ADDRESS;
use crate::identity::Identity;
use crate::netns::Netns;
use crate::state::Entry;

/// The first and the last address for Pods; [`ADDRESS`] lies beyond.
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 128, 1);
const LAST: Ipv4Addr = Ipv4Addr::new(198, 18, 254, 254);

/// The network and the folder of one Pod. Dropping it ends what runs inside and removes both.
pub(crate) struct Sandbox {
    pub(crate) address: Ipv4Addr,
    pub(crate) netns: Netns,
    /// Everything of the Pod on disk.
    folder: PathBuf,
    addresses: Arc<Addresses>,
}

/// Hands out the addresses of Pods. One that was given back comes last, so that whoever still talks to a Pod that is
/// gone does not reach another.
pub(crate) struct Addresses {
    book: Mutex<Book>,
    given_back: Condvar,
}

struct Book {
    taken: BTreeSet<Ipv4Addr>,
    last: Ipv4Addr,
    /// The node has ended: no more Pods.
    closed: bool,
}

impl Sandbox {
    /// Makes the namespace, connects it with the cluster's, and makes the folder.
    ///
    /// Pods are not bridged but routed, each behind an interface of its own: a packet from one to another passes the
    /// cluster's namespace, where the balancer can change where it goes and the answer comes back the same way.
    pub(crate) fn make(host: &Host, pod: &Pod) -> Result<Sandbox> {
        let address = host.addresses.take()?;
        let netns = netns_of(&host.netns, address);
        let folder = host.folder.join(pod.metadata.uid.as_deref().context("the Pod has no uid")?);
        host.state.record(&Entry::Netns(netns.name().to_owned()))?;
        let addresses = host.addresses.clone();
        let sandbox = Sandbox { address, netns, folder, addresses };
        let proc = sandbox.root().join("proc");
        fs::create_dir_all(&proc).with_context(|| format!("cannot make {}", proc.display()))?;
        sandbox.netns.create()?;
        // Short, because the kernel takes 15 characters; the cluster's namespace has no others of this name.
        let (peer, interface) = (sandbox.netns.name(), format!("pod{}", number(address)));
        batch(
            &host.netns,
            &[
                format!("link add {interface} type veth peer name eth0 netns {peer}"),
                format!("link set {interface} up"),
                format!("route add {address}/32 dev {interface} src {ADDRESS}"),
            ],
        )?;
        // The kernel answers for any address of the cluster's namespace on any of its interfaces, so the node's
        // address serves as the gateway of all Pods.
        batch(
            &sandbox.netns,
            &[
                format!("addr add {address}/32 dev eth0"),
                "link set eth0 up".to_owned(),
                format!("route add {ADDRESS}/32 dev eth0 src {address}"),
                format!("route add default via {ADDRESS} dev eth0 src {address}"),
            ],
        )?;
        Ok(sandbox)
    }

    /// The folder that the Pod's programs see as `/`.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Sets what the kernel lets each network have of its own: files below /proc/sys and their content.
    pub(crate) fn set(&self, settings: &[(String, String)]) -> Result<()> {
        let set = || -> Result<()> {
            self.netns.enter()?;
            for (file, content) in settings {
                let path = Path::new("/proc/sys").join(file);
                fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
            }
            Ok(())
        };
        if settings.is_empty() {
            return Ok(());
        }
        // In a thread that ends, because it does not come back from the Pod's network.
        let set = std::thread::scope(|scope| scope.spawn(set).join());
        set.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn remove(&self) -> Result<()> {
        let inside: Vec<Identity> = self.netns.processes()?.into_iter().filter_map(Identity::of).collect();
        for process in &inside {
            process.kill()?;
        }
        for process in &inside {
            process.wait(Duration::from_secs(10))?;
        }
        self.netns.delete()?;
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.folder.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            // The journal has it too: the end of the cluster tries again.
            crate::progress::say(format_args!("The Pod at {} could not be removed: {error:#}", self.address));
        }
        self.addresses.give_back(self.address);
    }
}

impl Addresses {
    pub(crate) fn new() -> Addresses {
        let book = Book { taken: BTreeSet::new(), last: LAST, closed: false };
        Addresses { book: Mutex::new(book), given_back: Condvar::new() }
    }

    fn take(&self) -> Result<Ipv4Addr> {
        let Book { taken, last, closed } = &mut *self.book.lock();
        ensure!(!*closed, "the node has ended");
        let all = u32::from(LAST) - u32::from(FIRST) + 1;
        for _ in 0..all {
            *last = if *last == LAST { FIRST } else { Ipv4Addr::from(u32::from(*last) + 1) };
            if taken.insert(*last) {
                return Ok(*last);
            }
        }
        bail!("all {all} addresses for Pods are taken")
    }

    fn give_back(&self, address: Ipv4Addr) {
        self.book.lock().taken.remove(&address);
        self.given_back.notify_all();
    }

    /// Gives out no more, and waits until all are back: until every Pod is removed.
    pub(crate) fn end(&self, patience: Duration) -> Result<()> {
        let mut book = self.book.lock();
        book.closed = true;
        let some_taken = |book: &mut Book| !book.taken.is_empty();
        self.given_back.wait_while_for(&mut book, some_taken, patience);
        ensure!(book.taken.is_empty(), "after {patience:?} these Pods are not removed: {:?}", book.taken);
        Ok(())
    }
}

/// The network of the Pod that has this address.
pub(crate) fn netns_of(cluster: &Netns, address: Ipv4Addr) -> Netns {
    Netns::named(format!("{}-pod-{}", cluster.name(), number(address)))
}

fn number(address: Ipv4Addr) -> u32 {
    u32::from(address).wrapping_sub(u32::from(FIRST))
}

/// Lets the cluster's namespace pass on packets between Pods. Has to run inside of it.
pub(crate) fn forward_packets() -> Result<()> {
    // What goes to an address of the balancer comes back from the Pod's, by another interface.
    for (key, value) in [("ip_forward", "1"), ("conf/all/rp_filter", "0"), ("conf/default/rp_filter", "0")] {
        let path = Path::new("/proc/sys/net/ipv4").join(key);
        fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Runs several commands of `ip` in this namespace, in one process.
fn batch(netns: &Netns, commands: &[String]) -> Result<()> {
    let mut ip = Command::new("ip");
    ip.args(["-netns", netns.name(), "-batch", "-"]);
    let child = ip.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.context("cannot start ip; install iproute2")?;
    let mut input = child.stdin.take().context("its input is a pipe")?;
    input.write_all(commands.join("\n").as_bytes()).context("cannot write to ip")?;
    drop(input);
    let output = child.wait_with_output().context("cannot wait for ip")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("ip in {}: {}: {}", netns.name(), commands.join("; "), said.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_was_given_back_is_the_last_to_be_taken_again() {
        let addresses = Addresses::new();
        let first = addresses.take().unwrap();
        assert_eq!(first, FIRST);
        addresses.give_back(first);
        for _ in u32::from(FIRST)..u32::from(LAST) {
            assert_ne!(addresses.take().unwrap(), first);
        }
        assert_eq!(addresses.take().unwrap(), first);
        assert!(addresses.take().unwrap_err().to_string().contains("taken"));
        assert!(addresses.end(Duration::ZERO).unwrap_err().to_string().contains("not removed"));
        assert!(addresses.take().unwrap_err().to_string().contains("ended"));
    }
}
