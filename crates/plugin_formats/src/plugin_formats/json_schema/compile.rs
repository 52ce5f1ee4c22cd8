//! Compiles schemas to nodes. All schemas of one document share the nodes of what they refer to.

use std::collections::{HashMap, VecDeque};

use serde_json::{Map, Number, Value};

use super::format::Format;
use super::keyword::{CompiledNode, Contains, IfThenElse, Items, Keyword, MemberSchemas, TypeSet};
use super::pattern::SchemaPattern;
use super::resolve::{Resources, address};
use super::{Direction, SchemaDialect, SchemaError, SchemaId, SchemaSet};

/// Compiles the schemas of a document.
pub struct JsonSchemaCompiler<'d> {
    dialect: SchemaDialect,
    direction: Direction,
    resources: Resources<'d>,
    nodes: Vec<Option<CompiledNode>>,
    ids: HashMap<usize, usize>,
    pending: VecDeque<UncompiledSchema<'d>>,
    pattern_states: usize,
    /// Where each node begins, for errors.
    pointers: Vec<String>,
}

struct UncompiledSchema<'d> {
    id: usize,
    schema: &'d Value,
}

/// The most schemas and subschemas of a set: what a document of 1 MiB can have.
pub(super) const MAX_NODES: usize = 50_000;
/// The most states of the automata of all patterns of a set, with about 50 bytes each.
const MAX_PATTERN_STATES: usize = 200_000;

impl<'d> JsonSchemaCompiler<'d> {
    /// A compiler for schemas in this document, which is one of them unless the document is of another format.
    pub fn new(document: &'d Value, dialect: SchemaDialect, direction: Direction) -> Self {
        JsonSchemaCompiler {
            dialect,
            direction,
            resources: Resources::new(document, dialect),
            nodes: Vec::new(),
            ids: HashMap::new(),
            pending: VecDeque::new(),
            pattern_states: 0,
            pointers: Vec::new(),
        }
    }

    /// Finds `$id` and anchors in a schema before others refer to them.
    pub fn index(&mut self, schema: &'d Value) {
        self.resources.index(schema, 0);
    }

    /// Compiles a schema at this JSON Pointer of the document.
    pub fn add(&mut self, schema: &'d Value, pointer: &str) -> Result<SchemaId, SchemaError> {
        self.resources.index(schema, 0);
        let id = self.node(schema, pointer)?;
        while let Some(UncompiledSchema { id, schema }) = self.pending.pop_front() {
            let node = self.compile(schema, &self.pointers[id].clone())?;
            self.nodes[id] = Some(node);
        }
        Ok(SchemaId(id))
    }

    /// All schemas that were compiled. Fails if a schema is applied to the same value again and again.
    pub fn finish(mut self) -> Result<SchemaSet, SchemaError> {
        // Dynamic references may lead to any schema with their anchor, which is compiled then.
        let anchored: Vec<_> = (0..self.resources.list.len())
            .flat_map(|resource| {
                let found = &self.resources.list[resource];
                let recursive = found.is_recursive.then_some(("", found.root));
                let anchors = found.dynamic_anchors.iter().copied().chain(recursive);
                anchors.map(|(name, schema)| (resource, name, schema)).collect::<Vec<_>>()
            })
            .collect();
        let mut dynamic_anchors = vec![Vec::new(); self.resources.list.len()];
        for (resource, name, schema) in anchored {
            let SchemaId(id) = self.add(schema, &format!("(anchor {name})"))?;
            dynamic_anchors[resource].push((Box::from(name), id));
        }
        let nodes: Vec<CompiledNode> = self.nodes.into_iter().flatten().collect();
        if let Some(node) = find_cycle(&nodes) {
            return Err(SchemaError {
                pointer: self.pointers[node].clone(),
                message: "applies itself to the same value again and again".to_owned(),
                remedy: "let a schema refer to itself only for a part of the value, as in properties and items",
            });
        }
        dynamic_anchors.resize(self.resources.list.len(), Vec::new());
        Ok(SchemaSet { nodes: nodes.into(), dynamic_anchors: dynamic_anchors.into() })
    }

