//! Verifies that a server does the work that the comparison assumes: a proxy that adds fewer header fields would take
//! less CPU time for that reason alone.

use anyhow::{Context, Result, ensure};

use crate::backend::ECHO_HEAD_PATH;
use crate::heads::Heads;
use crate::plan::RequestShape;
use crate::raw_exchange::{RawResponse, exchange, fields};
use crate::server::objects::CHAIN;
use crate::server::{H2C_HOST, HOST, Server, WEBSOCKET_HOST};
use crate::token_pool::TOKEN_HOST;

/// The fields of every request to the backend. The value is not compared: each server writes its own.
const REQUEST_FIELDS: [&str; 5] =
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-request-id"];
const REQUEST_ID: &str = "x-request-id";

/// The hosts that all servers have, and the version of HTTP with which the backend receives requests for them.
const HOSTS: [(&str, &str); 3] = [(HOST, HTTP1), (WEBSOCKET_HOST, HTTP1), (H2C_HOST, "HTTP/2.0")];
const HTTP1: &str = "HTTP/1.1";
/// How many of the requests of a case are checked: at least as many as there are hosts.
const MAX_CHECKED: usize = 100;

/// Plugins of the chain, each with a field that it adds to the request or to the response. The others add none.
const FIELDS_OF_PLUGINS: [(&str, &str); 6] = [
    ("key-auth", "x-consumer-username"),
    ("rate-limiting", "ratelimit-limit"),
    ("correlation-id", "kong-request-id"),
    ("request-transformer", "x-plan"),
    ("response-transformer", "x-frame-options"),
    ("cors", "access-control-allow-origin"),
];

/// Fails if a request or its response lacks a field, if the backend receives another version of HTTP, if a route of the
/// server's variant does not lead to the backend, or if a request for another host does.
pub(crate) async fn check(server: &Server) -> Result<()> {
    for (host, version) in HOSTS {
        check_request(server, &RequestShape::get(host, ECHO_HEAD_PATH), version).await?;
    }
    let routed = exchange(server.address, &RequestShape::get("other.example", ECHO_HEAD_PATH)).await;
    ensure!(routed.is_err(), "{} routes requests for every host to the backend", server.name);
    let plugins = &CHAIN[..server.variant.chain.unwrap_or_default()];
    if let Some(tokens) = server.variant.tokens {
        let without_token = exchange(server.address, &RequestShape::get(TOKEN_HOST, ECHO_HEAD_PATH)).await;
        ensure!(without_token.is_err(), "{} forwards requests without a token: {tokens:?}", server.name);
    }
    // All have the same form, and there may be thousands of tokens.
    for request in server.variant.requests(&RequestShape::get(HOST, ECHO_HEAD_PATH)).into_iter().take(MAX_CHECKED) {
        let response = check_request(server, &request, HTTP1).await?;
        for (plugin, field) in FIELDS_OF_PLUGINS.into_iter().filter(|(plugin, _)| plugins.contains(plugin)) {
            let has_effect = has(&response.body, field) || has(&response.head, field);
            ensure!(has_effect, "{}: {plugin} adds no {field}:\n{}{}", server.name, response.body, response.head);
        }
    }
    Ok(())
}

/// Fails unless a server with filters sends the header fields of one with a chain of plugins to the endpoint and to the
/// client, and about as many bytes.
pub(crate) async fn check_imitation(chain: &Server, imitation: &Server, shape: &RequestShape) -> Result<()> {
    let observe = async |server: &Server| {
        let request = server.variant.requests(shape).swap_remove(0);
        Heads::observe(server.address, &request).await
    };
    let (chain, heads) = (observe(chain).await?, observe(imitation).await?);
    heads.ensure_same_fields(imitation.name, &chain)?;
    heads.ensure_same_bytes(imitation.name, &chain)
}

/// Sends a request for its own head and returns the response, if both have all fields.
async fn check_request(server: &Server, request: &RequestShape, version: &str) -> Result<RawResponse> {
    let (name, host) = (server.name, &request.host);
    let exchanged = exchange(server.address, request).await;
    let (_, response) = exchanged.with_context(|| format!("{name} does not serve {host}"))?;
    let RawResponse { head, body: received } = &response;
    for field in REQUEST_FIELDS {
        ensure!(has(received, field), "{name} sends no {field} to the backend:\n{received}");
    }
    let request_line = received.lines().next().unwrap_or_default();
    ensure!(request_line.ends_with(version), "{name} does not use {version} for {host}:\n{received}");
    ensure!(has(head, REQUEST_ID), "{name} responds without {REQUEST_ID}:\n{head}");
    Ok(response)
}

fn has(head: &str, name: &str) -> bool {
    fields(head).any(|(field, value)| field.eq_ignore_ascii_case(name) && !value.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_belong_to_plugins_of_the_chain() {
        for (plugin, _) in FIELDS_OF_PLUGINS {
            assert!(CHAIN.contains(&plugin), "{plugin}");
        }
    }
}
