//! Tests of chains: which instances run for a request, in which order and in which phases.

mod consumer_plugins;

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::*;
use crate::plugin_api::consumers::plugins::{ConsumerPlugin, OrderedPlugins, PluginSubject};
use crate::plugin_api::consumers::{Consumer, EntityId};
use crate::plugin_api::instance::{ExecutionPlace, PluginInstance};
use crate::plugin_api::kind::Phases;
use crate::plugin_api::{ArrivedRequest, ClientCertificate, Scheme};
use crate::plugin_chain::testing::{TestCaptures, TestRequest, names};

/// Replies with this status.
struct RejectAll(u16);

impl Plugin for RejectAll {
    fn access<'a>(&'a self, _: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        AccessOutcome::Reply(Reply::plain(StatusCode::from_u16(self.0).unwrap(), "no", "no"))
    }
}

/// Authenticates every request as this consumer.
struct AuthenticateAs(Arc<Consumer>);

impl Plugin for AuthenticateAs {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        cx.identity.consumer = Some(Arc::clone(&self.0));
        AccessOutcome::Continue
    }
}

fn instance(plugin: impl Plugin) -> PluginInstance {
    let (scope, object) = ("global".into(), "KongPlugin/default/test".into());
    PluginInstance {
        plugin: Arc::new(plugin),
        phases: Phases::ACCESS,
        scope,
        object,
        configuration_hash: 0,
        first_backend: 0,
        assertions: None,
    }
}

fn consumer_id(number: u16) -> Arc<str> {
    format!("consumer {number}").into()
}

/// The status of a request that is authenticated as the consumer with this id.
async fn status_for(mut builder: ChainBuilder, id: &str) -> u16 {
    let consumer = Consumer::new(EntityId::from_text(id), None, None, Vec::new(), Vec::new());
    builder.add("auth", 2, AttachmentPoint::Base(BaseScope::Route), instance(AuthenticateAs(consumer.into())));
    let chain = builder.build(names()).unwrap();
    TestRequest::get("/").run(&chain).await.reply_status().map_or(200, |status| status.as_u16())
}

#[tokio::test]
async fn base_instance_applies_beyond_65536_overlays() {
    for (consumer, expected) in [("consumer 65535", 402), ("consumer 0", 402), ("another consumer", 401)] {
        let mut builder = ChainBuilder::default();
        for number in 0..=u16::MAX {
            let point = AttachmentPoint::Consumer(consumer_id(number), OverlayScope::Route);
            builder.add("guard", 1, point, instance(RejectAll(402)));
        }
        // The index of the base instance exceeds 16 bits.
        builder.add("guard", 1, AttachmentPoint::Base(BaseScope::Route), instance(RejectAll(401)));
        assert_eq!(builder.slots[0].instances.len(), 65_537);
        assert_eq!(status_for(builder, consumer).await, expected, "{consumer}");
    }
}

#[tokio::test]
async fn shared_instances_are_stored_once() {
    let shared = instance(RejectAll(402));
    let mut builder = ChainBuilder::default();
    for number in 0..1000 {
        builder.add("guard", 1, AttachmentPoint::Consumer(consumer_id(number), OverlayScope::Route), shared.clone());
    }
    let other_scope = PluginInstance { scope: "Service/a/b:80".into(), ..shared.clone() };
    builder.add("guard", 1, AttachmentPoint::Consumer(consumer_id(7), OverlayScope::Service), other_scope.clone());
    builder.add("guard", 1, AttachmentPoint::Consumer(consumer_id(1000), OverlayScope::Service), other_scope);
    builder.add("guard", 1, AttachmentPoint::Base(BaseScope::Route), instance(RejectAll(401)));
    let slot = &builder.slots[0];
    assert_eq!(slot.instances.len(), 3);
    assert_eq!(
        (slot.consumers[&consumer_id(7)].1, slot.consumers[&consumer_id(1000)].1, slot.base.unwrap().1),
        (0, 1, 2)
    );
    assert_eq!(status_for(builder, "consumer 999").await, 402);
}

/// Where the plugin of a test is attached.
enum Attached {
    ToRule(AttachmentPoint),
    ToSubject(PluginSubject),
}

