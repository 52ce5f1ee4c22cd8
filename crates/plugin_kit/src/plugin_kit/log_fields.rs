//! The JSON object that a log plugin writes for a request: [`LogEntry`], with the fields that `custom_fields_by_lua`
//! adds.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};
use tracing::debug;

use super::credential_values::CredentialValues;
use super::log_entry::{LogEntry, shorten_value};
use super::session_entry::SessionEntry;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::completed_request::{CredentialLocations, LoggedHeads, REDACTED};
use crate::plugin_api::context::LogCx;
use crate::plugin_api::fields::UrlEncodedForm;
use crate::plugin_api::lua_value::{Budget, LuaValue};
use crate::plugin_api::masking::mask_object;
use crate::plugin_api::shared_values::{LogFieldMode, LogObjectField, parse_path};
use crate::plugin_formats::template::{Expression, Variable, VariableKey, Variables, find_header, host_without_port};

/// The fields in the order of their names.
#[derive(Debug)]
pub struct CustomFields(Box<[CustomField]>);

#[derive(Debug)]
struct CustomField {
    /// The names of the objects that contain the field, and of the field itself.
    path: Box<[String]>,
    expression: Expression,
}

impl CustomFields {
    /// Parses `custom_fields_by_lua`.
    pub fn parse(fields: &BTreeMap<String, String>, invalid: &mut Vec<Diagnostic>) -> Self {
        let mut parsed = Vec::new();
        for (name, text) in fields {
            let field = format!("custom_fields_by_lua[{name}]");
            let path = match parse_path(name) {
                Ok(path) => path,
                Err(problem) => {
                    let remedy = "use at most 16 names separated by single dots, such as tenant.name";
                    invalid.push(Diagnostic::in_config(&field, problem, remedy));
                    continue;
                }
            };
            match Expression::parse_return(text) {
                Ok(expression) => parsed.push(CustomField { path, expression }),
                Err(error) => invalid.push(error.into_diagnostic(&field)),
            }
        }
        CustomFields(parsed.into())
    }

    /// The object of a request or a session with these fields, as JSON.
    pub fn object(&self, cx: &LogCx<'_>) -> Vec<u8> {
        let of_functions = cx.log_values();
        let mut object = match (cx.session, self.0.is_empty() && of_functions.is_empty()) {
            (None, true) => return LogEntry::new(cx).to_json(),
            (None, false) => LogEntry::new(cx).to_value(),
            (Some(session), true) => return SessionEntry::new(session, cx).to_json(),
            (Some(session), false) => SessionEntry::new(session, cx).to_value(),
        };
        let values = cx.request.heads.map(|heads| CredentialValues::of_request(heads, cx.request.credentials));
        // Before a long text is cut, perhaps inside of a credential.
        let loggable = |value: Value| match &values {
            Some(values) => shorten_text(values.redact(value)),
            None => shorten_text(value),
        };
        for LogObjectField { path, value, mode } in of_functions {
            let exists = || path.iter().try_fold(&object, |parent, name| parent.get(name)).is_some();
            let applies = match mode {
                LogFieldMode::Set => true,
                LogFieldMode::Add => !exists(),
                LogFieldMode::Replace => exists(),
            };
            if applies {
                set(&mut object, &path, value.map(&loggable));
            }
        }
        self.apply(&mut object, cx, loggable);
        mask_object(&cx.request.credentials.masks, object.to_string().into_bytes())
    }

    /// Sets or removes the fields of an object.
    fn apply(&self, object: &mut Value, cx: &LogCx<'_>, loggable: impl Fn(Value) -> Value) {
        let variables = LogVariables { cx };
        let mut budget = Budget::default();
        for CustomField { path, expression } in &self.0 {
            let value = expression.evaluate(&variables, &mut budget).and_then(|value| value.to_json());
            match value {
                Ok(value) => set(object, path, value.map(&loggable)),
                Err(error) => debug!(field = path.join("."), %error, "A custom field of a log has no value"),
            }
        }
    }
}

/// The value of a field, cut like the other values of the object if it is a long text.
fn shorten_text(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(shorten_value(Cow::Owned(text)).into_owned()),
        other => other,
    }
}

/// Sets the field at a path, or removes it if there is no value. A value on the path that is not an object is replaced
/// by one.
fn set(object: &mut Value, path: &[String], value: Option<Value>) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut parent = object;
    for name in parents {
        if !parent.get(name).is_some_and(Value::is_object) {
            if value.is_none() {
                return;
            }
            if let Value::Object(fields) = parent {
                fields.insert(name.clone(), Value::Object(Map::new()));
            }
        }
        let Some(child) = parent.get_mut(name) else { return };
        parent = child;
    }
    let Value::Object(fields) = parent else { return };
    match value {
        Some(value) => {
            fields.insert(last.clone(), value);
        }
        // Keeps the order of the other fields.
        None => {
            fields.shift_remove(last);
        }
    }
}

/// The values of expressions. Credentials read as [`REDACTED`].
pub struct LogVariables<'c> {
    pub cx: &'c LogCx<'c>,
}

