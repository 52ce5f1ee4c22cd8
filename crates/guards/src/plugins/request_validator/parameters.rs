//! The parameters that requests are checked for.

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::RequestCx;
use crate::plugin_formats::json_schema::{
    Direction, JsonSchemaCompiler, SchemaDialect, SchemaError, SchemaId, SchemaSet, ValidationBudget, Violation,
};
use crate::plugin_formats::openapi::parameter::{ParameterFields, ParameterForm, Style};
use crate::plugin_formats::openapi::shape::Shape;
use crate::plugin_formats::openapi::{ApiDocument, OpenApiVersion};

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ParameterConfig {
    /// The name of the parameter. If `in` is `path`, it is that of a group of the route's regular expression, such as
    /// `(?<id>[0-9]+)`.
    name: String,
    /// Where the parameter is.
    r#in: ParameterLocation,
    /// Whether requests without the parameter are rejected.
    required: bool,
    /// JSON Schema of the value, with `type` at its top. Needs `style` and `explode`.
    schema: Option<String>,
    /// How arrays and objects are written.
    style: Option<StyleConfig>,
    /// Whether each item or member is written as a parameter of its own.
    explode: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ParameterLocation {
    Query,
    Header,
    Path,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum StyleConfig {
    DeepObject,
    Form,
    Label,
    Matrix,
    PipeDelimited,
    Simple,
    SpaceDelimited,
}

impl StyleConfig {
    fn style(self) -> Style {
        match self {
            StyleConfig::DeepObject => Style::DeepObject,
            StyleConfig::Form => Style::Form,
            StyleConfig::Label => Style::Label,
            StyleConfig::Matrix => Style::Matrix,
            StyleConfig::PipeDelimited => Style::PipeDelimited,
            StyleConfig::Simple => Style::Simple,
            StyleConfig::SpaceDelimited => Style::SpaceDelimited,
        }
    }

    /// Whether a parameter in this place may have the style.
    fn is_in(self, location: ParameterLocation) -> bool {
        use StyleConfig::{DeepObject, Form, Label, Matrix, PipeDelimited, Simple, SpaceDelimited};
        match location {
            ParameterLocation::Query => matches!(self, Form | SpaceDelimited | PipeDelimited | DeepObject),
            ParameterLocation::Header => self == Simple,
            ParameterLocation::Path => matches!(self, Simple | Label | Matrix),
        }
    }
}

#[derive(Debug)]
pub(super) struct Parameter {
    location: ParameterLocation,
    form: ParameterForm,
    header: Option<HeaderName>,
    is_required: bool,
    schema: Option<(SchemaSet, SchemaId)>,
}

impl Parameter {
    pub(super) fn build(
        index: usize,
        config: ParameterConfig,
        dialect: SchemaDialect,
    ) -> Result<Parameter, Diagnostic> {
        let field = |name: &str| format!("parameter_schema[{index}].{name}");
        let header = match config.r#in {
            ParameterLocation::Header => Some(HeaderName::try_from(&config.name).map_err(|_| {
                Diagnostic::in_config(field("name"), "is not the name of a header field", "write a name such as X-Page")
            })?),
            _ => None,
        };
        let (schema, style, explode) = match (config.schema, config.style, config.explode) {
            (None, None, None) => (None, None, true),
            (Some(schema), Some(style), Some(explode)) => (Some(schema), Some(style), explode),
            _ => {
                let message = "are set only in part";
                let remedy = "set schema, style and explode, or none of them";
                return Err(Diagnostic::in_config(field("schema, style and explode"), message, remedy));
            }
        };
        if let Some(style) = style.filter(|style| !style.is_in(config.r#in)) {
            let message = format!("{style:?} is not a style of this location");
            let remedy = "use form, spaceDelimited, pipeDelimited or deepObject in a query, simple in a header, and \
                          simple, label or matrix in a path";
            return Err(Diagnostic::in_config(field("style"), message, remedy));
        }
        let mut shape = Shape::default();
        let schema = match schema {
            None => None,
            Some(text) => {
                let value = parse_schema(&field("schema"), &text)?;
                let document = ApiDocument { version: OpenApiVersion::V31, root: value };
                let resolved = document.resolve(&document.root).unwrap_or(&document.root);
                if resolved.get("type").is_none() {
                    let remedy = "name a type at the top of the schema, because it decides how a text is read";
                    return Err(Diagnostic::in_config(field("schema"), "has no type", remedy));
                }
                shape = Shape::of(&document, &document.root);
                Some(compile(&field("schema"), &document.root, dialect)?)
            }
        };
        let style = style.map_or(Style::Simple, StyleConfig::style);
        let form = ParameterForm { name: config.name, style, explode, shape };
        Ok(Parameter { location: config.r#in, form, header, is_required: config.required, schema })
    }

    /// The error of a request, after the name of the parameter.
    pub(super) fn check(
        &self,
        cx: &RequestCx<'_>,
        query: &ParameterFields<'_>,
        all: &[Parameter],
        budget: &mut ValidationBudget<'_>,
    ) -> Result<(), String> {
        let name = &self.form.name;
        let Some(values) = self.values(cx, query, all)? else {
            return if self.is_required { Err(format!("{name}: required parameter is missing")) } else { Ok(()) };
        };
        let Some((set, id)) = &self.schema else { return Ok(()) };
        let mut first = None;
        for value in &values {
            match set.validate(*id, value, budget) {
                Ok(()) => return Ok(()),
                Err(Violation::Invalid(error)) => first = first.or(Some(error.to_string())),
                Err(Violation::TooCostly) => return Err(format!("{name}: is too large to be checked")),
            }
        }
        Err(format!("{name}: {}", first.unwrap_or_else(|| "does not have the form of its style".to_owned())))
    }

    /// What the parameter may stand for, or nothing if it is absent.
    fn values(
        &self,
        cx: &RequestCx<'_>,
        query: &ParameterFields<'_>,
        all: &[Parameter],
    ) -> Result<Option<Vec<Value>>, String> {
        match (self.location, &self.header) {
            (ParameterLocation::Query, _) => {
                if self.schema.is_none() {
                    let has = query.iter().any(|(name, _)| *name == *self.form.name);
                    return Ok(has.then(Vec::new));
                }
                let declared = |name: &str| {
                    let mut queries = all.iter().filter(|other| other.location == ParameterLocation::Query);
                    queries.any(|other| other.form.name == name)
                };
                Ok(self.form.values_of_fields(query, &declared))
            }
            (ParameterLocation::Header, Some(header)) => {
                let mut found = cx.head.headers.get_all(header).iter();
                let Some(first) = found.next() else { return Ok(None) };
                let mut text = String::from_utf8_lossy(first.as_bytes()).into_owned();
                for value in found {
                    // Several fields are the same as one with commas (RFC 9110, section 5.3).
                    text.push(',');
                    text.push_str(&String::from_utf8_lossy(value.as_bytes()));
                }
                Ok(Some(self.form.values_of_text(&text, false)))
            }
            _ => Ok(cx.uri_captures.named_group(&self.form.name).map(|text| self.form.values_of_text(text, true))),
        }
    }
}

/// Parses the text of a schema.
pub(super) fn parse_schema(field: &str, text: &str) -> Result<Value, Diagnostic> {
    if text.len() > MAX_SCHEMA {
        let message = format!("has more than {MAX_SCHEMA} bytes");
        return Err(Diagnostic::in_config(field, message, "use a smaller schema"));
    }
    serde_json::from_str(text).map_err(|error| {
        Diagnostic::in_config(field, format!("is not valid JSON: {error}"), "write the schema as JSON in a string")
    })
}

/// Compiles a schema, with diagnostics about this field.
pub(super) fn compile(
    field: &str,
    schema: &Value,
    dialect: SchemaDialect,
) -> Result<(SchemaSet, SchemaId), Diagnostic> {
    let compiled = || {
        let mut compiler = JsonSchemaCompiler::new(schema, dialect, Direction::Any);
        let id = compiler.add(schema, "")?;
        Ok((compiler.finish()?, id))
    };
    compiled().map_err(|SchemaError { pointer, message, remedy }| {
        let pointer = if pointer.is_empty() { "the schema" } else { &pointer };
        Diagnostic::in_config(field, format!("{pointer} {message}"), remedy)
    })
}

/// The largest schema in bytes.
const MAX_SCHEMA: usize = 1 << 20;
