//! The `propagation` object in plugin configurations, and the older field `header_type`.

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::format::{InjectedFormat, TraceFormat};
use super::propagation::Propagation;
use crate::diagnostic::Diagnostic;

/// How trace contexts pass from clients to endpoints.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PropagationConfig {
    /// The formats in which contexts are read, in this order: the first one that the request has counts. By default,
    /// all of them: `w3c`, `b3`, `jaeger`, `ot`, `datadog`, `aws`, `gcp`, `instana`. With an empty list, every request
    /// begins a trace.
    extract: Option<Vec<TraceFormat>>,
    /// Names of headers to remove after the context was read, before it is written.
    clear: Vec<String>,
    /// The formats in which endpoints get the context. `preserve`, the default, is the format in which the request has
    /// one, or else `default_format`. Fields of other formats in `extract` that the request has are rewritten as well.
    /// With an empty list, endpoints get what the client has sent.
    inject: Option<Vec<InjectedName>>,
    /// The format for requests without a context, if `inject` has `preserve`. The default is that of the plugin.
    default_format: Option<TraceFormat>,
}

/// What endpoints get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InjectedName {
    Preserve,
    W3c,
    B3,
    #[serde(rename = "b3-single")]
    B3Single,
    Jaeger,
    Ot,
    Datadog,
    Aws,
    Gcp,
    Instana,
}

impl From<InjectedName> for InjectedFormat {
    fn from(name: InjectedName) -> Self {
        InjectedFormat::Format(match name {
            InjectedName::Preserve => return InjectedFormat::Preserve,
            InjectedName::W3c => TraceFormat::W3c,
            InjectedName::B3 => TraceFormat::B3,
            InjectedName::B3Single => TraceFormat::B3Single,
            InjectedName::Jaeger => TraceFormat::Jaeger,
            InjectedName::Ot => TraceFormat::Ot,
            InjectedName::Datadog => TraceFormat::Datadog,
            InjectedName::Aws => TraceFormat::Aws,
            InjectedName::Gcp => TraceFormat::Gcp,
            InjectedName::Instana => TraceFormat::Instana,
        })
    }
}

/// The field `header_type`, which Kong replaced by `propagation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HeaderType {
    /// The format of the request.
    #[default]
    Preserve,
    /// Contexts are not read.
    Ignore,
    W3c,
    B3,
    #[serde(rename = "b3-single")]
    B3Single,
    Jaeger,
    Ot,
    Datadog,
    Aws,
    Gcp,
    Instana,
}

impl HeaderType {
    fn format(self) -> Option<TraceFormat> {
        Some(match self {
            HeaderType::Preserve | HeaderType::Ignore => return None,
            HeaderType::W3c => TraceFormat::W3c,
            HeaderType::B3 => TraceFormat::B3,
            HeaderType::B3Single => TraceFormat::B3Single,
            HeaderType::Jaeger => TraceFormat::Jaeger,
            HeaderType::Ot => TraceFormat::Ot,
            HeaderType::Datadog => TraceFormat::Datadog,
            HeaderType::Aws => TraceFormat::Aws,
            HeaderType::Gcp => TraceFormat::Gcp,
            HeaderType::Instana => TraceFormat::Instana,
        })
    }
}

impl PropagationConfig {
    /// Validates the configuration of a plugin. Lists in `propagation` precede `header_type`.
    pub fn validate(
        &self,
        header_type: HeaderType,
        default_format: TraceFormat,
        invalid: &mut Vec<Diagnostic>,
    ) -> Propagation {
        let mut clear = Vec::new();
        for (index, name) in self.clear.iter().enumerate() {
            match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) if is_reserved(&name) => {
                    let remedy = "remove it from the list: the request needs it";
                    let field = format!("propagation.clear[{index}]");
                    invalid.push(Diagnostic::in_config(field, format!("{name} cannot be removed"), remedy));
                }
                Ok(name) => clear.push(name),
                Err(_) => {
                    let field = format!("propagation.clear[{index}]");
                    let message = format!("{name:?} is not a valid header name");
                    invalid.push(Diagnostic::in_config(field, message, "use letters, digits and `-`"));
                }
            }
        }
        let (read, written): (&[TraceFormat], Vec<InjectedFormat>) = match (header_type, header_type.format()) {
            (HeaderType::Ignore, _) => (&[], vec![InjectedFormat::Preserve]),
            (_, None) => (&TraceFormat::ALL_READ, vec![InjectedFormat::Preserve]),
            (_, Some(format)) => {
                (&TraceFormat::ALL_READ, vec![InjectedFormat::Preserve, InjectedFormat::Format(format)])
            }
        };
        Propagation {
            extract: self.extract.as_deref().unwrap_or(read).into(),
            clear: clear.into(),
            inject: match &self.inject {
                Some(names) => names.iter().copied().map(InjectedFormat::from).collect(),
                None => written.into(),
            },
            default_format: self.default_format.unwrap_or(default_format),
        }
    }
}

/// Whether a request cannot be forwarded correctly without the field.
fn is_reserved(name: &HeaderName) -> bool {
    use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
    [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, UPGRADE, TE].contains(name)
}
