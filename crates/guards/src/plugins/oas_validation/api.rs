//! The operations of a document with compiled schemas.

use http::{HeaderName, Method};
use serde_json::Value;

use super::Config;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::media_type::MediaType;
use crate::plugin_formats::json_schema::{
    Direction, JsonSchemaCompiler, SchemaDialect, SchemaError, SchemaId, SchemaSet,
};
use crate::plugin_formats::openapi::parameter::{ParameterForm, Style};
use crate::plugin_formats::openapi::shape::{MemberShapes, Shape};
use crate::plugin_formats::openapi::{
    ApiDocument, ApiPathIndex, OpenApiVersion, Operation, base_paths, media_type_content, operations, pointer_token,
};

/// A document, as requests are compared with it.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) paths: ApiPathIndex,
    /// For each path: the names of its parameters, and its operations.
    pub(super) items: Vec<PathItem>,
    pub(super) request_schemas: SchemaSet,
    pub(super) response_schemas: SchemaSet,
}

#[derive(Debug)]
pub(super) struct PathItem {
    pub(super) names: Vec<String>,
    pub(super) operations: Vec<(Method, ApiOperation)>,
}

#[derive(Clone, Debug)]
pub(super) struct ApiOperation {
    pub(super) parameters: Vec<ApiParameter>,
    pub(super) body: Option<ApiBody>,
    pub(super) responses: Vec<(StatusRange, Vec<MediaRule>)>,
}

#[derive(Clone, Debug)]
pub(super) struct ApiParameter {
    pub(super) location: Location,
    pub(super) form: ParameterForm,
    pub(super) header: Option<HeaderName>,
    pub(super) is_required: bool,
    pub(super) may_be_empty: bool,
    /// The value is JSON in the text of the parameter.
    pub(super) is_json: bool,
    pub(super) schema: Option<SchemaId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Location {
    Path,
    Query,
    Header,
    Cookie,
}

#[derive(Clone, Debug)]
pub(super) struct ApiBody {
    pub(super) is_required: bool,
    pub(super) content: Vec<MediaRule>,
}

/// What the document says about bodies of a media type.
#[derive(Clone, Debug)]
pub(super) struct MediaRule {
    pub(super) range: String,
    pub(super) schema: Option<SchemaId>,
    /// The members of a form.
    pub(super) members: MemberShapes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum StatusRange {
    One(u16),
    /// By the first digit.
    Class(u16),
    Default,
}

impl StatusRange {
    pub(super) fn contains(self, status: u16) -> bool {
        match self {
            StatusRange::One(one) => one == status,
            StatusRange::Class(digit) => status / 100 == digit,
            StatusRange::Default => true,
        }
    }

    fn parse(text: &str) -> Option<StatusRange> {
        match text.as_bytes() {
            b"default" => Some(StatusRange::Default),
            [digit @ b'1'..=b'5', b'X' | b'x', b'X' | b'x'] => Some(StatusRange::Class(u16::from(digit - b'0'))),
            [b'1'..=b'5', _, _] => text.parse().ok().map(StatusRange::One),
            _ => None,
        }
    }
}

impl ApiOperation {
    pub(super) fn responses_to(&self, status: u16) -> Option<&[MediaRule]> {
        self.responses.iter().find(|(range, _)| range.contains(status)).map(|(_, content)| content.as_slice())
    }
}

/// The rule for a media type: the most specific one that contains it.
pub(super) fn rule_for<'r>(content: &'r [MediaRule], media_type: &MediaType) -> Option<&'r MediaRule> {
    let matching = content.iter().filter(|rule| media_type.is_in(&rule.range));
    matching.min_by_key(|rule| rule.range.matches('*').count())
}

const FIELD: &str = "api_spec";
const CORRECT: &str = "correct the document";

