//! One Ingress with all its questions answered: its routes, its certificates, and what to say about it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::Inputs;
use super::super::certificates::{self, Secrets};
use super::super::plugins::{Plugins, Site};
use super::super::verdict::Problem;
use super::backend::{self, Lead};
use super::class;
use super::path::{self, Reading};
use super::route_settings::{self, RouteSettings};
use super::upstream_tls;
use crate::api::kong::IngressClassParametersSpec;
use crate::api::kong::annotations::REWRITE;
use crate::api::networking::{Ingress, IngressBackend};
use crate::api::{Kind, Meta, Object, ObjectKey};
use crate::plugin::Names;
use crate::snapshot::certs::Certificate;
use crate::snapshot::host::HostPattern;
use crate::snapshot::kong::{Flavor, Host, HttpsRedirect, Manner, Path, Route, Source, ToHost};
use crate::snapshot::router::Age;
use crate::snapshot::rule::{Action, Backend, Failure, Filters, Rule, RuleId, Split, Target};
use crate::snapshot::tries::Tries;
use crate::store::Store;
use crate::upstream::UpstreamKey;

/// What an Ingress of ours contributes.
#[derive(Debug)]
pub(super) struct IngressPlan {
    pub generation: i64,
    pub created: Option<i64>,
    pub routes: Vec<Arc<Route>>,
    /// What no route of any Ingress takes goes there, if this is the oldest Ingress that says so.
    pub fallback: Option<Arc<Route>>,
    pub certificates: Vec<Shown>,
    pub upstreams: BTreeSet<UpstreamKey>,
    /// Why some of it is not served.
    pub refused: Vec<Problem>,
    /// What is served, though perhaps not as somebody expects.
    pub notes: Vec<Problem>,
    /// Those of the notes that are about plugins.
    pub broken_plugins: Vec<Problem>,
    /// Those of the notes that are about annotations that mean nothing.
    pub unheeded: Vec<Problem>,
}

/// A certificate for one host.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub host: HostPattern,
    pub certificate: Arc<Certificate>,
    pub field: String,
}

/// None if its class is not ours.
pub(super) fn plan(
    store: &Store,
    inputs: &Inputs<'_>,
    plugins: &Plugins,
    secrets: &mut Secrets,
    ingress: &Object<Ingress>,
) -> Option<IngressPlan> {
    let class = class::of(store, inputs, ingress)?;
    let settings = route_settings::read(&ingress.meta, inputs.ingress.flavor, "an Ingress");
    let mut planner = Planner {
        store,
        inputs,
        plugins,
        ingress,
        class,
        settings: &settings,
        upstreams: BTreeSet::new(),
        refused: settings.refused.clone(),
        notes: settings.notes.clone(),
        broken_plugins: Vec::new(),
    };
    // A condition that cannot be asked is one that does not hold.
    let (mut routes, mut fallback) = (Vec::new(), None);
    if settings.refused.is_empty() {
        routes = planner.routes();
        fallback = planner.fallback();
    }
    let certificates = planner.certificates(secrets);
    let Planner { upstreams, refused, notes, broken_plugins, .. } = planner;
    let (generation, created) = (ingress.meta.generation, ingress.meta.created);
    Some(IngressPlan {
        generation,
        created,
        routes,
        fallback,
        certificates,
        upstreams,
        refused,
        notes,
        broken_plugins,
        unheeded: settings.unheeded.clone(),
    })
}

struct Planner<'a> {
    store: &'a Store,
    inputs: &'a Inputs<'a>,
    plugins: &'a Plugins,
    ingress: &'a Object<Ingress>,
    class: IngressClassParametersSpec,
    settings: &'a RouteSettings,
    upstreams: BTreeSet<UpstreamKey>,
    refused: Vec<Problem>,
    notes: Vec<Problem>,
    broken_plugins: Vec<Problem>,
}

/// Paths of one host that lead to the same: one route, as Kong's ingress controller makes it.
struct Group<'a> {
    host: &'a str,
    lead: Lead,
    backend: &'a IngressBackend,
    /// Where the first of its paths stands.
    field: String,
    paths: Vec<Path>,
    /// They have no groups for what `konghq.com/rewrite` names, so requests for them cannot go on.
    is_stuck: bool,
}

