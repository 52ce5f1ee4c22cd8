//! A Redis cluster: one connection for each node that has slots, and redirections.
//!
//! ```text
//!   call ──slot of its key──▶ SlotRoutes ──▶ RedisNode ──MOVED, ASK──▶ another Node
//!              refresh task ──▲   (CLUSTER SLOTS: at the start, after MOVED, when a node is lost, once a minute)
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use redis::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::node::{CallError, LinkSettings, NodeSettings, NodeTarget, RedisNode};
use super::pending::{PendingBytes, PendingCommand};
use super::slots::{MAX_NODES, NodeAddress, SlotMap, redirected_address, slot_of};
use crate::plugin_api::remote::Remote;
use crate::plugin_api::services::PluginServices;
use crate::plugin_kit::server_diagnostics::ServerDiagnostic;

/// A handle of the connections to the nodes.
pub(super) struct Cluster {
    nodes: Arc<ClusterNodes>,
    max_redirections: u32,
    /// Requests to read the slots again. The refresh task ends when this is dropped.
    refreshes: mpsc::Sender<()>,
}

struct ClusterNodes {
    /// The configured nodes. All connections have the settings of the first one, except for the address.
    seeds: Vec<Remote>,
    link: LinkSettings,
    field: String,
    services: Arc<dyn PluginServices>,
    /// Of the cluster. Each node has one of its own.
    diagnostic: ServerDiagnostic,
    routes: ArcSwap<SlotRoutes>,
    /// Nodes that the routes do not have: configured ones, and targets of redirections. Cleared by each refresh.
    others: Mutex<HashMap<NodeAddress, RedisNode>>,
}

/// The nodes by slot.
struct SlotRoutes {
    map: SlotMap,
    /// The connections, in the order of the nodes of the map.
    nodes: Vec<RedisNode>,
}

impl Cluster {
    pub(super) fn start(
        seeds: Vec<Remote>,
        max_redirections: u32,
        link: LinkSettings,
        field: String,
        services: &Arc<dyn PluginServices>,
        diagnostic: ServerDiagnostic,
    ) -> Cluster {
        let link = LinkSettings { max_reply_bytes: link.max_reply_bytes.max(MAX_SLOTS_BYTES), ..link };
        let nodes = Arc::new(ClusterNodes {
            seeds,
            link,
            field,
            services: Arc::clone(services),
            diagnostic,
            routes: ArcSwap::from_pointee(SlotRoutes { map: SlotMap::empty(), nodes: Vec::new() }),
            others: Mutex::default(),
        });
        let (refreshes, requested) = mpsc::channel(1);
        services.spawn(Box::pin(refresh_loop(Arc::clone(&nodes), requested)));
        Cluster { nodes, max_redirections, refreshes }
    }

    /// Sends a command to the node of this key, and follows its redirections.
    pub(super) async fn call(&self, key: &[u8], command: &Arc<PendingCommand>) -> Result<Value, CallError> {
        let slot = slot_of(key);
        let mut target = self.nodes.node_of(slot, 0)?;
        let mut is_asking = false;
        for attempt in 1..=self.max_redirections.saturating_add(1) {
            match target.node.call(command, is_asking).await {
                Err(CallError::Moved(address)) => {
                    self.request_refresh();
                    (target, is_asking) = (self.nodes.redirected(&address, &target)?, false);
                }
                Err(CallError::Ask(address)) => {
                    (target, is_asking) = (self.nodes.redirected(&address, &target)?, true);
                }
                Err(CallError::TryAgain) => tokio::time::sleep(TRY_AGAIN_DELAY).await,
                Err(CallError::Unavailable) if !target.is_routed => {
                    self.request_refresh();
                    (target, is_asking) = (self.nodes.node_of(slot, attempt as usize)?, false);
                }
                Err(CallError::Unavailable | CallError::ClusterDown) => {
                    self.request_refresh();
                    return Err(CallError::Unavailable);
                }
                reply => return reply,
            }
        }
        Err(CallError::Unavailable)
    }

    fn request_refresh(&self) {
        // A full queue already has a request.
        let _is_requested = self.refreshes.try_send(());
    }
}

/// The node that gets a command.
struct CallTarget {
    address: NodeAddress,
    node: RedisNode,
    /// Whether the routes have the node, so that no other one has its slots.
    is_routed: bool,
}

impl ClusterNodes {
    /// The node of a slot. While it is unknown, one of the configured nodes, which redirects.
    fn node_of(&self, slot: u16, attempt: usize) -> Result<CallTarget, CallError> {
        let routes = self.routes.load();
        if let Some((address, node)) = routes.node(slot) {
            return Ok(CallTarget { address: address.clone(), node: node.clone(), is_routed: true });
        }
        let seed = &self.seeds[attempt % self.seeds.len()];
        self.other_node((seed.host.clone(), seed.port))
    }

