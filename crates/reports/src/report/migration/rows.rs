//! The rows of a migration report: one part of a configuration, what becomes of it, and what to do.

use serde::Serialize;

use super::verdict::MigrationVerdict;

/// An annotation of an Ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FoundAnnotation {
    /// Without the prefix of the other gateway; complete for those of other programs.
    pub name: String,
    pub value: String,
    pub verdict: MigrationVerdict,
    /// Whether it restricts requests, and is left out.
    pub guard: bool,
    /// A clause.
    pub effect: String,
    /// A clause, or empty.
    pub remedy: String,
    /// The other gateway does not read it either.
    #[serde(skip)]
    pub is_unknown: bool,
    /// It changes no response, here and there.
    #[serde(skip)]
    pub is_without_effect: bool,
}

/// A directive of a snippet, or a snippet as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FoundSnippet {
    pub annotation: &'static str,
    pub verdict: MigrationVerdict,
    /// `None` if it is about the whole snippet.
    pub line: Option<usize>,
    /// Empty if it is about the whole snippet.
    pub directive: String,
    pub guard: bool,
    pub effect: String,
    pub remedy: String,
}

/// A request with another response than before, which Portico's authors intend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The annotation that it is about, or another setting.
    pub name: &'static str,
    /// An example.
    pub request: String,
    /// What the other gateway does with it.
    pub before: String,
    pub after: String,
}

/// Something wrong with another field than an annotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FoundProblem {
    pub field: String,
    pub verdict: MigrationVerdict,
    pub guard: bool,
    pub effect: String,
    pub remedy: String,
}

/// A flag of the other controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlagRow {
    pub flag: String,
    pub value: String,
    /// What takes its place: flags of Portico. `None` if nothing does.
    pub replacement: Option<String>,
    /// Why nothing takes its place, or what differs. A clause, or empty.
    pub note: String,
}

/// A setting of the other controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigRow {
    pub key: String,
    pub value: String,
    pub verdict: MigrationVerdict,
    pub guard: bool,
    pub effect: String,
    pub remedy: String,
    /// The other gateway does not read it either.
    #[serde(skip)]
    pub is_unknown: bool,
}
