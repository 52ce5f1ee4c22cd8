//! The facts of one request.

pub(in crate::proxy) mod request_error;
pub(in crate::proxy) mod request_id;
pub(in crate::proxy) mod request_record;
