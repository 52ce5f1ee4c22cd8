//! The snippets of Ingresses: which of them are in effect, and what becomes of the others. One that could restrict
//! access and is not in effect takes the Ingress out of service, and one for a host all Ingresses of the host.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::config_map::NginxConfig;
use super::host_facts::NginxHosts;
use super::value_reader::{ValueReader, written};
use crate::api::ingress_nginx::PREFIX;
use crate::api::{Meta, ObjectKey};
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::{Diagnostic, Topic};
use crate::snapshot::host::HostPattern;
use crate::snapshot::location_snippet::{RefusedSnippet, Snippet, SnippetHost, SnippetPlace};
use crate::snapshot::regex::RegexLimit;

/// The snippet of a host.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ServerSnippet {
    /// Whose it is.
    pub ingress: ObjectKey,
    /// `None` if it is not in effect.
    pub snippet: Option<Arc<Snippet>>,
    pub closes_host: bool,
}

/// The snippets in effect for the locations of a host.
#[derive(Clone, Debug, Default)]
pub(super) struct HostSnippets {
    pub server: Option<Arc<Snippet>>,
    /// That of the Ingress, with what it inherits.
    pub location: Arc<Snippet>,
}

/// What the expressions of an Ingress take: its snippet is compiled for each host. That of a host counts for the Ingress
/// that has it.
pub(super) fn regex_bytes(
    by_host: &BTreeMap<HostPattern, HostSnippets>,
    hosts: &NginxHosts,
    ingress: &ObjectKey,
) -> usize {
    let of_locations = by_host.values().map(|snippets| snippets.location.regex_bytes());
    let of_servers = by_host.keys().filter_map(|host| hosts.server_snippet(host));
    let own = of_servers.filter(|server| server.ingress == *ingress);
    of_locations.chain(own.filter_map(|server| Some(server.snippet.as_ref()?.regex_bytes()))).sum()
}

/// A snippet as an annotation has it.
struct WrittenSnippet<'a> {
    annotation: &'static str,
    text: &'a str,
    place: SnippetPlace,
    has_rewrite_target: bool,
}

/// Why a snippet is not in effect.
struct NotInEffect {
    message: String,
    remedy: String,
    restricts: bool,
}

/// What the annotation of an Ingress says for its hosts; `None` without one. `refuses_guards`: whether one that is not
/// in effect and could restrict access closes them.
pub(super) fn of_server(
    meta: &Meta,
    config: &NginxConfig,
    limit: RegexLimit,
    refuses_guards: bool,
) -> Option<ServerSnippet> {
    let written = WrittenSnippet::server(meta)?;
    let (snippet, closes_host) = match written.compile(config, &Snippet::default(), limit) {
        Ok(snippet) => (Some(Arc::new(snippet)), false),
        Err(reason) => (None, reason.restricts && refuses_guards),
    };
    Some(ServerSnippet { ingress: meta.key.clone(), snippet, closes_host })
}

/// The snippets for each host, and in the reader what is to say about those of the Ingress.
pub(super) fn by_host<'h>(
    reader: &mut ValueReader<'_>,
    hosts: &NginxHosts,
    named: impl Iterator<Item = &'h HostPattern>,
    limit: RegexLimit,
    refuses_guards: bool,
) -> BTreeMap<HostPattern, HostSnippets> {
    let config = &hosts.config;
    if let Some(written) = WrittenSnippet::server(reader.meta) {
        let compiled = written.compile(config, &Snippet::default(), limit);
        written.report(reader, compiled.as_ref(), refuses_guards);
    }
    let mut known: BTreeMap<HostPattern, HostSnippets> = BTreeMap::new();
    let mut is_reported = false;
    for host in named {
        let server = hosts.server_snippet(host).and_then(|server| server.snippet.clone());
        let outer = server.as_deref().cloned().unwrap_or_default();
        let location = match WrittenSnippet::location(reader.meta) {
            Some(written) => {
                let compiled = written.compile(config, &outer, limit);
                if !is_reported {
                    written.report(reader, compiled.as_ref(), refuses_guards);
                    is_reported = true;
                }
                compiled.ok()
            }
            None => None,
        };
        let location = location.or_else(|| Snippet::parse_below("", &outer, limit).ok()).unwrap_or_default();
        known.insert(host.clone(), HostSnippets { server, location: Arc::new(location) });
    }
    known
}

impl<'a> WrittenSnippet<'a> {
    fn server(meta: &'a Meta) -> Option<Self> {
        WrittenSnippet::of(meta, "server-snippet", SnippetPlace::Server)
    }

    fn location(meta: &'a Meta) -> Option<Self> {
        WrittenSnippet::of(meta, "configuration-snippet", SnippetPlace::Location)
    }

