//! Finds listeners of a Gateway that cannot share their port.

use std::collections::BTreeMap;

use super::listener_protocol::{ListenerProtocol, PortGroup};
use super::verdict::Code;
use crate::api::gateway::Listener;
use crate::diagnostic::Diagnostic;
use crate::snapshot::host::HostPattern;

/// A conflict between two listeners.
pub(super) struct ListenerConflict {
    /// Whether the hostnames conflict; otherwise the protocols do.
    is_hostname_conflict: bool,
    pub problem: Diagnostic,
}

impl ListenerConflict {
    pub(super) fn accepted_code(&self) -> Code {
        if self.is_hostname_conflict {
            Code::ListenerHostnameConflictRefused
        } else {
            Code::ListenerProtocolConflictRefused
        }
    }

    pub(super) fn conflicted_code(&self) -> Code {
        if self.is_hostname_conflict { Code::ListenerHostnameConflict } else { Code::ListenerProtocolConflict }
    }
}

/// The first conflict of each listener of a Gateway, by the listener's index. All conflicting listeners are rejected,
/// as Gateway API allows, so that their order does not matter.
pub(super) fn find(listeners: &[Listener]) -> BTreeMap<usize, ListenerConflict> {
    let mut conflicts = BTreeMap::new();
    for (index, listener) in listeners.iter().enumerate() {
        let protocol = ListenerProtocol::from_listener(listener);
        let Some(port_group) = protocol.port_group() else { continue };
        let others = listeners.iter().enumerate().filter(|(other_index, other)| {
            *other_index != index
                && other.port == listener.port
                // The ports of TCP and UDP are independent of each other. Unknown protocols have no transport.
                && ListenerProtocol::from_listener(other).transport() == protocol.transport()
        });
        for (_, other) in others {
            let other_port_group = ListenerProtocol::from_listener(other).port_group();
            let field = format!("spec.listeners[{index}]");
            let is_same_host =
                HostPattern::parse(other.hostname.as_deref()) == HostPattern::parse(listener.hostname.as_deref());
            let conflict = if other_port_group != Some(port_group) {
                let message = format!(
                    "listener {} uses port {} for {}, which cannot share it with {}",
                    other.name, other.port, other.protocol, listener.protocol
                );
                ListenerConflict {
                    is_hostname_conflict: false,
                    problem: Diagnostic::error(format!("{field}.protocol"), message, "use another port"),
                }
            } else if matches!(port_group, PortGroup::Stream | PortGroup::Datagram) {
                // TCP and UDP listeners have no hostname that could distinguish them.
                let message = format!("listener {} has the same port", other.name);
                ListenerConflict {
                    is_hostname_conflict: true,
                    problem: Diagnostic::error(format!("{field}.port"), message, "use another port"),
                }
            } else if is_same_host {
                let message = format!("listener {} has the same port and hostname", other.name);
                let remedy = "change the hostname or port of one, or remove one";
                ListenerConflict {
                    is_hostname_conflict: true,
                    problem: Diagnostic::error(format!("{field}.hostname"), message, remedy),
                }
            } else {
                continue;
            };
            conflicts.entry(index).or_insert(conflict);
        }
    }
    conflicts
}
