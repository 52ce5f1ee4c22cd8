//! ConfigMap: text values by key. Portico reads CA certificates from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ConfigMap {
    #[serde(default)]
    pub data: BTreeMap<String, Arc<str>>,
}