    /// The node of a schema, which is compiled later if it is new.
    fn node(&mut self, schema: &'d Value, pointer: &str) -> Result<usize, SchemaError> {
        if !schema.is_object() && !schema.is_boolean() {
            return Err(SchemaError {
                pointer: pointer.to_owned(),
                message: "is not a schema".to_owned(),
                remedy: "write an object with keywords, or true or false",
            });
        }
        if let Some(id) = self.ids.get(&address(schema)) {
            return Ok(*id);
        }
        let id = self.nodes.len();
        if id >= MAX_NODES {
            return Err(SchemaError {
                pointer: pointer.to_owned(),
                message: format!("is one of more than {MAX_NODES} schemas and subschemas"),
                remedy: "divide the document, and configure a plugin for each part",
            });
        }
        self.nodes.push(None);
        self.pointers.push(pointer.to_owned());
        self.ids.insert(address(schema), id);
        self.pending.push_back(UncompiledSchema { id, schema });
        Ok(id)
    }

    fn compile(&mut self, schema: &'d Value, pointer: &str) -> Result<CompiledNode, SchemaError> {
        let resource = self.resources.resource_of(schema);
        let node = |keywords: Vec<Keyword>, tracks_evaluated| CompiledNode {
            resource,
            keywords: keywords.into(),
            tracks_evaluated,
        };
        let members = match schema {
            Value::Object(members) => members,
            Value::Bool(false) => return Ok(node(vec![Keyword::Never], false)),
            _ => return Ok(node(Vec::new(), false)),
        };
        let mut keywords = Vec::new();
        if let Some(reference) = members.get("$ref") {
            let reference = self.reference(resource, reference, pointer)?;
            keywords.push(Keyword::Ref(reference));
            if self.dialect <= SchemaDialect::Draft7 {
                return Ok(node(keywords, false));
            }
        }
        let at = KeywordReader { members, pointer };
        self.assertions(at, &mut keywords)?;
        self.applicators(at, &mut keywords)?;
        self.arrays(at, &mut keywords)?;
        self.objects(at, &mut keywords)?;
        if self.dialect >= SchemaDialect::Draft201909 {
            self.dynamic_references(at, resource, &mut keywords)?;
            // Last, because they read what the other keywords have evaluated.
            for (name, keyword) in [
                ("unevaluatedItems", Keyword::UnevaluatedItems as fn(usize) -> Keyword),
                ("unevaluatedProperties", Keyword::UnevaluatedProperties),
            ] {
                if let Some(id) = self.subschema(at, name)? {
                    keywords.push(keyword(id));
                }
            }
        }
        let tracks_evaluated = members.keys().any(|name| name.starts_with("unevaluated"));
        Ok(node(keywords, tracks_evaluated && self.dialect >= SchemaDialect::Draft201909))
    }

    fn reference(&mut self, resource: usize, reference: &Value, pointer: &str) -> Result<usize, SchemaError> {
        let pointer = format!("{pointer}/$ref");
        let Some(reference) = reference.as_str() else { return Err(wrong_type(pointer, "a string")) };
        let target = self.resources.find(resource, reference, &pointer)?;
        self.node(target, reference)
    }

    fn assertions(&mut self, at: KeywordReader<'d, '_>, keywords: &mut Vec<Keyword>) -> Result<(), SchemaError> {
        if let Some(types) = at.types()? {
            let is_nullable =
                self.dialect == SchemaDialect::OpenApi30 && at.members.get("nullable") == Some(&Value::Bool(true));
            let types = if is_nullable { types.with("null").unwrap_or(types) } else { types };
            keywords.push(Keyword::Type(types));
        }
        if let Some(values) = at.members.get("enum") {
            let values = values.as_array().ok_or_else(|| at.wrong("enum", "a list of values"))?;
            keywords.push(Keyword::Enum(values.clone().into()));
        }
        if let Some(value) = at.members.get("const").filter(|_| self.dialect >= SchemaDialect::Draft6) {
            keywords.push(Keyword::Const(Box::new(value.clone())));
        }
        self.limits_of_numbers(at, keywords)?;
        if let Some(number) = at.number("multipleOf")? {
            if number.as_f64().is_none_or(|number| number <= 0.0) {
                return Err(at.wrong("multipleOf", "a number above 0"));
            }
            keywords.push(Keyword::MultipleOf(number));
        }
        keywords.extend(at.count("minLength")?.map(Keyword::MinLength));
        keywords.extend(at.count("maxLength")?.map(Keyword::MaxLength));
        if let Some(pattern) = at.members.get("pattern") {
            let pattern = pattern.as_str().ok_or_else(|| at.wrong("pattern", "a regular expression"))?;
            keywords.push(Keyword::Pattern(self.pattern(pattern, &at.below("pattern"))?));
        }
        if let Some(format) = at.members.get("format") {
            let format = format.as_str().ok_or_else(|| at.wrong("format", "the name of a format"))?;
            keywords.extend(Format::find(format).map(Keyword::Format));
        }
        Ok(())
    }

