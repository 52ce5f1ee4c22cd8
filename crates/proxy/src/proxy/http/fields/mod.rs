//! Rules for the fields of HTTP messages.

pub(in crate::proxy) mod date;
pub(in crate::proxy) mod field_policy;
pub(in crate::proxy) mod header_map_pool;
pub(in crate::proxy) mod headers;
pub(in crate::proxy) mod hpack;
pub(in crate::proxy) mod product_names;
pub(in crate::proxy) mod via;
