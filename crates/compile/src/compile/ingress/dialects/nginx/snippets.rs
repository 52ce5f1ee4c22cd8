//! The snippets of Ingresses: which of them are in effect, and what becomes of the others. One that could restrict
//! access and is not in effect takes the Ingress out of service, and one for a host all Ingresses of the host.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::config_map::NginxConfig;
use super::host_facts::NginxHosts;
use super::parsed_snippets::NotInEffect;
use super::value_reader::{ValueReader, written};
use crate::api::ingress_nginx::{self, AnnotationRisk, OnBadValue, PREFIX};
use crate::api::{Meta, ObjectKey};
use crate::compile::ingress_class::foreign_annotations;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::{Diagnostic, Topic};
use crate::snapshot::host::HostPattern;
use crate::snapshot::location_snippet::{EndpointRewrites, Snippet, SnippetHost, SnippetPlace};
use crate::snapshot::regex::RegexLimit;
use crate::verdict::unique_diagnostics::UniqueDiagnostics;

/// The snippet of a host.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ServerSnippet {
    /// Whose it is.
    pub ingress: ObjectKey,
    /// `None` if it is not in effect.
    pub snippet: Option<Arc<Snippet>>,
    pub closes_host: bool,
    /// Whether it would close the host if it were not in effect.
    guards_host: bool,
}

impl ServerSnippet {
    /// Whether it is in effect only for hosts with one location: it may lead to any location of a host.
    pub(super) fn needs_one_location(&self) -> bool {
        self.snippet.as_ref().is_some_and(|snippet| leads_to_locations(snippet))
    }

    /// The same, where it is not in effect.
    pub(super) fn refused(&self) -> Self {
        ServerSnippet { snippet: None, closes_host: self.guards_host, ..self.clone() }
    }
}

/// The snippets in effect for the locations of a host.
#[derive(Clone, Debug, Default)]
pub(super) struct HostSnippets {
    pub server: Option<Arc<Snippet>>,
    /// That of the Ingress, with what it inherits.
    pub location: Arc<Snippet>,
}

/// Whether the snippet of a location, or that of all locations, has a group of an expression, such as `$1`.
pub(super) fn refers_to_groups(meta: &Meta, config: &NginxConfig) -> bool {
    let texts = written(meta, "configuration-snippet").into_iter().chain(config.location_snippet.as_deref());
    let mut after_dollars = texts.flat_map(|text| text.split('$').skip(1));
    after_dollars.any(|text| text.trim_start_matches('{').starts_with(|first: char| matches!(first, '1'..='9')))
}

/// What the expressions of an Ingress take: its snippet is compiled for each host. That of a host counts for the
/// Ingress that has it.
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

/// Whether the location of a request depends on the snippet, so that it may be any of the host.
fn leads_to_locations(server: &Snippet) -> bool {
    server.changes_target() || server.locations.iter().any(|location| location.snippet.searches_again())
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
    let (snippet, restricts) = match written.compile(config, &Snippet::default(), limit) {
        // That of an Ingress which is not served must not respond in its place.
        Ok(snippet) if has_rejected_value(meta) => (None, snippet.restricts()),
        Ok(snippet) => {
            let restricts = snippet.restricts();
            (Some(Arc::new(snippet)), restricts)
        }
        Err(reason) => (None, reason.restricts),
    };
    let guards_host = restricts && written.refuses(meta, refuses_guards);
    let closes_host = guards_host && snippet.is_none();
    Some(ServerSnippet { ingress: meta.key.clone(), snippet, closes_host, guards_host })
}

/// Whether an annotation has a value because of which the Ingress is not served.
fn has_rejected_value(meta: &Meta) -> bool {
    meta.annotations.iter().any(|(key, value)| {
        let row = key.strip_prefix(PREFIX).and_then(ingress_nginx::find);
        let consequence = row.and_then(|row| row.consequence(value));
        matches!(consequence, Some(OnBadValue::Reject | OnBadValue::Deny503))
    })
}

