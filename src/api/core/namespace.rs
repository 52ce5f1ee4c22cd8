//! Namespace: only its metadata is read, for the labels.

use serde::Deserialize;

use crate::api::kind::{Kind, Resource};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Namespace {}

impl Resource for Namespace {
    const KIND: Kind = Kind::Namespace;
}
