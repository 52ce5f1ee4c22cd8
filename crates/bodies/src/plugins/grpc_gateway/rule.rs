//! The HTTP rules of methods, compiled: which fields the path, the query and the body of a request have.

use std::collections::HashMap;

use http::Method;
use http::uri::PathAndQuery;

use super::routes::TemplateRoutes;
use super::template::PathTemplate;
use crate::plugin_formats::grpc::reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
};
use crate::plugin_formats::grpc::{MessageReader, MessageWriter, http_rule, json_limit};

/// The rules of all methods.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) routes: TemplateRoutes,
    pub(super) rules: Vec<Rule>,
}

/// One way to call a method.
#[derive(Debug)]
pub(super) struct Rule {
    /// The path of the method.
    pub(super) target: PathAndQuery,
    pub(super) input: MessageDescriptor,
    pub(super) reader: MessageReader,
    pub(super) writer: MessageWriter,
    pub(super) variables: Vec<PathField>,
    pub(super) body: BodyField,
    /// Whether the response may have several messages.
    pub(super) is_streaming: bool,
}

/// The field that segments of the path are bound to.
#[derive(Debug)]
pub(super) struct PathField {
    pub(super) fields: Vec<FieldDescriptor>,
    pub(super) start: usize,
    pub(super) end: Option<usize>,
    pub(super) is_path: bool,
}

/// What the body of a request is.
#[derive(Debug)]
pub(super) enum BodyField {
    /// It is not read, and the query has all fields that the path does not have.
    None,
    /// The message.
    Message,
    Field(FieldDescriptor),
}

/// How messages and JSON correspond.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapping {
    pub(super) denies_unknown_fields: bool,
    pub(super) writes_defaults: bool,
    pub(super) uses_json_names: bool,
    /// The largest message.
    pub(super) max_bytes: usize,
}

impl Rules {
    /// Compiles the rules of all methods. Fails with what is wrong; `skipped` gets the methods that cannot be called.
    pub(super) fn compile(
        pool: &DescriptorPool,
        mapping: Mapping,
        skipped: &mut Vec<String>,
    ) -> Result<Rules, Vec<String>> {
        let (mut rules, mut problems) = (Rules::default(), Vec::new());
        for service in pool.services() {
            for method in service.methods() {
                let Some(option) = http_rule(&method) else { continue };
                if method.is_client_streaming() {
                    skipped.push(method.full_name().to_owned());
                    continue;
                }
                let additional = repeated_messages(&option, "additional_bindings");
                for option in std::iter::once(option).chain(additional) {
                    if rules.rules.len() == MAX_RULES {
                        problems.push(format!("there are more than {MAX_RULES} HTTP rules"));
                        return Err(problems);
                    }
                    if let Err(problem) = rules.add(&method, &option, mapping) {
                        problems.push(format!("the HTTP rule of {} {problem}", method.full_name()));
                    }
                }
            }
        }
        if problems.is_empty() { Ok(rules) } else { Err(problems) }
    }

    fn add(&mut self, method: &MethodDescriptor, option: &DynamicMessage, mapping: Mapping) -> Result<(), String> {
        let (http_method, path) = pattern(option)?;
        let template = PathTemplate::parse(&path).map_err(|problem| format!("has the path {path}, which {problem}"))?;
        let (input, output) = (method.input(), method.output());
        let variables = template.variables.iter().map(|variable| {
            let fields = field_path(&input, &variable.field)
                .ok_or_else(|| format!("has the variable {}, which {} does not have", variable.field, input.name()))?;
            let last = fields.last().expect("a path of fields has at least one");
            let is_message = matches!(last.kind(), Kind::Message(ref kind) if !is_well_known(kind));
            if last.is_list() || last.is_map() || is_message {
                return Err(format!("has the variable {}, which is not a single value", variable.field));
            }
            Ok(PathField { fields, start: variable.start, end: variable.end, is_path: variable.is_path })
        });
        let variables = variables.collect::<Result<Vec<_>, String>>()?;
        let field_of = |message: &MessageDescriptor, option_field: &str, name: &str| {
            message
                .get_field_by_name(name)
                .ok_or_else(|| format!("has the {option_field} {name}, which {} does not have", message.name()))
        };
        let body = match text(option, "body").as_str() {
            "" => BodyField::None,
            "*" => BodyField::Message,
            name => BodyField::Field(field_of(&input, "body", name)?),
        };
        let mut writer = MessageWriter::new(output.clone(), mapping.writes_defaults, json_limit(mapping.max_bytes));
        if mapping.uses_json_names {
            writer = writer.with_json_names();
        }
        let response_body = text(option, "response_body");
        if !response_body.is_empty() {
            writer = writer.with_part(&field_of(&output, "response_body", &response_body)?);
        }
        let target = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let rule = Rule {
            target: target.try_into().map_err(|_| "has no valid path of its method".to_owned())?,
            reader: MessageReader::new(input.clone(), mapping.denies_unknown_fields),
            input,
            writer,
            variables,
            body,
            is_streaming: method.is_server_streaming(),
        };
        if let Some(other) = self.routes.insert(http_method, &template, self.rules.len()) {
            let other = self.rules[other].target.path();
            return Err(format!("has the method and the path of a rule of {other}"));
        }
        self.rules.push(rule);
        Ok(())
    }
}

/// The method and the path of a rule. No method stands for all.
fn pattern(option: &DynamicMessage) -> Result<(Option<Method>, String), String> {
    let methods = HashMap::from([
        ("get", Method::GET),
        ("put", Method::PUT),
        ("post", Method::POST),
        ("delete", Method::DELETE),
        ("patch", Method::PATCH),
    ]);
    if let Some((name, method)) = methods.into_iter().find(|(name, _)| option.has_field_by_name(name)) {
        return Ok((Some(method), text(option, name)));
    }
    let custom = option.get_field_by_name("custom").filter(|_| option.has_field_by_name("custom"));
    let Some(custom) = custom.as_ref().and_then(|custom| custom.as_message()) else {
        return Err("has no path".to_owned());
    };
    let (kind, path) = (text(custom, "kind"), text(custom, "path"));
    if kind == "*" {
        return Ok((None, path));
    }
    let method = Method::from_bytes(kind.as_bytes()).map_err(|_| format!("has the invalid method {kind:?}"))?;
    Ok((Some(method), path))
}

fn text(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn repeated_messages(message: &DynamicMessage, field: &str) -> Vec<DynamicMessage> {
    let values = message.get_field_by_name(field);
    let values = values.as_ref().and_then(|values| values.as_list()).unwrap_or_default();
    values.iter().filter_map(|value| value.as_message().cloned()).collect()
}

/// The fields that a name such as `book.author.name` leads through. All but the last are single messages.
pub(super) fn field_path(message: &MessageDescriptor, name: &str) -> Option<Vec<FieldDescriptor>> {
    let (mut fields, mut message) = (Vec::new(), Some(message.clone()));
    for name in name.split('.') {
        let parent = message.take().filter(|_| fields.len() < MAX_DEPTH)?;
        let field = parent.get_field_by_name(name).or_else(|| parent.get_field_by_json_name(name))?;
        if let Kind::Message(kind) = field.kind()
            && !field.is_list()
            && !field.is_map()
        {
            message = Some(kind);
        }
        fields.push(field);
    }
    Some(fields)
}

/// Whether the message has a JSON form of its own, such as a timestamp.
fn is_well_known(message: &MessageDescriptor) -> bool {
    message.package_name() == "google.protobuf"
}

const MAX_RULES: usize = 4096;

/// How deep the fields of a query may be nested.
const MAX_DEPTH: usize = 32;
