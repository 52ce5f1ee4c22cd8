//! A disruption: begins with the condition that it causes, and ends when both replicas have recovered.

use std::time::Duration;

use anyhow::Result;
use futures_util::future::LocalBoxFuture;

use super::disruptions::api_server::{ApiServerError, ApiServerKilled};
use super::disruptions::dns::Dns;
use super::disruptions::endpoint::EndpointKilled;
use super::disruptions::hostile_clients::HostileClients;
use super::disruptions::objects::{CertificateBroken, PluginBroken, RouteBroken};
use super::disruptions::redis::{RedisKilled, RedisPaused};
use super::disruptions::replicas::{LeaderIsolated, LeaderKilled, LeaderPaused};
use super::dns_server::DnsBehavior;
use super::site::ChaosSite;
use crate::error_injector::InjectedError;

pub(super) type Step<'a> = LocalBoxFuture<'a, Result<()>>;

pub(super) trait Disruption {
    /// The name of the phase.
    fn name(&self) -> String;

    /// How long the disruption may last after its condition holds.
    fn longest(&self) -> Duration {
        Duration::MAX
    }

    /// Begins, and waits for the condition that it causes.
    fn begin<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a>;

    /// Ends, and waits until the condition no longer holds.
    fn end<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a>;
}

/// The delay of the API server's responses while it is slow.
const API_SERVER_DELAY: Duration = Duration::from_secs(1);

/// One disruption of each kind, except hostile clients.
pub(super) fn all() -> Vec<Box<dyn Disruption>> {
    let api_server = |name, error| Box::new(ApiServerError { name, error }) as Box<dyn Disruption>;
    let dns = |name, behavior| Box::new(Dns { name, behavior }) as Box<dyn Disruption>;
    vec![
        Box::new(ApiServerKilled),
        api_server("API server slow", InjectedError::Delay(API_SERVER_DELAY)),
        api_server("API server responds 429", InjectedError::Busy { seconds: 1 }),
        api_server("API server responds 500", InjectedError::Status(500)),
        Box::new(LeaderKilled::default()),
        Box::new(LeaderPaused::default()),
        Box::new(LeaderIsolated::default()),
        Box::new(RedisKilled),
        Box::new(RedisPaused),
        dns("DNS gone", DnsBehavior::Ignore),
        dns("DNS slow", DnsBehavior::RespondLate),
        dns("DNS fails", DnsBehavior::Fail),
        Box::new(EndpointKilled::default()),
        Box::new(CertificateBroken),
        Box::new(PluginBroken),
        Box::new(RouteBroken),
    ]
}

/// One disruption for each kind of hostile client.
pub(super) fn hostile_clients() -> Result<Vec<Box<dyn Disruption>>> {
    let kinds = portico_load::flood_names()?.into_iter().enumerate();
    Ok(kinds.map(|(kind, name)| Box::new(HostileClients::new(kind, name)) as Box<dyn Disruption>).collect())
}
