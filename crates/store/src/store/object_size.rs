//! The size of a decoded object, which limits the memory that it takes: that is a small multiple of the size, whatever
//! the object contains. A short text such as `[0,0,0]` takes a large multiple of its length once it is decoded, so the
//! length of the text does not limit the memory.

use serde_json::Value;

use crate::api::Kind;

/// The size of an object in bytes: the length of its field names and strings, and [`BYTES_PER_VALUE`] for each value.
/// [`NESTED_TOO_DEEPLY`] if it has more than [`MAX_LEVELS`] levels.
pub fn object_size(value: &Value) -> u64 {
    size_at_level(value, 0)
}

fn size_at_level(value: &Value, level: usize) -> u64 {
    let content = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => length(text.len()),
        Value::Array(_) | Value::Object(_) if level == MAX_LEVELS => NESTED_TOO_DEEPLY,
        Value::Array(items) => items.iter().map(|item| size_at_level(item, level + 1)).fold(0, u64::saturating_add),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, field)| length(name.len()).saturating_add(size_at_level(field, level + 1)))
            .fold(0, u64::saturating_add),
    };
    BYTES_PER_VALUE.saturating_add(content)
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// What each number, string, list and object counts in addition to its text.
pub const BYTES_PER_VALUE: u64 = 32;

/// The number of lists and objects inside each other that an object may have. JSON libraries and the stack allow a few
/// more, and no kind needs a quarter of it.
pub const MAX_LEVELS: usize = 64;

/// The size of an object with more than [`MAX_LEVELS`] levels.
pub const NESTED_TOO_DEEPLY: u64 = u64::MAX;

/// The maximum size of an object of this kind. Classes are those of the operator, and have no limit.
pub fn max_object_size(kind: Kind) -> u64 {
    match kind {
        Kind::GatewayClass | Kind::IngressClass => u64::MAX,
        Kind::Secret | Kind::ConfigMap | Kind::ClusterTrustBundle => MAX_DATA_SIZE,
        Kind::EndpointSlice => MAX_ENDPOINT_SLICE_SIZE,
        _ => MAX_OBJECT_SIZE,
    }
}

/// The maximum size of a Secret, a ConfigMap or a ClusterTrustBundle. The API permits 1 MiB of data, which are a third
/// more in base64.
const MAX_DATA_SIZE: u64 = 2 << 20;

/// The maximum size of an EndpointSlice. The API permits 1,000 endpoints in one, and users do not write it. With names
/// and hints of the maximum length, they have less than half of this size.
const MAX_ENDPOINT_SLICE_SIZE: u64 = 4 << 20;

/// The maximum size of other objects. An Ingress with 2,000 hosts has half of it.
pub const MAX_OBJECT_SIZE: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_value_counts() {
        assert_eq!(object_size(&json!(null)), 32);
        assert_eq!(object_size(&json!("four")), 36);
        assert_eq!(object_size(&json!([0, 0, 0])), 128);
        assert_eq!(object_size(&json!({"ab": [], "c": {}})), 99);
        let nested = |levels| (0..levels).fold(json!(0), |value, _| json!([value]));
        assert_eq!(object_size(&nested(MAX_LEVELS)), 32 * 65);
        assert_eq!(object_size(&nested(MAX_LEVELS + 1)), NESTED_TOO_DEEPLY);
    }
}
