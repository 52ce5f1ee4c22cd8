//! Combines verdicts with the results of binding and the installed CRDs, and writes them into the cluster.
//!
//! ```text
//!   compile ──verdicts──▶ combine ──▶ displayed: terminal, /debug/verdicts
//!   proxy ────binds───────▲ ▲   └──▶ queue ──due──▶ status_writer ──merge──▶ the objects' status
//!   API server ──installed──┘     ▲    └──────────▶ event_writer ──────────▶ events
//!   upstreams ───occurrences──────┘
//! ```

mod event_queue;
mod event_rotation;
mod event_writer;
mod features;
mod installed;
mod json;
mod merge;
mod notices;
mod occurrences;
mod queue;
mod stable_cause;
mod status_writer;

use std::net::SocketAddr;

pub use event_writer::EventWriter;
pub use installed::apply_installed;
pub use json::status as to_json;
pub use merge::{MergedStatus, merge};
pub use occurrences::Occurrence;
pub use queue::StatusQueue;
pub use stable_cause::with_stable_cause;
pub use status_writer::{StatusWriteMetrics, StatusWriter};

use crate::bind_address::BindAddress;
use crate::diagnostic::{Diagnostic, Reason, Topic};
use crate::verdict::{Code, Condition, ListenerVerdict, Verdict};

/// The result of binding an address for a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindOutcome {
    Bound,
    /// Another process uses the port.
    InUse,
    /// The system forbids it, as for ports below 1024.
    NotPermitted,
    /// The address does not belong to this machine.
    NotLocal,
    /// Any other error, in the system's words.
    Failed(String),
}

/// The verdict on a Gateway, ListenerSet or Ingress after binding its addresses; None if that changes nothing.
/// `outcome_of` returns None for an address without a result yet, which changes nothing either.
pub fn apply_bind_outcomes(
    verdict: &Verdict,
    outcome_of: &dyn Fn(BindAddress) -> Option<BindOutcome>,
) -> Option<Verdict> {
    let mut combined = verdict.clone();
    let mut not_local = Vec::new();
    let mut changed = false;
    for (index, listener) in combined.listeners.iter_mut().enumerate() {
        for address in listener.sockets.clone() {
            let Some(outcome) = outcome_of(address).filter(|outcome| *outcome != BindOutcome::Bound) else { continue };
            if outcome == BindOutcome::NotLocal {
                not_local.push(not_local_problem(address.socket));
            }
            mark_listener(listener, index, address.socket, &outcome);
            changed = true;
        }
    }
    for address in verdict.sockets.iter().copied() {
        let Some(outcome) = outcome_of(address).filter(|outcome| *outcome != BindOutcome::Bound) else { continue };
        if let Some(problem) = bind_problem(String::new(), address.socket, None, &outcome) {
            combined.diagnostics.push(problem.into_warning());
            changed = true;
        }
    }
    if !changed {
        return None;
    }
    update_parent_conditions(&mut combined, not_local);
    Some(combined)
}

/// Sets the conditions of a listener with an address that could not be bound. Each condition has one reason, from the
/// first such address.
fn mark_listener(listener: &mut ListenerVerdict, index: usize, socket: SocketAddr, outcome: &BindOutcome) {
    let field = format!("spec.listeners[{index}].port");
    let Some(problem) = bind_problem(field, socket, Some(listener.port), outcome) else { return };
    for condition in &mut listener.conditions {
        match condition.code {
            Code::ListenerAccepted if *outcome == BindOutcome::InUse => {
                *condition = Condition::new(Code::ListenerPortUnavailable, vec![problem.clone()]);
            }
            Code::ListenerProgrammed => {
                *condition = Condition::new(Code::ListenerNotProgrammed, vec![problem.clone()]);
            }
            _ => {}
        }
    }
}