    fn redirected(&self, address: &str, from: &CallTarget) -> Result<CallTarget, CallError> {
        let address = redirected_address(address, &from.address.0).ok_or(CallError::Unavailable)?;
        let routes = self.routes.load();
        match routes.node_at(&address) {
            Some(node) => Ok(CallTarget { address, node: node.clone(), is_routed: true }),
            None => self.other_node(address).map(|target| CallTarget { is_routed: true, ..target }),
        }
    }

    /// A node that the routes do not have.
    fn other_node(&self, address: NodeAddress) -> Result<CallTarget, CallError> {
        let mut others = self.others.lock();
        if !others.contains_key(&address) && others.len() >= MAX_NODES {
            return Err(CallError::Unavailable);
        }
        let node = others.entry(address.clone()).or_insert_with(|| self.start_node(&address)).clone();
        Ok(CallTarget { address, node, is_routed: false })
    }

    fn start_node(&self, (host, port): &NodeAddress) -> RedisNode {
        let remote = Remote { host: host.clone(), port: *port, ..self.seeds[0].clone() };
        let settings =
            NodeSettings { target: NodeTarget::Server(remote), link: self.link.clone(), field: self.field.clone() };
        RedisNode::start(settings, &self.services, self.diagnostic.of_same_object())
    }

    /// Reads the slots from the first node that has them: the known ones in random order, then the configured ones.
    async fn refresh(&self) -> Result<(), CallError> {
        let routes = self.routes.load_full();
        let known = routes.map.nodes.iter().cloned().zip(routes.nodes.iter().cloned());
        let mut candidates: Vec<(NodeAddress, RedisNode)> = known.collect();
        if !candidates.is_empty() {
            let first = fastrand::usize(..candidates.len());
            candidates.rotate_left(first);
        }
        for (address, node) in candidates {
            if self.read_slots(&address, &node).await {
                return Ok(());
            }
        }
        for seed in &self.seeds {
            let target = self.other_node((seed.host.clone(), seed.port))?;
            if self.read_slots(&target.address, &target.node).await {
                return Ok(());
            }
        }
        Err(CallError::Unavailable)
    }

    /// Replaces the routes by what a node knows. Returns false if the node did not respond, or not with slots.
    async fn read_slots(&self, address: &NodeAddress, node: &RedisNode) -> bool {
        let mut question = redis::cmd("CLUSTER");
        question.arg("SLOTS");
        let Some(question) = PendingCommand::new(question, &PendingBytes::default()) else { return false };
        let Ok(reply) = node.call(&question, false).await else { return false };
        let Some(map) = SlotMap::from_reply(&reply, &address.0) else { return false };
        let former = self.routes.load();
        let mut others = self.others.lock();
        let find = |address: &NodeAddress| former.node_at(address).or_else(|| others.get(address)).cloned();
        let nodes = map.nodes.iter().map(|address| find(address).unwrap_or_else(|| self.start_node(address))).collect();
        others.clear();
        self.routes.store(Arc::new(SlotRoutes { map, nodes }));
        true
    }
}

impl SlotRoutes {
    fn node(&self, slot: u16) -> Option<(&NodeAddress, &RedisNode)> {
        let index = self.map.index(slot)?;
        Some((self.map.nodes.get(index)?, self.nodes.get(index)?))
    }

    fn node_at(&self, address: &NodeAddress) -> Option<&RedisNode> {
        self.nodes.get(self.map.nodes.iter().position(|node| node == address)?)
    }
}

async fn refresh_loop(nodes: Arc<ClusterNodes>, mut requested: mpsc::Receiver<()>) {
    loop {
        let is_refreshed = nodes.refresh().await.is_ok();
        // Without any node, the configured ones are tried again soon.
        let wait = if is_refreshed { REFRESH_INTERVAL } else { RETRY_INTERVAL };
        tokio::time::sleep(MIN_REFRESH_INTERVAL).await;
        match timeout(wait, requested.recv()).await {
            Ok(Some(())) | Err(_) => {}
            // The last handle was dropped.
            Ok(None) => return,
        }
    }
}

/// How often the slots are read without a reason.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// How often they are read while no node has responded.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest time between two reads, however many calls are redirected.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_millis(100);
/// The wait before a command on keys that are being moved is sent again.
const TRY_AGAIN_DELAY: Duration = Duration::from_millis(20);
/// The largest list of slots.
const MAX_SLOTS_BYTES: usize = 512 * 1024;
