//! A built plugin as chains and the directory of consumers store it: its place in the order of execution, and the
//! protocols that it runs for.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Plugin;
use super::kind::Phases;

/// A built plugin, with its properties at one attachment point.
#[derive(Clone)]
pub struct PluginInstance {
    pub plugin: Arc<dyn Plugin>,
    pub phases: Phases,
    pub protocols: Protocols,
    /// See [`super::RequestCx::scope`].
    pub scope: Arc<str>,
    /// The object that configures the plugin, for example `KongPlugin/default/limit`.
    pub object: Arc<str>,
    /// Hash of the configuration, equal in every process. Distinguishes several configurations of one object.
    pub configuration_hash: u64,
}

impl PluginInstance {
    /// Whether both are the same built plugin, attached to the same object in the same way.
    pub(super) fn is_same(&self, other: &PluginInstance) -> bool {
        let PluginInstance { plugin, phases, protocols, scope, object, configuration_hash } = self;
        Arc::ptr_eq(plugin, &other.plugin)
            && (phases, protocols, configuration_hash) == (&other.phases, &other.protocols, &other.configuration_hash)
            && (scope, object) == (&other.scope, &other.object)
    }
}

/// The place of a kind of plugin in the order of execution: higher priorities first; of equal priorities the
/// alphabetically later name, as in Kong. The earlier place is the lesser one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecutionPlace {
    pub kind: &'static str,
    pub priority: i32,
}

impl Ord for ExecutionPlace {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.priority, other.kind).cmp(&(self.priority, self.kind))
    }
}

impl PartialOrd for ExecutionPlace {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The protocols of the requests that an instance runs for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Protocols {
    pub http: bool,
    pub https: bool,
    pub grpc: bool,
    pub grpcs: bool,
}

/// The protocol of a request, as far as `protocols` distinguishes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestProtocol {
    pub secure: bool,
    pub grpc: bool,
}

impl Protocols {
    pub const ALL: Protocols = Protocols { http: true, https: true, grpc: true, grpcs: true };

    /// Parses the names of `protocols`. Names of stream protocols do not apply to requests and are ignored.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut protocols = Protocols { http: false, https: false, grpc: false, grpcs: false };
        for name in names {
            match name {
                "http" => protocols.http = true,
                "https" => protocols.https = true,
                "grpc" => protocols.grpc = true,
                "grpcs" => protocols.grpcs = true,
                _ => {}
            }
        }
        protocols
    }

    /// The names that [`Protocols::from_names`] parses, in alphabetical order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let Protocols { http, https, grpc, grpcs } = self;
        let all = [("grpc", grpc), ("grpcs", grpcs), ("http", http), ("https", https)];
        all.into_iter().filter_map(|(name, is_included)| is_included.then_some(name))
    }

    /// Whether requests of this protocol are included. A gRPC request is also an HTTP request, so a plugin that
    /// protects HTTP protects gRPC, too.
    pub(super) fn include(self, protocol: RequestProtocol) -> bool {
        match (protocol.secure, protocol.grpc) {
            (false, false) => self.http,
            (true, false) => self.https,
            (false, true) => self.grpc || self.http,
            (true, true) => self.grpcs || self.https,
        }
    }
}
