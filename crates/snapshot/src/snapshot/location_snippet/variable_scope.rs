//! Finds the variables that a snippet sets. nginx has them everywhere, also before the directive that sets them.

use std::sync::Arc;

use super::directive_tree::WrittenDirective;
use super::expression::group_names;
use super::refusal::{DirectiveRefusal, RefusedSnippet};
use super::remedies::matches_name;
use super::text::KnownVariables;
use super::variable::SnippetVariable;

/// The variables of a snippet, and of the snippet of the server around it.
pub(super) fn variables(
    directives: &[WrittenDirective],
    outer: &[Arc<str>],
    restricts: bool,
) -> Result<KnownVariables, RefusedSnippet> {
    let mut search = Search { set: outer.to_vec(), own: 0, conditions: 0, restricts };
    search.add_all(directives)?;
    Ok(KnownVariables { set: search.set })
}

struct Search {
    set: Vec<Arc<str>>,
    /// How many of them the snippet itself has.
    own: usize,
    conditions: usize,
    restricts: bool,
}

impl Search {
    fn add_all(&mut self, directives: &[WrittenDirective]) -> Result<(), RefusedSnippet> {
        for directive in directives {
            self.add(directive).map_err(|refusal| directive.refuse(refusal, self.restricts))?;
            self.add_all(directive.block.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }

    fn add(&mut self, directive: &WrittenDirective) -> Result<(), DirectiveRefusal> {
        match &directive.name[..] {
            "set" => {
                let name = directive.arguments.first().and_then(|name| name.strip_prefix('$'));
                match name.map(str::to_ascii_lowercase) {
                    Some(name) if name != "args" => self.add_variable(&name),
                    Some(_) | None => Ok(()),
                }
            }
            "if" => {
                self.conditions += 1;
                if self.conditions > MAX_CONDITIONS {
                    let message = format!("is the {}th `if`, and a snippet may have {MAX_CONDITIONS}", self.conditions);
                    return Err(DirectiveRefusal::new(message, "join conditions in one expression"));
                }
                self.add_groups(&directive.arguments)
            }
            "rewrite" | "location" => self.add_groups(&directive.arguments),
            _ => Ok(()),
        }
    }

    fn add_groups(&mut self, arguments: &[String]) -> Result<(), DirectiveRefusal> {
        arguments.iter().flat_map(|argument| group_names(argument)).try_for_each(|name| {
            // A group with a digit as its name is none for nginx either.
            self.add_variable(&name.to_ascii_lowercase())
        })
    }

    fn add_variable(&mut self, name: &str) -> Result<(), DirectiveRefusal> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || !name.bytes().all(is_name) || name.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(DirectiveRefusal::invalid(format!("has {name:?}, which is no name of a variable")));
        }
        if SnippetVariable::parse(name).is_some()
            || RESERVED.split_whitespace().any(|pattern| matches_name(pattern, name))
        {
            let message = format!("sets `${name}`, which is a variable of nginx or ingress-nginx");
            return Err(DirectiveRefusal::new(message, "use an annotation for what the variable controls"));
        }
        if self.set.iter().any(|known| **known == *name) {
            return Ok(());
        }
        self.own += 1;
        if self.own > MAX_VARIABLES {
            let message = format!("sets the {}th variable, and a snippet may have {MAX_VARIABLES}", self.own);
            return Err(DirectiveRefusal::new(message, "use fewer variables"));
        }
        self.set.push(name.into());
        Ok(())
    }
}

const MAX_CONDITIONS: usize = 16;
const MAX_VARIABLES: usize = 32;

/// Patterns of the variables of nginx and of the template of ingress-nginx that texts cannot have.
const RESERVED: &str = "
    status limit_rate limit_rate_after binary_remote_addr body_bytes_sent bytes_sent connection connection_requests
    document_root realpath_root request_body request_body_file request_completion request_filename request_length
    request_time server_addr time_local nginx_version pid pipe invalid_referer literal_dollar proxy_upstream_name
    proxy_alternative_upstream_name proxy_host proxy_port balancer_* global_rate_limit_* sent_http_* sent_trailer_*
    upstream_* ssl_client_* geoip* proxy_protocol_*
";
