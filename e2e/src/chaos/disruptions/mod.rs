//! What is killed, slowed and broken: one file for each part of the site.

pub(super) mod api_server;
pub(super) mod dns;
pub(super) mod endpoint;
pub(super) mod hostile_clients;
pub(super) mod objects;
pub(super) mod redis;
pub(super) mod replicas;
