//! Entries as the bodies of HTTP requests.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

use super::DeliveryReports;
use crate::plugin_api::batch_queue::{BatchOutcome, BatchSender};
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::remote_request::RemoteRequest;
use crate::plugin_api::services::PluginServices;

/// Sends each batch in a request. Redirects are not followed, since their target may be an address that is blocked.
pub(crate) struct HttpSender {
    /// The request without its body.
    request: RemoteRequest,
    body: HttpBody,
    /// Whether a batch is sent again whatever the status is.
    retries_all: bool,
    services: Arc<dyn PluginServices>,
    reports: Arc<DeliveryReports>,
}

/// How entries become a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HttpBody {
    /// Entries are JSON, and a body is one of them.
    JsonObject,
    /// Entries are JSON, and a body is a list of them.
    JsonList,
}

impl HttpSender {
    pub(crate) fn new(request: RemoteRequest, body: HttpBody, reports: Arc<DeliveryReports>, cx: &BuildCx<'_>) -> Self {
        HttpSender { request, body, retries_all: false, services: Arc::clone(cx.services), reports }
    }

    /// Sends a batch again whatever the status is.
    pub(crate) fn retry_all(self) -> Self {
        HttpSender { retries_all: true, ..self }
    }
}

impl BatchSender for HttpSender {
    fn encode(&self, entries: &[Bytes]) -> Bytes {
        match (self.body, entries) {
            (HttpBody::JsonObject, [only]) => only.clone(),
            (HttpBody::JsonObject | HttpBody::JsonList, entries) => {
                let length = entries.iter().map(|entry| entry.len() + 1).sum::<usize>() + 1;
                let mut body = Vec::with_capacity(length);
                for (index, entry) in entries.iter().enumerate() {
                    body.push(if index == 0 { b'[' } else { b',' });
                    body.extend_from_slice(entry);
                }
                body.push(b']');
                body.into()
            }
        }
    }

    fn send(&self, body: Bytes) -> BoxFuture<'static, bool> {
        self.deliver(body).map(|delivery| delivery == BatchOutcome::Accepted).boxed()
    }

    fn deliver(&self, body: Bytes) -> BoxFuture<'static, BatchOutcome> {
        let request = RemoteRequest { body, ..self.request.clone() };
        let server = format!("{}:{}", request.remote.host, request.remote.port);
        let (reports, retries_all) = (Arc::clone(&self.reports), self.retries_all);
        let sending = self.services.send(request);
        async move {
            let (delivery, failure) = match sending.await {
                Ok(response) if response.status.as_u16() < 300 => (BatchOutcome::Accepted, None),
                Ok(response) => {
                    let failure = format!("{server} responded with status {}", response.status.as_u16());
                    let asked = delivery_after(response.status, &response.headers);
                    (if retries_all { BatchOutcome::Failed } else { asked }, Some(failure))
                }
                Err(error) => (BatchOutcome::Failed, Some(format!("{server}: {error}"))),
            };
            reports.update(failure);
            delivery
        }
        .boxed()
    }
}

/// What becomes of a batch after this response. A body that is invalid or too large would be so again.
fn delivery_after(status: StatusCode, headers: &HeaderMap) -> BatchOutcome {
    if [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE].contains(&status) {
        return BatchOutcome::Refused;
    }
    retry_after(headers, SystemTime::now()).map_or(BatchOutcome::Failed, BatchOutcome::Later)
}

/// The delay of `Retry-After`, in seconds or until a date.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).ok(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn servers_say_what_becomes_of_a_batch() {
        let later = BatchOutcome::Later(Duration::from_secs(7));
        for (status, retry_after, expected) in [
            (400, Some("7"), BatchOutcome::Refused),
            (413, None, BatchOutcome::Refused),
            (429, Some("7"), later),
            (503, Some("7"), later),
            (429, None, BatchOutcome::Failed),
            (302, None, BatchOutcome::Failed),
            (500, Some("-1"), BatchOutcome::Failed),
            // A date that is over.
            (503, Some("Thu, 01 Jan 1970 00:00:00 GMT"), BatchOutcome::Failed),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(value) = retry_after {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
            }
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(delivery_after(status, &headers), expected, "{status} {retry_after:?}");
        }
    }
}
