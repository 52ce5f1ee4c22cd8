//! What a snippet does with the fields of requests to endpoints.

use std::sync::Arc;

use http::header::{CONNECTION, HOST, TE, UPGRADE};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::directive_tree::WrittenDirective;
use super::field_value::{ExpandedField, FieldPattern, FieldText, editable_name, field_name, split_field};
use super::ignored::DirectiveEffect;
use super::refusal::DirectiveRefusal;
use super::text::{KnownVariables, PartValues, SnippetText, TextPhase};

/// The edits of one block.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SnippetRequestFields {
    /// `more_set_input_headers` and `more_clear_input_headers`, in order.
    input: Vec<InputEdit>,
    /// `proxy_set_header`. `None` if the block has none, so that it has those of the block around it.
    sent: Option<Arc<SentFields>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct SentFields {
    /// `None` removes the field.
    fields: Vec<(HeaderName, Option<FieldText>)>,
    host: Option<SnippetText>,
}

#[derive(Clone, Debug, PartialEq)]
enum InputEdit {
    Set(HeaderName, FieldText),
    Clear(FieldPattern),
}

/// One change of the fields of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RequestFieldEdit {
    /// Replaces all values.
    Set(HeaderName, HeaderValue),
    Remove(HeaderName),
    /// Removes all fields whose names begin with a text in lower case, except those of the connection.
    RemovePrefix(Box<str>),
}

impl RequestFieldEdit {
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        match self {
            RequestFieldEdit::Set(name, value) => {
                headers.insert(name, value.clone());
            }
            RequestFieldEdit::Remove(name) => {
                headers.remove(name);
            }
            RequestFieldEdit::RemovePrefix(prefix) => {
                let host = headers.get(HOST).cloned();
                FieldPattern::Prefix(prefix.clone()).remove_from(headers);
                headers.extend(host.filter(|_| !headers.contains_key(HOST)).map(|host| (HOST, host)));
            }
        }
    }
}

impl SnippetRequestFields {
    /// Adds a directive to the edits of its block.
    pub(super) fn add(
        &mut self,
        directive: &WrittenDirective,
        scope: &KnownVariables,
    ) -> Result<DirectiveEffect, DirectiveRefusal> {
        match &directive.name[..] {
            "proxy_set_header" | "grpc_set_header" => {
                let [name, value] = directive.exactly()?;
                return self.add_sent(name, value, scope);
            }
            "more_set_input_headers" | "more_clear_input_headers" => {
                let clears = directive.name == "more_clear_input_headers";
                for argument in directive.some_arguments()? {
                    self.input.push(input_edit(argument, clears, scope)?);
                }
            }
            _ => return Ok(DirectiveEffect::Other),
        }
        Ok(DirectiveEffect::Added)
    }

    fn add_sent(
        &mut self,
        name: &str,
        value: &str,
        scope: &KnownVariables,
    ) -> Result<DirectiveEffect, DirectiveRefusal> {
        let field = field_name(name)?;
        if is_done_by_proxy(&field, value) {
            return Ok(DirectiveEffect::None("Portico passes upgrades and reuses connections in any case"));
        }
        let sent = Arc::make_mut(self.sent.get_or_insert_default());
        if field == HOST {
            let host = SnippetText::parse_in(value, scope, TextPhase::Request)?;
            if host.literal().is_some_and(|host| Authority::try_from(host).is_err()) {
                return Err(DirectiveRefusal::invalid("has an invalid host"));
            }
            sent.host = Some(host);
        } else {
            let value = FieldText::parse(value, scope, TextPhase::Request)?;
            sent.fields.push((editable_name(name)?, value));
        }
        Ok(DirectiveEffect::Added)
    }

    /// Whether the endpoint gets the fields of the request as they are.
    pub(super) fn sends_unchanged(&self) -> bool {
        self.sent.as_ref().is_none_or(|sent| sent.fields.is_empty())
    }

    /// The text of `Host`.
    pub(super) fn host_text(&self) -> Option<&SnippetText> {
        self.sent.as_ref()?.host.as_ref()
    }

