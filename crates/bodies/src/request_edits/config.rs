//! The configuration, and its validation: names, templates, and headers that cannot be changed.

use http::header::{HOST, PROXY_AUTHENTICATE};
use http::{HeaderName, Method};

use super::checked_path;
use super::edits::{BodyName, EditAction, FieldEdit, FieldEdits};
use super::fields::header_value;
use crate::diagnostic::Diagnostic;
use crate::json_fields::{JsonPath, JsonType};
use crate::plugin_api::field_names::{WrittenValue, refusal};
use crate::plugin_api::kind::BuildCx;
use crate::plugin_formats::template::Template;

/// Lists of entries, of which those that the plugins do not have are empty.
#[derive(Debug, Default)]
pub struct RequestEditConfig {
    pub http_method: Option<String>,
    pub uri: Option<String>,
    pub remove: EntryLists,
    pub rename: EntryLists,
    pub replace: EntryLists,
    pub add: EntryLists,
    pub append: EntryLists,
    /// The only fields of bodies that the endpoint gets.
    pub allowed_body: Option<Vec<String>>,
    /// Whether names of fields of JSON bodies are paths.
    pub has_paths: bool,
}

/// The entries of one operation.
#[derive(Debug, Default)]
pub struct EntryLists {
    pub body: Vec<String>,
    pub headers: Vec<String>,
    pub querystring: Vec<String>,
    /// The types of the values in `body`, by position.
    pub json_types: Vec<JsonType>,
}

pub(super) struct ValidatedEdits {
    pub(super) path: Option<Template>,
    pub(super) method: Option<Method>,
    pub(super) headers: FieldEdits<HeaderName>,
    pub(super) body: FieldEdits<BodyName>,
    pub(super) query: FieldEdits<Box<str>>,
    pub(super) allowed_body: Option<Box<[BodyName]>>,
}

/// The methods that Kong accepts.
const METHODS: &[&str] = &[
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LOCK",
    "MKCOL",
    "MOVE",
    "OPTIONS",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PUT",
    "TRACE",
    "UNLOCK",
];

/// The most entries of one list. Each entry is work for every request.
const MAX_ENTRIES: usize = 200;

impl RequestEditConfig {
    /// Returns all errors. Entries that Kong ignores are left out, with a note for each.
    pub(super) fn validate(self, cx: &BuildCx<'_>) -> Result<ValidatedEdits, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let method = self.http_method.as_deref().and_then(|method| method_named(method, &mut invalid));
        let path = self.uri.as_deref().and_then(|uri| path_template(uri, &mut invalid));
        let has_paths = self.has_paths;
        let allowed_body = self.allowed_body.map(|names| allowed_names(&names, has_paths, &mut invalid));
        let RequestEditConfig { remove, rename, replace, add, append, .. } = self;
        let headers = edits(
            "headers",
            [&remove.headers, &rename.headers, &replace.headers, &add.headers, &append.headers],
            &header_name,
            cx,
            &mut invalid,
        );
        let mut body = edits(
            "body",
            [&remove.body, &rename.body, &replace.body, &add.body, &append.body],
            &|kind, name| body_name(kind, name, has_paths),
            cx,
            &mut invalid,
        );
        for (list_name, list) in [("replace", &replace), ("add", &add), ("append", &append)] {
            set_json_types(list_name, list, &mut body, cx, &mut invalid);
        }
        let query = edits(
            "querystring",
            [&remove.querystring, &rename.querystring, &replace.querystring, &add.querystring, &append.querystring],
            &field_name,
            cx,
            &mut invalid,
        );
        for edit in &headers {
            if let EditAction::Replace(template) | EditAction::Add(template) | EditAction::Append(template) =
                &edit.action
                && let Some(literal) = template.literal()
                && let Err(message) = header_value(&edit.name, literal.as_bytes())
            {
                let message = format!("cannot be a header: {message}");
                invalid.push(Diagnostic::in_config(&edit.path, message, "write visible characters and spaces"));
            }
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let (headers, body, query) = (FieldEdits::new(headers), FieldEdits::new(body), FieldEdits::new(query));
        Ok(ValidatedEdits { path, method, headers, body, query, allowed_body })
    }
}

/// Sets the types of the values of one list, and checks values without expressions.
fn set_json_types(
    list_name: &str,
    list: &EntryLists,
    edits: &mut [FieldEdit<BodyName>],
    cx: &BuildCx<'_>,
    invalid: &mut Vec<Diagnostic>,
) {
    if list.json_types.len() > list.body.len() {
        let message = format!("has {} types for {} entries of `body`", list.json_types.len(), list.body.len());
        cx.note(Diagnostic::in_config(format!("{list_name}.json_types"), message, "list one type for each entry"));
    }
    for (index, json_type) in list.json_types.iter().enumerate() {
        let path = format!("{list_name}.body[{index}]");
        let Some(edit) = edits.iter_mut().find(|edit| *edit.path == *path) else { continue };
        edit.name.json_type = *json_type;
        let (EditAction::Replace(template) | EditAction::Add(template) | EditAction::Append(template)) = &edit.action
        else {
            continue;
        };
        match (json_type, template.literal()) {
            (JsonType::Number, Some(literal)) if json_type.value(literal).is_none() => {
                invalid.push(Diagnostic::in_config(path, "the value is not a number", "write a number, such as 1.5"));
            }
            (JsonType::Boolean, Some(literal)) if literal != "true" && literal != "false" => {
                let message = "the value is neither true nor false, so the field becomes false";
                cx.note(Diagnostic::in_config(path, message, "write one of them"));
            }
            _ => {}
        }
    }
}

fn allowed_names(names: &[String], has_paths: bool, invalid: &mut Vec<Diagnostic>) -> Box<[BodyName]> {
    if names.len() > MAX_ENTRIES {
        let message = format!("has {} entries, and {MAX_ENTRIES} is the most", names.len());
        invalid.push(Diagnostic::in_config("allow.body", message, "remove entries"));
        return [].into();
    }
    let mut allowed = Vec::new();
    for (index, name) in names.iter().enumerate() {
        match body_name(ListKind::Remove, name, has_paths) {
            Ok(name) => allowed.push(name),
            Err(UnusableName { message, remedy, .. }) => {
                invalid.push(Diagnostic::in_config(format!("allow.body[{index}]"), message, remedy));
            }
        }
    }
    allowed.into()
}

fn method_named(name: &str, invalid: &mut Vec<Diagnostic>) -> Option<Method> {
    let upper = name.to_ascii_uppercase();
    if !METHODS.contains(&&*upper) {
        let remedy = format!("use one of {}", METHODS.join(", "));
        invalid.push(Diagnostic::in_config("http_method", format!("{name:?} is not a supported method"), remedy));
        return None;
    }
    Method::from_bytes(upper.as_bytes()).ok()
}

fn path_template(uri: &str, invalid: &mut Vec<Diagnostic>) -> Option<Template> {
    let template = Template::parse(uri).map_err(|error| invalid.push(error.into_diagnostic("replace.uri"))).ok()?;
    // The first characters are those of a literal unless the template starts with an expression.
    let error = match template.literal() {
        Some(path) => checked_path(path.as_bytes()).err(),
        None if uri.starts_with("$(") || uri.starts_with('/') => None,
        None => Some("the path does not start with a slash"),
    };
    if let Some(error) = error {
        let remedy = "write the path without scheme, host and query, such as /v2/orders";
        invalid.push(Diagnostic::in_config("replace.uri", format!("is not a path: {error}"), remedy));
    }
    Some(template)
}

/// What a list does with its entries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ListKind {
    Remove,
    Rename,
    /// The new name in an entry of `rename`, which is no list of its own.
    RenameTo,
    Replace,
    Add,
    Append,
}

