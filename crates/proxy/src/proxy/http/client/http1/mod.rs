//! HTTP/1 connections of clients, with Portico's codec.

pub(in crate::proxy) mod client_io;
pub(in crate::proxy) mod connection;
