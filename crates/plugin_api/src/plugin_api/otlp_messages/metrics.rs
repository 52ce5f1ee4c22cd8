//! The messages of metrics, as opentelemetry-proto defines them, with the fields that are
//! written, and their JSON.

use bytes::Bytes;
use prost::{DecodeError, Message};
use serde_json::{Map, Value, json};

use super::json::{attributes, resource, scope_of};
use super::spans_and_logs::{OtlpAttribute, OtlpResource, OtlpScope, instrumentation_scope};

/// `ExportMetricsServiceRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct ExportMetrics {
    #[prost(message, repeated, tag = "1")]
    pub resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ResourceMetrics {
    #[prost(message, optional, tag = "1")]
    pub resource: Option<OtlpResource>,
    #[prost(message, repeated, tag = "2")]
    pub scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ScopeMetrics {
    #[prost(message, optional, tag = "1")]
    pub scope: Option<OtlpScope>,
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<OtlpMetric>,
}

/// `Metric`.
#[derive(Clone, PartialEq, Message)]
pub struct OtlpMetric {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub description: String,
    #[prost(oneof = "metric_data::Data", tags = "5, 7, 9")]
    pub data: Option<metric_data::Data>,
}

pub mod metric_data {
    //! The types of metrics that are written.

    /// `Metric.data`.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Data {
        #[prost(message, tag = "5")]
        Gauge(super::OtlpGauge),
        #[prost(message, tag = "7")]
        Sum(super::OtlpSum),
        #[prost(message, tag = "9")]
        Histogram(super::OtlpHistogram),
    }

    /// `NumberDataPoint.value`.
    #[derive(Clone, Copy, PartialEq, prost::Oneof)]
    pub enum Number {
        #[prost(double, tag = "4")]
        Double(f64),
        #[prost(sfixed64, tag = "6")]
        Integer(i64),
    }
}

/// `Gauge`.
#[derive(Clone, PartialEq, Message)]
pub struct OtlpGauge {
    #[prost(message, repeated, tag = "1")]
    pub data_points: Vec<NumberPoint>,
}

/// `Sum`.
#[derive(Clone, PartialEq, Message)]
pub struct OtlpSum {
    #[prost(message, repeated, tag = "1")]
    pub data_points: Vec<NumberPoint>,
    #[prost(int32, tag = "2")]
    pub aggregation_temporality: i32,
    #[prost(bool, tag = "3")]
    pub is_monotonic: bool,
}

/// `Histogram`.
#[derive(Clone, PartialEq, Message)]
pub struct OtlpHistogram {
    #[prost(message, repeated, tag = "1")]
    pub data_points: Vec<HistogramPoint>,
    #[prost(int32, tag = "2")]
    pub aggregation_temporality: i32,
}

/// `NumberDataPoint`.
#[derive(Clone, PartialEq, Message)]
pub struct NumberPoint {
    #[prost(fixed64, tag = "2")]
    pub start_time_unix_nano: u64,
    #[prost(fixed64, tag = "3")]
    pub time_unix_nano: u64,
    #[prost(oneof = "metric_data::Number", tags = "4, 6")]
    pub value: Option<metric_data::Number>,
    #[prost(message, repeated, tag = "7")]
    pub attributes: Vec<OtlpAttribute>,
}

