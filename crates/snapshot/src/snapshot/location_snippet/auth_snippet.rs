//! The snippet of requests to an authorization server: the annotation `auth-snippet` of ingress-nginx.

use http::Method;
use http::header::{EXPECT, HOST};

use super::directive_tree::{self, WrittenDirective};
use super::field_value::{editable_name, field_name, is_of_connection};
use super::ignored::{self, IgnoredDirective};
use super::refusal::{DirectiveRefusal, RefusedSnippet};
use super::remedies;
use super::text::SnippetText;

/// What requests to an authorization server have in addition to what annotations say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthSnippet {
    /// The fields in their order, with texts that [`SnippetText::parse`] accepts. An empty one removes its field.
    pub fields: Vec<(String, String)>,
    pub method: Option<Method>,
    /// Whether the server gets the fields of the client.
    pub passes_client_fields: bool,
    pub ignored: Vec<IgnoredDirective>,
}

impl AuthSnippet {
    /// Compiles a snippet.
    ///
    /// # Errors
    ///
    /// With the first directive that is not supported, or that nginx would not accept. Requests must not be served
    /// without it, because the decisions of the server depend on it.
    pub fn parse(text: &str) -> Result<Self, RefusedSnippet> {
        let mut snippet =
            AuthSnippet { fields: Vec::new(), method: None, passes_client_fields: true, ignored: Vec::new() };
        let mut passes = None;
        for directive in &directive_tree::read(text)? {
            snippet.add(directive, &mut passes).map_err(|refusal| directive.refuse(refusal, true))?;
        }
        snippet.passes_client_fields = passes.unwrap_or(true);
        Ok(snippet)
    }

    /// `passes`: what `proxy_pass_request_headers` has said so far.
    fn add(&mut self, directive: &WrittenDirective, passes: &mut Option<bool>) -> Result<(), DirectiveRefusal> {
        let mut set_passes = |value| match passes.replace(value) {
            Some(_) => Err(DirectiveRefusal::invalid("is given twice")),
            None => Ok(()),
        };
        match &directive.name[..] {
            "proxy_set_header" => {
                let [name, value] = directive.exactly()?;
                let field = field_name(name)?;
                if is_of_connection(&field) && value.is_empty() {
                    self.ignore(directive, "such a request has neither a body nor a field of the client's connection");
                    return Ok(());
                }
                if [EXPECT, HOST].contains(&editable_name(name)?) {
                    let message = format!("changes `{name}`, of which the server would get two");
                    return Err(DirectiveRefusal::new(
                        message,
                        "remove it; `Host` is that of the annotation `auth-url`",
                    ));
                }
                if let Err(error) = SnippetText::parse(value) {
                    let remedy = "use another variable, or a literal text";
                    return Err(DirectiveRefusal::new(format!("has an invalid value: {error}"), remedy));
                }
                self.fields.push((field.as_str().to_owned(), value.to_owned()));
            }
            "proxy_method" => {
                let [method] = directive.exactly()?;
                let parsed = Method::from_bytes(method.as_bytes()).ok().filter(|_| !method.contains('$'));
                let parsed = parsed.ok_or_else(|| {
                    DirectiveRefusal::new(
                        format!("has {method:?}, which is not a method"),
                        "write a method such as POST",
                    )
                })?;
                if self.method.replace(parsed).is_some() {
                    return Err(DirectiveRefusal::invalid("is given twice"));
                }
            }
            "proxy_pass_request_headers" => match directive.exactly()? {
                ["on"] => set_passes(true)?,
                ["off"] => set_passes(false)?,
                [_] => return Err(DirectiveRefusal::invalid("takes `on` or `off`")),
            },
            "proxy_pass_request_body" => {
                let message = "is a second one, next to that of ingress-nginx";
                return Err(DirectiveRefusal::new(message, "remove it; the server never gets a body"));
            }
            name => {
                let reason = ignored::reason(directive)?.ok_or_else(|| remedies::unsupported(name))?;
                self.ignore(directive, reason);
            }
        }
        Ok(())
    }

    fn ignore(&mut self, directive: &WrittenDirective, reason: &'static str) {
        let (line, directive) = (directive.line, directive.name.clone());
        self.ignored.push(IgnoredDirective { line, directive, reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_described() {
        let text = "proxy_set_header X-A $http_b; # comment\nproxy_set_header X-B \"c d\"; proxy_set_header Cookie '';
                    proxy_method POST; proxy_pass_request_headers off; proxy_buffer_size 16k;
                    proxy_set_header Content-Length '';";
        let snippet = AuthSnippet::parse(text).unwrap();
        let fields: Vec<_> = snippet.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(fields, [("x-a", "$http_b"), ("x-b", "c d"), ("cookie", "")]);
        assert_eq!((snippet.method, snippet.passes_client_fields), (Some(Method::POST), false));
        assert_eq!(snippet.ignored.len(), 2);
        let empty = AuthSnippet::parse("# nothing\n").unwrap();
        assert!(empty.fields.is_empty() && empty.method.is_none() && empty.passes_client_fields);
    }

    #[test]
    fn other_directives_are_refused() {
        for (text, line, directive) in [
            ("proxy_set_header X-A b;\nproxy_pass http://b;", 2, "proxy_pass"),
            ("proxy_set_header Host b.example;", 1, "proxy_set_header"),
            ("proxy_set_header Content-Length 3;", 1, "proxy_set_header"),
            ("proxy_set_header X-A $unknown;", 1, "proxy_set_header"),
            ("proxy_set_header X-A $1;", 1, "proxy_set_header"),
            ("proxy_set_header X-A;", 1, "proxy_set_header"),
            ("proxy_method $request_method;", 1, "proxy_method"),
            ("proxy_method GET; proxy_method PUT;", 1, "proxy_method"),
            ("proxy_pass_request_headers maybe;", 1, "proxy_pass_request_headers"),
            ("proxy_pass_request_headers on; proxy_pass_request_headers off;", 1, "proxy_pass_request_headers"),
            ("proxy_pass_request_body on;", 1, "proxy_pass_request_body"),
            ("if ($arg_a) { return 200; }", 1, "if"),
            ("set $a b;", 1, "set"),
            ("proxy_set_header X-A b", 1, "proxy_set_header"),
        ] {
            let refused = AuthSnippet::parse(text).unwrap_err();
            assert_eq!((refused.line, &refused.directive[..], refused.restricts), (line, directive, true), "{text}");
        }
    }
}
