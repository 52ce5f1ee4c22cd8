//! Formats of fields that the blocks of a BackendPolicy share.

use schemars::Schema;
use schemars::transform::Transform;
use serde_json::json;

use crate::api::gateway::schema::form;
use crate::api::gateway::schema::rule::rule;

/// A duration with bounds, which are durations of less than a day. The length is limited so that the API server can
/// estimate the cost of the rule.
pub(super) fn duration_between(least: &'static str, greatest: &'static str) -> impl FnMut(&mut Schema) {
    move |schema| {
        form::duration(schema);
        schema.insert("maxLength".to_owned(), json!(MAX_DURATION_LENGTH));
        rule(
            format!("duration(self) >= duration('{least}') && duration(self) <= duration('{greatest}')"),
            format!("the duration is out of range; choose one from {least} to {greatest}"),
        )
        .transform(schema);
    }
}

/// Four numbers of five digits, with units.
const MAX_DURATION_LENGTH: u32 = 28;

/// A positive decimal number as a string, with at most three decimal places.
pub(super) fn decimal(schema: &mut Schema) {
    form::text(1, 8, r"^[0-9]{1,4}(\.[0-9]{1,3})?$")(schema);
}

/// A status of a response that reports an error.
pub(super) fn error_status(schema: &mut Schema) {
    schema.insert("minimum".to_owned(), json!(400));
    schema.insert("maximum".to_owned(), json!(599));
}

/// A number of requests or connections.
pub(super) fn count(schema: &mut Schema) {
    schema.insert("minimum".to_owned(), json!(1));
    schema.insert("maximum".to_owned(), json!(1_000_000));
}

/// A percentage above zero.
pub(super) fn percent(schema: &mut Schema) {
    schema.insert("minimum".to_owned(), json!(1));
    schema.insert("maximum".to_owned(), json!(100));
}