impl Api {
    pub(super) fn build(config: &Config) -> Result<Api, Vec<Diagnostic>> {
        let one = |problem: Diagnostic| vec![problem];
        let document = ApiDocument::parse(FIELD, &config.api_spec, config.api_spec_encoded).map_err(one)?;
        let dialect = match document.version {
            OpenApiVersion::V2 => {
                let remedy = "convert the document to OpenAPI 3.0";
                return Err(vec![Diagnostic::in_config(FIELD, "is of Swagger 2.0", remedy)]);
            }
            OpenApiVersion::V30 => SchemaDialect::OpenApi30,
            OpenApiVersion::V31 => SchemaDialect::Draft202012,
        };
        let bases = match (config.include_base_path, &config.custom_base_path) {
            (false, _) => vec![String::new()],
            (true, Some(path)) => vec![path.trim_end_matches('/').to_owned()],
            (true, None) => base_paths(&document),
        };
        let found = operations(FIELD, &document)?;
        let mut builder = ApiBuilder {
            document: &document,
            requests: JsonSchemaCompiler::new(&document.root, dialect, Direction::Request),
            responses: JsonSchemaCompiler::new(&document.root, dialect, Direction::Response),
            reads_responses: config.validate_response_body,
        };
        builder.index_components();
        let mut paths: Vec<String> = Vec::new();
        let mut items: Vec<PathItem> = Vec::new();
        let mut invalid = Vec::new();
        for operation in &found {
            let compiled = match builder.operation(operation) {
                Ok(compiled) => compiled,
                Err(problem) => {
                    invalid.push(problem);
                    continue;
                }
            };
            for base in &bases {
                let path = format!("{base}{}", operation.path);
                // The operations of a path follow one another, for each base path.
                let known = paths.iter().rposition(|known| *known == path).filter(|at| at + bases.len() >= paths.len());
                let position = known.unwrap_or_else(|| {
                    paths.push(path);
                    items.push(PathItem { names: Vec::new(), operations: Vec::new() });
                    items.len() - 1
                });
                items[position].operations.push((operation.method.clone(), compiled.clone()));
            }
        }
        invalid.truncate(8);
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let (index, names) = ApiPathIndex::build(FIELD, &paths).map_err(one)?;
        for (item, names) in items.iter_mut().zip(names) {
            item.names = names;
        }
        let finished = builder.requests.finish().and_then(|requests| Ok((requests, builder.responses.finish()?)));
        let (request_schemas, response_schemas) = finished.map_err(|error| one(schema_problem(error)))?;
        Ok(Api { paths: index, items, request_schemas, response_schemas })
    }
}

struct ApiBuilder<'d> {
    document: &'d ApiDocument,
    requests: JsonSchemaCompiler<'d>,
    responses: JsonSchemaCompiler<'d>,
    reads_responses: bool,
}

fn schema_problem(error: SchemaError) -> Diagnostic {
    Diagnostic::in_config(FIELD, format!("{} {}", error.pointer, error.message), error.remedy)
}

impl<'d> ApiBuilder<'d> {
    /// Schemas with `$id` and anchors may be referred to from everywhere.
    fn index_components(&mut self) {
        let schemas = self.document.root.pointer("/components/schemas").and_then(Value::as_object);
        for schema in schemas.into_iter().flat_map(|schemas| schemas.values()) {
            self.requests.index(schema);
            self.responses.index(schema);
        }
    }

    fn operation(&mut self, operation: &Operation<'d>) -> Result<ApiOperation, Diagnostic> {
        let error = |message: String| Diagnostic::in_config(FIELD, format!("{} {message}", operation.pointer), CORRECT);
        let mut parameters = Vec::new();
        for parameter in &operation.parameters {
            parameters.extend(self.parameter(parameter, operation)?);
        }
        let body = match operation.value.get("requestBody") {
            None => None,
            Some(body) => {
                let body =
                    self.document.resolve(body).map_err(|message| error(format!("has a body that {message}")))?;
                let is_required = body.get("required") == Some(&Value::Bool(true));
                let pointer = format!("{}/requestBody", operation.pointer);
                let content = content(self.document, &mut self.requests, body, &pointer)?;
                Some(ApiBody { is_required, content })
            }
        };
        let mut responses = Vec::new();
        let listed = operation.value.get("responses").and_then(Value::as_object).filter(|_| self.reads_responses);
        for (status, response) in listed.into_iter().flatten().filter(|(status, _)| !status.starts_with("x-")) {
            let range = StatusRange::parse(status)
                .ok_or_else(|| error(format!("has the response {status:?}, which is no status")))?;
            let response = self
                .document
                .resolve(response)
                .map_err(|message| error(format!("has the response {status}, which {message}")))?;
            let pointer = format!("{}/responses/{status}", operation.pointer);
            responses.push((range, content(self.document, &mut self.responses, response, &pointer)?));
        }
        // The most specific one first.
        responses.sort_by_key(|(range, _)| *range);
        Ok(ApiOperation { parameters, body, responses })
    }

