//! A plugin that responds to a request is never overtaken by a stored response: for every plugin of the registry, every
//! cache, every place where they are attached, and every order.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::Response;
use portico::plugin_api::consumers::plugins::{ConsumerPlugin, PluginSubject};
use portico::plugin_api::instance::{ExecutionPlace, PluginInstance};
use portico::plugin_api::services::OfflineServices;
use portico::plugin_api::{
    AccessOutcome, AnyPluginKind, ConsumerDirectory, Plugin, PluginServices, PluginState, ReplyBody, RequestCx, Scopes,
};
use portico::plugin_chain::chain::{AccessOrdering, AttachmentPoint, BaseScope, ChainBuilder, OverlayScope};
use portico::plugin_chain::testing::{
    TestOutcome, TestRequest, build_with, consumer, global_instance, instance, names,
};
use portico::plugins::REGISTRY;
use serde_json::{Value, json};

use crate::plugins::contract::minimal_config;

/// Where an object attaches a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Base(BaseScope),
    ConsumerAnd(OverlayScope),
    Consumer,
    GroupAnd(OverlayScope),
    Group,
}

const PLACES: [Place; 9] = [
    Place::Base(BaseScope::Route),
    Place::Base(BaseScope::Service),
    Place::Base(BaseScope::Global),
    Place::ConsumerAnd(OverlayScope::Route),
    Place::ConsumerAnd(OverlayScope::Service),
    Place::Consumer,
    Place::GroupAnd(OverlayScope::Route),
    Place::GroupAnd(OverlayScope::Service),
    Place::Group,
];

impl Place {
    fn is_possible(self, scopes: Scopes) -> bool {
        match self {
            Place::Base(BaseScope::Route) => scopes.route,
            Place::Base(BaseScope::Service) => scopes.service,
            Place::Base(BaseScope::Global) => scopes.global,
            Place::ConsumerAnd(_) | Place::Consumer => scopes.consumer,
            Place::GroupAnd(_) | Place::Group => scopes.consumer_group,
        }
    }
}

/// A built plugin.
#[derive(Clone)]
struct Built {
    kind: &'static dyn AnyPluginKind,
    plugin: Arc<dyn Plugin>,
}

impl Built {
    fn new(name: &str, config: &Value, state: &PluginState) -> Built {
        let kind = REGISTRY.find(name).unwrap_or_else(|| panic!("{name} is in the registry"));
        let services: Arc<dyn PluginServices> = Arc::new(OfflineServices);
        let plugin = build_with(kind, config, state, &services).unwrap_or_else(|invalid| panic!("{name}: {invalid:?}"));
        Built { kind, plugin }
    }
}

/// The consumer and the group of all requests, unless they are to have none.
struct Login;

impl Plugin for Login {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        cx.identity.consumer = Some(consumer("anna", &[]));
        cx.identity.add_consumer_groups(vec!["default/gold".into()]);
        AccessOutcome::Continue
    }
}

#[derive(Clone, Copy, Debug)]
enum Sent {
    /// A query of GraphQL in the URL.
    Get,
    /// The same in the body.
    Post,
}

impl Sent {
    fn request(self) -> TestRequest {
        const QUERY: &str = r#"{"query": "{ a }"}"#;
        let request = match self {
            Sent::Get => TestRequest::get("/a?query=%7B%20a%20%7D"),
            Sent::Post => TestRequest::post("/a", "application/json", QUERY).header("content-length", "18"),
        };
        request.header("user-agent", "evil")
    }
}

/// A plugin that responds and a cache, with their places.
type Pair<'p> = [(&'p Built, Place); 2];

/// The kind of the plugin that has an ordering.
type Ordering = Option<(&'static str, AccessOrdering)>;

/// Plugins with their places, for requests with a consumer or without one.
struct Site<'p> {
    plugins: &'p [(&'p Built, Place)],
    ordering: Ordering,
    logs_in: bool,
}