    /// `minimum` and its relatives. In draft 4, `exclusiveMinimum` is a boolean that changes `minimum`.
    fn limits_of_numbers(&self, at: KeywordReader<'d, '_>, keywords: &mut Vec<Keyword>) -> Result<(), SchemaError> {
        type Limit = fn(Number) -> Keyword;
        let limits: [(&str, &str, Limit, Limit); 2] = [
            ("minimum", "exclusiveMinimum", Keyword::Minimum, Keyword::ExclusiveMinimum),
            ("maximum", "exclusiveMaximum", Keyword::Maximum, Keyword::ExclusiveMaximum),
        ];
        for (name, exclusive_name, inclusive, exclusive) in limits {
            let limit = at.number(name)?;
            if self.dialect <= SchemaDialect::OpenApi30 {
                let is_exclusive = match at.members.get(exclusive_name) {
                    None => false,
                    Some(Value::Bool(is_exclusive)) => *is_exclusive,
                    Some(_) => return Err(at.wrong(exclusive_name, "true or false in this version")),
                };
                keywords.extend(limit.map(if is_exclusive { exclusive } else { inclusive }));
            } else {
                keywords.extend(limit.map(inclusive));
                keywords.extend(at.number(exclusive_name)?.map(exclusive));
            }
        }
        Ok(())
    }

    fn pattern(&mut self, pattern: &str, pointer: &str) -> Result<SchemaPattern, SchemaError> {
        let error = |message| SchemaError {
            pointer: pointer.to_owned(),
            message,
            remedy: "write a valid and small expression; look-around and backreferences are not supported",
        };
        let pattern = SchemaPattern::compile(pattern).map_err(error)?;
        self.pattern_states += pattern.states;
        if self.pattern_states > MAX_PATTERN_STATES {
            return Err(error(format!("has more than {MAX_PATTERN_STATES} states with the other expressions")));
        }
        Ok(pattern)
    }

    fn applicators(&mut self, at: KeywordReader<'d, '_>, keywords: &mut Vec<Keyword>) -> Result<(), SchemaError> {
        for (name, keyword) in [
            ("allOf", Keyword::AllOf as fn(Box<[usize]>) -> Keyword),
            ("anyOf", Keyword::AnyOf),
            ("oneOf", Keyword::OneOf),
        ] {
            if let Some(nodes) = self.listed(at, name)? {
                keywords.push(keyword(nodes));
            }
        }
        keywords.extend(self.subschema(at, "not")?.map(Keyword::Not));
        if self.dialect >= SchemaDialect::Draft7
            && let Some(condition) = self.subschema(at, "if")?
        {
            let (then, otherwise) = (self.subschema(at, "then")?, self.subschema(at, "else")?);
            keywords.push(Keyword::If(Box::new(IfThenElse { condition, then, otherwise })));
        }
        Ok(())
    }

    fn arrays(&mut self, at: KeywordReader<'d, '_>, keywords: &mut Vec<Keyword>) -> Result<(), SchemaError> {
        keywords.extend(at.count("minItems")?.map(Keyword::MinItems));
        keywords.extend(at.count("maxItems")?.map(Keyword::MaxItems));
        if at.flag("uniqueItems")? {
            keywords.push(Keyword::UniqueItems);
        }
        let mut items = Items { prefix: Box::default(), rest: None };
        if self.dialect >= SchemaDialect::Draft202012 {
            items.prefix = self.listed(at, "prefixItems")?.unwrap_or_default();
            items.rest = self.subschema(at, "items")?;
        } else if let Some(Value::Array(_)) = at.members.get("items") {
            items.prefix = self.listed(at, "items")?.unwrap_or_default();
            items.rest = self.subschema(at, "additionalItems")?;
        } else {
            items.rest = self.subschema(at, "items")?;
        }
        if items.rest.is_some() || !items.prefix.is_empty() {
            keywords.push(Keyword::Items(Box::new(items)));
        }
        if self.dialect >= SchemaDialect::Draft6
            && let Some(node) = self.subschema(at, "contains")?
        {
            let has_counts = self.dialect >= SchemaDialect::Draft201909;
            let (min, max) =
                if has_counts { (at.count("minContains")?, at.count("maxContains")?) } else { (None, None) };
            let evaluates = self.dialect >= SchemaDialect::Draft202012;
            keywords.push(Keyword::Contains(Box::new(Contains { node, min: min.unwrap_or(1), max, evaluates })));
        }
        Ok(())
    }