const LISTS: [(ListKind, &str); 5] = [
    (ListKind::Remove, "remove"),
    (ListKind::Rename, "rename"),
    (ListKind::Replace, "replace"),
    (ListKind::Add, "add"),
    (ListKind::Append, "append"),
];

/// A name for a list, or why it is none.
type ParsedName<N> = Result<N, UnusableName>;

/// Why the name of an entry cannot be used.
struct UnusableName {
    message: String,
    remedy: &'static str,
    /// Whether the entry has no effect in Kong either, so that the other entries apply without it.
    has_no_effect: bool,
}

impl UnusableName {
    fn invalid(message: impl Into<String>, remedy: &'static str) -> Self {
        UnusableName { message: message.into(), remedy, has_no_effect: false }
    }

    fn ignored(message: impl Into<String>, remedy: &'static str) -> Self {
        UnusableName { message: message.into(), remedy, has_no_effect: true }
    }
}

/// The edits of all lists, in the order of their execution.
fn edits<N>(
    target: &str,
    lists: [&Vec<String>; 5],
    parse_name: &dyn Fn(ListKind, &str) -> ParsedName<N>,
    cx: &BuildCx<'_>,
    invalid: &mut Vec<Diagnostic>,
) -> Vec<FieldEdit<N>> {
    let mut edits = Vec::new();
    for ((kind, list_name), entries) in LISTS.into_iter().zip(lists) {
        if entries.len() > MAX_ENTRIES {
            let message = format!("has {} entries, and {MAX_ENTRIES} is the most", entries.len());
            invalid.push(Diagnostic::in_config(format!("{list_name}.{target}"), message, "remove entries"));
            continue;
        }
        for (index, entry) in entries.iter().enumerate() {
            let path = format!("{list_name}.{target}[{index}]");
            match parse_entry(kind, entry, &path, parse_name, cx) {
                Ok(Some((name, action))) => edits.push(FieldEdit { path: path.into(), name, action }),
                Ok(None) => {}
                Err(diagnostic) => invalid.push(*diagnostic),
            }
        }
    }
    edits
}

