//! Lines of the access log for a server of OTLP, each as a log record.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::queue::LineBatch;
use crate::plugin_api::batch_queue::BatchQueue;
use crate::plugin_api::otlp_messages::spans_and_logs::{OtlpResource, encode_log};
use crate::plugin_api::trace::RequestTrace;

/// The queue of the server. The thread that writes lines fills it.
pub struct LineExport {
    resource: OtlpResource,
    queue: Arc<BatchQueue>,
}

/// What a record has besides its text.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineOrigin {
    /// When the request began or the connection was accepted.
    pub(super) time: SystemTime,
    pub(super) trace: Option<RequestTrace>,
}

impl LineExport {
    pub fn new(resource: OtlpResource, queue: Arc<BatchQueue>) -> Self {
        LineExport { resource, queue }
    }

    /// Adds the lines that have an origin. Those from before the export began have none.
    pub(super) fn push(&self, lines: &LineBatch) {
        let mut start = 0;
        for (end, origin) in &lines.origins {
            let line = &lines.text[start..*end];
            start = *end;
            let Some(origin) = origin else { continue };
            let body = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line)).into_owned();
            let since = origin.time.duration_since(UNIX_EPOCH).unwrap_or_default();
            let time = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
            self.queue.push(encode_log(&self.resource, SCOPE, time, body, &[], origin.trace.as_ref()));
        }
    }
}

impl fmt::Debug for LineExport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LineExport").finish_non_exhaustive()
    }
}

/// The name of the instrumentation.
const SCOPE: &str = "portico";
