//! The isolation of a Pod: a network namespace with an address, and a root folder.

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

use super::NodeContext;
use crate::cluster::ADDRESS;
use crate::identity::ProcessIdentity;
use crate::journal::JournalEntry;
use crate::netns::Netns;

/// The first and the last address of Pods; [`ADDRESS`] is above them.
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 128, 1);
const LAST: Ipv4Addr = Ipv4Addr::new(198, 18, 254, 254);

/// The network namespace and the folder of one Pod. Dropping it kills the processes in the namespace, then removes the
/// namespace and the folder.
pub(crate) struct Sandbox {
    pub(crate) address: Ipv4Addr,
    pub(crate) netns: Netns,
    /// The folder of all files of the Pod.
    folder: PathBuf,
    addresses: Arc<PodAddresses>,
}

/// Assigns the addresses of Pods. A released address is reused last, so that clients of a deleted Pod do not reach
/// another one.
pub(crate) struct PodAddresses {
    state: Mutex<AddressState>,
    released: Condvar,
}

struct AddressState {
    taken: BTreeSet<Ipv4Addr>,
    /// The address that was assigned last.
    last: Ipv4Addr,
    /// Whether the node has stopped, so that no more addresses are assigned.
    closed: bool,
}

impl Sandbox {
    /// Creates the namespace, connects it with the cluster's, and creates the folder.
    ///
    /// Pods are routed instead of bridged, each on its own interface: packets between Pods pass the cluster's
    /// namespace, where the load balancer can change their destination, and responses take the same way back.
    pub(crate) fn create(node: &NodeContext, pod: &Pod) -> Result<Sandbox> {
        let address = node.addresses.assign()?;
        let netns = netns_of(&node.netns, address);
        let folder = node.folder.join(pod.metadata.uid.as_deref().context("the Pod has no uid")?);
        node.journal.record(&JournalEntry::Netns(netns.name().to_owned()))?;
        let addresses = node.addresses.clone();
        let sandbox = Sandbox { address, netns, folder, addresses };
        let proc = sandbox.root().join("proc");
        fs::create_dir_all(&proc).with_context(|| format!("cannot make {}", proc.display()))?;
        make_devices(&sandbox.root().join("dev"))?;
        sandbox.netns.create()?;
        // The interface name is short because of the kernel's limit of 15 characters; it is unique in the cluster's
        // namespace.
        let (peer, interface) = (sandbox.netns.name(), format!("pod{}", pod_number(address)));
        batch(
            &node.netns,
            &[
                format!("link add {interface} type veth peer name eth0 netns {peer}"),
                format!("link set {interface} up"),
                format!("route add {address}/32 dev {interface} src {ADDRESS}"),
            ],
        )?;
        // The kernel responds to ARP for all addresses of the cluster's namespace on every interface, so the node's
        // address is the gateway of all Pods.
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

    /// The folder that is `/` in the Pod.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Sets sysctls of the Pod's network namespace: files below /proc/sys and their content.
    pub(crate) fn set_sysctls(&self, settings: &[(String, String)]) -> Result<()> {
        let write_sysctls = || -> Result<()> {
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
        // In a separate thread, because a thread that has entered the Pod's network namespace stays there.
        let result = std::thread::scope(|scope| scope.spawn(write_sysctls).join());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn remove(&self) -> Result<()> {
        let processes: Vec<ProcessIdentity> =
            self.netns.processes()?.into_iter().filter_map(ProcessIdentity::lookup).collect();
        for process in &processes {
            process.kill()?;
        }
        for process in &processes {
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

/// The devices that every container has. A program without them has no random numbers, and so resolves no names.
const DEVICES: &[(&str, &str)] = &[("null", "3"), ("zero", "5"), ("full", "7"), ("random", "8"), ("urandom", "9")];

fn make_devices(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, minor) in DEVICES {
        let path = folder.join(name);
        let mut command = Command::new("mknod");
        command.args(["-m", "666"]).arg(&path).args(["c", "1", minor]).stdin(Stdio::null());
        let output = command.output().context("cannot run mknod")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cannot make {}: {}", path.display(), error.trim());
    }
    Ok(())
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            // The end of the cluster retries, because the journal lists the namespace and a folder above this one.
            crate::progress::report(format_args!("Cannot remove the Pod at {}: {error:#}", self.address));
        }
        self.addresses.release(self.address);
    }
}

impl PodAddresses {
    pub(crate) fn new() -> PodAddresses {
        let state = AddressState { taken: BTreeSet::new(), last: LAST, closed: false };
        PodAddresses { state: Mutex::new(state), released: Condvar::new() }
    }

    fn assign(&self) -> Result<Ipv4Addr> {
        let AddressState { taken, last, closed } = &mut *self.state.lock();
        ensure!(!*closed, "the node has stopped");
        let count = u32::from(LAST) - u32::from(FIRST) + 1;
        for _ in 0..count {
            *last = if *last == LAST { FIRST } else { Ipv4Addr::from(u32::from(*last) + 1) };
            if taken.insert(*last) {
                return Ok(*last);
            }
        }
        bail!("all {count} addresses for Pods are in use")
    }

    fn release(&self, address: Ipv4Addr) {
        self.state.lock().taken.remove(&address);
        self.released.notify_all();
    }

    /// Assigns no more addresses, and waits until all are released, that is, until every Pod is removed.
    pub(crate) fn close(&self, limit: Duration) -> Result<()> {
        let mut state = self.state.lock();
        state.closed = true;
        let has_taken = |state: &mut AddressState| !state.taken.is_empty();
        self.released.wait_while_for(&mut state, has_taken, limit);
        ensure!(state.taken.is_empty(), "after {limit:?}, these Pods are not removed: {:?}", state.taken);
        Ok(())
    }
}

/// The network namespace of the Pod with this address.
pub(crate) fn netns_of(cluster: &Netns, address: Ipv4Addr) -> Netns {
    Netns::named(format!("{}-pod-{}", cluster.name(), pod_number(address)))
}

/// The position of an address in the range of Pods, as a short name.
fn pod_number(address: Ipv4Addr) -> u32 {
    u32::from(address).wrapping_sub(u32::from(FIRST))
}

/// Enables forwarding of packets between Pods. Must run in the cluster's namespace.
pub(crate) fn forward_packets() -> Result<()> {
    // Responses to packets for a load balancer address come from the Pod's address, on another interface, and rp_filter
    // would drop them.
    for (key, value) in [("ip_forward", "1"), ("conf/all/rp_filter", "0"), ("conf/default/rp_filter", "0")] {
        let path = Path::new("/proc/sys/net/ipv4").join(key);
        fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Runs several `ip` commands in this namespace with one process.
fn batch(netns: &Netns, commands: &[String]) -> Result<()> {
    let mut ip = Command::new("ip");
    ip.args(["-netns", netns.name(), "-batch", "-"]);
    let child = ip.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.context("cannot start ip; install iproute2")?;
    let mut input = child.stdin.take().context("stdin of ip is not a pipe")?;
    input.write_all(commands.join("\n").as_bytes()).context("cannot write to ip")?;
    drop(input);
    let output = child.wait_with_output().context("cannot wait for ip")?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("ip in {}: {}: {}", netns.name(), commands.join("; "), stderr.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_address_is_reused_last() {
        let addresses = PodAddresses::new();
        let first = addresses.assign().unwrap();
        assert_eq!(first, FIRST);
        addresses.release(first);
        for _ in u32::from(FIRST)..u32::from(LAST) {
            assert_ne!(addresses.assign().unwrap(), first);
        }
        assert_eq!(addresses.assign().unwrap(), first);
        assert!(addresses.assign().unwrap_err().to_string().contains("in use"));
        assert!(addresses.close(Duration::ZERO).unwrap_err().to_string().contains("not removed"));
        assert!(addresses.assign().unwrap_err().to_string().contains("stopped"));
    }
}
