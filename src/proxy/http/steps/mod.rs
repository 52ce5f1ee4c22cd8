//! What happens to one request, in order: target, routing, headers, plugins, authorization, response.

pub(in crate::proxy) mod accepted_protocols;
pub(in crate::proxy) mod affinity;
pub(in crate::proxy) mod condition_fields;
pub(in crate::proxy) mod cross_origin;
pub(in crate::proxy) mod early_exit;
pub(in crate::proxy) mod error_response;
pub(in crate::proxy) mod external_auth;
pub(in crate::proxy) mod forwarding_headers;
pub(in crate::proxy) mod order;
pub(in crate::proxy) mod plugin_run;
pub(in crate::proxy) mod plugins;
pub(in crate::proxy) mod product_headers;
pub(in crate::proxy) mod read_body;
pub(in crate::proxy) mod real_ip_headers;
pub(in crate::proxy) mod reply_response;
pub(in crate::proxy) mod reported_client;
pub(in crate::proxy) mod request;
pub(in crate::proxy) mod request_context;
pub(in crate::proxy) mod request_record;
pub(in crate::proxy) mod response_filters;
pub(in crate::proxy) mod route_captures;
pub(in crate::proxy) mod routing;
pub(in crate::proxy) mod rule_action;
pub(in crate::proxy) mod target;
pub(in crate::proxy) mod trailer_header;
pub(in crate::proxy) mod upstream_target;
