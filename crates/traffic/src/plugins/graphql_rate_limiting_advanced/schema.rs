//! The types of a GraphQL server with the costs of their fields, from the response to introspection.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::Deserialize;

use crate::plugin_formats::graphql::OperationKind;

/// What a field of a type costs, as the configuration says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FieldCost {
    pub(super) kind: Box<str>,
    pub(super) field: Box<str>,
    pub(super) add: f64,
    pub(super) add_arguments: Vec<Box<str>>,
    pub(super) mul: f64,
    pub(super) mul_arguments: Vec<Box<str>>,
}

/// The types by name, with the costs of their fields.
#[derive(Debug, Default)]
pub(super) struct PricedSchema {
    by_name: HashMap<Box<str>, TypeIndex>,
    types: Vec<HashMap<Box<str>, PricedField>>,
    roots: [Option<TypeIndex>; 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TypeIndex(usize);

#[derive(Debug)]
pub(super) struct PricedField {
    /// The type of its value, if that has fields.
    pub(super) kind: Option<TypeIndex>,
    /// Several, if types that it may stand for have costs: the highest one counts.
    pub(super) costs: Box<[PricedCost]>,
}

#[derive(Debug)]
pub(super) struct PricedCost {
    pub(super) add: f64,
    pub(super) add_arguments: Box<[PricedArgument]>,
    pub(super) mul: f64,
    pub(super) mul_arguments: Box<[PricedArgument]>,
}

#[derive(Debug)]
pub(super) struct PricedArgument {
    pub(super) name: Box<str>,
    /// The default of the server, if it is a number.
    pub(super) default: Option<f64>,
}

impl PricedSchema {
    pub(super) fn root(&self, kind: OperationKind) -> Option<TypeIndex> {
        self.roots[kind as usize]
    }

    pub(super) fn type_named(&self, name: &str) -> Option<TypeIndex> {
        self.by_name.get(name).copied()
    }

    pub(super) fn field(&self, kind: TypeIndex, name: &str) -> Option<&PricedField> {
        self.types.get(kind.0)?.get(name)
    }

    /// Reads the response to [`QUERY`]. Errors continue a sentence whose subject is the server.
    pub(super) fn parse(body: &[u8], costs: &[FieldCost]) -> Result<PricedSchema, String> {
        let response: IntrospectionResponse =
            serde_json::from_slice(body).map_err(|_| "the response is not that of an introspection".to_owned())?;
        let schema = response.data.and_then(|data| data.schema).ok_or("the server does not allow introspection")?;
        let field_count: usize = schema.types.iter().filter_map(|kind| Some(kind.fields.as_ref()?.len())).sum();
        if field_count > MAX_FIELDS {
            return Err(format!("the schema has more than {MAX_FIELDS} fields"));
        }
        let with_fields: Vec<&IntrospectedType> = schema.types.iter().filter(|kind| kind.fields.is_some()).collect();
        let by_name: HashMap<Box<str>, TypeIndex> =
            with_fields.iter().enumerate().map(|(index, kind)| (kind.name.as_str().into(), TypeIndex(index))).collect();
        let mut steps = RemainingSteps(MAX_STEPS);
        let relatives = relatives(&schema.types, costs, &mut steps)?;
        let mut by_field: HashMap<&str, Vec<&FieldCost>> = HashMap::new();
        for cost in costs {
            by_field.entry(&cost.field).or_default().push(cost);
        }
        let mut price = |kind: &IntrospectedType, field: &IntrospectedField| {
            let candidates = by_field.get(field.name.as_str()).map_or(&[][..], Vec::as_slice);
            steps.take(candidates.len())?;
            let mut found: Vec<&FieldCost> =
                candidates.iter().copied().filter(|cost| *cost.kind == kind.name).collect();
            if found.is_empty() {
                let related = relatives.get(kind.name.as_str());
                let is_related = |cost: &&FieldCost| related.is_some_and(|related| related.contains(&*cost.kind));
                found.extend(candidates.iter().copied().filter(is_related));
            }
            let arguments: usize = found.iter().map(|cost| cost.add_arguments.len() + cost.mul_arguments.len()).sum();
            steps.take(arguments * field.args.len())?;
            Ok::<_, String>(PricedField {
                kind: field.kind.named().and_then(|name| by_name.get(name).copied()),
                costs: found.into_iter().map(|cost| PricedCost::new(cost, field)).collect(),
            })
        };
        let priced_fields = |kind: &&IntrospectedType| {
            let fields = kind.fields.iter().flatten();
            fields.map(|field| Ok((Box::from(field.name.as_str()), price(kind, field)?))).collect()
        };
        let types = with_fields.iter().map(priced_fields).collect::<Result<_, String>>()?;
        let root = |named: &Option<NamedType>| named.as_ref().and_then(|named| by_name.get(&*named.name).copied());
        let roots = [root(&schema.query_type), root(&schema.mutation_type), root(&schema.subscription_type)];
        Ok(PricedSchema { by_name, types, roots })
    }

    /// The fields with costs that the server does not have.
    pub(super) fn missing<'c>(&self, costs: &'c [FieldCost]) -> impl Iterator<Item = &'c FieldCost> {
        costs.iter().filter(|cost| self.type_named(&cost.kind).and_then(|kind| self.field(kind, &cost.field)).is_none())
    }
}