impl Site<'_> {
    async fn send(&self, sent: Sent) -> TestOutcome {
        let mut builder = ChainBuilder::default();
        let (mut of_consumer, mut of_group) = (Vec::new(), Vec::new());
        let base = AttachmentPoint::Base(BaseScope::Global);
        let login = instance_of_login(self.logs_in);
        builder.add("login", 2_000_000, base, login);
        for (Built { kind, plugin }, place) in self.plugins {
            let attached = instance(*kind, Arc::clone(plugin));
            let (name, priority) = (kind.name(), kind.priority());
            let alone =
                |instance| Arc::new(ConsumerPlugin { place: ExecutionPlace { kind: name, priority }, instance });
            let point = match place {
                Place::Consumer => {
                    of_consumer.push(alone(attached));
                    continue;
                }
                Place::Group => {
                    of_group.push(alone(attached));
                    continue;
                }
                Place::Base(scope) => {
                    let ordering = self.ordering.as_ref().filter(|(ordered, _)| *ordered == name);
                    let ordering = ordering.map(|(_, ordering)| Arc::new(ordering.clone()));
                    builder.order(name, *scope, ordering.as_ref());
                    AttachmentPoint::Base(*scope)
                }
                Place::ConsumerAnd(scope) => AttachmentPoint::Consumer("id-anna".into(), *scope),
                Place::GroupAnd(scope) => AttachmentPoint::Group("default/gold".into(), *scope),
            };
            builder.add(name, priority, point, attached);
        }
        let mut consumers = ConsumerDirectory::default();
        consumers.set_plugins(&PluginSubject::Consumer("id-anna".into()), of_consumer.into_iter().collect());
        consumers.set_plugins(&PluginSubject::Group("default/gold".into()), of_group.into_iter().collect());
        let mut request = sent.request().with_consumers(&consumers);
        let response = Response::builder().header("content-type", "application/json");
        let response = response.header("cache-control", "max-age=60").header("x-kong-limit", "videos=2");
        request.upstream_response = response.body(()).unwrap();
        request.upstream_body = STORED.into();
        request.run(&builder.build(names()).unwrap()).await
    }
}

fn instance_of_login(logs_in: bool) -> PluginInstance {
    struct Inactive;
    impl Plugin for Inactive {}
    global_instance(if logs_in { Arc::new(Login) } else { Arc::new(Inactive) })
}

/// A cache, and whether the content of a POST request may select what it sends.
fn caches(state: &PluginState) -> Vec<(Built, bool)> {
    let methods = json!({"strategy": "memory", "request_method": ["GET", "POST"]});
    let rfc9111 = json!({"strategy": "memory", "mode": "rfc9111"});
    let all = [
        ("proxy-cache", &methods, true),
        ("proxy-cache", &rfc9111, false),
        ("proxy-cache-advanced", &methods, true),
        ("proxy-cache-advanced", &rfc9111, false),
        ("graphql-proxy-cache-advanced", &json!({}), true),
    ];
    let known: BTreeSet<_> = all.iter().map(|(name, ..)| *name).collect();
    let registered = REGISTRY.iter().map(AnyPluginKind::name).filter(|name| name.contains("cache"));
    assert_eq!(known, registered.collect::<BTreeSet<_>>(), "all caches are here");
    all.map(|(name, config, takes_posts)| (Built::new(name, config, state), takes_posts)).into()
}

/// A configuration with which the plugin responds to one of the requests of these tests, or the second one of them.
fn answering_config(kind: &dyn AnyPluginKind) -> Value {
    match kind.name() {
        "bot-detection" => json!({"deny": ["evil"]}),
        "pre-function" | "post-function" => json!({"access": ["kong.response.exit(403, 'no')"]}),
        "json-threat-protection" => json!({"max_object_entry_name_length": 1}),
        "injection-protection" => json!({"custom_injections": [{"name": "any", "regex": "query"}]}),
        "request-size-limiting" => json!({"allowed_payload_size": 1, "size_unit": "bytes"}),
        "rate-limiting" => json!({"minute": 1}),
        "rate-limiting-advanced" | "graphql-rate-limiting-advanced" => json!({"limit": [1], "window_size": [60]}),
        "usage-plan" => json!({"plans": [{"name": "free", "quotas": {"day": 1}}]}),
        "response-ratelimiting" => json!({"limits": {"videos": {"minute": 1}}, "block_on_first_violation": true}),
        "jq" => json!({"request_jq_program": "error(\"no\")"}),
        "degraphql" => json!({"routes": [{"uri": "/other", "query": "{ me }"}]}),
        _ => minimal_config(kind),
    }
}

/// The request to which a plugin responds, with which status.
struct Answered {
    guard: Built,
    sent: Sent,
    logs_in: bool,
    status: http::StatusCode,
}