/// Why nothing is served at an address; None if it is bound. `listener_port` is the port in the Gateway's spec, which
/// differs from the port of the address behind a Service.
fn bind_problem(
    field: String,
    socket: SocketAddr,
    listener_port: Option<u16>,
    outcome: &BindOutcome,
) -> Option<Diagnostic> {
    let port = socket.port();
    let problem = match outcome {
        BindOutcome::Bound => return None,
        // An address of another node is no problem of this replica alone: each node has other addresses.
        BindOutcome::NotLocal => return Some(not_local_problem(socket)),
        // Behind a Service, Portico chose the port: another port in the Gateway's spec would not help.
        BindOutcome::InUse if listener_port.is_some_and(|listener_port| port != listener_port) => Diagnostic::error(
            field,
            format!(
                "port {port} of {}, which Portico listens on for port {}, is in use by another process",
                socket.ip(),
                listener_port.unwrap_or(port)
            ),
            format!(
                "stop that process (`ss -ltnp 'sport = :{port}'` in Portico's Pod shows it), or run Portico without \
                 hostNetwork; Portico retries"
            ),
        ),
        BindOutcome::InUse => Diagnostic::error(
            field,
            format!("port {port} of {} is in use by another process", socket.ip()),
            format!("stop that process (`ss -ltnp 'sport = :{port}'` shows it) or choose another port"),
        ),
        BindOutcome::NotPermitted => Diagnostic::error(
            field,
            format!("this process may not listen on port {port} of {}", socket.ip()),
            format!(
                "use a port from 1024 up, or allow it with `sysctl net.ipv4.ip_unprivileged_port_start={port}` or the \
                 capability NET_BIND_SERVICE"
            ),
        ),
        BindOutcome::Failed(error) => Diagnostic::error(
            field,
            format!("cannot listen on {socket}: {error}"),
            "check the address and the limits of the process; Portico retries",
        ),
    };
    Some(problem.with_topic(Topic::Listening))
}

fn not_local_problem(socket: SocketAddr) -> Diagnostic {
    Diagnostic::error(
        "spec.addresses",
        format!("{} is not an address of this machine", socket.ip()),
        "use an address of this machine, or omit the addresses to get one of the pool",
    )
}

