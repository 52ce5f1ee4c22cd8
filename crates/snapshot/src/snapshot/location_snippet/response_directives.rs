//! Parses the directives about responses and their fields.

use std::sync::Arc;

use http::HeaderValue;

use super::directive_tree::WrittenDirective;
use super::error_page::ErrorPage;
use super::expires::ResponseExpiry;
use super::field_value::{FieldPattern, FieldText, editable_name, split_field};
use super::ignored::DirectiveEffect;
use super::refusal::DirectiveRefusal;
use super::response_fields::{AddedField, ConditionalEdit, ResponseEdit, SnippetResponseFields};
use super::text::{KnownVariables, TextPhase};

/// Adds a directive to the edits of its block.
pub(super) fn add(
    directive: &WrittenDirective,
    scope: &KnownVariables,
    fields: &mut SnippetResponseFields,
) -> Result<DirectiveEffect, DirectiveRefusal> {
    match &directive.name[..] {
        "more_set_headers" | "more_clear_headers" => fields.more.extend(edits(directive, scope)?),
        "add_header" if is_empty_length(directive) => {
            return Ok(DirectiveEffect::None("Portico sets the length of messages"));
        }
        "add_header" => {
            let field = added_field(directive, scope)?;
            Arc::make_mut(fields.added.get_or_insert_default()).extend(field);
        }
        "proxy_hide_header" | "grpc_hide_header" => {
            let [name] = directive.exactly()?;
            Arc::make_mut(fields.hidden.get_or_insert_default()).push(editable_name(name)?);
        }
        "error_page" => {
            let page = ErrorPage::parse(directive, scope)?;
            Arc::make_mut(fields.error_pages.get_or_insert_default()).push(page);
        }
        "expires" => {
            let [time] = directive.exactly()?;
            set_once(&mut fields.expiry, ResponseExpiry::parse(time)?)?;
        }
        "default_type" => {
            let [media_type] = directive.exactly()?;
            let is_type = media_type.contains('/') && !media_type.contains('$');
            let value = HeaderValue::from_bytes(media_type.as_bytes()).ok().filter(|_| is_type);
            let value = value.ok_or_else(|| DirectiveRefusal::invalid("has no media type"))?;
            set_once(&mut fields.default_type, value)?;
        }
        _ => return Ok(DirectiveEffect::Other),
    }
    Ok(DirectiveEffect::Added)
}

/// Whether it is `add_header Content-Length 0`, which many write next to `return 204`.
fn is_empty_length(directive: &WrittenDirective) -> bool {
    let [name, value, ..] = &directive.arguments[..] else { return false };
    name.eq_ignore_ascii_case("content-length") && value == "0"
}

fn set_once<T>(setting: &mut Option<T>, value: T) -> Result<(), DirectiveRefusal> {
    match setting.replace(value) {
        Some(_) => Err(DirectiveRefusal::invalid("is given twice")),
        None => Ok(()),
    }
}

/// The edits of a directive of the module headers-more.
fn edits(directive: &WrittenDirective, scope: &KnownVariables) -> Result<Vec<ConditionalEdit>, DirectiveRefusal> {
    let (mut statuses, mut types, mut fields) = (Vec::new(), Vec::new(), Vec::new());
    let mut appends = false;
    let clears = directive.name == "more_clear_headers";
    let mut arguments = directive.some_arguments()?.iter();
    while let Some(argument) = arguments.next() {
        let mut list = || arguments.next().ok_or_else(|| DirectiveRefusal::invalid("has an option without a value"));
        match &argument[..] {
            "-s" => {
                for status in list()?.split_whitespace() {
                    let status = status.parse::<u16>().ok().filter(|status| (100..=999).contains(status));
                    statuses.push(status.ok_or_else(|| DirectiveRefusal::invalid("has an invalid status"))?);
                }
            }
            "-t" => types.extend(list()?.split_whitespace().map(|name| name.to_ascii_lowercase().into_boxed_str())),
            "-a" if !clears => appends = true,
            option if option.starts_with('-') => {
                return Err(DirectiveRefusal::invalid(format!("has the option `{option}`, which is not supported")));
            }
            field => fields.push(field),
        }
    }
    if fields.is_empty() {
        return Err(DirectiveRefusal::invalid("has no field"));
    }
    let (statuses, types): (Arc<[u16]>, Arc<[Box<str>]>) = (statuses.into(), types.into());
    let mut edits = Vec::new();
    for field in fields {
        let (name, value) = split_field(field);
        let edit = match FieldText::parse(value, scope, TextPhase::Response)?.filter(|_| !clears) {
            Some(value) if appends => ResponseEdit::Append(editable_name(name)?, value),
            Some(value) => ResponseEdit::Set(editable_name(name)?, value),
            None if clears => ResponseEdit::Clear(FieldPattern::parse(name)?),
            None => ResponseEdit::Clear(FieldPattern::Name(editable_name(name)?)),
        };
        edits.push(ConditionalEdit { statuses: Arc::clone(&statuses), types: Arc::clone(&types), edit });
    }
    Ok(edits)
}

/// `None` if its value is empty, so that it has no effect but that outer ones are not inherited.
fn added_field(directive: &WrittenDirective, scope: &KnownVariables) -> Result<Option<AddedField>, DirectiveRefusal> {
    let (name, value, is_always) = match directive.some_arguments()? {
        [name, value] => (name, value, false),
        [name, value, always] if always == "always" => (name, value, true),
        _ => return Err(DirectiveRefusal::invalid("takes a name, a value and `always`")),
    };
    let name = editable_name(name)?;
    let value = FieldText::parse(value, scope, TextPhase::Response)?;
    Ok(value.map(|value| AddedField { name, value, is_always }))
}
