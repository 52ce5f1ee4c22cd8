//! Verdicts joined with what only others know: which addresses could be bound, and what is installed.
//!
//! ```text
//!   compile ──verdicts──▶ join ──▶ what is said: terminal, /debug/verdicts
//!   proxy ────binds──────▲ ▲  └──▶ desk ──due──▶ writer ──merge──▶ the objects' status
//!   API server ──installed─┘         └─────────▶ teller ─────────▶ events
//! ```

mod board;
mod desk;
mod features;
mod installed;
mod json;
mod merge;
mod notices;
mod teller;
mod writer;

use std::net::SocketAddr;

pub use desk::Desk;
pub use installed::with_installed;
pub use json::status as to_json;
pub use merge::{Merged, merge};
pub use teller::Teller;
pub use writer::{Writer, Writes};

use crate::compile::verdict::{Code, Condition, ListenerVerdict, Problem, Verdict};

/// What became of an address that a listener wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    Bound,
    /// Another process owns the port.
    InUse,
    /// The system does not let us have it: a port below 1024.
    NotPermitted,
    /// The address is none of this machine's.
    NotOurs,
    /// Anything else, in the system's words.
    Failed(String),
}

/// The verdict on a Gateway, now that its listeners were bound or not. None if that changes nothing. `bind` gives None
/// for an address of which nothing is known yet: then the verdict stays as it is.
pub fn join(verdict: &Verdict, bind: &dyn Fn(SocketAddr) -> Option<Bind>) -> Option<Verdict> {
    let mut joined = verdict.clone();
    let mut not_ours = Vec::new();
    let mut changed = false;
    for (index, listener) in joined.listeners.iter_mut().enumerate() {
        for socket in listener.sockets.clone() {
            let Some(found) = bind(socket).filter(|found| *found != Bind::Bound) else { continue };
            if found == Bind::NotOurs {
                not_ours.push(address_problem(socket));
            }
            refuse(listener, index, socket, &found);
            changed = true;
        }
    }
    for socket in verdict.sockets.iter().copied() {
        let Some(found) = bind(socket).filter(|found| *found != Bind::Bound) else { continue };
        if let Some(problem) = problem(String::new(), socket, None, &found) {
            joined.notes.push(problem);
            changed = true;
        }
    }
    if !changed {
        return None;
    }
    judge_gateway(&mut joined, not_ours);
    Some(joined)
}

/// One reason suffices for a listener; the first stands.
fn refuse(listener: &mut ListenerVerdict, index: usize, socket: SocketAddr, found: &Bind) {
    let field = format!("spec.listeners[{index}].port");
    let Some(problem) = problem(field, socket, Some(listener.port), found) else { return };
    for condition in &mut listener.conditions {
        match condition.code {
            Code::ListenerAccepted if *found == Bind::InUse => {
                *condition = Condition::new(Code::ListenerPortUnavailable, vec![problem.clone()]);
            }
            Code::ListenerProgrammed => {
                *condition = Condition::new(Code::ListenerNotProgrammed, vec![problem.clone()]);
            }
            _ => {}
        }
    }
}

/// Why nothing is served there. None if it is. `public` is the port as clients see it, if they see another one.
fn problem(field: String, socket: SocketAddr, public: Option<u16>, found: &Bind) -> Option<Problem> {
    let port = socket.port();
    Some(match found {
        Bind::Bound => return None,
        // Behind a Service, where we chose the port: another one of the Gateway's would not help.
        Bind::InUse if public.is_some_and(|public| port != public) => Problem::new(
            field,
            format!(
                "port {port} of {}, which Portico listens on for port {}, is in use by another process",
                socket.ip(),
                public.unwrap_or(port)
            ),
            format!(
                "stop that process (`ss -ltnp 'sport = :{port}'` in Portico's Pod shows it), or run Portico without \
                 hostNetwork; it is tried again by itself"
            ),
        ),
        Bind::InUse => Problem::new(
            field,
            format!("port {port} of {} is in use by another process", socket.ip()),
            format!("stop that process (`ss -ltnp 'sport = :{port}'` shows it) or choose another port"),
        ),
        Bind::NotPermitted => Problem::new(
            field,
            format!("this process may not listen on port {port} of {}", socket.ip()),
            format!(
                "use a port from 1024 up, or allow it with `sysctl net.ipv4.ip_unprivileged_port_start={port}` or the \
                 capability NET_BIND_SERVICE"
            ),
        ),
        Bind::NotOurs => address_problem(socket),
        Bind::Failed(what) => Problem::new(
            field,
            format!("cannot listen on {socket}: {what}"),
            "it is tried again by itself; check the address and the limits of the process",
        ),
    })
}

fn address_problem(socket: SocketAddr) -> Problem {
    Problem::new(
        "spec.addresses",
        format!("{} is not an address of this machine", socket.ip()),
        "use an address that it has, or leave the addresses out to get one of the pool",
    )
}

