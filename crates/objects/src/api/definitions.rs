//! The kinds that `portico crds` defines, with their schemas and CustomResourceDefinitions.

use serde_json::Value;

use super::kind::{Kind, KindFamily};
use super::{crd, kong, portico};

/// The kinds, in the order of [`Kind::ALL`].
pub fn kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| matches!(kind.family(), KindFamily::Kong | KindFamily::Portico))
}

/// The CustomResourceDefinition of a kind. `None` if `portico crds` does not define the kind.
pub fn definition(kind: Kind) -> Option<Value> {
    kong::crd::definition(kind).or_else(|| portico::definition(kind))
}

/// The structural schema of a kind, without descriptions. `None` if `portico crds` does not define the kind.
pub fn structural(kind: Kind) -> Option<Value> {
    kong::schema::derived_schema(kind).or_else(|| portico::derived_schema(kind)).map(crd::structural)
}
