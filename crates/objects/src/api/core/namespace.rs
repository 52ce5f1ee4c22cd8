//! Namespace: only its metadata is read, for the labels.

use serde::Deserialize;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Namespace {}
