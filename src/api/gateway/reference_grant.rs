//! ReferenceGrant: the owner of a namespace allows others to refer to objects in it.

use serde::Deserialize;

use crate::api::kind::{Kind, Resource};

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ReferenceGrant {
    pub spec: ReferenceGrantSpec,
}

impl Resource for ReferenceGrant {
    const KIND: Kind = Kind::ReferenceGrant;
}

/// Every `from` may refer to every `to`; several grants add up.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ReferenceGrantSpec {
    pub from: Vec<ReferenceGrantFrom>,
    pub to: Vec<ReferenceGrantTo>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ReferenceGrantFrom {
    pub group: String,
    pub kind: String,
    pub namespace: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ReferenceGrantTo {
    pub group: String,
    pub kind: String,
    /// Without a name every object of the kind in this namespace.
    pub name: Option<String>,
}
