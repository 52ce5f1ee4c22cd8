//! Passes the response to a request that was forwarded in the background to the plugin that has caused it.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode};

use crate::plugin_api::body_filter::StreamingFilter;
use crate::plugin_api::context::{AfterForwardCx, FinishBackground, PluginData, ResponseHeaders};

/// Passes the head of a response on. `status`: `None` if there is no response. Returns what gets the body.
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
        // The plugin that has caused the request knows it.
        route_namespace: "",
        plugin_data: &mut PluginData::default(),
        observers: &mut observers,
        slot: 0,
    });
    observers
}
