//! Sends the batches of `http-log` to its server.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::plugin_api::batch_queue::BatchSender;
use crate::plugin_api::log_delivery::DeliveryReports;
use crate::plugin_api::{BuildCx, PluginServices, RemoteRequest};

pub(super) struct HttpDelivery {
    /// The request without its body.
    request: RemoteRequest,
    /// Whether a body is a list of objects.
    sends_lists: bool,
    services: Arc<dyn PluginServices>,
    reports: Arc<DeliveryReports>,
}

impl HttpDelivery {
    pub(super) fn new(request: RemoteRequest, sends_lists: bool, cx: &BuildCx<'_>) -> Self {
        let reports = DeliveryReports::new("http_endpoint", cx);
        HttpDelivery { request, sends_lists, services: Arc::clone(cx.services), reports }
    }
}

impl BatchSender for HttpDelivery {
    fn encode(&self, entries: &[Bytes]) -> Bytes {
        match entries {
            [only] if !self.sends_lists => only.clone(),
            entries => {
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
        let request = RemoteRequest { body, ..self.request.clone() };
        let server = format!("{}:{}", request.remote.host, request.remote.port);
        let reports = Arc::clone(&self.reports);
        let sending = self.services.send(request);
        async move {
            let failure = match sending.await {
                Ok(response) if response.status.as_u16() < 300 => None,
                Ok(response) => Some(format!("{server} responded with status {}", response.status.as_u16())),
                Err(error) => Some(format!("{server}: {error}")),
            };
            let is_accepted = failure.is_none();
            reports.update(failure);
            is_accepted
        }
        .boxed()
    }
}
