//! Validates a value: walks the nodes of a schema and the parts of the value together.

use std::collections::HashSet;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::keyword::{CompiledNode, Contains, IfThenElse, Items, Keyword, MemberSchemas};
use super::pattern::SchemaPattern;
use super::{InvalidValue, SchemaSet, ValidationBudget, Violation, number};

pub(super) fn validate(
    set: &SchemaSet,
    node: usize,
    value: &Value,
    budget: &mut ValidationBudget<'_>,
) -> Result<(), Violation> {
    let mut evaluation =
        Evaluation { set, budget, path: Vec::new(), scope: Vec::new(), depth: 0, silenced: 0, error: None };
    match evaluation.node(node, value, None) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let unknown = || InvalidValue { pointer: String::new(), message: "is not allowed".to_owned() };
            Err(Violation::Invalid(evaluation.error.unwrap_or_else(unknown)))
        }
        Err(TooCostly) => Err(Violation::TooCostly),
    }
}

/// Nested evaluations, of keywords and of parts of the value together. A value has at most 128 levels, and the stack
/// of a worker has room for more evaluations than these.
const MAX_DEPTH: usize = 300;

/// The budget is exhausted.
struct TooCostly;

/// Whether a part of the value is valid.
type Validity = Result<bool, TooCostly>;

struct Evaluation<'s, 'v, 'b, 'r> {
    set: &'s SchemaSet,
    budget: &'b mut ValidationBudget<'r>,
    /// The part of the value that is evaluated.
    path: Vec<ValuePart<'v>>,
    /// The resources that references have entered, from the outermost on.
    scope: Vec<usize>,
    depth: usize,
    /// Above 0 where an error does not make the value invalid.
    silenced: usize,
    error: Option<InvalidValue>,
}

#[derive(Clone, Copy)]
enum ValuePart<'v> {
    Member(&'v str),
    Item(usize),
}

/// The members and items that keywords have evaluated, for `unevaluatedProperties` and `unevaluatedItems`.
#[derive(Default)]
struct Evaluated<'v> {
    all_members: bool,
    members: HashSet<&'v str>,
    /// All items before this position.
    items_before: usize,
    items: HashSet<usize>,
}

impl<'v> Evaluated<'v> {
    fn merge(&mut self, other: Evaluated<'v>) {
        self.all_members |= other.all_members;
        self.members.extend(other.members);
        self.items_before = self.items_before.max(other.items_before);
        self.items.extend(other.items);
    }
}

impl<'s, 'v> Evaluation<'s, 'v, '_, '_> {
    fn spend(&mut self, steps: usize) -> Result<(), TooCostly> {
        let steps = u64::try_from(steps).map_err(|_| TooCostly)?;
        self.budget.steps = self.budget.steps.checked_sub(steps).ok_or(TooCostly)?;
        Ok(())
    }

    /// Evaluates a node, and adds what it has evaluated if the value is valid.
    fn node(&mut self, node: usize, value: &'v Value, evaluated: Option<&mut Evaluated<'v>>) -> Validity {
        let set = self.set;
        let node = &set.nodes[node];
        self.spend(1 + node.keywords.len())?;
        if self.depth == MAX_DEPTH {
            return Err(TooCostly);
        }
        self.depth += 1;
        let enters = self.scope.last() != Some(&node.resource);
        if enters {
            self.scope.push(node.resource);
        }
        let outcome = if node.tracks_evaluated {
            self.tracked(node, value, evaluated)
        } else {
            self.keywords(node, value, evaluated)
        };
        if enters {
            self.scope.pop();
        }
        self.depth -= 1;
        outcome
    }

    fn tracked(&mut self, node: &'s CompiledNode, value: &'v Value, evaluated: Option<&mut Evaluated<'v>>) -> Validity {
        let mut own = Evaluated::default();
        if !self.keywords(node, value, Some(&mut own))? {
            return Ok(false);
        }
        if let Some(evaluated) = evaluated {
            evaluated.merge(own);
        }
        Ok(true)
    }