/// For each type, the types with costs that a value of it may also have: two types overlap if an object may be both
/// (GraphQL specification, section 5.5.2.3). So the costs of an interface reach the objects and the interfaces that
/// implement it, and those of an object all interfaces and unions that it may stand for.
fn relatives<'t>(
    types: &'t [IntrospectedType],
    costs: &'t [FieldCost],
    steps: &mut RemainingSteps,
) -> Result<HashMap<&'t str, HashSet<&'t str>>, String> {
    let numbers: HashMap<&str, usize> = types.iter().enumerate().map(|(number, kind)| (&*kind.name, number)).collect();
    // The objects that a type may be, and for each object, the types that may be it.
    let mut objects: Vec<Vec<usize>> = vec![Vec::new(); types.len()];
    let mut wider: Vec<Vec<usize>> = (0..types.len()).map(|number| vec![number]).collect();
    for (number, kind) in types.iter().enumerate() {
        let possible = kind.possible_types.as_deref().unwrap_or_default();
        if possible.is_empty() {
            objects[number].push(number);
        }
        objects[number].extend(possible.iter().filter_map(|possible| numbers.get(&*possible.name)));
        objects[number].sort_unstable();
        objects[number].dedup();
        for object in objects[number].iter().filter(|object| **object != number) {
            wider[*object].push(number);
        }
    }
    let mut relatives: HashMap<&str, HashSet<&str>> = HashMap::new();
    let mut seen_for = vec![None; types.len()];
    let priced: BTreeSet<usize> = costs.iter().filter_map(|cost| numbers.get(&*cost.kind).copied()).collect();
    for number in priced {
        for object in &objects[number] {
            steps.take(wider[*object].len())?;
            for overlapping in &wider[*object] {
                if *overlapping != number && seen_for[*overlapping].replace(number) != Some(number) {
                    relatives.entry(&types[*overlapping].name).or_default().insert(&types[number].name);
                }
            }
        }
    }
    Ok(relatives)
}

/// A bound of the work for one schema: the server that describes it is not trusted.
struct RemainingSteps(usize);

impl RemainingSteps {
    fn take(&mut self, steps: usize) -> Result<(), String> {
        let too_many = || "the types of the schema overlap too often, or too many of its fields have costs".to_owned();
        self.0 = self.0.checked_sub(steps).ok_or_else(too_many)?;
        Ok(())
    }
}

impl PricedCost {
    fn new(cost: &FieldCost, field: &IntrospectedField) -> Self {
        let arguments = |names: &[Box<str>]| {
            let priced = |name: &str| {
                let argument = field.args.iter().find(|argument| *argument.name == *name);
                let default = argument.and_then(|argument| argument.default_value.as_deref()?.trim().parse().ok());
                PricedArgument { name: name.into(), default: default.filter(|number: &f64| number.is_finite()) }
            };
            names.iter().map(|name| priced(name)).collect()
        };
        PricedCost {
            add: cost.add,
            add_arguments: arguments(&cost.add_arguments),
            mul: cost.mul,
            mul_arguments: arguments(&cost.mul_arguments),
        }
    }
}

/// The introspection query (GraphQL specification, section 4). Types of fields have up to seven wrappers.
pub(super) const QUERY: &str = "query { __schema { queryType { name } mutationType { name } subscriptionType { name } \
    types { name possibleTypes { name } fields(includeDeprecated: true) { name args { name defaultValue } \
    type { ...Wrapped } } } } } fragment Wrapped on __Type { name ofType { name ofType { name ofType { name \
    ofType { name ofType { name ofType { name ofType { name } } } } } } } }";

#[derive(Deserialize)]
struct IntrospectionResponse {
    data: Option<IntrospectionData>,
}

#[derive(Deserialize)]
struct IntrospectionData {
    #[serde(rename = "__schema")]
    schema: Option<IntrospectedSchema>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IntrospectedSchema {
    query_type: Option<NamedType>,
    mutation_type: Option<NamedType>,
    subscription_type: Option<NamedType>,
    types: Vec<IntrospectedType>,
}

#[derive(Deserialize)]
struct NamedType {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IntrospectedType {
    name: String,
    possible_types: Option<Vec<NamedType>>,
    fields: Option<Vec<IntrospectedField>>,
}

#[derive(Deserialize)]
struct IntrospectedField {
    name: String,
    #[serde(default)]
    args: Vec<IntrospectedArgument>,
    #[serde(rename = "type")]
    kind: WrappedType,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IntrospectedArgument {
    name: String,
    default_value: Option<String>,
}

/// A type, or a list or a type that is not null, which have no names.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrappedType {
    name: Option<String>,
    of_type: Option<Box<WrappedType>>,
}

impl WrappedType {
    fn named(&self) -> Option<&str> {
        let mut kind = self;
        while kind.name.is_none() {
            kind = kind.of_type.as_deref()?;
        }
        kind.name.as_deref()
    }
}

/// More than large public schemas have.
const MAX_FIELDS: usize = 100_000;
/// Some hundredths of a second.
const MAX_STEPS: usize = 2_000_000;
