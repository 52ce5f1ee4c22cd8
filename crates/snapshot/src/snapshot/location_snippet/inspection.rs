//! What is known of a snippet before any request: what it may change, and what it reads after the request has passed.

use http::header::HOST;

use super::expression::SnippetRegex;
use super::program::{RewriteEffect, RewriteFlag, SetVariable, SnippetStep};
use super::snippet::{LocationModifier, Snippet};
use super::text::SnippetText;
use super::variable::SnippetVariable;
use crate::snapshot::regex::{RegexError, RegexLimit};

/// The field `Host` of requests to the endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnippetHost {
    /// That of the client.
    Unchanged,
    Fixed(Box<str>),
    /// It depends on the request.
    Expanded,
}

impl Snippet {
    /// The same for the location of an expression, whose groups its texts may have.
    ///
    /// # Errors
    ///
    /// If the expression cannot be used.
    pub fn with_groups_of(&self, path: &str, limit: RegexLimit) -> Result<Self, RegexError> {
        let regex = SnippetRegex::compile(&format!("^{path}"), true, limit)
            .map_err(|refusal| RegexError { message: refusal.message, is_too_large: false })?;
        let groups = std::iter::once(SnippetStep::Groups(regex));
        Ok(Snippet { program: groups.chain(self.program.iter().cloned()).collect(), ..self.clone() })
    }

    /// Whether a `rewrite` lets nginx search the location of the new path.
    pub fn searches_again(&self) -> bool {
        any_step(&self.program, &mut |step| match step {
            SnippetStep::Rewrite(rewrite) => {
                matches!(rewrite.effect, RewriteEffect::Path { flag: RewriteFlag::None | RewriteFlag::Last, .. })
            }
            _ => false,
        })
    }

    /// Whether requests may get another target.
    pub fn changes_target(&self) -> bool {
        any_step(&self.program, &mut |step| match step {
            SnippetStep::Rewrite(rewrite) => matches!(rewrite.effect, RewriteEffect::Path { .. }),
            SnippetStep::Set { variable, .. } => matches!(variable, SetVariable::Args),
            _ => false,
        })
    }

    /// Whether fields of requests may be changed for the endpoint.
    pub(crate) fn edits_sent_requests(&self) -> bool {
        !self.body.is_empty() || self.all_blocks().any(|block| !block.request.sends_unchanged())
    }

    /// Whether it has locations that an expression of the host precedes.
    pub fn has_prefix_locations(&self) -> bool {
        self.locations.iter().any(|location| location.modifier == LocationModifier::Prefix)
    }

    /// What the endpoint gets as `Host`.
    pub fn host(&self) -> SnippetHost {
        let mut hosts = self.all_blocks().map(|block| block.request.host_text().map_or(SnippetHost::Unchanged, host));
        let first = hosts.next().unwrap_or(SnippetHost::Unchanged);
        if hosts.all(|host| host == first) { first } else { SnippetHost::Expanded }
    }

    /// The variables that the fields of the request to the endpoint and of the response have, each once.
    pub(crate) fn later_variables(&self) -> &[SnippetVariable] {
        &self.later_variables
    }

    /// Determines what need not be determined for each request.
    pub(super) fn complete(mut self) -> Self {
        let texts = self.all_blocks().flat_map(|block| block.request.sent_texts().chain(block.response.texts()));
        let texts = texts.chain(self.rewrites.texts()).chain(self.body.texts());
        let of_redirects = self.rewrites.variables_of_redirects();
        let has_expiry = self.all_blocks().any(|block| block.response.expiry.is_some());
        let clock = has_expiry.then_some(&SnippetVariable::Msec);
        let mut variables: Vec<SnippetVariable> = Vec::new();
        for variable in texts.flat_map(SnippetText::request_variables).chain(clock).chain(of_redirects) {
            if !variables.contains(variable) {
                variables.push(variable.clone());
            }
        }
        self.later_variables = variables.into();
        self
    }
}

fn host(text: &SnippetText) -> SnippetHost {
    match (text.literal(), text.only_variable()) {
        (Some(literal), _) => SnippetHost::Fixed(literal.into()),
        (None, Some(SnippetVariable::Host | SnippetVariable::BestHttpHost)) => SnippetHost::Unchanged,
        (None, Some(SnippetVariable::RequestField(name))) if *name == HOST => SnippetHost::Unchanged,
        _ => SnippetHost::Expanded,
    }
}

fn any_step(steps: &[SnippetStep], is_searched: &mut dyn FnMut(&SnippetStep) -> bool) -> bool {
    steps.iter().any(|step| match step {
        SnippetStep::If { steps, .. } => any_step(steps, is_searched),
        step => is_searched(step),
    })
}

#[cfg(test)]
mod tests {
    use super::super::SnippetPlace;
    use super::*;

    fn snippet(text: &str) -> Snippet {
        Snippet::parse(text, SnippetPlace::Location, RegexLimit::MEMORY_ONLY).unwrap()
    }

    #[test]
    fn changes_of_the_target_are_known() {
        for (text, changes, searches) in [
            ("rewrite ^/a /b break;", true, false),
            ("if ($arg_a) { rewrite ^/a /b last; }", true, true),
            ("rewrite ^/a /b;", true, true),
            ("rewrite ^/a /b permanent;", false, false),
            ("set $args a=1;", true, false),
            ("set $a 1; return 403;", false, false),
        ] {
            let snippet = snippet(text);
            assert_eq!((snippet.changes_target(), snippet.searches_again()), (changes, searches), "{text}");
        }
    }

    #[test]
    fn the_host_is_one_of_all_blocks() {
        for (text, expected) in [
            ("", SnippetHost::Unchanged),
            ("proxy_set_header Host $http_host;", SnippetHost::Unchanged),
            ("proxy_set_header Host a.example;", SnippetHost::Fixed("a.example".into())),
            ("proxy_set_header Host $arg_host;", SnippetHost::Expanded),
            ("if ($arg_a) { proxy_set_header Host a.example; }", SnippetHost::Expanded),
        ] {
            assert_eq!(snippet(text).host(), expected, "{text}");
        }
    }

    #[test]
    fn variables_of_later_phases_are_listed() {
        let snippet =
            snippet("set $a $arg_b; add_header X-A $http_a$a$http_a; proxy_set_header X-B \"$host\"; expires 1h;");
        let host = SnippetVariable::Host;
        let field = SnippetVariable::RequestField("a".parse().unwrap());
        assert_eq!(snippet.later_variables(), [host, field, SnippetVariable::Msec]);
    }
}
