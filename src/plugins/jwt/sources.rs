//! Where tokens stand in requests.

use std::borrow::Cow;

use http::{HeaderName, header};

use crate::plugin::RequestCx;
use crate::plugin::authentication::header_name;
use crate::plugin::fields::{Form, Found};
use crate::plugin::kind::Invalid;

/// The places that are searched.
#[derive(Debug)]
pub(super) struct Sources {
    parameters: Box<[Box<str>]>,
    cookies: Box<[Box<str>]>,
    headers: Box<[HeaderName]>,
}

impl Sources {
    pub(super) fn new(parameters: Vec<String>, cookies: Vec<String>, headers: &[String]) -> Result<Self, Vec<Invalid>> {
        let mut invalid = Vec::new();
        if parameters.is_empty() && cookies.is_empty() && headers.is_empty() {
            let remedy = "name at least one in uri_param_names, cookie_names or header_names";
            invalid.push(Invalid::new("", "says that tokens are nowhere", remedy));
        }
        let mut names = Vec::new();
        for (at, name) in headers.iter().enumerate() {
            names.extend(header_name(&format!("header_names[{at}]"), name).map_err(|error| invalid.push(error)));
        }
        for (field, list) in [("uri_param_names", &parameters), ("cookie_names", &cookies)] {
            for (at, _) in list.iter().enumerate().filter(|(_, name)| name.is_empty()) {
                invalid.push(Invalid::new(format!("{field}[{at}]"), "is empty", "write a name, or leave it out"));
            }
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let boxed = |names: Vec<String>| names.into_iter().map(String::into_boxed_str).collect();
        Ok(Sources { parameters: boxed(parameters), cookies: boxed(cookies), headers: names.into() })
    }

    /// The one token there is; copies of it do not count.
    pub(super) fn find<'c>(&self, cx: &'c RequestCx<'_>) -> Found<'c> {
        let mut found = Found::Nothing;
        let mut add = |another: Found<'c>| {
            if found == Found::Nothing {
                found = another;
            } else if found != another {
                found = Found::Many;
            }
        };
        if let Some(query) = cx.query.filter(|_| !self.parameters.is_empty()) {
            for pair in Form(query.as_bytes()).pairs() {
                if self.parameters.iter().any(|name| name.as_bytes() == &*pair.name()) {
                    match pair.value() {
                        Some(value) if value.is_empty() => {}
                        Some(value) => add(Found::One(value)),
                        None => add(Found::NoText),
                    }
                }
            }
        }
        for name in &self.cookies {
            if let Some(token) = cookie(cx, name) {
                add(Found::One(Cow::Borrowed(token)));
            }
        }
        for name in &self.headers {
            if let Some(token) = cx.head.headers.get(name).and_then(|value| bearer(value.as_bytes())) {
                add(Found::One(Cow::Borrowed(token)));
            }
        }
        found
    }
}

/// The first cookie by this name, whose case does not matter to Kong either.
fn cookie<'c>(cx: &'c RequestCx<'_>, name: &str) -> Option<&'c [u8]> {
    let lines = cx.head.headers.get_all(header::COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let mut values = pairs.filter_map(|pair| {
        let at = memchr::memchr(b'=', pair)?;
        pair[..at].trim_ascii().eq_ignore_ascii_case(name.as_bytes()).then(|| pair[at + 1..].trim_ascii())
    });
    values.next().filter(|value| !value.is_empty())
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.trim_ascii().split_at_checked(6)?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer") && token.first().is_some_and(u8::is_ascii_whitespace);
    Some(token.trim_ascii_start()).filter(|token| is_bearer && !token.is_empty())
}