fn judge_gateway(verdict: &mut Verdict, not_ours: Vec<Problem>) {
    let has =
        |listener: &ListenerVerdict, code: Code| listener.conditions.iter().any(|condition| condition.code == code);
    let summary = |(index, listener): (usize, &ListenerVerdict), what: &str| {
        let message = format!("listener {} is not {what}", listener.name);
        Problem::new(format!("spec.listeners[{index}]"), message, "see the conditions of the listener")
    };
    let listeners = verdict.listeners.iter().enumerate();
    let refused: Vec<_> = listeners
        .clone()
        .filter(|(_, listener)| !has(listener, Code::ListenerAccepted))
        .map(|entry| summary(entry, "accepted"))
        .collect();
    let any_served = verdict.listeners.iter().any(|listener| has(listener, Code::ListenerProgrammed));
    let unserved: Vec<_> = listeners.map(|entry| summary(entry, "served")).collect();
    let all_refused = refused.len() == verdict.listeners.len();
    for condition in &mut verdict.conditions {
        match condition.code {
            Code::GatewayAccepted | Code::GatewaySomeListenersInvalid if !refused.is_empty() => {
                let code = if all_refused { Code::GatewayNoListenerValid } else { Code::GatewaySomeListenersInvalid };
                *condition = Condition::new(code, refused.clone());
            }
            Code::GatewayProgrammed if !not_ours.is_empty() => {
                *condition = Condition::new(Code::GatewayAddressNotUsable, not_ours.clone());
            }
            Code::GatewayProgrammed if !any_served => {
                *condition = Condition::new(Code::GatewayNotProgrammed, unserved.clone());
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
            sockets: vec![SocketAddr::from(([127, 0, 0, 1], port))],
            conditions: vec![Condition::plain(Code::ListenerAccepted), Condition::plain(Code::ListenerProgrammed)],
        }
    }

    #[test]
    fn an_ingress_says_where_it_cannot_be_served() {
        let sockets = [8000, 8443].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let ingress = Verdict {
            conditions: vec![Condition::plain(Code::KongProgrammed)],
            sockets: sockets.to_vec(),
            ..Verdict::default()
        };
        let in_use = |at: SocketAddr| Some(if at.port() == 8443 { Bind::InUse } else { Bind::Bound });
        let joined = join(&ingress, &in_use).unwrap();
        assert_eq!(joined.conditions, ingress.conditions, "it is served on the other port");
        let notes: Vec<_> = joined.notes.iter().map(|note| note.message.as_str()).collect();
        assert_eq!(notes, ["port 8443 of 127.0.0.1 is in use by another process"]);
        assert_eq!(join(&ingress, &|_| Some(Bind::Bound)), None);
    }

    fn gateway() -> Verdict {
        Verdict {
            conditions: vec![Condition::plain(Code::GatewayAccepted), Condition::plain(Code::GatewayProgrammed)],
            listeners: vec![listener("a", 80), listener("b", 81)],
            ..Verdict::default()
        }
    }

    #[test]
    fn what_could_not_be_bound_is_said_on_listener_and_gateway() {
        use Code::{
            GatewayAccepted, GatewayAddressNotUsable, GatewayNoListenerValid, GatewayNotProgrammed, GatewayProgrammed,
            GatewaySomeListenersInvalid, ListenerAccepted, ListenerNotProgrammed, ListenerPortUnavailable,
        };
        let failed = Bind::Failed("too many open files".to_owned());
        for (first, second, gateway_codes, listener_codes) in [
            (
                Bind::InUse,
                Bind::Bound,
                [GatewaySomeListenersInvalid, GatewayProgrammed],
                [ListenerPortUnavailable, ListenerNotProgrammed],
            ),
            (
                Bind::InUse,
                Bind::InUse,
                [GatewayNoListenerValid, GatewayNotProgrammed],
                [ListenerPortUnavailable, ListenerNotProgrammed],
            ),
            (
                Bind::NotPermitted,
                Bind::Bound,
                [GatewayAccepted, GatewayProgrammed],
                [ListenerAccepted, ListenerNotProgrammed],
            ),
            (
                failed,
                Bind::NotPermitted,
                [GatewayAccepted, GatewayNotProgrammed],
                [ListenerAccepted, ListenerNotProgrammed],
            ),
            (
                Bind::NotOurs,
                Bind::NotOurs,
                [GatewayAccepted, GatewayAddressNotUsable],
                [ListenerAccepted, ListenerNotProgrammed],
            ),
        ] {
            let bind = |socket: SocketAddr| Some(if socket.port() == 80 { first.clone() } else { second.clone() });
            let joined = join(&gateway(), &bind).unwrap();
            let codes =
                |conditions: &[Condition]| conditions.iter().map(|condition| condition.code).collect::<Vec<_>>();
            assert_eq!(codes(&joined.conditions), gateway_codes, "{first:?} and {second:?}");
            assert_eq!(codes(&joined.listeners[0].conditions), listener_codes, "{first:?} and {second:?}");
        }
    }

    #[test]
    fn a_port_that_we_chose_is_not_blamed_on_the_gateway() {
        let behind =
            |own: u16| Verdict { listeners: vec![ListenerVerdict { port: own, ..listener("a", 10_080) }], ..gateway() };
        for (own, says, says_not) in [(80, "hostNetwork", "another port"), (10_080, "another port", "hostNetwork")] {
            let joined = join(&behind(own), &|_| Some(Bind::InUse)).unwrap();
            let problem = joined.listeners[0].conditions[0].problems[0].to_string();
            assert!(problem.contains(says) && !problem.contains(says_not), "{problem}");
            assert!(problem.contains("port 10080 of 127.0.0.1"), "{problem}");
        }
    }

    #[test]
    fn nothing_changes_while_all_is_well_or_unknown() {
        assert_eq!(join(&gateway(), &|_| Some(Bind::Bound)), None);
        assert_eq!(join(&gateway(), &|_| None), None);
    }
}