async fn answered(guard: Built) -> Option<Answered> {
    for (sent, logs_in) in [(Sent::Get, true), (Sent::Post, true), (Sent::Get, false)] {
        let plugins = [(&guard, Place::Base(BaseScope::Route))];
        let site = Site { plugins: &plugins, ordering: None, logs_in };
        site.send(sent).await;
        // Of a limit, the second request.
        if let Some(status) = site.send(sent).await.reply_status() {
            return Some(Answered { guard, sent, logs_in, status });
        }
    }
    None
}

fn is_stored_response(outcome: &TestOutcome) -> bool {
    let is_stored = |reply: &ReplyBody| matches!(reply, ReplyBody::Raw(body) if **body == *STORED.as_bytes());
    outcome.reply.as_ref().is_some_and(|reply| is_stored(&reply.body))
}

impl Answered {
    /// All chains of the plugin and a cache, each with its places and the order.
    fn sites<'p>(&'p self, cache: &'p Built) -> Vec<(Pair<'p>, Ordering)> {
        let (guard_name, cache_name) = (self.guard.kind.name(), cache.kind.name());
        let possible = |kind: &dyn AnyPluginKind| {
            let scopes = kind.scopes();
            PLACES.into_iter().filter(move |place| place.is_possible(scopes)).collect::<Vec<_>>()
        };
        let mut sites = Vec::new();
        for guard_place in possible(self.guard.kind) {
            for cache_place in possible(cache.kind) {
                let is_base = |place| matches!(place, Place::Base(_));
                let both_base = is_base(guard_place) && is_base(cache_place);
                // Without a consumer, only these plugins run.
                if !self.logs_in && !both_base {
                    continue;
                }
                let plugins = [(&self.guard, guard_place), (cache, cache_place)];
                sites.push((plugins, None));
                if both_base {
                    let names = vec![cache_name.to_owned()];
                    let after = AccessOrdering { after: names.clone(), ..AccessOrdering::default() };
                    let before = AccessOrdering { before: names, ..AccessOrdering::default() };
                    sites.extend([(plugins, Some((guard_name, after))), (plugins, Some((guard_name, before)))]);
                }
            }
        }
        sites
    }
}

/// docs/kong-compatibility.md, 4.24
#[tokio::test(start_paused = true)]
async fn plugins_that_answer_come_before_stored_responses() {
    let state = PluginState::default();
    let caches = caches(&state);
    let is_cache = |kind: &dyn AnyPluginKind| caches.iter().any(|(cache, _)| cache.kind.name() == kind.name());
    let (mut silent, mut answering) = (BTreeSet::new(), 0);
    for kind in REGISTRY.iter().filter(|kind| kind.phases().access && !is_cache(*kind)) {
        let guard = Built::new(kind.name(), &answering_config(kind), &state);
        let Some(answered) = answered(guard).await else {
            silent.insert(kind.name());
            continue;
        };
        answering += 1;
        let Answered { sent, logs_in, status, .. } = answered;
        for (cache, _) in caches.iter().filter(|(_, takes_posts)| *takes_posts || matches!(sent, Sent::Get)) {
            let alone = [(cache, Place::Base(BaseScope::Route))];
            let open = Site { plugins: &alone, ordering: None, logs_in };
            open.send(sent).await;
            let what = format!("{} and {}, {sent:?}", kind.name(), cache.kind.name());
            assert!(is_stored_response(&open.send(sent).await), "{what}: the cache has stored the response");
            for (plugins, ordering) in answered.sites(cache) {
                let what = format!("{what} at {:?}, {ordering:?}", plugins.map(|(_, place)| place));
                let outcome = Site { plugins: &plugins, ordering, logs_in }.send(sent).await;
                assert_eq!(outcome.reply_status(), Some(status), "{what}");
                assert!(!is_stored_response(&outcome), "{what}");
                assert_eq!(outcome.response_header("x-cache-status"), None, "{what}");
                assert_eq!(outcome.response_header("cache-status"), None, "{what}");
            }
        }
    }
    let silent: Vec<_> = silent.into_iter().collect();
    assert_eq!(silent, SILENT, "plugins that answer none of these requests; of others, {answering} do");
}

/// The plugins with an access phase that never respond to the requests of these tests, because they only change
/// requests or respond to other ones. A new plugin is either here, or has a configuration with which it responds.
const SILENT: &[&str] = &[
    "canary",
    "compression",
    "correlation-id",
    "cors",
    "mask",
    "opentelemetry",
    "request-transformer",
    "request-transformer-advanced",
    "route-by-header",
    "session",
    "soap",
    "upstream-timeout",
    "websocket-size-limit",
    "zipkin",
];

const STORED: &str = r#"{"data": {"a": 1}}"#;
