//! Builds the plugin chain of a route for connections or datagrams, such as a TCPRoute or a TCPIngress, from all
//! objects that attach plugins to it.
//!
//! A guard that cannot run for connections or sessions is an error because of which the route forwards nothing.

use std::sync::Arc;

use super::Plugins;
use super::chain::duplicate_message;
use super::compiled_plugin::{CompiledPlugin, StreamUse};
use super::plugins_of_rule::{GLOBAL_COUNTERS, supports_scope};
use super::references;
use super::references::{PluginReferrers, UnresolvedPlugin};
use super::route_description;
use super::stream_plugin_site::StreamPluginSite;
use crate::api::kong::annotations::PLUGINS;
use crate::api::{Kind, ObjectId};
use crate::compile::CompileContext;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::{Diagnostic, Topic};
use crate::plugin_chain::StreamChain;
use crate::plugin_chain::chain::BaseScope;
use crate::plugin_chain::stream_chain::StreamChainBuilder;
use crate::verdict::unique_diagnostics::UniqueDiagnostics;

/// The plugins of a route.
#[derive(Debug, Default)]
pub(in crate::compile) struct StreamPlugins {
    pub chain: Option<Arc<StreamChain>>,
    /// Errors because of which nothing is forwarded: a guard cannot run.
    pub missing_guards: Vec<Diagnostic>,
    /// Other diagnostics, about plugins without effect.
    pub diagnostics: Vec<Diagnostic>,
}

impl Plugins {
    /// The plugins that run for the connections or sessions of a route.
    pub(in crate::compile) fn stream_chain(
        &self,
        cx: CompileContext<'_>,
        site: &StreamPluginSite<'_>,
    ) -> StreamPlugins {
        let mut assembler = StreamChainAssembler {
            plugins: self,
            fail_open: cx.inputs.plugin_factory.fail_open,
            what: StreamWords::of(site.kind),
            builder: StreamChainBuilder::default(),
            missing_guards: UniqueDiagnostics::default(),
            diagnostics: UniqueDiagnostics::default(),
        };
        let route = AttachmentSite {
            base: BaseScope::Route,
            namespace: &site.meta.key.namespace,
            scope: format!("{}/{}", site.kind, site.meta.key).into(),
            field: annotation_field(PLUGINS),
            attached_by: None,
        };
        for reference in references::references_within_budget(cx, site.kind, site.meta) {
            assembler.attach_reference(&route, reference.target);
        }
        for (service, field) in site.services {
            let at = AttachmentSite {
                base: BaseScope::Service,
                namespace: &service.key.namespace,
                scope: format!("{}/{}", Kind::Service, service.key).into(),
                field: field.clone(),
                attached_by: Some(format!("Service {}", service.key)),
            };
            for reference in references::references_within_budget(cx, Kind::Service, service) {
                assembler.attach_reference(&at, reference.target);
            }
        }
        let at = AttachmentSite {
            base: BaseScope::Global,
            namespace: "",
            scope: GLOBAL_COUNTERS.into(),
            field: String::new(),
            attached_by: None,
        };
        for id in &self.global_plugins.global {
            assembler.attach_global(&at, id);
        }
        for id in &self.global_plugins.ambiguous {
            assembler.reject_ambiguous(&at, id);
        }
        if assembler.builder.logs() {
            let (names, description) = route_description::describe_stream(site);
            assembler.builder.describe(names, description);
        }
        StreamPlugins {
            chain: assembler.builder.build(),
            missing_guards: assembler.missing_guards.into_vec(),
            diagnostics: assembler.diagnostics.into_vec(),
        }
    }
}

/// An object that attaches plugins to the route.
struct AttachmentSite<'a> {
    base: BaseScope,
    namespace: &'a str,
    /// The scope of counters of these plugins.
    scope: Arc<str>,
    /// The field of the route for diagnostics.
    field: String,
    /// The object, unless it is the route itself.
    attached_by: Option<String>,
}

/// The words for messages about one kind of route.
#[derive(Clone, Copy)]
struct StreamWords {
    /// What plugins would run for.
    subject: &'static str,
    unprotected: &'static str,
}

impl StreamWords {
    fn of(kind: Kind) -> Self {
        let (subject, unprotected) = match kind {
            Kind::UdpRoute => ("the sessions of UDPRoutes", "datagrams are forwarded without it"),
            Kind::UdpIngress => ("the sessions of UDPIngresses", "datagrams are forwarded without it"),
            Kind::TcpIngress => ("the connections of TCPIngresses", "connections are forwarded without it"),
            Kind::Ingress => ("the TLS connections of Ingresses", "connections are forwarded without it"),
            Kind::TlsRoute => ("the connections of TLSRoutes", "connections are forwarded without it"),
            Kind::ConfigMap => ("the ports of ConfigMaps", "connections are forwarded without it"),
            _ => ("the connections of TCPRoutes", "connections are forwarded without it"),
        };
        StreamWords { subject, unprotected }
    }
}

/// Collects the plugins of one route in its chain.
struct StreamChainAssembler<'a> {
    plugins: &'a Plugins,
    fail_open: bool,
    what: StreamWords,
    builder: StreamChainBuilder,
    missing_guards: UniqueDiagnostics,
    diagnostics: UniqueDiagnostics,
}

