//! Reports of the server that a log plugin sends to: in the log and in the conditions of its object, once for each
//! change.

use std::borrow::Cow;
use std::sync::Arc;

use tracing::{info, warn};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::kind::BuildCx;
use crate::plugin_kit::server_diagnostics::ServerDiagnostic;

/// The state of one server.
pub(crate) struct DeliveryReports {
    diagnostic: ServerDiagnostic,
    /// The field of the configuration that names the server.
    field: &'static str,
    /// What is sent, such as `logs`.
    entries: &'static str,
}

impl DeliveryReports {
    /// For the server that `field` of a configuration names.
    pub(crate) fn new(field: &'static str, cx: &BuildCx<'_>) -> Arc<Self> {
        DeliveryReports::of("logs", field, cx)
    }

    /// For a server that gets something else than logs, such as `traces`.
    pub(crate) fn of(entries: &'static str, field: &'static str, cx: &BuildCx<'_>) -> Arc<Self> {
        Arc::new(DeliveryReports { diagnostic: ServerDiagnostic::new(cx), field, entries })
    }

    /// A message about the server, without values of Secrets and vaults.
    pub(crate) fn shown<'m>(&self, message: &'m str) -> Cow<'m, str> {
        self.diagnostic.shown(message)
    }

    /// Records how the last batch ended. `failure`: the server and why it did not accept the batch.
    pub(crate) fn update(&self, failure: Option<String>) {
        if !self.diagnostic.note_failing(failure.is_some()) {
            return;
        }
        let object = self.diagnostic.object();
        match failure {
            Some(error) => {
                let error = &*self.diagnostic.shown(&error);
                warn!(object, error, "The {} of requests are not accepted; sending them again", self.entries);
                let message = format!("does not accept {}: {error}", self.entries);
                let remedy = "check that the server is running and accepts what this plugin sends";
                self.diagnostic.set(Some(Diagnostic::in_config(self.field, message, remedy)));
            }
            None => {
                info!(object, "The {} of requests are accepted again", self.entries);
                self.diagnostic.set(None);
            }
        }
    }
}
