//! Snippets as the parser leaves them, before anything decides where they apply.

use crate::snapshot::location_snippet::{AuthSnippet, RefusedSnippet, Snippet, SnippetHost, SnippetPlace};
use crate::snapshot::regex::RegexLimit;

/// The annotation with the snippet of requests to an authorization server.
pub(super) const AUTH_SNIPPET: &str = "auth-snippet";

/// Why a snippet is not in effect.
pub(super) struct NotInEffect {
    pub message: String,
    pub remedy: String,
    pub restricts: bool,
}

impl From<RefusedSnippet> for NotInEffect {
    fn from(refused: RefusedSnippet) -> Self {
        let RefusedSnippet { line, directive, message, remedy, restricts } = refused;
        let subject = if directive.is_empty() { "the snippet".to_owned() } else { directive };
        NotInEffect { message: format!("line {line}: {subject} {message}"), remedy, restricts }
    }
}

impl NotInEffect {
    /// The target that a snippet sets may be that of another location, and the host has several.
    pub(super) fn elsewhere(snippet: &Snippet, place: SnippetPlace) -> Self {
        let (message, remedy) = if place == SnippetPlace::Server && snippet.changes_target() {
            let remedy = "write it in the snippet of the location, with break or with redirect";
            ("it changes the target before the location is chosen", remedy)
        } else {
            let remedy = "end the rewrite with break, redirect or permanent";
            ("it has a rewrite that leads to another location", remedy)
        };
        NotInEffect { message: message.to_owned(), remedy: remedy.to_owned(), restricts: snippet.restricts() }
    }
}

/// The snippet that the ConfigMap has for all locations.
///
/// # Errors
///
/// If it is not in effect. It must not change the target, because each location would need a check of that.
pub(super) fn of_all_locations(text: &str, limit: RegexLimit) -> Result<Snippet, NotInEffect> {
    let snippet = Snippet::parse(text, SnippetPlace::Location, limit)?;
    let message = match () {
        () if snippet.changes_target() => "it changes the target of requests",
        () if snippet.host() == SnippetHost::Expanded => "it sets Host by a variable or in an if",
        () => return Ok(snippet),
    };
    let remedy = "write it in the configuration-snippet of an Ingress".to_owned();
    Err(NotInEffect { message: message.to_owned(), remedy, restricts: snippet.restricts() })
}

/// The snippet of requests to an authorization server. `has_method`: whether another setting determines the method.
///
/// # Errors
///
/// If it is not in effect. The server decides by what it gets, so that requests must not be served then.
pub(super) fn parse_auth_snippet(text: &str, has_method: bool) -> Result<AuthSnippet, NotInEffect> {
    let snippet = AuthSnippet::parse(text)?;
    if snippet.method.is_some() && has_method {
        let message = "proxy_method is given twice, because auth-method sets it".to_owned();
        return Err(NotInEffect { message, remedy: "write one of both".to_owned(), restricts: true });
    }
    Ok(snippet)
}

/// Why some directives of a snippet have no effect.
pub(super) fn reasons_without_effect(snippet: &AuthSnippet) -> impl Iterator<Item = String> {
    let ignored = snippet.ignored.iter();
    ignored.map(|ignored| format!("line {}: {}: {}", ignored.line, ignored.directive, ignored.reason))
}