impl<'a> Planner<'a> {
    fn routes(&mut self) -> Vec<Arc<Route>> {
        let mut groups: Vec<Group<'a>> = Vec::new();
        for (index, rule) in self.ingress.spec.rules.iter().enumerate() {
            let host = rule.host.as_deref().unwrap_or_default();
            for (at, raw) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
                let field = format!("spec.rules[{index}].http.paths[{at}]");
                let (path, kind) = (raw.path.as_deref(), raw.path_type.as_deref());
                let paths = match path::read(self.reading(), path, kind, &format!("{field}.path")) {
                    Ok((paths, remark)) => {
                        self.notes.extend(remark);
                        paths
                    }
                    Err(problem) => {
                        self.refused.push(problem);
                        continue;
                    }
                };
                let lead = Lead::of(&raw.backend);
                let is_stuck = self.is_stuck(&paths, &format!("{field}.path"));
                let belongs = |group: &Group<'_>| (group.host, &group.lead, group.is_stuck) == (host, &lead, is_stuck);
                let group = match groups.iter().position(belongs) {
                    Some(known) => &mut groups[known],
                    None => {
                        let field = format!("{field}.backend");
                        groups.push(Group { host, lead, backend: &raw.backend, field, paths: Vec::new(), is_stuck });
                        let last = groups.len() - 1;
                        &mut groups[last]
                    }
                };
                for path in paths {
                    if !group.paths.contains(&path) {
                        group.paths.push(path);
                    }
                }
            }
        }
        groups.into_iter().enumerate().filter_map(|(index, group)| self.route(index, group)).collect()
    }

    fn reading(&self) -> Reading<'a> {
        Reading {
            regex_prefix: &self.settings.regex_prefix,
            legacy_detection: self.class.enable_legacy_regex_detection,
            unescaped: self.inputs.classes.takes_over() && self.inputs.ingress.flavor == Flavor::TraditionalCompatible,
        }
    }

    fn route(&mut self, index: usize, group: Group<'a>) -> Option<Arc<Route>> {
        let mut hosts = Vec::new();
        if !group.host.is_empty() {
            match Host::parse(group.host) {
                Some(host) => hosts.push(host),
                None => {
                    let field = group.field.split(".http").next().unwrap_or_default();
                    let message = format!("{:?} is no host name", group.host);
                    let remedy = "write it like a.example or *.example";
                    self.refused.push(Problem::new(format!("{field}.host"), message, remedy));
                    return None;
                }
            }
        }
        let name = group.lead.route_name(group.host);
        let rule = match group.is_stuck {
            true => self.stuck(&name, &group.lead),
            false => self.rule(&name, &group.lead, group.backend, &group.field),
        };
        let route = self.narrowed(Route::new(Source::Ingress, self.age(index), rule), hosts);
        Some(Arc::new(Route { paths: group.paths, ..route }))
    }

    fn fallback(&mut self) -> Option<Arc<Route>> {
        let backend = self.ingress.spec.default_backend.as_ref()?;
        let lead = Lead::of(backend);
        let paths = vec![Path::prefix("/")];
        let rule = match self.is_stuck(&paths, "spec.defaultBackend") {
            true => self.stuck("", &lead),
            false => self.rule("", &lead, backend, "spec.defaultBackend"),
        };
        let route = self.narrowed(Route::new(Source::Ingress, self.age(usize::from(u16::MAX)), rule), Vec::new());
        Some(Arc::new(Route { paths, is_last: true, ..route }))
    }

    /// Whether the annotation asks for what paths like these do not have. Says so.
    fn is_stuck(&mut self, paths: &[Path], field: &str) -> bool {
        let problem = match &self.settings.rewrite {
            Err(problem) => {
                let message = format!("{}, so requests are answered 500", problem.message);
                Problem { message, ..problem.clone() }
            }
            Ok(Some(template)) if paths.iter().any(|path| path.groups() < template.groups()) => {
                let message = format!(
                    "{REWRITE} names ${}, and this path has no such group, so requests for it are answered 500",
                    template.groups()
                );
                Problem::new(field, message, "write a regular expression with groups, such as /~/users/([^/]+)")
            }
            Ok(_) => return false,
        };
        if !self.refused.contains(&problem) {
            self.refused.push(problem);
        }
        true
    }

    /// The conditions that annotations add.
    fn narrowed(&self, route: Route, mut hosts: Vec<Host>) -> Route {
        let RouteSettings { methods, headers, server_names, host_aliases, regex_priority, .. } = self.settings;
        for alias in host_aliases {
            if !hosts.contains(alias) {
                hosts.push(alias.clone());
            }
        }
        Route {
            hosts,
            methods: methods.clone(),
            headers: headers.clone(),
            server_names: server_names.clone(),
            regex_priority: *regex_priority,
            ..route
        }
    }

    fn age(&self, index: usize) -> Age {
        Age {
            created: self.ingress.meta.created,
            route: self.ingress.meta.key.to_string().into(),
            rule: u16::try_from(index).unwrap_or(u16::MAX),
            index: 0,
        }
    }

    /// What becomes of requests to this backend. `name` follows those of namespace and Ingress.
    fn rule(&mut self, name: &str, lead: &Lead, backend: &IngressBackend, field: &str) -> Arc<Rule> {
        let key = &self.ingress.meta.key;
        let mut manner = self.manner();
        let mut backends = Vec::new();
        let action = match backend::resolve(
            self.store,
            self.inputs,
            &key.namespace,
            backend,
            self.class.service_upstream,
            field,
        ) {
            Ok(resolved) => {
                let settings = &resolved.settings;
                let (kind, meta) = resolved.speaks;
                let remark =
                    upstream_tls::unverified(resolved.key.tls.as_ref(), &format!("{kind} {}", meta.key), field);
                self.notes.extend(remark.filter(|remark| !self.notes.contains(remark)));
                manner.path = settings.path.clone();
                if !self.settings.preserve_host {
                    manner.host = ToHost::Named(resolved.host.clone());
                }
                backends.push(resolved.speaks);
                let target = Target::Upstream(self.inputs.upstreams.upstream(&resolved.key));
                let split = Split::new(vec![Backend { weight: 1, filters: Filters::default(), target }]);
                let tries = Tries::of_service(settings.connect, settings.write, settings.read, settings.retries);
                self.upstreams.insert(resolved.key);
                match split {
                    Some(mut split) => {
                        split.tries = Some(Box::new(tries));
                        Action::Forward(split)
                    }
                    None => Action::Fail(Failure::NoService),
                }
            }
            Err(mut problem) => {
                problem.message.push_str(", so requests are answered 503");
                if !self.refused.contains(&problem) {
                    self.refused.push(problem);
                }
                Action::Fail(Failure::NoService)
            }
        };
        self.finished(name, lead, manner, &backends, action)
    }

    /// What becomes of requests that cannot go on.
    fn stuck(&mut self, name: &str, lead: &Lead) -> Arc<Rule> {
        self.finished(name, lead, self.manner(), &[], Action::Fail(Failure::Unsupported))
    }

    fn finished(
        &mut self,
        name: &str,
        lead: &Lead,
        manner: Manner,
        backends: &[(Kind, &Meta)],
        action: Action,
    ) -> Arc<Rule> {
        let key = &self.ingress.meta.key;
        let route: Arc<str> = format!("{}/{key}", Kind::Ingress).into();
        let rule: Arc<str> = if name.is_empty() { "default".into() } else { name.into() };
        let (dot, own) = (if name.is_empty() { "" } else { "." }, &key.name);
        let names = Names {
            route: format!("{}.{own}{dot}{name}", key.namespace).into(),
            service: lead.service_name(&key.namespace).into(),
        };
        let chained = self.plugins.chain(
            self.store,
            self.inputs,
            &Site {
                kind: Kind::Ingress,
                meta: &self.ingress.meta,
                extensions: &[],
                backends,
                names: Arc::new(names),
                scope: format!("{route}/{rule}").into(),
            },
        );
        let plugins = chained.tell(&mut self.notes, &mut self.broken_plugins);
        let id = RuleId { route, rule };
        let filters = Filters::default();
        Arc::new(Rule { id, filters, plugins, action, kong: Some(Box::new(manner)) })
    }

    fn manner(&self) -> Manner {
        let settings = self.settings;
        Manner {
            strip_path: settings.strip_path,
            protocols: settings.protocols,
            https_redirect: HttpsRedirect { status: settings.https_redirect, port: self.inputs.ingress.public_https() },
            rewrite: settings.rewrite.as_ref().ok().cloned().flatten(),
            request_buffering: settings.request_buffering,
            response_buffering: settings.response_buffering,
            ..Manner::default()
        }
    }

    /// The certificates that can be shown, by host. One that cannot takes nothing else out of service.
    fn certificates(&mut self, secrets: &mut Secrets) -> Vec<Shown> {
        let mut shown = Vec::new();
        for (index, tls) in self.ingress.spec.tls.iter().enumerate() {
            let field = format!("spec.tls[{index}]");
            let Some(name) = tls.secret_name.as_deref().filter(|name| !name.is_empty()) else { continue };
            if tls.hosts.is_empty() {
                let remedy = "list the hosts that it is for";
                self.notes.push(Problem::new(
                    format!("{field}.hosts"),
                    "it names no host, so the Secret is not used",
                    remedy,
                ));
                continue;
            }
            let secret = ObjectKey::new(&self.ingress.meta.key.namespace, name);
            match certificates::of_secret(self.store, secrets, &secret) {
                Ok(certificate) => shown.extend(tls.hosts.iter().map(|host| Shown {
                    host: HostPattern::parse(Some(host)),
                    certificate: Arc::clone(&certificate),
                    field: field.clone(),
                })),
                Err((message, remedy)) => {
                    let message = format!("{message}, so its hosts are shown the default certificate");
                    self.refused.push(Problem::new(format!("{field}.secretName"), message, remedy));
                }
            }
        }
        shown
    }
}
