//! The value of a parameter: a text with variables of nginx.

use std::borrow::Cow;
use std::net::IpAddr;

use http::Uri;

use crate::plugin_api::Scheme;
use crate::snapshot::location_path::bytes_of;
use crate::snapshot::location_snippet::{SnippetValues, SnippetVariable, split_name};
use crate::snapshot::location_steps::RequestValues;

/// A text that is expanded for each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamText(Box<[ParamPart]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum ParamPart {
    Literal(Box<str>),
    /// `$fastcgi_script_name`: the path for the server, with the index.
    ScriptName,
    /// `$uri` and `$document_uri`: the path for the server, which a rewrite may have changed.
    Path,
    /// `$args` and `$query_string`, of the same.
    Query,
    /// `$is_args`
    QueryMark,
    /// `$https`: `on`, or nothing.
    Https,
    ServerAddress,
    Request(SnippetVariable),
}

/// A request, as it is sent to a server.
pub struct FastCgiRequest<'r> {
    /// Those of the client's request.
    pub values: RequestValues<'r>,
    /// The path and the query of the rule for the server.
    pub target: &'r Uri,
    /// The address of the listener, unless it has all addresses.
    pub server_address: Option<IpAddr>,
}

/// What parameters are made of.
pub(super) struct ParamValues<'r> {
    pub(super) request: &'r FastCgiRequest<'r>,
    /// The decoded path for the server.
    pub(super) path: &'r str,
    pub(super) index: &'r str,
}

impl ParamText {
    /// Parses a text.
    ///
    /// # Errors
    ///
    /// Why the text is invalid, as a clause.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some((before, after)) = rest.split_once('$') {
            literal.push_str(before);
            let (name, after) = split_name(after)?;
            rest = after;
            match parse_variable(&name.to_ascii_lowercase())? {
                ParamPart::Literal(text) => literal.push_str(&text),
                part => {
                    push_literal(&mut parts, &mut literal);
                    parts.push(part);
                }
            }
        }
        literal.push_str(rest);
        push_literal(&mut parts, &mut literal);
        Ok(ParamText(parts.into()))
    }

    /// Appends the text for a request to `out`. `None` if it is longer than `max_bytes`.
    pub(super) fn expand(&self, values: &ParamValues<'_>, out: &mut Vec<u8>, max_bytes: usize) -> Option<()> {
        for part in &self.0 {
            let bytes = part.bytes(values);
            // Checked before copying: a variable may occur many times.
            if out.len() + bytes.len() > max_bytes {
                return None;
            }
            out.extend_from_slice(&bytes);
        }
        Some(())
    }
}

impl ParamPart {
    fn bytes<'v>(&'v self, values: &'v ParamValues<'_>) -> Cow<'v, [u8]> {
        let request = values.request;
        let query = || request.target.query().unwrap_or_default();
        match self {
            ParamPart::Literal(text) => Cow::Borrowed(text.as_bytes()),
            ParamPart::ScriptName => {
                let mut path = bytes_of(values.path);
                path.extend_from_slice(values.index.as_bytes());
                Cow::Owned(path)
            }
            ParamPart::Path => Cow::Owned(bytes_of(values.path)),
            ParamPart::Query => Cow::Borrowed(query().as_bytes()),
            ParamPart::QueryMark => Cow::Borrowed(if query().is_empty() { b"" } else { b"?" }),
            ParamPart::Https => match request.values.client.received.scheme {
                Scheme::Https => Cow::Borrowed(b"on"),
                Scheme::Http => Cow::Borrowed(b""),
            },
            ParamPart::ServerAddress => match request.server_address {
                Some(address) => Cow::Owned(address.to_string().into_bytes()),
                None => Cow::Borrowed(b""),
            },
            ParamPart::Request(variable) => match request.values.value(variable) {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            },
        }
    }
}

/// The part for a variable, whose name is in lower case.
fn parse_variable(name: &str) -> Result<ParamPart, String> {
    Ok(match name {
        "fastcgi_script_name" => ParamPart::ScriptName,
        // No part of a path is split off.
        "fastcgi_path_info" => ParamPart::Literal("".into()),
        "document_root" | "realpath_root" => ParamPart::Literal(DOCUMENT_ROOT.into()),
        "uri" | "document_uri" => ParamPart::Path,
        "args" | "query_string" => ParamPart::Query,
        "is_args" => ParamPart::QueryMark,
        "https" => ParamPart::Https,
        "server_addr" => ParamPart::ServerAddress,
        "literal_dollar" => ParamPart::Literal("$".into()),
        _ => match SnippetVariable::parse(name) {
            Some(SnippetVariable::ClientCertificate(_)) => {
                return Err(format!("reads `${name}`, and certificates of clients are not known here"));
            }
            Some(variable) => ParamPart::Request(variable),
            None => return Err(format!("reads `${name}`, which is not a variable that is supported")),
        },
    })
}

fn push_literal(parts: &mut Vec<ParamPart>, literal: &mut String) {
    if !literal.is_empty() {
        parts.push(ParamPart::Literal(std::mem::take(literal).into()));
    }
}

/// Where ingress-nginx would look for files, which servers of its users compare with.
const DOCUMENT_ROOT: &str = "/usr/local/nginx/html";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_split_into_variables() {
        use ParamPart::{Literal, QueryMark, Request, ScriptName};
        for (text, expected) in [
            ("", vec![]),
            ("/a/b.php", vec![Literal("/a/b.php".into())]),
            ("$document_root${fastcgi_script_name}", vec![Literal("/usr/local/nginx/html".into()), ScriptName]),
            ("a$fastcgi_path_info/b", vec![Literal("a/b".into())]),
            ("$is_args$HOST", vec![QueryMark, Request(SnippetVariable::Host)]),
        ] {
            assert_eq!(ParamText::parse(text), Ok(ParamText(expected.into())), "{text}");
        }
    }

    #[test]
    fn other_variables_are_refused() {
        for text in ["$", "${host", "$1", "$foo", "$status", "$ssl_client_s_dn", "$fastcgi_path"] {
            assert!(ParamText::parse(text).is_err(), "{text}");
        }
    }
}
