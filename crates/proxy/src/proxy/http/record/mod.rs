//! The facts of one request and its attempts. They know nothing of the connection, the steps or forwarding.

pub(in crate::proxy) mod named_request;
pub(in crate::proxy) mod request_attempts;
pub(in crate::proxy) mod request_error;
pub(in crate::proxy) mod request_facts;
pub(in crate::proxy) mod request_id;
pub(in crate::proxy) mod response_deadline;
