//! What an operation costs. Each fragment is computed once, so that the time is linear in the document.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::MAX_COST;
use super::schema::{PricedArgument, PricedSchema, TypeIndex};
use crate::plugin_formats::graphql::{CheckedDocument, GraphqlField, GraphqlValue, Operation, Selection};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum CostStrategy {
    /// Every field costs something.
    Default,
    /// Only fields with an entry in `costs` cost something: about the number of nodes that are visited.
    NodeQuantifier,
}

/// An argument that is negative or no number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnknownCost {
    pub(super) argument: String,
}

/// The cost of an operation. `schema`: the types, if fields have costs of their own.
pub(super) fn cost_of(
    document: &CheckedDocument<'_>,
    operation: &Operation<'_>,
    variables: &Map<String, Value>,
    schema: Option<&PricedSchema>,
    strategy: CostStrategy,
) -> Result<f64, UnknownCost> {
    let fragments = vec![None; document.fragment_count()];
    let mut calculation = Calculation { document, operation, variables, schema, strategy, fragments };
    let root = schema.and_then(|schema| schema.root(operation.kind));
    let selections = calculation.selections(&operation.selections, root)?;
    Ok(match strategy {
        CostStrategy::Default => bounded(selections + 1.0),
        CostStrategy::NodeQuantifier => selections.max(1.0),
    })
}

struct Calculation<'c, 't> {
    document: &'c CheckedDocument<'t>,
    operation: &'c Operation<'t>,
    variables: &'c Map<String, Value>,
    schema: Option<&'c PricedSchema>,
    strategy: CostStrategy,
    /// The costs of the fragments that are computed.
    fragments: Vec<Option<f64>>,
}

impl Calculation<'_, '_> {
    /// The sum of what selections of this type cost. The document has a limited number of levels.
    fn selections(&mut self, selections: &[Selection<'_>], kind: Option<TypeIndex>) -> Result<f64, UnknownCost> {
        let mut sum = 0.0;
        for selection in selections {
            let cost = match selection {
                Selection::Field(field) => self.field(field, kind)?,
                Selection::Inline(inline) => {
                    let kind = inline.on.map_or(kind, |name| self.type_named(name));
                    self.selections(&inline.selections, kind)?
                }
                Selection::Spread(name) => self.fragment(name)?,
            };
            sum = bounded(sum + cost);
        }
        Ok(sum)
    }

    fn fragment(&mut self, name: &str) -> Result<f64, UnknownCost> {
        let document = self.document;
        // A checked document has the fragments of all spreads.
        let Some((index, fragment)) = document.fragment(name) else { return Ok(0.0) };
        if let Some(cost) = self.fragments[index] {
            return Ok(cost);
        }
        let kind = self.type_named(fragment.on);
        let cost = self.selections(&fragment.selections, kind)?;
        self.fragments[index] = Some(cost);
        Ok(cost)
    }

    fn field(&mut self, field: &GraphqlField<'_>, kind: Option<TypeIndex>) -> Result<f64, UnknownCost> {
        let priced = self.schema.zip(kind).and_then(|(schema, kind)| schema.field(kind, field.name));
        let selections = self.selections(&field.selections, priced.and_then(|priced| priced.kind))?;
        let costs = priced.map_or(&[][..], |priced| &priced.costs);
        if costs.is_empty() {
            return Ok(match self.strategy {
                CostStrategy::Default => bounded(selections + 1.0),
                CostStrategy::NodeQuantifier => selections,
            });
        }
        let mut highest: f64 = 0.0;
        for cost in costs {
            let (mut add, mut mul) = (cost.add, cost.mul);
            for argument in &cost.add_arguments {
                add = bounded(add + self.argument(field, argument)?.unwrap_or(0.0));
            }
            for argument in &cost.mul_arguments {
                mul = bounded(mul * self.argument(field, argument)?.unwrap_or(1.0).max(1.0));
            }
            highest = highest.max(bounded(add + bounded(mul * selections)));
        }
        Ok(highest)
    }

    /// The value of an argument; `None` if it is not given and has no default.
    fn argument(&self, field: &GraphqlField<'_>, argument: &PricedArgument) -> Result<Option<f64>, UnknownCost> {
        let unknown = || UnknownCost { argument: argument.name.to_string() };
        let given = field.arguments.iter().find(|given| *given.name == *argument.name).map(|given| &given.value);
        let number = match given {
            None => Ok(argument.default),
            Some(GraphqlValue::Variable(name)) => match self.variables.get(*name) {
                Some(value) => number_in_json(value),
                None => {
                    let definition = self.operation.variables.iter().find(|variable| variable.name == *name);
                    match definition.and_then(|definition| definition.default.as_ref()) {
                        Some(default) => number(default),
                        // As if the argument were not given (section 6.4.1).
                        None => Ok(argument.default),
                    }
                }
            },
            Some(value) => number(value),
        };
        match number.map_err(|_| unknown())? {
            Some(number) if !(0.0..).contains(&number) => Err(unknown()),
            Some(number) => Ok(Some(bounded(number))),
            // Servers treat null like an argument that is left out.
            None => Ok(argument.default),
        }
    }

    fn type_named(&self, name: &str) -> Option<TypeIndex> {
        self.schema?.type_named(name)
    }
}

/// A value that is not a number, nor a list.
struct NotANumber;

/// The number of a value, or how many elements it has. `None` for null.
fn number(value: &GraphqlValue<'_>) -> Result<Option<f64>, NotANumber> {
    match value {
        GraphqlValue::Int(text) | GraphqlValue::Float(text) => text.parse().map(Some).map_err(|_| NotANumber),
        GraphqlValue::Text(text) => number_in_text(text).map(Some),
        GraphqlValue::List(items) => Ok(Some(length(items.len()))),
        GraphqlValue::Null => Ok(None),
        GraphqlValue::Variable(_) | GraphqlValue::Boolean(_) | GraphqlValue::Enum(_) | GraphqlValue::Object(_) => {
            Err(NotANumber)
        }
    }
}

fn number_in_json(value: &Value) -> Result<Option<f64>, NotANumber> {
    match value {
        Value::Number(number) => number.as_f64().map(Some).ok_or(NotANumber),
        Value::String(text) => number_in_text(text).map(Some),
        Value::Array(items) => Ok(Some(length(items.len()))),
        Value::Null => Ok(None),
        Value::Bool(_) | Value::Object(_) => Err(NotANumber),
    }
}

/// Some scalars are texts with digits.
fn number_in_text(text: &str) -> Result<f64, NotANumber> {
    let is_decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_decimal { text.parse().map_err(|_| NotANumber) } else { Err(NotANumber) }
}

#[expect(clippy::cast_precision_loss, reason = "a request has fewer elements")]
fn length(length: usize) -> f64 {
    length as f64
}

/// Also of infinity.
fn bounded(cost: f64) -> f64 {
    cost.min(MAX_COST)
}