/// Derives the conditions of a Gateway or ListenerSet from those of its listeners. `not_local` are the problems of
/// addresses that do not belong to this machine.
fn update_parent_conditions(verdict: &mut Verdict, not_local: Vec<Diagnostic>) {
    let has_condition =
        |listener: &ListenerVerdict, code: Code| listener.conditions.iter().any(|condition| condition.code == code);
    let summary = |(index, listener): (usize, &ListenerVerdict), missing_state: &str| {
        let message = format!("listener {} is not {missing_state}", listener.name);
        Diagnostic::error(format!("spec.listeners[{index}]"), message, "see the conditions of the listener")
            .with_reason(Reason::OtherCondition)
    };
    let listeners = verdict.listeners.iter().enumerate();
    let rejected: Vec<_> = listeners
        .clone()
        .filter(|(_, listener)| !has_condition(listener, Code::ListenerAccepted))
        .map(|indexed| summary(indexed, "accepted"))
        .collect();
    let any_served = verdict.listeners.iter().any(|listener| has_condition(listener, Code::ListenerProgrammed));
    let any_in_use = verdict.listeners.iter().any(|listener| has_condition(listener, Code::ListenerPortUnavailable));
    // A program that waits for the condition Programmed reads only its message.
    let unserved = listeners.clone().filter(|(_, listener)| !has_condition(listener, Code::ListenerProgrammed));
    let unserved: Vec<_> = unserved.map(|indexed| summary(indexed, "served").into_warning()).collect();
    // Used only if no listener is served.
    let all_unserved: Vec<_> = listeners.map(|indexed| summary(indexed, "served")).collect();
    let all_rejected = rejected.len() == verdict.listeners.len();
    for condition in &mut verdict.conditions {
        match condition.code {
            Code::GatewayAccepted | Code::GatewaySomeListenersInvalid if !rejected.is_empty() => {
                let code = if all_rejected { Code::GatewayNoListenerValid } else { Code::GatewaySomeListenersInvalid };
                *condition = Condition::new(code, rejected.clone());
            }
            Code::GatewayProgrammed if !not_local.is_empty() => {
                *condition = Condition::new(Code::GatewayAddressNotUsable, not_local.clone());
            }
            Code::GatewayProgrammed if !any_served => {
                *condition = Condition::new(Code::GatewayNotProgrammed, all_unserved.clone());
            }
            Code::GatewayProgrammed | Code::ListenerSetProgrammed if any_served => {
                condition.diagnostics.clone_from(&unserved);
            }
            // Its condition Accepted stays, since its Gateway counts it as attached.
            Code::ListenerSetProgrammed if !any_served => {
                let code = match any_in_use {
                    true => Code::ListenerSetPortUnavailable,
                    false => Code::ListenerSetListenersUnserved,
                };
                *condition = Condition::new(code, all_unserved.clone());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(name: &str, port: u16) -> ListenerVerdict {
        ListenerVerdict {
            name: name.to_owned(),
            port,
            attached_routes: 0,
            supported_kinds: Vec::new(),
            sockets: vec![BindAddress::tcp(([127, 0, 0, 1], port).into())],
            conditions: vec![
                Condition::without_diagnostics(Code::ListenerAccepted),
                Condition::without_diagnostics(Code::ListenerProgrammed),
            ],
        }
    }

    #[test]
    fn listener_sets_stay_accepted_without_their_ports() {
        let set = Verdict {
            conditions: vec![
                Condition::without_diagnostics(Code::ListenerSetAccepted),
                Condition::without_diagnostics(Code::ListenerSetProgrammed),
            ],
            listeners: vec![listener("a", 8000), listener("b", 8443)],
            ..Verdict::default()
        };
        let codes = |verdict: &Verdict| verdict.conditions.iter().map(|condition| condition.code).collect::<Vec<_>>();
        for (outcome, ports, programmed) in [
            (BindOutcome::InUse, &[8000][..], Code::ListenerSetProgrammed),
            (BindOutcome::InUse, &[8000, 8443], Code::ListenerSetPortUnavailable),
            (BindOutcome::NotPermitted, &[8000, 8443], Code::ListenerSetListenersUnserved),
        ] {
            let outcome_of = |address: BindAddress| {
                let has_failed = ports.contains(&address.socket.port());
                Some(if has_failed { outcome.clone() } else { BindOutcome::Bound })
            };
            let combined = apply_bind_outcomes(&set, &outcome_of).unwrap();
            assert_eq!(codes(&combined), [Code::ListenerSetAccepted, programmed], "{outcome:?} {ports:?}");
        }
    }

    #[test]
    fn ingress_diagnostics_name_ports_that_failed() {
        let sockets = [8000, 8443].map(|port| BindAddress::tcp(([127, 0, 0, 1], port).into()));
        let ingress = Verdict {
            conditions: vec![Condition::without_diagnostics(Code::ObjectProgrammed)],
            sockets: sockets.to_vec(),
            ..Verdict::default()
        };
        let in_use = |address: BindAddress| {
            Some(if address.socket.port() == 8443 { BindOutcome::InUse } else { BindOutcome::Bound })
        };
        let combined = apply_bind_outcomes(&ingress, &in_use).unwrap();
        assert_eq!(combined.conditions, ingress.conditions, "it is served on the other port");
        let messages: Vec<_> = combined.diagnostics.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(messages, ["port 8443 of 127.0.0.1 is in use by another process"]);
        assert_eq!(apply_bind_outcomes(&ingress, &|_| Some(BindOutcome::Bound)), None);
    }

    fn gateway() -> Verdict {
        Verdict {
            conditions: vec![
                Condition::without_diagnostics(Code::GatewayAccepted),
                Condition::without_diagnostics(Code::GatewayProgrammed),
            ],
            listeners: vec![listener("a", 80), listener("b", 81)],
            ..Verdict::default()
        }
    }

    /// A program that waits for the condition goes on, and only the message tells of the others.
    #[test]
    fn programmed_names_the_listeners_that_are_not_served() {
        let bind = |address: BindAddress| {
            Some(if address.socket.port() == 80 { BindOutcome::NotPermitted } else { BindOutcome::Bound })
        };
        for programmed in [Code::GatewayProgrammed, Code::ListenerSetProgrammed] {
            let mut object = gateway();
            object.conditions[1] = Condition::without_diagnostics(programmed);
            let combined = apply_bind_outcomes(&object, &bind).unwrap();
            let condition = combined.conditions.iter().find(|condition| condition.code == programmed).unwrap();
            let messages: Vec<_> = condition.diagnostics.iter().map(|problem| problem.message.as_str()).collect();
            assert_eq!(messages, ["listener a is not served"], "{programmed:?}");
            assert!(!condition.diagnostics[0].is_error());
        }
    }

    #[test]
    fn bind_failures_show_on_listener_and_gateway() {
        use Code::{
            GatewayAccepted, GatewayAddressNotUsable, GatewayNoListenerValid, GatewayNotProgrammed, GatewayProgrammed,
            GatewaySomeListenersInvalid, ListenerAccepted, ListenerNotProgrammed, ListenerPortUnavailable,
        };
        let failed = BindOutcome::Failed("too many open files".to_owned());
        for (first, second, gateway_codes, listener_codes) in [
            (
                BindOutcome::InUse,
                BindOutcome::Bound,
                [GatewaySomeListenersInvalid, GatewayProgrammed],
                [ListenerPortUnavailable, ListenerNotProgrammed],
            ),
            (
                BindOutcome::InUse,
                BindOutcome::InUse,
                [GatewayNoListenerValid, GatewayNotProgrammed],
                [ListenerPortUnavailable, ListenerNotProgrammed],
            ),
            (
                BindOutcome::NotPermitted,
                BindOutcome::Bound,
                [GatewayAccepted, GatewayProgrammed],
                [ListenerAccepted, ListenerNotProgrammed],
            ),
            (
                failed,
                BindOutcome::NotPermitted,
                [GatewayAccepted, GatewayNotProgrammed],
                [ListenerAccepted, ListenerNotProgrammed],
            ),
            (
                BindOutcome::NotLocal,
                BindOutcome::NotLocal,
                [GatewayAccepted, GatewayAddressNotUsable],
                [ListenerAccepted, ListenerNotProgrammed],
            ),
        ] {
            let bind =
                |address: BindAddress| Some(if address.socket.port() == 80 { first.clone() } else { second.clone() });
            let combined = apply_bind_outcomes(&gateway(), &bind).unwrap();
            let codes =
                |conditions: &[Condition]| conditions.iter().map(|condition| condition.code).collect::<Vec<_>>();
            assert_eq!(codes(&combined.conditions), gateway_codes, "{first:?} and {second:?}");
            assert_eq!(codes(&combined.listeners[0].conditions), listener_codes, "{first:?} and {second:?}");
        }
    }

    #[test]
    fn remedy_fits_ports_chosen_by_portico() {
        let gateway_with_port = |port: u16| {
            let listener = ListenerVerdict { port, ..listener("a", 10_080) };
            Verdict { listeners: vec![listener], ..gateway() }
        };
        for (port, expected, unexpected) in
            [(80, "hostNetwork", "another port"), (10_080, "another port", "hostNetwork")]
        {
            let combined = apply_bind_outcomes(&gateway_with_port(port), &|_| Some(BindOutcome::InUse)).unwrap();
            let problem = combined.listeners[0].conditions[0].diagnostics[0].to_string();
            assert!(problem.contains(expected) && !problem.contains(unexpected), "{problem}");
            assert!(problem.contains("port 10080 of 127.0.0.1"), "{problem}");
        }
    }

    /// Followers report them as events, but not that a node does not have the address of another one.
    #[test]
    fn failures_of_this_replica_alone_are_marked() {
        for (outcome, topic) in [
            (BindOutcome::InUse, Topic::Listening),
            (BindOutcome::NotPermitted, Topic::Listening),
            (BindOutcome::NotLocal, Topic::Field),
        ] {
            let combined = apply_bind_outcomes(&gateway(), &|_| Some(outcome.clone())).unwrap();
            let programmed = combined.listeners[0].conditions.last().unwrap();
            assert_eq!(programmed.diagnostics[0].topic, topic, "{outcome:?}");
        }
    }

    #[test]
    fn bound_or_unknown_addresses_change_nothing() {
        assert_eq!(apply_bind_outcomes(&gateway(), &|_| Some(BindOutcome::Bound)), None);
        assert_eq!(apply_bind_outcomes(&gateway(), &|_| None), None);
    }
}
