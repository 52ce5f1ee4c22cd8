//! XTelemetryPolicy: tracing of requests through a Gateway. Experimental.

use schemars::transform::Transform;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;

use super::backend::BackendObjectReference;
use super::filter::{Fraction, Header};
use super::reference::LocalObjectReference;
use super::schema::form;
use super::schema::rule::{CelRule, rule};
use super::schema::transforms::keyed_by;
use super::schema::union::{member, union};

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct XTelemetryPolicy {
    pub spec: XTelemetryPolicySpec,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule("has(self.tracing)", "the policy is empty; add tracing"))]
pub struct XTelemetryPolicySpec {
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<LocalObjectReference>,
    pub tracing: Option<Tracing>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = only_when_enabled)]
pub struct Tracing {
    #[schemars(transform = form::one_of(MODES), extend("default" = "ImplementationDefault"))]
    pub mode: Option<String>,
    pub provider: Option<TracingProvider>,
    /// Share of new traces that are sampled.
    pub sampling_rate: Option<Fraction>,
    pub parent_based_sampling: Option<ParentBasedSampling>,
    #[schemars(transform = form::text(1, 253, "^[a-zA-Z0-9_.:/-]+$"))]
    pub service_name: Option<String>,
    #[schemars(transform = form::text(1, 256, "^[a-zA-Z0-9_.:/-]+( [a-zA-Z0-9_.:/-]+)*$"))]
    pub span_name: Option<String>,
    #[serde(default)]
    #[schemars(transform = keyed_by(["name"]))]
    pub attributes: Vec<TracingAttribute>,
}

const MODES: [&str; 3] = ["Enabled", "Disabled", "ImplementationDefault"];

/// The OTLP server that receives spans.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TracingProvider {
    pub backend_ref: BackendObjectReference,
    #[serde(default)]
    #[schemars(length(max = 16), transform = keyed_by(["name"]))]
    pub headers: Vec<Header>,
}

/// Sampling of traces that were started by the caller.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = needs_enabled("samplingRate"))]
pub struct ParentBasedSampling {
    #[schemars(transform = form::one_of(MODES), extend("default" = "ImplementationDefault"))]
    pub mode: Option<String>,
    pub sampling_rate: Option<Fraction>,
}

/// `source_type` determines which other field is set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = union("sourceType", [
    member("Header", "headerName"),
    member("Literal", "literalValue"),
    member("Attribute", "attributeKey"),
]))]
pub struct TracingAttribute {
    #[schemars(transform = form::text(1, 256, "^[a-zA-Z0-9_.:/-]+$"))]
    pub name: String,
    pub source_type: String,
    #[schemars(transform = form::token)]
    pub header_name: Option<String>,
    #[schemars(length(min = 1, max = 1024))]
    pub literal_value: Option<String>,
    #[schemars(transform = form::text(1, 256, "^[a-z0-9_.-]+$"))]
    pub attribute_key: Option<String>,
}

fn only_when_enabled(schema: &mut Schema) {
    rule(
        "has(self.provider) == (self.mode == 'Enabled')",
        "provider and mode Enabled require each other; set both, or remove provider and choose another mode",
    )
    .transform(schema);
    for field in ["samplingRate", "parentBasedSampling", "serviceName", "spanName", "attributes"] {
        needs_enabled(field).transform(schema);
    }
}

fn needs_enabled(field: &str) -> CelRule {
    rule(
        format!("self.mode == 'Enabled' || !has(self.{field})"),
        format!("{field} is set but mode is not Enabled; remove {field}, or set mode to Enabled"),
    )
}
