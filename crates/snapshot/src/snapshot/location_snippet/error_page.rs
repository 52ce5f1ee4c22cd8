//! `error_page` with a URL: a redirect in place of an error that no endpoint has sent.

use http::StatusCode;

use super::directive_tree::WrittenDirective;
use super::refusal::DirectiveRefusal;
use super::rewrite_directives::{is_redirect, is_url};
use super::target_encoding::encode_url;
use super::text::{KnownVariables, PartValues, SnippetText, TextPhase};

/// The page of some statuses.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ErrorPage {
    statuses: Box<[u16]>,
    /// That of the redirect.
    status: StatusCode,
    pub(super) url: SnippetText,
}

impl ErrorPage {
    pub(super) fn parse(directive: &WrittenDirective, scope: &KnownVariables) -> Result<Self, DirectiveRefusal> {
        let [before @ .., url] = directive.some_arguments()? else {
            return Err(DirectiveRefusal::invalid("has no URL"));
        };
        let (statuses, code) = match before {
            [statuses @ .., code] if code.starts_with('=') => (statuses, code.get(1..).unwrap_or_default()),
            statuses => (statuses, ""),
        };
        if statuses.is_empty() {
            return Err(DirectiveRefusal::invalid("has no status"));
        }
        if !is_url(url) {
            let message = "has a page that is not a URL with a scheme";
            return Err(DirectiveRefusal::new(message, "write the URL of a redirect, or use the plugin error-pages"));
        }
        // The other ones are redirects, or those that nginx has for certificates and closed connections.
        let is_error = |status: &u16| matches!(status, 400..=493 | 500..=599);
        let statuses = statuses.iter().map(|text| text.parse().ok().filter(is_error)).collect::<Option<Box<[u16]>>>();
        let statuses = statuses.ok_or_else(|| {
            DirectiveRefusal::new(
                "has a status that is not one of an error",
                "name statuses from 400 to 493, or from 500",
            )
        })?;
        let code = match code {
            "" => Some(StatusCode::FOUND),
            code => code.parse().ok().and_then(|code: u16| StatusCode::from_u16(code).ok()),
        };
        let code = code.ok_or_else(|| DirectiveRefusal::invalid("has no status after `=`"))?;
        // As in nginx, any other status would not make clients follow the URL.
        let status = if is_redirect(code) { code } else { StatusCode::FOUND };
        let url = SnippetText::parse_in(url, scope, TextPhase::Request)?;
        Ok(ErrorPage { statuses, status, url })
    }

    pub(super) fn is_for(&self, status: StatusCode) -> bool {
        self.statuses.contains(&status.as_u16())
    }

    /// The status and the target of the redirect. `None` if the URL cannot be sent, so that the error stays.
    pub(super) fn redirect(&self, values: &dyn PartValues) -> Option<(StatusCode, String)> {
        Some((self.status, encode_url(&self.url.expand_parts(values)?)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Request, location, run, server};
    use super::super::{Snippet, SnippetPlace};
    use crate::snapshot::regex::RegexLimit;
    use http::StatusCode;

    fn page(text: &str, target: &'static str, status: u16) -> Option<String> {
        let (snippet, request) = (location(text), Request::get(target));
        let (status, url) =
            run(&snippet, &request).error_page(&snippet, &request, StatusCode::from_u16(status).unwrap())?;
        Some(format!("{} {url}", status.as_u16()))
    }

    #[test]
    fn errors_become_redirects() {
        for (text, status, expected) in [
            ("error_page 404 https://b.example/x;", 404, Some("302 https://b.example/x")),
            ("error_page 404 https://b.example/x;", 403, None),
            ("error_page 403 404 https://b.example/x;", 403, Some("302 https://b.example/x")),
            ("error_page 404 =301 https://b.example/x;", 404, Some("301 https://b.example/x")),
            ("error_page 404 =200 https://b.example/x;", 404, Some("302 https://b.example/x")),
            ("error_page 404 = https://b.example/x;", 404, Some("302 https://b.example/x")),
            (
                "error_page 401 https://b.example/?rd=$host$request_uri;",
                401,
                Some("302 https://b.example/?rd=a.example/c?d=e"),
            ),
            // The first one counts.
            ("error_page 404 http://b.example; error_page 404 http://c.example;", 404, Some("302 http://b.example")),
            // An `if` with one has none of the others.
            ("error_page 404 http://b.example; if ($arg_d) { error_page 403 http://c.example; }", 404, None),
            ("error_page 404 http://b.example; if ($arg_d) { set $a b; }", 404, Some("302 http://b.example")),
            // The text of a `return` is the response.
            ("error_page 403 http://b.example; return 403;", 403, Some("302 http://b.example")),
            ("error_page 403 http://b.example; return 403 text;", 403, None),
        ] {
            assert_eq!(page(text, "/c?d=e", status).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn locations_inherit_pages() {
        let outer = server("error_page 404 http://b.example;");
        for (text, expected) in [("", true), ("error_page 403 http://c.example;", false)] {
            let snippet = Snippet::parse_below(text, &outer, RegexLimit::MEMORY_ONLY).unwrap();
            let request = Request::get("/");
            let page = run(&snippet, &request).error_page(&snippet, &request, StatusCode::NOT_FOUND);
            assert_eq!(page.is_some(), expected, "{text}");
        }
    }

    #[test]
    fn other_pages_are_refused() {
        for text in [
            "error_page 404 /404.html;",
            "error_page 404 =200 /404.html;",
            "error_page 404 @page;",
            "error_page 404 $arg_a;",
            "error_page https://b.example;",
            "error_page = https://b.example;",
            "error_page 302 https://b.example;",
            "error_page 497 https://b.example;",
            "error_page 600 https://b.example;",
            "error_page 404 =x https://b.example;",
            "error_page 404 https://b.example/$status;",
            "error_page;",
        ] {
            let refused = Snippet::parse(text, SnippetPlace::Location, RegexLimit::MEMORY_ONLY).unwrap_err();
            assert_eq!((refused.line, &refused.directive[..]), (1, "error_page"), "{text}");
        }
    }
}