    fn parameter(&mut self, value: &'d Value, operation: &Operation<'_>) -> Result<Option<ApiParameter>, Diagnostic> {
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let flag = |name: &str| value.get(name) == Some(&Value::Bool(true));
        let name = text("name").unwrap_or_default();
        let pointer = format!("{} (parameter {name})", operation.pointer);
        let error = |message: String| Diagnostic::in_config(FIELD, format!("{pointer} {message}"), CORRECT);
        let location = match text("in") {
            Some("path") => Location::Path,
            Some("query") => Location::Query,
            Some("header") => Location::Header,
            Some("cookie") => Location::Cookie,
            _ => return Err(error("is not in path, query, header or cookie".to_owned())),
        };
        // The specification lets other parts of the document describe these.
        let is_ignored =
            ["accept", "content-type", "authorization"].iter().any(|other| name.eq_ignore_ascii_case(other));
        if location == Location::Header && is_ignored {
            return Ok(None);
        }
        let header = match location {
            Location::Header => {
                Some(HeaderName::try_from(name).map_err(|_| error("is not the name of a header field".to_owned()))?)
            }
            _ => None,
        };
        let is_in_path = operation.path.contains(&format!("{{{name}}}"));
        if location == Location::Path && !is_in_path {
            return Err(error(format!("is not a part of the path {}", operation.path)));
        }
        let default_style = match location {
            Location::Path | Location::Header => Style::Simple,
            Location::Query | Location::Cookie => Style::Form,
        };
        let style = match text("style") {
            None => default_style,
            Some(style) => Style::find(style).ok_or_else(|| error(format!("has the unknown style {style:?}")))?,
        };
        let explode = match value.get("explode") {
            Some(Value::Bool(explode)) => *explode,
            _ => style == Style::Form,
        };
        let content = media_type_content(self.document, value);
        let (schema, is_json) = match (value.get("schema"), content.as_slice()) {
            (Some(schema), _) => (Some(schema), false),
            (None, [(media_type, content)]) => {
                let is_json = MediaType::parse(media_type).is_some_and(|media_type| media_type.is_json());
                (content.get("schema").filter(|_| is_json), is_json)
            }
            (None, _) => (None, false),
        };
        let shape = schema.map(|schema| Shape::of(self.document, schema)).unwrap_or_default();
        let schema = schema.map(|schema| self.requests.add(schema, &format!("{pointer}/schema"))).transpose();
        Ok(Some(ApiParameter {
            location,
            form: ParameterForm { name: name.to_owned(), style, explode, shape },
            header,
            is_required: flag("required"),
            may_be_empty: flag("allowEmptyValue"),
            is_json,
            schema: schema.map_err(schema_problem)?,
        }))
    }
}

fn content<'d>(
    document: &'d ApiDocument,
    compiler: &mut JsonSchemaCompiler<'d>,
    owner: &'d Value,
    pointer: &str,
) -> Result<Vec<MediaRule>, Diagnostic> {
    let mut rules = Vec::new();
    for (range, value) in media_type_content(document, owner) {
        let pointer = format!("{pointer}/content/{}", pointer_token(range));
        let essence = range.split(';').next().unwrap_or_default().trim();
        if !MediaType::is_range(essence) {
            return Err(Diagnostic::in_config(FIELD, format!("{pointer} is not a media type"), CORRECT));
        }
        let schema = value.get("schema");
        let members = schema.and_then(|schema| Shape::of(document, schema).members).unwrap_or_default();
        let schema = schema.map(|schema| compiler.add(schema, &format!("{pointer}/schema"))).transpose();
        rules.push(MediaRule { range: essence.to_owned(), schema: schema.map_err(schema_problem)?, members });
    }
    Ok(rules)
}