/// All attachment points in the order of precedence, each with the status of its plugin: 401 for the first point,
/// 402 for the second, and so on.
fn attachment_points() -> Vec<(Attached, u16)> {
    let consumer = |scope| Attached::ToRule(AttachmentPoint::Consumer("anna".into(), scope));
    let group = |scope| Attached::ToRule(AttachmentPoint::Group("a/gold".into(), scope));
    let points = [
        consumer(OverlayScope::Route),
        consumer(OverlayScope::Service),
        group(OverlayScope::Route),
        group(OverlayScope::Service),
        Attached::ToSubject(PluginSubject::Consumer("anna".into())),
        Attached::ToSubject(PluginSubject::Group("a/gold".into())),
        Attached::ToRule(AttachmentPoint::Base(BaseScope::Route)),
        Attached::ToRule(AttachmentPoint::Base(BaseScope::Service)),
        Attached::ToRule(AttachmentPoint::Base(BaseScope::Global)),
    ];
    points.into_iter().zip(401..).collect()
}

/// The plugin of a consumer or group.
fn consumer_plugin(kind: &'static str, priority: i32, instance: PluginInstance) -> OrderedPlugins {
    let place = ExecutionPlace { kind, priority };
    [Arc::new(ConsumerPlugin { place, instance })].into_iter().collect()
}

// docs/kong-compatibility.md, 1.4
#[tokio::test]
async fn only_the_most_specific_instance_runs() {
    let consumer =
        |id: &str, group: &str| Consumer::new(EntityId::from_text(id), None, None, vec![group.into()], Vec::new());
    let base_only: &[usize] = &[6, 7, 8];
    // (id of the consumer, its group, indexes of the attachment points that apply to the consumer)
    for (id, group, applicable) in [
        ("anna", "a/gold", &[0, 1, 2, 3, 4, 5, 6, 7, 8][..]),
        ("anna", "a/silver", &[0, 1, 4, 6, 7, 8]),
        ("bert", "a/gold", &[2, 3, 5, 6, 7, 8]),
        ("bert", "a/silver", base_only),
    ] {
        // Each round leaves out one more of the most specific instances. The order of adding must not matter.
        for left_out in 0..=applicable.len() {
            for is_reversed in [false, true] {
                let mut attached: Vec<_> = attachment_points();
                attached.retain(|(_, status)| !applicable[..left_out].contains(&usize::from(status - 401)));
                if is_reversed {
                    attached.reverse();
                }
                let mut builder = ChainBuilder::default();
                let auth = instance(AuthenticateAs(consumer(id, group).into()));
                builder.add("auth", 2, AttachmentPoint::Base(BaseScope::Route), auth);
                let mut directory = ConsumerDirectory::default();
                for (point, status) in attached {
                    let instance = instance(RejectAll(status));
                    match point {
                        Attached::ToRule(point) => builder.add("guard", 1, point, instance),
                        Attached::ToSubject(subject) => {
                            directory.set_plugins(&subject, consumer_plugin("guard", 1, instance));
                        }
                    }
                }
                let request = TestRequest::get("/").with_consumers(&directory);
                let outcome = request.run(&builder.build(names()).unwrap()).await;
                let expected = applicable.get(left_out).map(|index| 401 + u16::try_from(*index).unwrap());
                let status = outcome.reply_status().map(|status| status.as_u16());
                assert_eq!(status, expected, "{id} of {group}, without {:?}", &applicable[..left_out]);
            }
        }
    }
}

/// Appends its name to the `x-ran` headers.
struct RecordRun(&'static str);

impl Plugin for RecordRun {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        cx.head.headers.append("x-ran", HeaderValue::from_static(self.0));
        AccessOutcome::Continue
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.request.add(&http::HeaderName::from_static("x-ran"));
    }
}