    fn keywords(
        &mut self,
        node: &'s CompiledNode,
        value: &'v Value,
        mut evaluated: Option<&mut Evaluated<'v>>,
    ) -> Validity {
        for keyword in &node.keywords {
            if !self.keyword(keyword, value, evaluated.as_deref_mut())? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn keyword(&mut self, keyword: &'s Keyword, value: &'v Value, evaluated: Option<&mut Evaluated<'v>>) -> Validity {
        match (keyword, value) {
            (Keyword::AllOf(nodes), _) => self.all_of(nodes, value, evaluated),
            (Keyword::AnyOf(nodes), _) => self.any_of(nodes, value, evaluated),
            (Keyword::OneOf(nodes), _) => self.one_of(nodes, value, evaluated),
            (Keyword::Not(node), _) => self.not(*node, value),
            (Keyword::If(condition), _) => self.condition(condition, value, evaluated),
            (Keyword::Ref(node), _) => self.node(*node, value, evaluated),
            (Keyword::DynamicRef(node, name), _) => {
                let node = self.dynamic_target(name).unwrap_or(*node);
                self.node(node, value, evaluated)
            }
            (Keyword::Items(keyword), Value::Array(items)) => self.items(keyword, items, evaluated),
            (Keyword::Contains(keyword), Value::Array(items)) => self.contains(keyword, items, evaluated),
            (Keyword::UnevaluatedItems(node), Value::Array(items)) => self.unevaluated_items(*node, items, evaluated),
            (Keyword::Members(keyword), Value::Object(members)) => self.members(keyword, members, evaluated),
            (Keyword::UnevaluatedProperties(node), Value::Object(members)) => {
                self.unevaluated_members(*node, members, evaluated)
            }
            (Keyword::DependentSchemas(schemas), Value::Object(members)) => {
                self.dependent_schemas(schemas, value, members, evaluated)
            }
            (Keyword::PropertyNames(node), Value::Object(members)) => self.member_names(*node, members),
            (keyword, value) => self.assertion(keyword, value),
        }
    }

    fn all_of(&mut self, nodes: &[usize], value: &'v Value, mut evaluated: Option<&mut Evaluated<'v>>) -> Validity {
        for node in nodes {
            if !self.node(*node, value, evaluated.as_deref_mut())? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn any_of(&mut self, nodes: &[usize], value: &'v Value, mut evaluated: Option<&mut Evaluated<'v>>) -> Validity {
        let mut is_valid = false;
        for node in nodes {
            if self.branch(*node, value, evaluated.as_deref_mut())? {
                is_valid = true;
                // The other branches matter only for what they evaluate.
                if evaluated.is_none() {
                    break;
                }
            }
        }
        self.check(is_valid, || "matches none of the schemas in anyOf".to_owned())
    }

    fn one_of(&mut self, nodes: &[usize], value: &'v Value, mut evaluated: Option<&mut Evaluated<'v>>) -> Validity {
        let mut valid = 0;
        for node in nodes {
            valid += usize::from(self.branch(*node, value, evaluated.as_deref_mut())?);
            if valid > 1 {
                return self.check(false, || "matches more than one of the schemas in oneOf".to_owned());
            }
        }
        self.check(valid == 1, || "matches none of the schemas in oneOf".to_owned())
    }

    fn not(&mut self, node: usize, value: &'v Value) -> Validity {
        let matches = self.branch(node, value, None)?;
        self.check(!matches, || "matches the schema in not".to_owned())
    }

    fn condition(
        &mut self,
        condition: &IfThenElse,
        value: &'v Value,
        mut evaluated: Option<&mut Evaluated<'v>>,
    ) -> Validity {
        let branch = match self.branch(condition.condition, value, evaluated.as_deref_mut())? {
            true => condition.then,
            false => condition.otherwise,
        };
        branch.map_or(Ok(true), |node| self.node(node, value, evaluated))
    }

    /// Evaluates a node that may be invalid without making the value invalid.
    fn branch(&mut self, node: usize, value: &'v Value, evaluated: Option<&mut Evaluated<'v>>) -> Validity {
        self.silenced += 1;
        let mut own = Evaluated::default();
        let outcome = self.node(node, value, evaluated.is_some().then_some(&mut own));
        self.silenced -= 1;
        if let (Ok(true), Some(evaluated)) = (&outcome, evaluated) {
            evaluated.merge(own);
        }
        outcome
    }

    /// The node that a dynamic reference leads to: that of the outermost resource with its anchor.
    fn dynamic_target(&self, name: &str) -> Option<usize> {
        let anchors = |resource: &usize| self.set.dynamic_anchors.get(*resource);
        let find = |resource| anchors(resource)?.iter().find(|(anchor, _)| **anchor == *name).map(|(_, node)| *node);
        if !name.is_empty() {
            return self.scope.iter().find_map(find);
        }
        // `$recursiveRef` goes outward as long as the resources have `$recursiveAnchor`.
        self.scope.iter().rev().map_while(find).last()
    }

    fn child(&mut self, node: usize, step: ValuePart<'v>, value: &'v Value) -> Validity {
        self.path.push(step);
        let outcome = self.node(node, value, None);
        self.path.pop();
        outcome
    }

    fn items(&mut self, keyword: &Items, items: &'v [Value], evaluated: Option<&mut Evaluated<'v>>) -> Validity {
        for (index, item) in items.iter().enumerate() {
            let Some(node) = keyword.prefix.get(index).copied().or(keyword.rest) else { break };
            if !self.child(node, ValuePart::Item(index), item)? {
                return Ok(false);
            }
        }
        if let Some(evaluated) = evaluated {
            let all = if keyword.rest.is_some() { items.len() } else { keyword.prefix.len() };
            evaluated.items_before = evaluated.items_before.max(all);
        }
        Ok(true)
    }

    fn contains(&mut self, keyword: &Contains, items: &'v [Value], evaluated: Option<&mut Evaluated<'v>>) -> Validity {
        let mut evaluated = evaluated.filter(|_| keyword.evaluates);
        let mut matching = 0_usize;
        for (index, item) in items.iter().enumerate() {
            if self.branch(keyword.node, item, None)? {
                matching += 1;
                if let Some(evaluated) = evaluated.as_deref_mut() {
                    evaluated.items.insert(index);
                }
            }
        }
        if matching < keyword.min {
            return self.check(false, || format!("has too few items that match contains: {matching}"));
        }
        self.check(keyword.max.is_none_or(|max| matching <= max), || {
            format!("has too many items that match contains: {matching}")
        })
    }

    fn unevaluated_items(
        &mut self,
        node: usize,
        items: &'v [Value],
        evaluated: Option<&mut Evaluated<'v>>,
    ) -> Validity {
        let Some(evaluated) = evaluated else { return Ok(true) };
        for (index, item) in items.iter().enumerate().skip(evaluated.items_before) {
            if !evaluated.items.contains(&index) && !self.child(node, ValuePart::Item(index), item)? {
                return Ok(false);
            }
        }
        evaluated.items_before = items.len();
        Ok(true)
    }

    fn members(
        &mut self,
        keyword: &'s MemberSchemas,
        members: &'v Map<String, Value>,
        mut evaluated: Option<&mut Evaluated<'v>>,
    ) -> Validity {
        for (name, value) in members {
            self.spend(1)?;
            let mut is_known = false;
            if let Some(node) = keyword.named.get(name.as_str()) {
                is_known = true;
                if !self.child(*node, ValuePart::Member(name), value)? {
                    return Ok(false);
                }
            }
            for (pattern, node) in &keyword.patterns {
                if self.matches(pattern, name)? {
                    is_known = true;
                    if !self.child(*node, ValuePart::Member(name), value)? {
                        return Ok(false);
                    }
                }
            }
            if let Some(node) = keyword.others.filter(|_| !is_known) {
                is_known = true;
                if self.set.nodes[node].keywords.first().is_some_and(|first| matches!(first, Keyword::Never)) {
                    return self.check(false, || format!("has the member {name:?}, which is not allowed"));
                }
                if !self.child(node, ValuePart::Member(name), value)? {
                    return Ok(false);
                }
            }
            if let Some(evaluated) = evaluated.as_deref_mut().filter(|_| is_known) {
                evaluated.members.insert(name);
            }
        }
        Ok(true)
    }

    fn unevaluated_members(
        &mut self,
        node: usize,
        members: &'v Map<String, Value>,
        evaluated: Option<&mut Evaluated<'v>>,
    ) -> Validity {
        let Some(evaluated) = evaluated.filter(|evaluated| !evaluated.all_members) else { return Ok(true) };
        for (name, value) in members {
            if !evaluated.members.contains(name.as_str()) && !self.child(node, ValuePart::Member(name), value)? {
                return Ok(false);
            }
        }
        evaluated.all_members = true;
        Ok(true)
    }

    fn dependent_schemas(
        &mut self,
        schemas: &[(Box<str>, usize)],
        value: &'v Value,
        members: &Map<String, Value>,
        mut evaluated: Option<&mut Evaluated<'v>>,
    ) -> Validity {
        for (name, node) in schemas {
            if members.contains_key(&**name) && !self.node(*node, value, evaluated.as_deref_mut())? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Names are values of their own, which live shorter than the value of the evaluation.
    fn member_names(&mut self, node: usize, members: &Map<String, Value>) -> Validity {
        for name in members.keys() {
            let text = Value::String(name.clone());
            let mut inner = Evaluation {
                set: self.set,
                budget: &mut *self.budget,
                path: Vec::new(),
                scope: self.scope.clone(),
                depth: self.depth,
                silenced: 1,
                error: None,
            };
            if !inner.node(node, &text, None)? {
                return self.check(false, || format!("has the member {name:?}, whose name is not allowed"));
            }
        }
        Ok(true)
    }

    fn matches(&mut self, pattern: &SchemaPattern, text: &str) -> Validity {
        if !self.budget.regex_steps.take(pattern.states, text.len()) {
            return Err(TooCostly);
        }
        Ok(pattern.regex.is_match(text))
    }

    /// Keywords without subschemas. Each restricts values of one type only.
    fn assertion(&mut self, keyword: &Keyword, value: &Value) -> Validity {
        match (keyword, value) {
            (Keyword::Never, _) => self.check(false, || "is not allowed".to_owned()),
            (Keyword::Type(types), value) => {
                self.check(types.contains(value), || format!("must be {}", types.describe()))
            }
            (Keyword::Enum(values), value) => self.one_of_values(values, value),
            (Keyword::Const(expected), value) => {
                let equal = number::equal(expected, value, &mut self.budget.steps).ok_or(TooCostly)?;
                self.check(equal, || "is not the allowed value".to_owned())
            }
            (_, Value::Number(number)) => self.number_assertion(keyword, number),
            (_, Value::String(text)) => self.string_assertion(keyword, text),
            (_, Value::Array(items)) => self.array_assertion(keyword, items),
            (_, Value::Object(members)) => self.object_assertion(keyword, members),
            _ => Ok(true),
        }
    }

    fn one_of_values(&mut self, values: &[Value], value: &Value) -> Validity {
        for allowed in values {
            if number::equal(allowed, value, &mut self.budget.steps).ok_or(TooCostly)? {
                return Ok(true);
            }
        }
        self.check(false, || "is not one of the allowed values".to_owned())
    }

    fn number_assertion(&mut self, keyword: &Keyword, value: &serde_json::Number) -> Validity {
        let order = |limit| number::compare(value, limit);
        match keyword {
            Keyword::Minimum(limit) => self.check(order(limit).is_ge(), || format!("must be at least {limit}")),
            Keyword::Maximum(limit) => self.check(order(limit).is_le(), || format!("must be at most {limit}")),
            Keyword::ExclusiveMinimum(limit) => self.check(order(limit).is_gt(), || format!("must be above {limit}")),
            Keyword::ExclusiveMaximum(limit) => self.check(order(limit).is_lt(), || format!("must be below {limit}")),
            Keyword::MultipleOf(of) => {
                self.check(number::is_multiple(value, of), || format!("must be a multiple of {of}"))
            }
            Keyword::Format(format) => {
                self.check(format.matches_number(value), || format!("is not a valid {}", format.name()))
            }
            _ => Ok(true),
        }
    }

    fn string_assertion(&mut self, keyword: &Keyword, text: &str) -> Validity {
        self.spend(text.len() / 64)?;
        match keyword {
            Keyword::MinLength(min) => {
                self.check(text.chars().count() >= *min, || format!("must have at least {min} characters"))
            }
            Keyword::MaxLength(max) => self.check(text.len() <= *max || text.chars().count() <= *max, || {
                format!("must have at most {max} characters")
            }),
            Keyword::Pattern(pattern) => {
                let matches = self.matches(pattern, text)?;
                self.check(matches, || "does not match the regular expression".to_owned())
            }
            Keyword::Format(format) => {
                self.check(format.matches_text(text), || format!("is not a valid {}", format.name()))
            }
            _ => Ok(true),
        }
    }

    fn array_assertion(&mut self, keyword: &Keyword, items: &[Value]) -> Validity {
        match keyword {
            Keyword::MinItems(min) => self.check(items.len() >= *min, || format!("must have at least {min} items")),
            Keyword::MaxItems(max) => self.check(items.len() <= *max, || format!("must have at most {max} items")),
            Keyword::UniqueItems => {
                let unique = number::are_unique(items, &mut self.budget.steps).ok_or(TooCostly)?;
                self.check(unique, || "has two equal items".to_owned())
            }
            _ => Ok(true),
        }
    }

    fn object_assertion(&mut self, keyword: &Keyword, members: &Map<String, Value>) -> Validity {
        match keyword {
            Keyword::MinProperties(min) => {
                self.check(members.len() >= *min, || format!("must have at least {min} members"))
            }
            Keyword::MaxProperties(max) => {
                self.check(members.len() <= *max, || format!("must have at most {max} members"))
            }
            Keyword::Required(names) => self.required(names, members),
            Keyword::DependentRequired(dependencies) => {
                for (name, names) in dependencies {
                    if members.contains_key(&**name) && !self.required(names, members)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            _ => Ok(true),
        }
    }

    fn required(&mut self, names: &[Box<str>], members: &Map<String, Value>) -> Validity {
        self.spend(names.len())?;
        match names.iter().find(|name| !members.contains_key(&***name)) {
            Some(missing) => self.check(false, || format!("lacks the required member {missing:?}")),
            None => Ok(true),
        }
    }

    /// Keeps the first error that makes the whole value invalid.
    fn check(&mut self, is_valid: bool, message: impl FnOnce() -> String) -> Validity {
        if !is_valid && self.silenced == 0 && self.error.is_none() {
            let mut pointer = String::new();
            for step in &self.path {
                match step {
                    ValuePart::Member(name) => {
                        pointer.push('/');
                        pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
                    }
                    ValuePart::Item(index) => write!(pointer, "/{index}").unwrap_or_default(),
                }
            }
            let mut message = message();
            if message.len() > MAX_MESSAGE {
                message.truncate(message.floor_char_boundary(MAX_MESSAGE));
            }
            pointer.truncate(pointer.floor_char_boundary(MAX_MESSAGE));
            self.error = Some(InvalidValue { pointer, message });
        }
        Ok(is_valid)
    }
}

/// The longest pointer and message in bytes: both contain names that the client has chosen.
const MAX_MESSAGE: usize = 512;