    fn objects(&mut self, at: KeywordReader<'d, '_>, keywords: &mut Vec<Keyword>) -> Result<(), SchemaError> {
        keywords.extend(at.count("minProperties")?.map(Keyword::MinProperties));
        keywords.extend(at.count("maxProperties")?.map(Keyword::MaxProperties));
        if let Some(names) = at.members.get("required") {
            let mut names = string_list(names).ok_or_else(|| at.wrong("required", "a list of names"))?;
            names.retain(|name| !self.is_absent_in_direction(at, name));
            keywords.push(Keyword::Required(names.into()));
        }
        let named: HashMap<Box<str>, usize> =
            self.named(at, "properties")?.into_iter().map(|(name, node)| (Box::from(name), node)).collect();
        let mut patterns = Vec::new();
        if self.dialect != SchemaDialect::OpenApi30 {
            for (pattern, node) in self.named(at, "patternProperties")? {
                let pointer = at.below(&format!("patternProperties/{}", escape(pattern)));
                patterns.push((self.pattern(pattern, &pointer)?, node));
            }
        }
        let others = self.subschema(at, "additionalProperties")?;
        if others.is_some() || !named.is_empty() || !patterns.is_empty() {
            keywords.push(Keyword::Members(Box::new(MemberSchemas { named, patterns: patterns.into(), others })));
        }
        if self.dialect >= SchemaDialect::Draft6 {
            keywords.extend(self.subschema(at, "propertyNames")?.map(Keyword::PropertyNames));
        }
        self.dependencies(at, keywords)
    }

    /// Whether a member is only in messages of the other direction.
    fn is_absent_in_direction(&self, at: KeywordReader<'d, '_>, name: &str) -> bool {
        let marker = match self.direction {
            Direction::Any => return false,
            Direction::Request => "readOnly",
            Direction::Response => "writeOnly",
        };
        at.members.get("properties").and_then(|members| members.get(name)?.get(marker)) == Some(&Value::Bool(true))
    }

    fn dependencies(&mut self, at: KeywordReader<'d, '_>, keywords: &mut Vec<Keyword>) -> Result<(), SchemaError> {
        let mut required = Vec::new();
        let mut schemas = Vec::new();
        for keyword in ["dependencies", "dependentRequired", "dependentSchemas"] {
            let is_known = match keyword {
                "dependencies" => self.dialect != SchemaDialect::OpenApi30,
                _ => self.dialect >= SchemaDialect::Draft201909,
            };
            let Some(members) = at.members.get(keyword).filter(|_| is_known) else { continue };
            let members = members.as_object().ok_or_else(|| at.wrong(keyword, "an object"))?;
            for (name, value) in members {
                let pointer = at.below(&format!("{keyword}/{}", escape(name)));
                match value {
                    Value::Array(_) if keyword != "dependentSchemas" => {
                        let names = string_list(value).ok_or_else(|| wrong_type(pointer, "a list of names"))?;
                        required.push((Box::from(name.as_str()), names.into()));
                    }
                    _ if keyword == "dependentRequired" => return Err(wrong_type(pointer, "a list of names")),
                    schema => schemas.push((Box::from(name.as_str()), self.node(schema, &pointer)?)),
                }
            }
        }
        if !required.is_empty() {
            keywords.push(Keyword::DependentRequired(required.into()));
        }
        if !schemas.is_empty() {
            keywords.push(Keyword::DependentSchemas(schemas.into()));
        }
        Ok(())
    }

    fn dynamic_references(
        &mut self,
        at: KeywordReader<'d, '_>,
        resource: usize,
        keywords: &mut Vec<Keyword>,
    ) -> Result<(), SchemaError> {
        if self.dialect == SchemaDialect::Draft201909 {
            if let Some(reference) = at.members.get("$recursiveRef") {
                let node = self.reference(resource, reference, at.pointer)?;
                let target = self.resources.list[resource].is_recursive;
                keywords.push(if target { Keyword::DynamicRef(node, Box::default()) } else { Keyword::Ref(node) });
            }
        } else if let Some(value) = at.members.get("$dynamicRef") {
            let node = self.reference(resource, value, at.pointer)?;
            let name = value.as_str().and_then(|reference| reference.split_once('#')).map_or("", |(_, name)| name);
            let target = self.resources.find(resource, value.as_str().unwrap_or_default(), at.pointer)?;
            let is_dynamic = target.get("$dynamicAnchor").and_then(Value::as_str) == Some(name);
            keywords.push(if is_dynamic { Keyword::DynamicRef(node, name.into()) } else { Keyword::Ref(node) });
        }
        Ok(())
    }

    fn subschema(&mut self, at: KeywordReader<'d, '_>, name: &str) -> Result<Option<usize>, SchemaError> {
        at.members.get(name).map(|schema| self.node(schema, &at.below(name))).transpose()
    }

