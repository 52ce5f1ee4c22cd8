//! What log plugins write about the route and the Service of a request.

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

/// The objects `route` and `service`, which are prepared when the configuration changes.
#[derive(Clone, Debug)]
pub struct RouteDescription {
    pub route: Box<RawValue>,
    pub service: Box<RawValue>,
}

impl PartialEq for RouteDescription {
    fn eq(&self, other: &Self) -> bool {
        (self.route.get(), self.service.get()) == (other.route.get(), other.service.get())
    }
}

impl RouteDescription {
    pub fn new(route: &Value, service: &Value) -> Self {
        let to_raw = |value| to_raw_value(value).expect("a JSON value always serializes");
        RouteDescription { route: to_raw(route), service: to_raw(service) }
    }

    /// A description that has only the names.
    pub fn from_names(route: &str, service: &str) -> Self {
        RouteDescription::new(&json!({"name": route}), &json!({"name": service}))
    }
}
