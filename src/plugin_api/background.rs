//! A request that a plugin lets the proxy forward while the client gets another response, such as one that validates
//! what the plugin has stored.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode, request};

use super::body_filter::StreamingFilter;
use super::context::{AfterForwardCx, PluginData, ResponseHeaders};

/// A request without a body, which goes to the backend of the client's request, with its filters.
pub struct BackgroundRequest {
    pub head: request::Parts,
    /// Gets the head of the response, as in [`Plugin::after_forward`](super::Plugin::after_forward), and may observe its
    /// body. Dropped if the request is not sent.
    pub finish: FinishBackground,
}

/// What looks at the response to a [`BackgroundRequest`].
pub type FinishBackground = Box<dyn FnOnce(&mut AfterForwardCx<'_>)>;

/// Where a plugin leaves a request that is forwarded in the background.
#[derive(Default)]
pub struct BackgroundSlot {
    /// Whether the proxy takes one.
    pub is_open: bool,
    pub request: Option<BackgroundRequest>,
}

/// Passes the head of a response to what looks at it. `status`: `None` if there is no response. Returns what gets the
/// body.
pub fn finish_background(
    finish: FinishBackground,
    status: Option<StatusCode>,
    headers: &HeaderMap,
    now: SystemTime,
) -> Vec<Box<dyn StreamingFilter>> {
    let (mut observers, mut response_headers) = (Vec::new(), ResponseHeaders::default());
    finish(&mut AfterForwardCx {
        status,
        headers,
        response_headers: &mut response_headers,
        now,
        plugin_data: &mut PluginData::default(),
        observers: &mut observers,
        slot: 0,
    });
    observers
}
