//! The configuration of `soap`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Converts JSON to SOAP or XML and back.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// What is converted: with `soap`, clients use JSON and the backend SOAP; with `json-to-xml`, clients use JSON and
    /// the backend XML; with `xml-to-json`, clients use XML and the backend JSON.
    pub(super) mode: SoapMode,
    /// Version of SOAP.
    pub(super) version: SoapVersion,
    /// Name of the element in the body of the message, which has the members of the JSON body. With `xml-to-json`, the
    /// name of the root element of responses.
    pub(super) operation: Option<String>,
    /// Namespace of that element.
    pub(super) namespace: Option<String>,
    /// Content of the body of the message, instead of `operation`: XML with `$(…)` and `{{/POINTER}}`.
    pub(super) template: Option<String>,
    /// Content of the header of the message, as `template`.
    pub(super) header_template: Option<String>,
    /// Value of `SOAPAction`, or of the parameter `action` with version 1.2.
    pub(super) action: Option<String>,
    /// Local names of elements that are lists in JSON even if there is one.
    pub(super) lists: Vec<String>,
    /// Keep prefixes and declarations of namespaces in JSON.
    pub(super) keep_namespaces: bool,
    /// Statuses of responses to a `Fault`, by the local name of its code, such as `Client`. The default is 400 for
    /// `Client` and `Sender`, and 502 for all others.
    pub(super) fault_statuses: BTreeMap<String, u16>,
    /// Maximum size in bytes of a body, of requests and of responses, at most 4194304.
    pub(super) max_body_size: usize,
    /// The most nested elements, at most 100.
    pub(super) max_depth: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SoapMode {
    Soap,
    JsonToXml,
    XmlToJson,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum SoapVersion {
    #[serde(rename = "1.1")]
    V1_1,
    #[serde(rename = "1.2")]
    V1_2,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            mode: SoapMode::Soap,
            version: SoapVersion::V1_1,
            operation: None,
            namespace: None,
            template: None,
            header_template: None,
            action: None,
            lists: Vec::new(),
            keep_namespaces: false,
            fault_statuses: BTreeMap::new(),
            max_body_size: 1 << 20,
            max_depth: 50,
        }
    }
}