    /// The texts for the endpoint that are expanded.
    pub(super) fn sent_texts(&self) -> impl Iterator<Item = &SnippetText> {
        let sent = self.sent.iter().flat_map(|sent| &sent.fields).filter_map(|(_, value)| value.as_ref());
        sent.filter_map(FieldText::expanded)
    }

    /// The fields that are set or removed by name.
    pub(super) fn names(&self) -> impl Iterator<Item = &HeaderName> {
        let input = self.input.iter().filter_map(|edit| match edit {
            InputEdit::Set(name, _) | InputEdit::Clear(FieldPattern::Name(name)) => Some(name),
            InputEdit::Clear(FieldPattern::Prefix(_)) => None,
        });
        input.chain(self.sent.iter().flat_map(|sent| &sent.fields).map(|(name, _)| name))
    }

    /// Adds what this block has from the block around it.
    pub(super) fn inherit(&mut self, outer: &SnippetRequestFields) {
        self.input.splice(0..0, outer.input.iter().cloned());
        self.sent = self.sent.take().or_else(|| outer.sent.clone());
    }

    /// The changes of the request itself, in order, which guards see, too. A field whose value is invalid is removed,
    /// so that nothing takes that of the client for it.
    pub(super) fn input_edits(&self, values: &dyn PartValues) -> Vec<RequestFieldEdit> {
        let input = self.input.iter().map(|edit| match edit {
            InputEdit::Set(name, value) => set(name, value, values),
            InputEdit::Clear(FieldPattern::Name(name)) => RequestFieldEdit::Remove(name.clone()),
            InputEdit::Clear(FieldPattern::Prefix(prefix)) => RequestFieldEdit::RemovePrefix(prefix.clone()),
        });
        input.collect()
    }

    /// The changes for the endpoint only.
    pub(super) fn sent_edits(&self, values: &dyn PartValues) -> Vec<RequestFieldEdit> {
        let sent = self.sent.iter().flat_map(|sent| &sent.fields).map(|(name, value)| match value {
            Some(value) => set(name, value, values),
            None => RequestFieldEdit::Remove(name.clone()),
        });
        sent.collect()
    }
}

fn set(name: &HeaderName, value: &FieldText, values: &dyn PartValues) -> RequestFieldEdit {
    match value.expand(values) {
        ExpandedField::Value(value) => RequestFieldEdit::Set(name.clone(), value),
        ExpandedField::Empty | ExpandedField::Invalid => RequestFieldEdit::Remove(name.clone()),
    }
}

fn input_edit(argument: &str, clears: bool, scope: &KnownVariables) -> Result<InputEdit, DirectiveRefusal> {
    if argument.starts_with('-') {
        let message = format!("has the option `{argument}`, which is not supported");
        return Err(DirectiveRefusal::new(message, "use `if` around the directive"));
    }
    let (name, value) = split_field(argument);
    let value = FieldText::parse(value, scope, TextPhase::Request)?.filter(|_| !clears);
    if name.eq_ignore_ascii_case("host") {
        return Err(DirectiveRefusal::new("changes `Host`", "use the annotation `upstream-vhost`"));
    }
    Ok(match value {
        Some(value) => InputEdit::Set(editable_name(name)?, value),
        None if clears => InputEdit::Clear(FieldPattern::parse(name)?),
        None => InputEdit::Clear(FieldPattern::Name(editable_name(name)?)),
    })
}

/// Whether the value is what the proxy sends anyway: it passes upgrades, and keeps connections to endpoints open.
fn is_done_by_proxy(name: &HeaderName, value: &str) -> bool {
    let values: &[&str] = match *name {
        CONNECTION => &["", "upgrade", "keep-alive", "$connection_upgrade", "$http_connection", "$http_upgrade"],
        UPGRADE => &["$http_upgrade", "websocket"],
        TE => &["trailers"],
        _ => &[],
    };
    values.iter().any(|known| value.eq_ignore_ascii_case(known))
}
