//! Parses names of objects and controllers in flags.

use crate::api::names::INGRESS_CONTROLLER;

/// Namespace and name.
pub type NamespacedName = (String, String);

/// Parses the name of a Namespace or of a class.
pub(super) fn parse_short_name(text: &str) -> Result<String, &'static str> {
    parse(text, 63)
}

/// Parses the name of an object of which nothing else is derived.
pub(super) fn parse_object_name(text: &str) -> Result<String, &'static str> {
    parse(text, 253)
}

fn parse(text: &str, max_bytes: usize) -> Result<String, &'static str> {
    let is_label = |label: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(is_allowed) && !label.starts_with('-') && !label.ends_with('-')
    };
    if text.len() <= max_bytes && text.split('.').all(is_label) {
        Ok(text.to_owned())
    } else {
        Err("must be lower-case letters, digits and hyphens")
    }
}

/// Validates the name of a controller: a domain, a slash and a path. `example`: a valid name, for the message.
pub(super) fn parse_controller_name(text: &str, max_length: usize, example: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(is_allowed) && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_path = |path: &str| {
        let punctuation = b"/-._~%!$&'()*+,;=:";
        !path.is_empty() && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || punctuation.contains(&byte))
    };
    match text.split_once('/') {
        Some((domain, path)) if text.len() <= max_length && domain.split('.').all(is_label) && is_path(path) => {
            Ok(text.to_owned())
        }
        _ => Err(format!(
            "not a controller name; write a domain and a path with at most {max_length} characters, for example \
             {example}"
        )),
    }
}

/// An IngressClass has a shorter controller name than a GatewayClass.
pub(super) fn parse_ingress_controller_name(text: &str) -> Result<String, String> {
    parse_controller_name(text, 250, INGRESS_CONTROLLER)
}

/// Whether the characters and the length are allowed in a DNS subdomain. The labels are not checked.
pub(super) fn is_dns_subdomain(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    !text.is_empty() && text.len() <= 253 && text.bytes().all(is_allowed)
}

/// Parses the name of an IngressClass.
pub(super) fn parse_class(text: &str) -> Result<String, String> {
    if is_dns_subdomain(text) {
        Ok(text.to_owned())
    } else {
        Err("not the name of an IngressClass; write for example kong".into())
    }
}

/// Parses a namespace and a name.
pub(super) fn parse_namespaced_name(text: &str) -> Result<NamespacedName, String> {
    match text.split_once('/') {
        Some((namespace, name)) if is_dns_subdomain(namespace) && is_dns_subdomain(name) => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("not a namespace and a name; write for example portico-system/portico".into()),
    }
}