impl StreamChainAssembler<'_> {
    fn attach_reference(&mut self, at: &AttachmentSite<'_>, target: Result<ObjectId, UnresolvedPlugin>) {
        let id = match target {
            Ok(id) => id,
            // It may have been a guard.
            Err((_, problem)) => {
                let (field, message) = match &at.attached_by {
                    Some(object) => {
                        // A misspelled annotation has another key.
                        let key = problem.field.strip_prefix("metadata.annotations[");
                        let key = key.and_then(|key| key.strip_suffix(']')).unwrap_or(PLUGINS);
                        (&*at.field, format!("annotation {key} of {object}: {}", problem.message))
                    }
                    None => (&*problem.field, problem.message.clone()),
                };
                return self.report(field, true, message, &problem.remedy);
            }
        };
        let Some(compiled) = self.plugins.plugins.get(&id) else { return };
        match (compiled.stream_use, at.base) {
            (StreamUse::Disabled, _) => return,
            // A Service may also have requests.
            (StreamUse::RequestsOnly, BaseScope::Service | BaseScope::Global) => return,
            (StreamUse::RequestsOnly, BaseScope::Route) => {
                let message = format!("its field protocols excludes {}", self.what.subject);
                return self.report_unusable(at, compiled, &message, "remove the reference, or the field protocols");
            }
            (StreamUse::Unspecified | StreamUse::Streams, _) => {}
        }
        if compiled.kind.is_some_and(|kind| !kind.runs_for_streams()) {
            let message = format!("{} does not support {}", compiled.name, self.what.subject);
            let remedy = "remove it from the annotation; or, if only requests to a Service need it, set its field \
                          protocols to http and https";
            return self.report_unusable(at, compiled, &message, remedy);
        }
        if !supports_scope(compiled.scopes(), at.base) {
            let message = format!("{} cannot be attached to this kind of object", compiled.name);
            return self.report_unusable(at, compiled, &message, "attach it to another object");
        }
        let referrers = self.plugins.referrers.get(&id);
        if referrers.and_then(|referrers: &PluginReferrers| referrers.subjects(at.namespace)).is_some() {
            let message = format!("it is restricted to consumers, which {} do not have", self.what.subject);
            return self.report_unusable(at, compiled, &message, "use another plugin object for the consumers");
        }
        self.add(at, compiled);
    }

    /// Global plugins that support requests only are not meant for connections.
    fn attach_global(&mut self, at: &AttachmentSite<'_>, id: &ObjectId) {
        if let Some(compiled) = self.plugins.plugins.get(id).filter(|compiled| compiled.is_for_all_streams()) {
            self.add(at, compiled);
        }
    }

    /// `id`: one of several global plugins of the same kind, none of which runs.
    fn reject_ambiguous(&mut self, at: &AttachmentSite<'_>, id: &ObjectId) {
        if let Some(compiled) = self.plugins.plugins.get(id).filter(|compiled| compiled.is_for_all_streams()) {
            let message = format!("more than one global {} is configured", compiled.name);
            self.report_unusable(at, compiled, &message, "keep the label global on only one of them");
        }
    }

    fn add(&mut self, at: &AttachmentSite<'_>, compiled: &CompiledPlugin) {
        let Some((place, instance)) = compiled.usable_instance(&at.scope) else {
            let (reason, remedy) = compiled.unusable();
            return self.report_unusable(at, compiled, &format!("it {reason}"), remedy);
        };
        if !self.builder.add(place.kind, place.priority, at.base, instance) {
            let message = duplicate_message(place.kind, &compiled.object);
            self.diagnostics.push(Diagnostic::error(&*at.field, message, "keep one of them").with_topic(Topic::Plugin));
        }
    }

    fn report_unusable(&mut self, at: &AttachmentSite<'_>, compiled: &CompiledPlugin, reason: &str, remedy: &str) {
        let object = &compiled.object;
        let message = match (&at.attached_by, at.base) {
            (Some(by), _) => format!("annotation {PLUGINS} of {by} attaches {object}, but {reason}"),
            (None, BaseScope::Global) => format!("{object} is global, but {reason}"),
            (None, BaseScope::Route | BaseScope::Service) => format!("the route has {object}, but {reason}"),
        };
        self.report(&at.field, compiled.is_guard(), message, remedy);
    }

    fn report(&mut self, field: &str, is_guard: bool, mut message: String, remedy: &str) {
        let fails_closed = is_guard && !self.fail_open;
        message.push_str(", so ");
        message.push_str(if fails_closed { "nothing is forwarded" } else { self.what.unprotected });
        let problem = Diagnostic::error(field, message, remedy).with_topic(Topic::Plugin);
        if fails_closed { &mut self.missing_guards } else { &mut self.diagnostics }.push(problem);
    }
}

impl CompiledPlugin {
    /// Whether a global plugin runs for the connections and sessions of all routes.
    fn is_for_all_streams(&self) -> bool {
        match self.stream_use {
            StreamUse::Disabled | StreamUse::RequestsOnly => false,
            StreamUse::Unspecified => self.kind.map_or(self.has_unknown_kind(), |kind| kind.runs_for_streams()),
            StreamUse::Streams => self.kind.is_none_or(|kind| kind.runs_for_streams()),
        }
    }
}
