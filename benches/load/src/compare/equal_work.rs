//! Verifies that a server does the work that the comparison assumes: a proxy that adds fewer header fields would take
//! less CPU time for that reason alone.

use anyhow::{Result, ensure};

use crate::backend::ECHO_HEAD_PATH;
use crate::plan::RequestShape;
use crate::raw_exchange::{exchange, fields};
use crate::server::{HOST, Server};

/// The fields of every request to the backend. The value is not compared: each server writes its own.
const REQUEST_FIELDS: [&str; 5] =
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-request-id"];
const REQUEST_ID: &str = "x-request-id";

/// Fails if a request or its response lacks a field, or if a request for another host reaches the backend.
pub(crate) async fn check(server: &Server) -> Result<()> {
    let (_, response) = exchange(server.address, &RequestShape::get(HOST, ECHO_HEAD_PATH)).await?;
    for field in REQUEST_FIELDS {
        ensure!(has(&response.body, field), "{} sends no {field} to the backend:\n{}", server.name, response.body);
    }
    ensure!(has(&response.head, REQUEST_ID), "{} responds without {REQUEST_ID}:\n{}", server.name, response.head);
    let routed = exchange(server.address, &RequestShape::get("other.example", ECHO_HEAD_PATH)).await;
    ensure!(routed.is_err(), "{} routes requests for every host to the backend", server.name);
    Ok(())
}

fn has(head: &str, name: &str) -> bool {
    fields(head).any(|(field, value)| field.eq_ignore_ascii_case(name) && !value.trim().is_empty())
}
