//! The plugin that replaces one that could not be built.

use std::sync::Arc;

use http::StatusCode;

use crate::plugin_api::{AccessOutcome, Plugin, Reply, RequestCx};

/// Replaces a plugin that fails closed and cannot be built. It replies to every request with 503.
pub struct BrokenPlugin {
    message: Arc<str>,
}

impl BrokenPlugin {
    /// `message` is sent to clients: it names the broken plugin and must not contain secrets.
    pub fn with_message(message: impl Into<Arc<str>>) -> Arc<dyn Plugin> {
        Arc::new(BrokenPlugin { message: message.into() })
    }
}

impl Plugin for BrokenPlugin {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, _cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        AccessOutcome::Reply(Reply::negotiated(
            StatusCode::SERVICE_UNAVAILABLE,
            self.message.to_string(),
            "broken_plugin",
        ))
    }
}
