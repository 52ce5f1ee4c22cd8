//! The JSON object that log plugins write for a forwarded connection or a UDP session: the one of Kong's log plugins
//! for stream routes.

use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::log_entry::{TlsJson, TryJson, WORKSPACE_ID, milliseconds};
use crate::plugin_api::context::LogCx;
use crate::plugin_api::ended_session::EndedSession;

/// The log object of a session.
#[derive(Serialize)]
pub(crate) struct SessionEntry<'a> {
    session: SessionJson<'a>,
    upstream: UpstreamJson,
    latencies: SessionLatencies,
    tries: Vec<TryJson>,
    client_ip: IpAddr,
    started_at: u64,
    route: Option<&'a RawValue>,
    service: Option<&'a RawValue>,
    workspace: &'static str,
    workspace_name: &'static str,
    source: &'static str,
}

#[derive(Serialize)]
struct SessionJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsJson<'a>>,
    received: u64,
    sent: u64,
    status: u16,
    server_port: u16,
}

/// Bytes from the endpoint, and to the endpoint.
#[derive(Serialize)]
struct UpstreamJson {
    received: u64,
    sent: u64,
}

/// Durations in milliseconds.
#[derive(Serialize)]
struct SessionLatencies {
    /// The time until an endpoint was connected.
    #[serde(rename = "kong")]
    gateway: u64,
    session: u64,
}

impl<'a> SessionEntry<'a> {
    pub(crate) fn new(session: &EndedSession<'a>, cx: &LogCx<'a>) -> Self {
        // An endpoint gets what the client has sent, and the client what the endpoint has sent.
        let (received, sent) = if session.connect.is_some() { (session.sent, session.received) } else { (0, 0) };
        SessionEntry {
            session: SessionJson {
                tls: session.tls.map(TlsJson::from),
                received: session.received,
                sent: session.sent,
                status: session.status.as_u16(),
                server_port: session.server_port,
            },
            upstream: UpstreamJson { received, sent },
            latencies: SessionLatencies {
                gateway: milliseconds(session.connect.unwrap_or(session.total)),
                session: milliseconds(session.total),
            },
            tries: session.attempts.iter().map(|attempt| TryJson::new(attempt, cx)).collect(),
            client_ip: session.client,
            started_at: milliseconds(session.started_at.duration_since(UNIX_EPOCH).unwrap_or_default()),
            route: cx.description.map(|description| &*description.route),
            service: cx.description.map(|description| &*description.service),
            workspace: WORKSPACE_ID,
            workspace_name: "default",
            source: if session.connect.is_some() { "upstream" } else { "kong" },
        }
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text and numbers always serialize")
    }

    /// The object as a value, to add fields to it.
    pub(crate) fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("text and numbers always serialize")
    }
}