    fn of(meta: &'a Meta, annotation: &'static str, place: SnippetPlace) -> Option<Self> {
        let has_rewrite_target = written(meta, "rewrite-target").is_some();
        Some(WrittenSnippet { annotation, text: written(meta, annotation)?, place, has_rewrite_target })
    }

    /// Compiles a snippet that the ConfigMap permits. `server`: that of the host.
    fn compile(&self, config: &NginxConfig, server: &Snippet, limit: RegexLimit) -> Result<Snippet, NotInEffect> {
        let compiled = match self.place {
            SnippetPlace::Server => Snippet::parse(self.text, self.place, limit),
            SnippetPlace::Location => Snippet::parse_below(self.text, server, limit),
        };
        if !config.allows_snippets {
            let restricts = compiled.map_or_else(|refused| refused.restricts, |snippet| snippet.restricts());
            let message = "the ConfigMap of ingress-nginx does not allow snippets".to_owned();
            let remedy = "set allow-snippet-annotations to true there, and annotations-risk-level to Critical, and \
                          name it with --nginx-configmap; or remove the snippet"
                .to_owned();
            return Err(NotInEffect { message, remedy, restricts });
        }
        if !config.allows_critical_annotations {
            let message =
                "snippets have the risk level Critical, and the ConfigMap of ingress-nginx allows a lower one";
            let remedy = "set annotations-risk-level to Critical there, or remove the snippet".to_owned();
            return Err(NotInEffect { message: message.to_owned(), remedy, restricts: true });
        }
        let snippet = compiled.map_err(|refused| {
            let RefusedSnippet { line, directive, message, remedy, restricts } = refused;
            let subject = if directive.is_empty() { "the snippet".to_owned() } else { directive };
            NotInEffect { message: format!("line {line}: {subject} {message}"), remedy, restricts }
        })?;
        match self.unsupported(&snippet) {
            Some((message, remedy)) => Err(NotInEffect {
                message: message.to_owned(),
                remedy: remedy.to_owned(),
                restricts: snippet.restricts(),
            }),
            None => Ok(snippet),
        }
    }

    /// What a whole snippet has that no request could be served with as in nginx.
    fn unsupported(&self, snippet: &Snippet) -> Option<(&'static str, &'static str)> {
        if self.place == SnippetPlace::Server && snippet.changes_target() {
            let remedy = "write it in the snippet of the location, with break or with redirect";
            return Some(("it changes the target before the location is chosen", remedy));
        }
        let of_locations = || snippet.locations.iter().any(|location| location.snippet.searches_again());
        if snippet.searches_again() || of_locations() {
            let remedy = "end the rewrite with break, redirect or permanent";
            return Some(("it has a rewrite that leads to another location", remedy));
        }
        if snippet.changes_target() && self.has_rewrite_target {
            let remedy = "write one of both, with the groups that it needs";
            return Some(("it changes the target, which rewrite-target changes, too", remedy));
        }
        if snippet.host() == SnippetHost::Expanded {
            return Some(("it sets Host by a variable or in an if", "use the annotation upstream-vhost"));
        }
        None
    }

    fn report(&self, reader: &mut ValueReader<'_>, compiled: Result<&Snippet, &NotInEffect>, refuses_guards: bool) {
        let field = annotation_field(&format!("{PREFIX}{}", self.annotation));
        match compiled {
            Err(NotInEffect { message, remedy, restricts: true }) if refuses_guards => {
                let message = format!("{message}, and it may restrict requests, so they get status 503");
                reader.errors.push(Diagnostic::error(field, message, remedy.as_str()));
            }
            Err(NotInEffect { message, remedy, .. }) => {
                let message = format!("{message}, so it has no effect");
                let note = Diagnostic::warning(field, message, remedy.as_str());
                reader.notes.push(note.with_topic(Topic::Annotation));
            }
            Ok(snippet) => {
                let ignored = snippet.ignored().iter();
                let mut reasons: Vec<String> = ignored
                    .map(|directive| format!("line {}: {}: {}", directive.line, directive.directive, directive.reason))
                    .collect();
                let settings = &snippet.settings;
                for (name, is_set) in [
                    ("send_timeout", settings.client_send_timeout.is_some()),
                    ("keepalive_timeout", settings.client_keepalive_timeout.is_some()),
                    ("access_log", settings.is_access_log_off.is_some()),
                ] {
                    reasons.extend(is_set.then(|| format!("{name} is not supported")));
                }
                for reason in reasons {
                    let message = format!("{reason}, so it has no effect");
                    let note = Diagnostic::warning(field.as_str(), message, "remove the directive");
                    reader.notes.push(note.with_topic(Topic::Annotation));
                }
            }
        }
    }
}