/// `HistogramDataPoint`.
#[derive(Clone, PartialEq, Message)]
pub struct HistogramPoint {
    #[prost(fixed64, tag = "2")]
    pub start_time_unix_nano: u64,
    #[prost(fixed64, tag = "3")]
    pub time_unix_nano: u64,
    #[prost(fixed64, tag = "4")]
    pub count: u64,
    #[prost(double, optional, tag = "5")]
    pub sum: Option<f64>,
    /// One more than the bounds: the last one has no upper bound.
    #[prost(fixed64, repeated, tag = "6")]
    pub bucket_counts: Vec<u64>,
    #[prost(double, repeated, tag = "7")]
    pub explicit_bounds: Vec<f64>,
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<OtlpAttribute>,
}

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`: values count from the start of the process.
pub const CUMULATIVE: i32 = 2;

/// An `ExportMetrics` with these metrics.
pub fn encode_metrics(resource: &OtlpResource, scope: &str, metrics: Vec<OtlpMetric>) -> Bytes {
    let scope_metrics = vec![ScopeMetrics { scope: Some(instrumentation_scope(scope)), metrics }];
    let entry = ResourceMetrics { resource: Some(resource.clone()), scope_metrics };
    ExportMetrics { resource_metrics: vec![entry] }.encode_to_vec().into()
}

/// The JSON of an encoded `ExportMetrics`.
pub fn metrics_to_json(encoded: &[u8]) -> Result<Bytes, DecodeError> {
    let metrics = ExportMetrics::decode(encoded)?;
    let entries = metrics.resource_metrics.iter().map(|entry| {
        let scopes = entry.scope_metrics.iter().map(|scope| {
            let metrics: Vec<Value> = scope.metrics.iter().map(metric).collect();
            json!({"scope": scope_of(scope.scope.as_ref()), "metrics": metrics})
        });
        let scopes: Vec<Value> = scopes.collect();
        json!({"resource": resource(entry.resource.as_ref()), "scopeMetrics": scopes})
    });
    Ok(json!({"resourceMetrics": entries.collect::<Vec<Value>>()}).to_string().into())
}

fn metric(metric: &OtlpMetric) -> Value {
    let numbers = |points: &[NumberPoint]| points.iter().map(number_point).collect::<Vec<Value>>();
    let mut members = Map::new();
    members.insert("name".to_owned(), metric.name.as_str().into());
    members.insert("description".to_owned(), metric.description.as_str().into());
    let (name, data) = match &metric.data {
        Some(metric_data::Data::Gauge(gauge)) => ("gauge", json!({"dataPoints": numbers(&gauge.data_points)})),
        Some(metric_data::Data::Sum(sum)) => (
            "sum",
            json!({
                "dataPoints": numbers(&sum.data_points),
                "aggregationTemporality": sum.aggregation_temporality,
                "isMonotonic": sum.is_monotonic,
            }),
        ),
        Some(metric_data::Data::Histogram(histogram)) => {
            let points: Vec<Value> = histogram.data_points.iter().map(histogram_point).collect();
            let temporality = histogram.aggregation_temporality;
            ("histogram", json!({"dataPoints": points, "aggregationTemporality": temporality}))
        }
        None => return members.into(),
    };
    members.insert(name.to_owned(), data);
    members.into()
}

fn number_point(point: &NumberPoint) -> Value {
    let mut members = point_of(point.start_time_unix_nano, point.time_unix_nano, &point.attributes);
    let (name, value) = match point.value {
        Some(metric_data::Number::Double(number)) => ("asDouble", double(number)),
        Some(metric_data::Number::Integer(number)) => ("asInt", number.to_string().into()),
        None => return members.into(),
    };
    members.insert(name.to_owned(), value);
    members.into()
}

fn histogram_point(point: &HistogramPoint) -> Value {
    let mut members = point_of(point.start_time_unix_nano, point.time_unix_nano, &point.attributes);
    let mut add = |name: &str, value: Value| members.insert(name.to_owned(), value);
    add("count", point.count.to_string().into());
    if let Some(sum) = point.sum {
        add("sum", double(sum));
    }
    add("bucketCounts", point.bucket_counts.iter().map(u64::to_string).collect::<Vec<_>>().into());
    add("explicitBounds", point.explicit_bounds.iter().copied().map(double).collect::<Vec<_>>().into());
    members.into()
}

fn point_of(start: u64, time: u64, labels: &[OtlpAttribute]) -> Map<String, Value> {
    let mut members = Map::new();
    members.insert("startTimeUnixNano".to_owned(), start.to_string().into());
    members.insert("timeUnixNano".to_owned(), time.to_string().into());
    if !labels.is_empty() {
        members.insert("attributes".to_owned(), attributes(labels));
    }
    members
}

/// Numbers that JSON lacks are texts, as in the JSON of protobuf.
fn double(number: f64) -> Value {
    match number {
        number if number.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        number => number.into(),
    }
}