    fn listed(&mut self, at: KeywordReader<'d, '_>, name: &str) -> Result<Option<Box<[usize]>>, SchemaError> {
        let Some(value) = at.members.get(name) else { return Ok(None) };
        let items = value.as_array().ok_or_else(|| at.wrong(name, "a list of schemas"))?;
        if items.is_empty() && name != "items" {
            return Err(at.wrong(name, "a list of one or more schemas"));
        }
        let items = items.iter().enumerate();
        items
            .map(|(index, item)| self.node(item, &at.below(&format!("{name}/{index}"))))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    fn named(&mut self, at: KeywordReader<'d, '_>, name: &str) -> Result<Vec<(&'d str, usize)>, SchemaError> {
        let Some(value) = at.members.get(name) else { return Ok(Vec::new()) };
        let members = value.as_object().ok_or_else(|| at.wrong(name, "an object of schemas"))?;
        let members = members.iter();
        members
            .map(|(member, schema)| {
                let pointer = at.below(&format!("{name}/{}", escape(member)));
                Ok((member.as_str(), self.node(schema, &pointer)?))
            })
            .collect()
    }
}

/// Reads the keywords of one schema.
#[derive(Clone, Copy)]
struct KeywordReader<'d, 'p> {
    members: &'d Map<String, Value>,
    pointer: &'p str,
}

impl KeywordReader<'_, '_> {
    fn below(self, name: &str) -> String {
        format!("{}/{name}", self.pointer)
    }

    fn wrong(self, name: &str, expected: &'static str) -> SchemaError {
        wrong_type(self.below(name), expected)
    }

    fn number(self, name: &str) -> Result<Option<Number>, SchemaError> {
        match self.members.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(Some(number.clone())),
            Some(_) => Err(self.wrong(name, "a number")),
        }
    }

    fn flag(self, name: &str) -> Result<bool, SchemaError> {
        match self.members.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }

    fn count(self, name: &str) -> Result<Option<usize>, SchemaError> {
        let Some(number) = self.number(name)? else { return Ok(None) };
        let count = number.as_u64().or_else(|| {
            // `2.0` is an integer.
            let number = number.as_f64().filter(|number| number.fract() == 0.0 && (0.0..1e15).contains(number))?;
            format!("{number:.0}").parse().ok()
        });
        let count = count.and_then(|count| usize::try_from(count).ok());
        count.map(Some).ok_or_else(|| self.wrong(name, "an integer of at least 0"))
    }

    fn types(self) -> Result<Option<TypeSet>, SchemaError> {
        let expected = "null, boolean, integer, number, string, array or object, or a list of these";
        let one = |types: TypeSet, value: &Value| value.as_str().and_then(|name| types.with(name));
        let types = match self.members.get("type") {
            None => return Ok(None),
            Some(Value::Array(types)) => types.iter().try_fold(TypeSet::default(), one),
            Some(value) => one(TypeSet::default(), value),
        };
        types.map(Some).ok_or_else(|| self.wrong("type", expected))
    }
}

fn wrong_type(pointer: String, expected: &str) -> SchemaError {
    let message = format!("is not {expected}");
    SchemaError { pointer, message, remedy: "see the JSON Schema specification of this version" }
}

fn string_list(value: &Value) -> Option<Vec<Box<str>>> {
    value.as_array()?.iter().map(|item| item.as_str().map(Box::from)).collect()
}

/// A name as a token of a JSON Pointer.
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// A node from which keywords that apply to the same value lead back to it.
fn find_cycle(nodes: &[CompiledNode]) -> Option<usize> {
    #[derive(Clone, Copy, PartialEq)]
    enum Visit {
        New,
        Open,
        Done,
    }
    let mut visits = vec![Visit::New; nodes.len()];
    for start in 0..nodes.len() {
        if visits[start] != Visit::New {
            continue;
        }
        visits[start] = Visit::Open;
        let mut path = vec![(start, in_place(&nodes[start]))];
        while let Some((node, targets)) = path.last_mut() {
            match targets.pop() {
                None => {
                    visits[*node] = Visit::Done;
                    path.pop();
                }
                Some(target) => match visits[target] {
                    Visit::Open => return Some(target),
                    Visit::Done => {}
                    Visit::New => {
                        visits[target] = Visit::Open;
                        path.push((target, in_place(&nodes[target])));
                    }
                },
            }
        }
    }
    None
}

fn in_place(node: &CompiledNode) -> Vec<usize> {
    node.keywords.iter().flat_map(Keyword::in_place).collect()
}
