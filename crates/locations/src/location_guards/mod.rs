//! The guards of a location, in the order of nginx, and the mirror behind them. They come after what the snapshot does
//! for the location itself, such as redirects, and before all plugins.
//!
//! ```text
//!   location steps ─▶ limits ─▶ access: addresses ▶ password ▶ server ─▶ mirror ─▶ plugins
//! ```

mod access;
mod address_list;
mod limits;
mod mirror;
mod server_url;

use crate::plugin_api::{PluginKinds, RegisteredKind};

/// The names by which the compiler finds the guards. No KongPlugin can have them.
pub static KINDS: PluginKinds = &[
    &RegisteredKind::<access::AccessGuard>::NEW,
    &RegisteredKind::<limits::ClientLimits>::NEW,
    &RegisteredKind::<mirror::LocationMirror>::NEW,
];