/// The snippets for each host, and in the reader what is to say about those of the Ingress. `rewrites`: those that its
/// annotations request, which its snippet replaces if it has some.
pub(super) fn by_host<'h>(
    reader: &mut ValueReader<'_>,
    hosts: &NginxHosts,
    named: impl Iterator<Item = &'h HostPattern>,
    rewrites: &EndpointRewrites,
    limit: RegexLimit,
    refuses_guards: bool,
) -> BTreeMap<HostPattern, HostSnippets> {
    let config = &hosts.config;
    let meta = reader.meta;
    let (mut errors, mut notes) = (UniqueDiagnostics::default(), UniqueDiagnostics::default());
    let mut report = |written: &WrittenSnippet<'_>, compiled: Result<&Snippet, &NotInEffect>| {
        for problem in written.diagnostics(compiled, written.refuses(meta, refuses_guards)) {
            let list = if problem.is_error() { &mut errors } else { &mut notes };
            list.push(problem);
        }
    };
    let of_server = WrittenSnippet::server(reader.meta);
    let compiled_server = of_server.as_ref().map(|written| written.compile(config, &Snippet::default(), limit));
    if let (Some(written), Some(compiled)) = (&of_server, &compiled_server) {
        report(written, compiled.as_ref());
    }
    let of_location = WrittenSnippet::location(reader.meta);
    let mut known: BTreeMap<HostPattern, HostSnippets> = BTreeMap::new();
    // Most hosts have no snippet, so that the same one is compiled once: for those with one location, and for others.
    let mut without_server: BTreeMap<bool, Arc<Snippet>> = BTreeMap::new();
    for host in named {
        let has_one_location = hosts.facts(host, None).has_one_location;
        if let (Some(written), Some(Ok(snippet))) = (&of_server, &compiled_server)
            && !has_one_location
            && leads_to_locations(snippet)
        {
            report(written, Err(&NotInEffect::elsewhere(snippet, written.place)));
        }
        let server = hosts.server_snippet(host);
        if let (Some(written), Some(server)) = (&of_server, server)
            && server.ingress != reader.meta.key
        {
            reader.notes.push(written.second_of_host(host, &server.ingress));
        }
        if let (Some(written), Some(snippet)) = (&of_server, server.and_then(|server| server.snippet.as_ref()))
            && snippet.has_prefix_locations()
            && hosts.facts(host, None).has_expressions
        {
            let reason = format!("the paths of {host} are expressions, which precede the prefixes of the snippet");
            let note = Diagnostic::warning(written.field(), reason, "write the locations as expressions, with ~");
            reader.notes.push(note.with_topic(Topic::Conflict));
        }
        let server = server.and_then(|server| server.snippet.clone());
        let location = match (without_server.get(&has_one_location), &server) {
            (Some(compiled), None) => Arc::clone(compiled),
            _ => {
                let outer = server.as_deref().cloned().unwrap_or_default().with_rewrites(rewrites);
                let compiled = of_location.as_ref().and_then(|written| {
                    let compiled = written.compile(config, &outer, limit);
                    let compiled = compiled.and_then(|snippet| match has_one_location || !snippet.searches_again() {
                        true => Ok(snippet),
                        false => Err(NotInEffect::elsewhere(&snippet, written.place)),
                    });
                    report(written, compiled.as_ref());
                    compiled.ok()
                });
                let of_all = config.location_snippet.as_deref().unwrap_or_default();
                let inherited = || {
                    Snippet::parse_below(of_all, &outer, limit).unwrap_or_else(|refused| {
                        let NotInEffect { message, remedy, .. } = NotInEffect::from(refused);
                        let message = format!("location-snippet of the ConfigMap of ingress-nginx: {message}");
                        reader.errors.push(Diagnostic::of_object(message, remedy));
                        Snippet::default()
                    })
                };
                Arc::new(compiled.unwrap_or_else(inherited))
            }
        };
        if server.is_none() {
            without_server.entry(has_one_location).or_insert_with(|| Arc::clone(&location));
        }
        known.insert(host.clone(), HostSnippets { server, location });
    }
    reader.errors.extend(errors.into_vec());
    reader.notes.extend(notes.into_vec());
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
        if config.highest_risk < AnnotationRisk::Critical {
            let message =
                "snippets have the risk level Critical, and the ConfigMap of ingress-nginx allows a lower one";
            let remedy = "set annotations-risk-level to Critical there, or remove the snippet".to_owned();
            return Err(NotInEffect { message: message.to_owned(), remedy, restricts: true });
        }
        let mut snippet = compiled.map_err(NotInEffect::from)?;
        if let (Some(of_all), SnippetPlace::Location) = (&config.location_snippet, self.place) {
            // As in ingress-nginx, after that of the location, whose lines keep their numbers.
            let joined = format!("{}\n{of_all}", self.text);
            snippet = Snippet::parse_below(&joined, server, limit).map_err(NotInEffect::from)?;
        }
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
        if snippet.changes_target() && self.has_rewrite_target {
            let remedy = "write one of both, with the groups that it needs";
            return Some(("it changes the target, which rewrite-target changes, too", remedy));
        }
        if snippet.host() == SnippetHost::Expanded {
            return Some(("it sets Host by a variable or in an if", "use the annotation upstream-vhost"));
        }
        None
    }

    /// Whether requests must not be served without it.
    fn refuses(&self, meta: &Meta, refuses_guards: bool) -> bool {
        refuses_guards && !foreign_annotations::is_ignored(meta, &format!("{PREFIX}{}", self.annotation))
    }

    fn field(&self) -> String {
        annotation_field(&format!("{PREFIX}{}", self.annotation))
    }

    /// What is to say about a snippet: an error if no request may be forwarded without it.
    fn diagnostics(&self, compiled: Result<&Snippet, &NotInEffect>, refuses_guards: bool) -> Vec<Diagnostic> {
        let snippet = match compiled {
            Err(NotInEffect { message, remedy, restricts: true }) if refuses_guards => {
                let message = format!("{message}, and it may restrict requests, so they get status 503");
                return vec![Diagnostic::error(self.field(), message, remedy.as_str())];
            }
            Err(NotInEffect { message, remedy, .. }) => return vec![self.without_effect(message, remedy)],
            Ok(snippet) => snippet,
        };
        // What the ConfigMap has for all locations follows.
        let lines = self.text.lines().count();
        let ignored = snippet.ignored().iter().filter(|ignored| ignored.line <= lines);
        let reasons =
            ignored.map(|ignored| format!("line {}: {}: {}", ignored.line, ignored.directive, ignored.reason));
        let settings = &snippet.settings;
        let unsupported = [
            ("send_timeout", settings.client_send_timeout.is_some()),
            ("keepalive_timeout", settings.client_keepalive_timeout.is_some()),
        ];
        let unsupported = unsupported.into_iter().filter(|(_, is_set)| *is_set);
        let unsupported = unsupported.map(|(name, _)| format!("{name} is not supported"));
        reasons.chain(unsupported).map(|reason| self.without_effect(&reason, "remove the directive")).collect()
    }

    fn without_effect(&self, reason: &str, remedy: &str) -> Diagnostic {
        let note = Diagnostic::warning(self.field(), format!("{reason}, so it has no effect"), remedy);
        note.with_topic(Topic::Annotation)
    }

    /// A host has the snippet of the oldest Ingress with one, in the namespace of the oldest of all.
    fn second_of_host(&self, host: &HostPattern, first: &ObjectKey) -> Diagnostic {
        let message = format!("{host} has the snippet of Ingress {first}, so this one has no effect there");
        let note = Diagnostic::warning(self.field(), message, "write both in the snippet of one of them");
        note.with_topic(Topic::Conflict)
    }
}
