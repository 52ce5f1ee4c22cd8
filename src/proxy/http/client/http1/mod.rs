//! HTTP/1 connections of clients, with Portico's codec.

pub(in crate::proxy) mod client_io;
pub(in crate::proxy) mod connection;
pub(in crate::proxy) mod unread_body;
