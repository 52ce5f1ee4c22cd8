//! Namespace: only its labels matter, and they are in its metadata.

use serde::Deserialize;

use crate::api::kind::{Kind, Resource};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Namespace {}

impl Resource for Namespace {
    const KIND: Kind = Kind::Namespace;
}
