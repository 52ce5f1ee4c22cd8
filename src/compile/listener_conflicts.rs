//! Finds listeners of a Gateway that cannot share their port.

use std::collections::BTreeMap;

use super::listener::{ListenerProtocol, PortGroup};
use super::verdict::Code;
use crate::api::gateway::Listener;
use crate::diagnostic::Diagnostic;
use crate::snapshot::host::HostPattern;

/// A conflict between two listeners.
pub(super) struct ListenerConflict {
    hostname: bool,
    pub problem: Diagnostic,
}

impl ListenerConflict {
    pub(super) fn accepted_code(&self) -> Code {
        if self.hostname { Code::ListenerHostnameConflictRefused } else { Code::ListenerProtocolConflictRefused }
    }

    pub(super) fn conflicted_code(&self) -> Code {
        if self.hostname { Code::ListenerHostnameConflict } else { Code::ListenerProtocolConflict }
    }
}

/// All conflicting listeners of a Gateway are rejected, as Gateway API allows, so that their order does not matter.
pub(super) fn find(listeners: &[Listener]) -> BTreeMap<usize, ListenerConflict> {
    let mut found = BTreeMap::new();
    for (index, listener) in listeners.iter().enumerate() {
        let Some(sharing) = ListenerProtocol::from_listener(listener).port_group() else { continue };
        let others = listeners.iter().enumerate().filter(|(other, candidate)| {
            *other != index
                && candidate.port == listener.port
                && ListenerProtocol::from_listener(candidate).port_group().is_some()
        });
        for (_, other) in others {
            let other_sharing = ListenerProtocol::from_listener(other).port_group();
            let field = format!("spec.listeners[{index}]");
            let same_host = sharing == PortGroup::Stream
                || HostPattern::parse(other.hostname.as_deref()) == HostPattern::parse(listener.hostname.as_deref());
            let conflict = if other_sharing != Some(sharing) {
                let message = format!(
                    "listener {} uses port {} for {}, which cannot share it with {}",
                    other.name, other.port, other.protocol, listener.protocol
                );
                ListenerConflict {
                    hostname: false,
                    problem: Diagnostic::error(format!("{field}.protocol"), message, "use another port"),
                }
            } else if same_host {
                let message = format!("listener {} has the same port and hostname", other.name);
                let remedy = "change the hostname or port of one, or remove one";
                ListenerConflict {
                    hostname: true,
                    problem: Diagnostic::error(format!("{field}.hostname"), message, remedy),
                }
            } else {
                continue;
            };
            found.entry(index).or_insert(conflict);
        }
    }
    found
}
