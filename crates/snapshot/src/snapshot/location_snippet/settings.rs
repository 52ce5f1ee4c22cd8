//! Settings of snippets that annotations have, too. The caller applies them in place of the annotation.

use std::time::Duration;

use super::directive_tree::WrittenDirective;
use super::refusal::DirectiveRefusal;
use super::units::{parse_size, parse_time};
use crate::snapshot::next_upstream::NextUpstream;

/// The settings of a snippet; `None` for those that it does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnippetSettings {
    /// `client_max_body_size`. 0 is no limit.
    pub max_body_bytes: Option<u64>,
    /// `proxy_connect_timeout` or `grpc_connect_timeout`.
    pub connect_timeout: Option<Duration>,
    /// `proxy_read_timeout`: between two reads from the endpoint.
    pub read_timeout: Option<Duration>,
    /// `proxy_send_timeout`: between two writes to the endpoint.
    pub send_timeout: Option<Duration>,
    pub grpc_read_timeout: Option<Duration>,
    pub grpc_send_timeout: Option<Duration>,
    /// `send_timeout`: between two writes to the client.
    pub client_send_timeout: Option<Duration>,
    /// `keepalive_timeout`: of idle connections of clients. 0 closes them after a response.
    pub client_keepalive_timeout: Option<Duration>,
    /// `proxy_next_upstream_tries`. 0 is no limit.
    pub max_attempts: Option<u32>,
    /// `proxy_next_upstream`.
    pub next_upstream: Option<NextUpstream>,
    /// `proxy_next_upstream_timeout`. 0 is no limit.
    pub next_upstream_time: Option<Duration>,
    /// `access_log off`.
    pub is_access_log_off: Option<bool>,
}

impl SnippetSettings {
    /// Adds a directive. `Ok(false)` if it is no setting.
    pub(super) fn add(&mut self, directive: &WrittenDirective) -> Result<bool, DirectiveRefusal> {
        let timeout = match &directive.name[..] {
            "proxy_connect_timeout" | "grpc_connect_timeout" => &mut self.connect_timeout,
            "proxy_read_timeout" => &mut self.read_timeout,
            "proxy_send_timeout" => &mut self.send_timeout,
            "grpc_read_timeout" => &mut self.grpc_read_timeout,
            "grpc_send_timeout" => &mut self.grpc_send_timeout,
            "send_timeout" => &mut self.client_send_timeout,
            "proxy_next_upstream_timeout" | "grpc_next_upstream_timeout" => &mut self.next_upstream_time,
            "keepalive_timeout" => &mut self.client_keepalive_timeout,
            "client_max_body_size" => {
                let [text] = directive.exactly()?;
                set_once(&mut self.max_body_bytes, parse_size(text), "has no size such as `8m`")?;
                return Ok(true);
            }
            "proxy_next_upstream_tries" | "grpc_next_upstream_tries" => {
                let [text] = directive.exactly()?;
                set_once(&mut self.max_attempts, text.parse().ok(), "has no number")?;
                return Ok(true);
            }
            "proxy_next_upstream" | "grpc_next_upstream" => {
                let conditions = NextUpstream::parse(directive.some_arguments()?.iter().map(|word| &word[..]));
                set_once(&mut self.next_upstream, conditions, "has no conditions such as `error timeout http_502`")?;
                return Ok(true);
            }
            "access_log" if directive.arguments.first().is_some_and(|first| first == "off") => {
                let [_] = directive.exactly()?;
                set_once(&mut self.is_access_log_off, Some(true), "")?;
                return Ok(true);
            }
            _ => return Ok(false),
        };
        // The second argument of `keepalive_timeout` is the field `Keep-Alive` for the client.
        let [text] = directive.exactly()?;
        set_once(timeout, parse_time(text), "has no time such as `60s`")?;
        Ok(true)
    }

    /// Adds those of the server.
    pub(super) fn inherit(&mut self, outer: &SnippetSettings) {
        let SnippetSettings {
            max_body_bytes,
            connect_timeout,
            read_timeout,
            send_timeout,
            grpc_read_timeout,
            grpc_send_timeout,
            client_send_timeout,
            client_keepalive_timeout,
            max_attempts,
            next_upstream,
            next_upstream_time,
            is_access_log_off,
        } = outer;
        self.max_body_bytes = self.max_body_bytes.or(*max_body_bytes);
        self.connect_timeout = self.connect_timeout.or(*connect_timeout);
        self.read_timeout = self.read_timeout.or(*read_timeout);
        self.send_timeout = self.send_timeout.or(*send_timeout);
        self.grpc_read_timeout = self.grpc_read_timeout.or(*grpc_read_timeout);
        self.grpc_send_timeout = self.grpc_send_timeout.or(*grpc_send_timeout);
        self.client_send_timeout = self.client_send_timeout.or(*client_send_timeout);
        self.client_keepalive_timeout = self.client_keepalive_timeout.or(*client_keepalive_timeout);
        self.max_attempts = self.max_attempts.or(*max_attempts);
        if self.next_upstream.is_none() {
            self.next_upstream.clone_from(next_upstream);
        }
        self.next_upstream_time = self.next_upstream_time.or(*next_upstream_time);
        self.is_access_log_off = self.is_access_log_off.or(*is_access_log_off);
    }
}

fn set_once<T>(setting: &mut Option<T>, value: Option<T>, message: &str) -> Result<(), DirectiveRefusal> {
    let value = value.ok_or_else(|| DirectiveRefusal::invalid(message))?;
    match setting.replace(value) {
        Some(_) => Err(DirectiveRefusal::invalid("is given twice")),
        None => Ok(()),
    }
}
