//! A route of connections or sessions to which plugins may be attached.

use crate::api::{Kind, Meta};
use crate::snapshot::rule::Backend;

/// A route of connections or sessions to which plugins may be attached.
pub(in crate::compile) struct StreamPluginSite<'a> {
    pub kind: Kind,
    /// The metadata of the route, with its annotations.
    pub meta: &'a Meta,
    /// The metadata of the Services to which it forwards, each with the field that refers to it.
    pub services: &'a [(&'a Meta, String)],
    /// The index of the rule in its object.
    pub rule: usize,
    /// The server names that clients must send.
    pub server_names: Vec<String>,
    pub backends: &'a [Backend],
}
