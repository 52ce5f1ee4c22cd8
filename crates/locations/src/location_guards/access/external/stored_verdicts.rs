//! Verdicts of the server that are stored, by a text of the request.

use std::sync::Arc;
use std::time::Duration;

use super::server_verdict::{ServerVerdict, lifetime};
use crate::plugin_api::RequestCx;
use crate::plugin_api::consumers::{Sha256Digest, sha256};
use crate::plugin_kit::digest_cache::{DigestCache, Expiring};
use crate::snapshot::location_snippet::SnippetText;
use crate::snapshot::location_steps::RequestValues;

/// The verdicts of one server.
pub(super) struct StoredVerdicts {
    pub key: SnippetText,
    /// For how many seconds those with a status are stored.
    pub seconds: Box<[(u16, u64)]>,
    /// Those of the process.
    pub stored: Arc<DigestCache<Expiring<ServerVerdict>>>,
    /// Of the Ingress, and of all that the verdicts depend on.
    pub of_server: Sha256Digest,
}

impl StoredVerdicts {
    pub(super) fn find(&self, digest: &Sha256Digest, cx: &RequestCx<'_>) -> Option<Arc<ServerVerdict>> {
        self.stored.find_value(digest, cx.now)
    }

    pub(super) fn insert(&self, digest: Sha256Digest, verdict: &Arc<ServerVerdict>, cx: &RequestCx<'_>) {
        if let Some(seconds) = lifetime(verdict, &self.seconds) {
            self.stored.insert_value(digest, Arc::clone(verdict), cx.now + Duration::from_secs(seconds), cx.now);
        }
    }

    /// The digest for a request. `None` if its verdict is not stored: the text is too long, or is none.
    pub(super) fn digest(&self, cx: &RequestCx<'_>) -> Option<Sha256Digest> {
        let values = RequestValues::new(cx);
        let key = self.key.expand(&values)?;
        // In place of bytes that are no text, so that several values would have the same key.
        if key.contains(char::REPLACEMENT_CHARACTER) {
            return None;
        }
        // The scope has the host and the path of the rule, so that others never get the verdict.
        Some(sha256(&[&self.of_server[..], cx.scope.as_bytes(), b"\n", key.as_bytes()].concat()))
    }
}