// docs/kong-compatibility.md, 1.4
#[tokio::test]
async fn plugins_run_by_priority_and_see_the_consumer_after_auth() {
    let mut builder = ChainBuilder::default();
    let name = |kind, attached_to| &*Box::leak(format!("{kind} {attached_to}").into_boxed_str());
    let mut of_anna = Vec::new();
    for (kind, priority) in [("after", 1), ("b-before", 3), ("a-before", 3)] {
        let base = instance(RecordRun(name(kind, "base")));
        builder.add(kind, priority, AttachmentPoint::Base(BaseScope::Global), base);
        let (place, instance) = (ExecutionPlace { kind, priority }, instance(RecordRun(name(kind, "for anna"))));
        of_anna.push(Arc::new(ConsumerPlugin { place, instance }));
    }
    let mut directory = ConsumerDirectory::default();
    directory.set_plugins(&PluginSubject::Consumer("anna".into()), of_anna.into_iter().collect());
    let anna = Consumer::new(EntityId::from_text("anna"), None, None, Vec::new(), Vec::new());
    builder.add("auth", 2, AttachmentPoint::Base(BaseScope::Route), instance(AuthenticateAs(anna.into())));
    let outcome = TestRequest::get("/").with_consumers(&directory).run(&builder.build(names()).unwrap()).await;
    let ran: Vec<_> = outcome.request.headers.get_all("x-ran").iter().map(|name| name.to_str().unwrap()).collect();
    assert_eq!(ran, ["b-before base", "a-before base", "after for anna"]);
}

/// Identifies the consumer and then waits forever.
struct WaitAs(Arc<Consumer>);

impl Plugin for WaitAs {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        AccessOutcome::Wait(Box::pin(async move {
            cx.identity.consumer = Some(Arc::clone(&self.0));
            std::future::pending().await
        }))
    }
}

/// Counts the runs of its log phase.
struct CountLogs(Arc<AtomicUsize>);