impl Variables for LogVariables<'_> {
    fn get<'v>(&'v self, variable: Variable, key: VariableKey<'_>) -> LuaValue<'v> {
        let cx = self.cx;
        if variable == Variable::ResponseStatus {
            return LuaValue::Number(cx.summary.status.as_u16().into());
        }
        if let (Variable::Shared, VariableKey::Text(name)) = (variable, key) {
            return cx.shared_values().map_or(LuaValue::Nil, |values| values.get(name));
        }
        if let (Variable::ClientIp, Some(session)) = (variable, cx.session) {
            return LuaValue::Text(Cow::Owned(session.client.to_string().into_bytes()));
        }
        let Some(heads) = cx.request.heads else { return LuaValue::Nil };
        match (variable, key) {
            (Variable::RequestMethod, _) => text(heads.method.as_str().as_bytes()),
            (Variable::RequestPath, _) => text(heads.target.path().as_bytes()),
            (Variable::RequestHost, _) => text(host_without_port(heads.host.as_bytes())),
            (Variable::RequestRawQuery, _) => {
                let query = heads.target.query().unwrap_or_default();
                let redacted = cx.request.credentials.redact_query(query);
                LuaValue::Text(redacted.map_or(Cow::Borrowed(query.as_bytes()), |query| Cow::Owned(query.into_bytes())))
            }
            (Variable::ClientIp, _) => LuaValue::Text(Cow::Owned(heads.client.to_string().into_bytes())),
            (Variable::RequestHeader, VariableKey::Text(name)) => request_header(heads, cx.request.credentials, name),
            (Variable::RequestQueryArgument, VariableKey::Text(name)) => {
                query_argument(heads, cx.request.credentials, name)
            }
            (Variable::ResponseHeader, VariableKey::Text(name)) => {
                let Ok(name) = HeaderName::from_bytes(name) else { return LuaValue::Nil };
                let value = heads.response.get(&name);
                value.map_or(LuaValue::Nil, |value| header_text(cx.request.credentials, &name, value))
            }
            // Tables of templates, which expressions of this plugin do not contain.
            _ => LuaValue::Nil,
        }
    }

    fn examined_bytes(&self, variable: Variable) -> usize {
        match (variable, self.cx.request.heads) {
            (Variable::RequestQueryArgument, Some(heads)) => heads.target.query().map_or(0, str::len),
            _ => 0,
        }
    }
}

fn text(bytes: &[u8]) -> LuaValue<'_> {
    LuaValue::Text(Cow::Borrowed(bytes))
}

fn request_header<'v>(heads: &'v LoggedHeads, credentials: &CredentialLocations, name: &[u8]) -> LuaValue<'v> {
    let Some((name, value)) = find_header(&heads.request, name) else { return LuaValue::Nil };
    header_text(credentials, &name, value)
}

/// The value of a field of a request or a response.
fn header_text<'v>(credentials: &CredentialLocations, name: &HeaderName, value: &'v HeaderValue) -> LuaValue<'v> {
    match credentials.redact_header(name, &String::from_utf8_lossy(value.as_bytes())) {
        Some(redacted) => LuaValue::Text(Cow::Owned(redacted.into_owned().into_bytes())),
        None => text(value.as_bytes()),
    }
}

/// The first value of a parameter; true for one without a value.
fn query_argument<'v>(heads: &'v LoggedHeads, credentials: &CredentialLocations, name: &[u8]) -> LuaValue<'v> {
    let form = UrlEncodedForm(heads.target.query().unwrap_or_default().as_bytes());
    let Some(pair) = form.pairs().find(|pair| pair.name() == name) else { return LuaValue::Nil };
    match pair.value() {
        Some(_) if credentials.has_parameter(name) => text(REDACTED.as_bytes()),
        Some(value) => match credentials.redact_text(&String::from_utf8_lossy(&value)) {
            Some(redacted) => LuaValue::Text(Cow::Owned(redacted.into_bytes())),
            None => LuaValue::Text(value),
        },
        None => LuaValue::Boolean(true),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, Uri, Version};
    use serde_json::json;

    use super::*;
    use crate::plugin_api::Scheme;

    #[test]
    fn hyphens_of_header_names_may_be_underscores() {
        let request = [("x-tenant", "shop"), ("x_own", "a"), ("x-own", "b"), ("x-secret", "key")];
        let request: HeaderMap = request
            .into_iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let heads = LoggedHeads {
            method: Method::GET,
            target: Uri::from_static("/"),
            version: Version::HTTP_11,
            client: [192, 0, 2, 1].into(),
            scheme: Scheme::Http,
            host: HeaderValue::from_static("a.example"),
            port: 80,
            request,
            response: HeaderMap::new(),
            upstream_target: None,
        };
        let headers = vec![HeaderName::from_static("x-secret")];
        let credentials = CredentialLocations { headers, ..CredentialLocations::default() };
        for (name, expected) in [
            ("x-tenant", Some("shop")),
            ("X_Tenant", Some("shop")),
            ("x_own", Some("a")),
            ("x-own", Some("b")),
            ("x_secret", Some(REDACTED)),
            ("x_other", None),
        ] {
            let expected = expected.map_or(LuaValue::Nil, |value| text(value.as_bytes()));
            assert_eq!(request_header(&heads, &credentials, name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn fields_are_set_and_removed_in_nested_objects() {
        let mut object = json!({"a": {"b": 1, "c": 2}, "d": "text", "e": 3});
        for (name, value) in [
            ("a.b", Some(json!("new"))),
            ("a.c", None),
            ("d.f.g", Some(json!(true))),
            ("e", None),
            ("absent.field", None),
            ("h", Some(json!(4))),
        ] {
            set(&mut object, &parse_path(name).unwrap(), value);
        }
        assert_eq!(object, json!({"a": {"b": "new"}, "d": {"f": {"g": true}}, "h": 4}));
    }
}