/// The name and the action of an entry. `None` for one that has no effect, which is noted.
fn parse_entry<N>(
    kind: ListKind,
    entry: &str,
    path: &str,
    parse_name: &dyn Fn(ListKind, &str) -> ParsedName<N>,
    cx: &BuildCx<'_>,
) -> Result<Option<(N, EditAction<N>)>, Box<Diagnostic>> {
    let invalid = |message: String, remedy: &str| Box::new(Diagnostic::in_config(path, message, remedy));
    let note = |message: &str, remedy: &str| cx.note(Diagnostic::in_config(path, message, remedy));
    let (field, value) = match entry.split_once(':') {
        // Like Kong, accepts several colons after the name.
        Some((field, value)) => (field, Some(value.trim_start_matches(':'))),
        None => (entry, None),
    };
    let (field_name, is_ignored) = match parse_name(kind, field) {
        Ok(name) => (Some(name), false),
        Err(UnusableName { message, remedy, has_no_effect: true }) => {
            note(&format!("{message}, so the entry has no effect"), remedy);
            (None, true)
        }
        Err(UnusableName { message, remedy, .. }) => return Err(invalid(message, remedy)),
    };
    let action = match (kind, value) {
        (ListKind::Remove, value) => {
            if value.is_some() && !is_ignored {
                note(
                    "has a value, which has no effect, because fields are removed by their name",
                    "write only the name",
                );
            }
            EditAction::Remove
        }
        (ListKind::Rename, None | Some("")) => {
            return Err(invalid("has no new name".to_owned(), "write the entry as old:new"));
        }
        (ListKind::Rename, Some(new_name)) => match parse_name(ListKind::RenameTo, new_name) {
            Ok(new_name) => EditAction::Rename(new_name),
            Err(UnusableName { message, remedy, has_no_effect: true }) => {
                // Kong renames the field, and its proxy then replaces the new one.
                note(&format!("{message}, so {field} is only removed"), remedy);
                EditAction::Remove
            }
            Err(UnusableName { message, remedy, .. }) => return Err(invalid(message, remedy)),
        },
        (_, None) => return Err(invalid("has no value".to_owned(), "write the entry as name:value")),
        (_, Some("")) => {
            if !is_ignored {
                note("has an empty value, so the entry has no effect", "write the entry as name:value, or remove it");
            }
            return Ok(None);
        }
        (_, Some(value)) => {
            let template = Template::parse(value).map_err(|error| error.into_diagnostic(path))?;
            match kind {
                ListKind::Replace => EditAction::Replace(template),
                ListKind::Add => EditAction::Add(template),
                ListKind::Append | ListKind::Remove | ListKind::Rename | ListKind::RenameTo => {
                    EditAction::Append(template)
                }
            }
        }
    };
    Ok(field_name.map(|name| (name, action)))
}

fn header_name(kind: ListKind, name: &str) -> ParsedName<HeaderName> {
    let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
        let message = format!("{name:?} is not the name of a header");
        return Err(UnusableName::invalid(message, "use letters, digits and dashes"));
    };
    let is_protected = header != HOST && refusal(&header, WrittenValue::Configured).is_some();
    // `Proxy-Authorization` is forwarded, so it can be changed.
    if is_protected || header == PROXY_AUTHENTICATE {
        let message = format!("the header {header} belongs to the connection or to the framing of the body");
        return Err(UnusableName::ignored(message, "remove the entry; Portico sets this header itself"));
    }
    if header == HOST && kind == ListKind::RenameTo {
        let message = "a header cannot be renamed to host, whose value must be checked";
        return Err(UnusableName::invalid(
            message,
            "use replace.headers with a template, such as host:$(headers.x_host)",
        ));
    }
    if header == HOST && kind != ListKind::Replace {
        let message = "the header host can only be replaced, because every request has exactly one";
        return Err(UnusableName::ignored(message, "use replace.headers, or remove the entry"));
    }
    Ok(header)
}

fn field_name(_kind: ListKind, name: &str) -> ParsedName<Box<str>> {
    if name.is_empty() {
        return Err(UnusableName::invalid("has no name", "write the name of the field first"));
    }
    if name.chars().any(char::is_control) {
        return Err(UnusableName::invalid("has a name with a control character", "use visible characters"));
    }
    Ok(name.into())
}

fn body_name(kind: ListKind, name: &str, has_paths: bool) -> ParsedName<BodyName> {
    let text = field_name(kind, name)?;
    // The new name is that of a member of the same object.
    let path =
        if !has_paths || kind == ListKind::RenameTo { Ok(JsonPath::member(name)) } else { JsonPath::parse(name) };
    let path = path.map_err(|message| {
        let remedy = "write a path such as customers[*].name, or set dots_in_keys to true";
        UnusableName::invalid(format!("{name:?} {message}"), remedy)
    })?;
    if kind == ListKind::Rename && !path.ends_with_member() {
        let message = format!("{name:?} is an element of a list, which has no name");
        return Err(UnusableName::invalid(message, "write the path of a member of an object"));
    }
    Ok(BodyName { text, path, json_type: JsonType::String })
}
