//! A parsed document. Names are parts of its text.

use std::borrow::Cow;

/// A document with operations and fragments. [`super::CheckedDocument`] has one whose fragments can be followed.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct GraphqlDocument<'t> {
    pub operations: Vec<Operation<'t>>,
    pub fragments: Vec<Fragment<'t>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    Query,
    Mutation,
    Subscription,
}

#[derive(Debug, PartialEq)]
pub struct Operation<'t> {
    pub kind: OperationKind,
    pub name: Option<&'t str>,
    pub variables: Vec<VariableDefinition<'t>>,
    pub selections: Vec<Selection<'t>>,
}

#[derive(Debug, PartialEq)]
pub struct VariableDefinition<'t> {
    pub name: &'t str,
    pub kind: TypeReference<'t>,
    pub default: Option<GraphqlValue<'t>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeReference<'t> {
    Named(&'t str),
    List(Box<TypeReference<'t>>),
    NonNull(Box<TypeReference<'t>>),
}

#[derive(Debug, PartialEq)]
pub struct Fragment<'t> {
    pub name: &'t str,
    /// The type whose fields are selected.
    pub on: &'t str,
    pub selections: Vec<Selection<'t>>,
}

#[derive(Debug, PartialEq)]
pub enum Selection<'t> {
    Field(GraphqlField<'t>),
    /// The name of a fragment.
    Spread(&'t str),
    Inline(InlineFragment<'t>),
}

#[derive(Debug, PartialEq)]
pub struct GraphqlField<'t> {
    pub name: &'t str,
    pub arguments: Vec<Argument<'t>>,
    /// Empty for a field without selections.
    pub selections: Vec<Selection<'t>>,
}

#[derive(Debug, PartialEq)]
pub struct InlineFragment<'t> {
    /// `None`: the type around it.
    pub on: Option<&'t str>,
    pub selections: Vec<Selection<'t>>,
}

#[derive(Debug, PartialEq)]
pub struct Argument<'t> {
    pub name: &'t str,
    pub value: GraphqlValue<'t>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum GraphqlValue<'t> {
    Variable(&'t str),
    /// The text of an integer.
    Int(&'t str),
    /// The text of a number with a fraction or an exponent.
    Float(&'t str),
    Text(Cow<'t, str>),
    Boolean(bool),
    Null,
    Enum(&'t str),
    List(Vec<GraphqlValue<'t>>),
    Object(Vec<(&'t str, GraphqlValue<'t>)>),
}