impl Plugin for CountLogs {
    fn log(&self, _: &LogCx<'_>) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn plugin_of_the_consumer_logs_a_request_that_is_aborted_during_authentication() {
    let anna = Arc::new(Consumer::new(EntityId::from_text("anna"), None, None, Vec::new(), Vec::new()));
    let mut builder = ChainBuilder::default();
    builder.add("auth", 2, AttachmentPoint::Base(BaseScope::Route), instance(WaitAs(anna)));
    let chain = builder.build(names()).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let logging = PluginInstance { phases: Phases::LOG, ..instance(CountLogs(Arc::clone(&count))) };
    let mut directory = ConsumerDirectory::default();
    directory.set_plugins(&PluginSubject::Consumer("anna".into()), consumer_plugin("log", 1, logging));
    let (mut head, ()) = http::Request::new(()).into_parts();
    let mut state = ChainState::default();
    let address = std::net::IpAddr::from([192, 0, 2, 1]);
    let (scheme, host, port) = (Scheme::Http, "test.example", 80);
    let client = ClientInfo {
        address,
        scheme,
        host,
        port,
        separate_port: None,
        received: ArrivedRequest { peer: (address, 40_000).into(), scheme, host, port },
        is_peer_trusted: false,
        certificate: ClientCertificate::NotRequested,
    };
    let request = ChainRequest {
        head: &mut head,
        path: "/",
        query: None,
        raw_target: "/",
        client,
        framing: Framing::default(),
        id: &HeaderValue::from_static("0123456789abcdef0123456789abcdef"),
        body: RequestBodyState::Absent,
        consumers: &directory,
        now: SystemTime::UNIX_EPOCH,
        uri_captures: &TestCaptures::default(),
    };
    tokio::time::timeout(Duration::from_secs(1), chain.access(request, &mut state)).await.unwrap_err();
    let summary = RequestSummary {
        status: StatusCode::REQUEST_TIMEOUT,
        source: ResponseSource::Proxy,
        total: Duration::ZERO,
        upstream: None,
        bytes_in: 0,
        bytes_out: 0,
    };
    let completed = CompletedRequest {
        id: &HeaderValue::from_static("0123456789abcdef0123456789abcdef"),
        started_at: SystemTime::UNIX_EPOCH,
        started_instant: tokio::time::Instant::now(),
        heads: None,
        tls: None,
        attempts: &[],
        authorizations: &[],
        before_upstream: None,
        until_response: None,
        error: None,
        credentials: chain.credential_locations(),
    };
    chain.log(&state, &summary, &completed);
    assert_eq!(count.load(Relaxed), 1);
}

#[test]
fn phases_of_every_instance_and_of_consumers_run() {
    let state_with = |consumer_plugins| ChainState { consumer_plugins, ..ChainState::default() };
    let with_phases = |phases| PluginInstance { phases, ..instance(RejectAll(401)) };
    let mut builder = ChainBuilder::default();
    builder.add("guard", 1, AttachmentPoint::Base(BaseScope::Route), with_phases(Phases::ACCESS));
    let chain = builder.build(names()).unwrap();
    let runs = |chain: &Chain, state: &ChainState| (chain.may_change_response(state), chain.may_log(state));
    assert_eq!(runs(&chain, &state_with(None)), (false, false));
    assert_eq!(runs(&chain, &state_with(Some(Arc::default()))), (true, true));
    for (phases, expected) in [(Phases::RESPONSE, (true, false)), (Phases::LOG, (false, true))] {
        let mut builder = ChainBuilder::default();
        builder.add("guard", 1, AttachmentPoint::Base(BaseScope::Route), with_phases(Phases::ACCESS));
        let of_anna = AttachmentPoint::Consumer("anna".into(), OverlayScope::Route);
        builder.add("guard", 1, of_anna, with_phases(phases));
        assert_eq!(runs(&builder.build(names()).unwrap(), &state_with(None)), expected, "{phases:?}");
    }
}

/// Continues without waiting.
struct AtOnce;

impl Plugin for AtOnce {
    fn may_wait(&self) -> bool {
        false
    }
}

#[test]
fn access_phase_may_wait_for_any_plugin() {
    let chain = |instance| {
        let mut builder = ChainBuilder::default();
        builder.add("first", 2, AttachmentPoint::Base(BaseScope::Route), self::instance(AtOnce));
        builder.add("second", 1, AttachmentPoint::Consumer("anna".into(), OverlayScope::Route), instance);
        builder.build(names()).unwrap()
    };
    let mut directory = ConsumerDirectory::default();
    assert!(!chain(instance(AtOnce)).may_wait(&directory));
    assert!(chain(instance(RejectAll(401))).may_wait(&directory), "a plugin of the chain does not exclude it");
    let only_logs = PluginInstance { phases: Phases::LOG, ..instance(RejectAll(401)) };
    assert!(!chain(only_logs).may_wait(&directory), "a plugin without an access phase");
    let anna = PluginSubject::Consumer("anna".into());
    for (instance, expected) in [(instance(RejectAll(401)), true), (instance(AtOnce), false)] {
        directory.set_plugins(&anna, consumer_plugin("guard", 1, instance));
        assert_eq!(chain(self::instance(AtOnce)).may_wait(&directory), expected);
    }
}

struct BufferBody;

impl Plugin for BufferBody {
    fn body_buffer_limit(&self) -> Option<usize> {
        Some(1)
    }
}

#[test]
fn all_instances_of_the_rule_may_buffer_the_body() {
    let (anna, group): (Arc<str>, Arc<str>) = ("anna".into(), "a/group".into());
    let overlays = |scope| {
        [AttachmentPoint::Consumer(Arc::clone(&anna), scope), AttachmentPoint::Group(Arc::clone(&group), scope)]
    };
    let cases = [
        (vec![AttachmentPoint::Base(BaseScope::Global)], Some(1)),
        (overlays(OverlayScope::Route).into(), Some(1)),
        (overlays(OverlayScope::Service).into(), Some(1)),
    ];
    for (points, expected) in cases {
        let mut builder = ChainBuilder::default();
        let plugin: Arc<dyn Plugin> = Arc::new(BufferBody);
        for point in points.clone() {
            let instance = PluginInstance {
                plugin: Arc::clone(&plugin),
                phases: Phases::ACCESS,
                scope: "global".into(),
                object: "KongPlugin/a/reader".into(),
                configuration_hash: 0,
                first_backend: 0,
                assertions: None,
            };
            builder.add("reader", 1, point, instance);
        }
        let chain = builder.build(names()).unwrap();
        assert_eq!(chain.body_buffer_limit(), expected, "{points:?}");
        assert_eq!(chain.slots[0].instances.len(), 1, "{points:?}: the instance is stored once");
    }
}

/// The request may have been aborted before the scope of the consumers was applied.
#[test]
fn groups_outside_the_scope_select_no_plugins_for_later_phases() {
    let of = |object: &str| PluginInstance { object: object.into(), ..instance(RejectAll(402)) };
    let mut directory = ConsumerDirectory::default();
    directory.set_plugins(&PluginSubject::Group("other/gold".into()), consumer_plugin("extra", 1, of("group alone")));
    let of_scope = |scope| {
        let mut builder = ChainBuilder::default();
        builder.limit_consumers(scope);
        builder.add("guard", 2, AttachmentPoint::Base(BaseScope::Route), of("base"));
        builder.add("guard", 2, AttachmentPoint::Group("other/gold".into(), OverlayScope::Route), of("group"));
        let chain = builder.build(names()).unwrap();
        let identity = Identity { found_consumer_groups: vec!["other/gold".into()], ..Identity::default() };
        let state = ChainState { identity, consumer_plugins: directory.plugins.clone(), ..ChainState::default() };
        let rest = chain.select_rest(&state);
        let objects = rest.iter().map(|selected| chain.instance(selected.as_selection()).1.object.to_string());
        objects.collect::<Vec<_>>()
    };
    assert_eq!(of_scope(ConsumerScope::Cluster), ["group", "group alone"]);
    assert_eq!(
        of_scope(ConsumerScope::Namespaces(["default".into(), "other".into()].into())),
        ["group", "group alone"]
    );
    assert_eq!(of_scope(ConsumerScope::Namespaces(["default".into()].into())), ["base"]);
}

/// Appends its name and the phase to a list.
struct RecordPhase(&'static str, Arc<parking_lot::Mutex<Vec<String>>>);

impl Plugin for RecordPhase {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let RecordPhase(name, ran) = self;
        ran.lock().push(format!("access {name}"));
        cx.set_plugin_data(*name);
        AccessOutcome::Continue
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        assert_eq!(cx.plugin_data::<&str>().map(|name| *name), Some(self.0), "each has its own data");
        self.1.lock().push(format!("response {}", self.0));
        ResponseOutcome::Continue
    }
}

// docs/kong-compatibility.md, 1.3
#[tokio::test]
async fn ordering_changes_the_access_phase_only() {
    let ran = Arc::default();
    let record = |name| PluginInstance {
        phases: Phases { access: true, response: true, ..Phases::default() },
        ..instance(RecordPhase(name, Arc::clone(&ran)))
    };
    let consumer = Arc::new(Consumer::new(EntityId::from_text("anna"), None, None, Vec::new(), Vec::new()));
    // The consumer is unknown when the limit has its turn, so the limit of the consumer does not run later either.
    let mut directory = ConsumerDirectory::default();
    directory.set_plugins(
        &PluginSubject::Consumer("anna".into()),
        [("limit", 1, "limit of anna"), ("other", 2, "other of anna")]
            .map(|(kind, priority, name)| {
                let place = ExecutionPlace { kind, priority };
                Arc::new(ConsumerPlugin { place, instance: record(name) })
            })
            .into_iter()
            .collect(),
    );
    for (before, expected) in [
        (
            None,
            "access first, access other of anna, access limit of anna, \
                response first, response other of anna, response limit of anna",
        ),
        (
            Some("auth"),
            "access first, access limit, access other of anna, \
                        response first, response other of anna, response limit",
        ),
        (
            Some("first"),
            "access limit, access first, access other of anna, \
                         response first, response other of anna, response limit",
        ),
        // Its place is after the authentication, so the consumer's own limit runs.
        (
            Some("last"),
            "access first, access other of anna, access limit of anna, \
                        response first, response other of anna, response limit of anna",
        ),
    ] {
        let mut builder = ChainBuilder::default();
        let at_route = || AttachmentPoint::Base(BaseScope::Route);
        builder.add("first", 9, at_route(), record("first"));
        builder.add("auth", 5, at_route(), instance(AuthenticateAs(Arc::clone(&consumer))));
        builder.add("limit", 1, at_route(), record("limit"));
        let ordering = before
            .map(|kind: &str| Arc::new(AccessOrdering { before: vec![kind.to_owned()], ..AccessOrdering::default() }));
        builder.order("limit", BaseScope::Route, ordering.as_ref());
        assert_eq!(builder.contradictory_order(), None);
        let chain = builder.build(names()).unwrap();
        ran.lock().clear();
        TestRequest::get("/").with_consumers(&directory).run(&chain).await;
        assert_eq!(ran.lock().join(", "), expected, "{before:?}");
    }
}
