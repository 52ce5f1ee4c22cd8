//! ConfigMap: text by key; here it contains certificate authorities.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ConfigMap {
    #[serde(default)]
    pub data: BTreeMap<String, Arc<str>>,
}
