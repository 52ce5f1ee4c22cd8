//! Tests of plugins that run because a consumer or one of its groups has them.

use http::StatusCode;
use parking_lot::Mutex;

use std::sync::Arc;

use crate::plugin_api::consumers::plugins::{ConsumerPlugin, OrderedPlugins, PluginSubject};
use crate::plugin_api::consumers::{Consumer, ConsumerDirectory, EntityId};
use crate::plugin_api::instance::ExecutionPlace;
use crate::plugin_api::{AccessOutcome, LogCx, Plugin, Reply, RequestCx, ResponseCx, ResponseOutcome};
use crate::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder, OverlayScope};
use crate::plugin_chain::testing::{TestRequest, global_instance, names};

type Calls = Arc<Mutex<Vec<String>>>;

/// Records the phases in which it runs, and whether it gets the data of its own access phase.
struct RecordPhases(&'static str, Calls);

impl Plugin for RecordPhases {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        self.1.lock().push(format!("access {}", self.0));
        cx.set_plugin_data(self.0);
        AccessOutcome::Continue
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        let data = cx.plugin_data::<&str>().map_or("no data", |data| data);
        self.1.lock().push(format!("response {}: {data}", self.0));
        ResponseOutcome::Continue
    }

    fn log(&self, cx: &LogCx<'_>) {
        self.1.lock().push(format!("log {} in {}", self.0, cx.scope));
    }
}

/// Authenticates every request as this consumer.
struct Authenticate(Arc<Consumer>);

impl Plugin for Authenticate {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        cx.identity.consumer = Some(Arc::clone(&self.0));
        AccessOutcome::Continue
    }
}

struct Reject;

impl Plugin for Reject {
    fn access<'a>(&'a self, _: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        AccessOutcome::Reply(Reply::plain(StatusCode::FORBIDDEN, "no", "no"))
    }
}

fn plugin(kind: &'static str, priority: i32, plugin: impl Plugin) -> Arc<ConsumerPlugin> {
    let place = ExecutionPlace { kind, priority };
    Arc::new(ConsumerPlugin { place, instance: global_instance(Arc::new(plugin)) })
}

fn consumer(id: &str, groups: &[&str]) -> Arc<Consumer> {
    let groups = groups.iter().copied().map(Arc::from).collect();
    Consumer::new(EntityId::from_text(id), None, None, groups, Vec::new()).into()
}

fn of_consumer(id: &str) -> PluginSubject {
    PluginSubject::Consumer(id.into())
}

fn of_group(name: &str) -> PluginSubject {
    PluginSubject::Group(name.into())
}

/// A chain of plugins that are attached to the route, each with its name as kind.
struct RouteChain(ChainBuilder);

impl RouteChain {
    fn new() -> Self {
        RouteChain(ChainBuilder::default())
    }

    fn with(mut self, kind: &'static str, priority: i32, plugin: impl Plugin) -> Self {
        self.0.add(kind, priority, AttachmentPoint::Base(BaseScope::Route), global_instance(Arc::new(plugin)));
        self
    }

    async fn run(self, directory: &ConsumerDirectory) {
        TestRequest::get("/").with_consumers(directory).run(&self.0.build(names()).unwrap()).await;
    }
}

/// A directory in which `anna` has the plugins `early`, with priority 9, and `late`, with priority 3.
fn directory_of_anna(calls: &Calls) -> ConsumerDirectory {
    let record = |name| RecordPhases(name, Arc::clone(calls));
    let plugins = [plugin("late", 3, record("late")), plugin("early", 9, record("early"))];
    let mut directory = ConsumerDirectory::default();
    directory.set_plugins(&of_consumer("anna"), plugins.into_iter().collect());
    directory
}

// docs/kong-compatibility.md, 1.4
#[tokio::test]
async fn plugins_of_the_consumer_run_in_order_among_those_of_the_rule() {
    for (id, expected) in [
        (
            "anna",
            "access first, access middle, access late, access last, \
             response first: first, response middle: middle, response late: late, response last: last, \
             log first in global, log middle in global, log late in global, log last in global",
        ),
        (
            "bert",
            "access first, access middle, access last, response first: first, response middle: middle, \
             response last: last, log first in global, log middle in global, log last in global",
        ),
    ] {
        let calls = Calls::default();
        let record = |name| RecordPhases(name, Arc::clone(&calls));
        let chain = RouteChain::new()
            .with("first", 10, record("first"))
            .with("auth", 8, Authenticate(consumer(id, &[])))
            .with("middle", 5, record("middle"))
            .with("last", 1, record("last"));
        chain.run(&directory_of_anna(&calls)).await;
        assert_eq!(calls.lock().join(", "), expected, "{id}");
    }
}

// docs/kong-compatibility.md, 1.4
#[tokio::test]
async fn response_and_log_phases_run_if_a_later_plugin_of_the_rule_replies() {
    for (reject_priority, expected) in [
        (9, ""),
        (5, "response late: no data, log late in global"),
        (1, "access late, response late: late, log late in global"),
    ] {
        let calls = Calls::default();
        let chain = RouteChain::new().with("auth", 8, Authenticate(consumer("anna", &[]))).with(
            "reject",
            reject_priority,
            Reject,
        );
        chain.run(&directory_of_anna(&calls)).await;
        assert_eq!(calls.lock().join(", "), expected, "rejected by a plugin with priority {reject_priority}");
    }
}

// docs/kong-compatibility.md, 1.4
#[tokio::test]
async fn each_plugin_belongs_to_the_consumer_at_its_turn() {
    let calls = Calls::default();
    let record = |name| RecordPhases(name, Arc::clone(&calls));
    let mut directory = ConsumerDirectory::default();
    directory.set_plugins(
        &of_consumer("anna"),
        [plugin("one", 7, record("one of anna")), plugin("two", 3, record("two of anna"))].into_iter().collect(),
    );
    directory.set_plugins(
        &of_consumer("bert"),
        [plugin("one", 7, record("one of bert")), plugin("two", 3, record("two of bert"))].into_iter().collect(),
    );
    let chain = RouteChain::new().with("auth", 8, Authenticate(consumer("anna", &[]))).with(
        "other-auth",
        5,
        Authenticate(consumer("bert", &[])),
    );
    chain.run(&directory).await;
    let ran = calls.lock().iter().filter(|call| call.starts_with("response")).cloned().collect::<Vec<_>>();
    assert_eq!(ran, ["response one of anna: one of anna", "response two of bert: two of bert"]);
}

// docs/kong-compatibility.md, 1.4, 7.3
#[tokio::test]
async fn consumer_takes_precedence_over_groups_and_groups_are_ordered_by_name() {
    let many: Vec<_> = (0..20).map(|number| format!("group-{number:02}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).rev().collect();
    for (id, groups, expected) in [
        ("anna", &["gold", "silver"][..], "anna"),
        ("bert", &["silver", "gold"], "gold"),
        ("bert", &["silver"], "silver"),
        ("bert", &["other"], "base"),
        ("bert", &many, "group-00"),
    ] {
        let calls = Calls::default();
        let record = |name| RecordPhases(name, Arc::clone(&calls));
        let mut directory = ConsumerDirectory::default();
        let mut set = |subject: PluginSubject, name| {
            directory.set_plugins(&subject, [plugin("limit", 1, record(name))].into_iter().collect());
        };
        set(of_consumer("anna"), "anna");
        set(of_group("silver"), "silver");
        set(of_group("gold"), "gold");
        many.iter().for_each(|name| set(of_group(name), if *name == "group-00" { "group-00" } else { "later group" }));
        let chain =
            RouteChain::new().with("auth", 2, Authenticate(consumer(id, groups))).with("limit", 1, record("base"));
        chain.run(&directory).await;
        assert_eq!(calls.lock()[0], format!("access {expected}"), "{id} of {groups:?}");
    }
}

/// Accepts every request without a consumer, as a client in these groups.
struct FindGroups(Vec<Arc<str>>);

impl Plugin for FindGroups {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        cx.identity.add_consumer_groups(self.0.clone());
        AccessOutcome::Continue
    }
}

// docs/kong-compatibility.md, 5.1
#[tokio::test]
async fn groups_that_a_plugin_has_found_select_plugins_as_those_of_consumers() {
    let gold = "access limit of gold, access gold only, response limit of gold: limit of gold, \
                response gold only: gold only, log limit of gold in global, log gold only in global";
    for (found, consumer_groups, expected) in [
        (&["other", "gold"][..], None, gold),
        (&["gold"], Some(&[][..]), gold),
        // Together with the groups of the consumer, by name.
        (&["silver"], Some(&["gold"]), gold),
        (
            &["silver"],
            Some(&["bronze"]),
            "access limit of silver, response limit of silver: limit of silver, log limit of silver in global",
        ),
        (&["other"], None, "access base, response base: base, log base in global"),
    ] {
        let calls = Calls::default();
        let record = |name| RecordPhases(name, Arc::clone(&calls));
        let mut directory = ConsumerDirectory::default();
        let of_gold = [plugin("only", 1, record("gold only"))];
        directory.set_plugins(&of_group("gold"), of_gold.into_iter().collect());
        let mut chain = RouteChain::new();
        if let Some(groups) = consumer_groups {
            chain = chain.with("consumer", 9, Authenticate(consumer("anna", groups)));
        }
        let found = FindGroups(found.iter().copied().map(Arc::from).collect());
        let mut chain = chain.with("auth", 8, found).with("limit", 5, record("base"));
        for (group, name) in [("gold", "limit of gold"), ("silver", "limit of silver")] {
            let point = AttachmentPoint::Group(group.into(), OverlayScope::Route);
            chain.0.add("limit", 5, point, global_instance(Arc::new(record(name))));
        }
        chain.run(&directory).await;
        assert_eq!(calls.lock().join(", "), expected, "{consumer_groups:?}");
    }
}

#[test]
fn entries_are_ordered_and_have_one_plugin_of_each_kind() {
    let mut directory = ConsumerDirectory::default();
    let plugins = [plugin("a", 1, Reject), plugin("b", 1, Reject), plugin("c", 2, Reject), plugin("b", 1, Reject)];
    let first_b = Arc::clone(&plugins[1]);
    directory.set_plugins(&of_group("gold"), plugins.into_iter().collect());
    let entry: Vec<_> = directory.plugins_of(&of_group("gold")).unwrap().iter().collect();
    assert_eq!(entry.iter().map(|plugin| plugin.place.kind).collect::<Vec<_>>(), ["c", "b", "a"]);
    assert!(Arc::ptr_eq(entry[1], &first_b), "the first plugin of a kind is kept");
    assert!(directory.plugins_of(&of_consumer("gold")).is_none(), "a consumer with the same name");
}

#[test]
fn fingerprint_covers_plugins_and_not_the_order_of_changes() {
    let reject = plugin("a", 1, Reject);
    let mut other = (*reject).clone();
    other.instance.configuration_hash = 1;
    let other = Arc::new(other);
    let fingerprint = |changes: &[(&str, &[&Arc<ConsumerPlugin>])]| {
        let mut directory = ConsumerDirectory::default();
        for (id, plugins) in changes {
            directory.set_plugins(&of_consumer(id), plugins.iter().copied().cloned().collect());
        }
        directory.fingerprint
    };
    let both = fingerprint(&[("anna", &[&reject]), ("bert", &[&other])]);
    assert_eq!(both, fingerprint(&[("bert", &[&reject]), ("bert", &[&other]), ("anna", &[&reject])]));
    assert_ne!(both, fingerprint(&[("anna", &[&other]), ("bert", &[&reject])]));
    assert_eq!(fingerprint(&[("anna", &[&reject]), ("anna", &[])]), 0);
}

#[test]
fn directory_without_plugins_stores_no_maps() {
    let mut directory = ConsumerDirectory::default();
    directory.set_plugins(&of_consumer("anna"), [plugin("a", 1, Reject)].into_iter().collect());
    directory.set_plugins(&of_consumer("anna"), [plugin("b", 1, Reject)].into_iter().collect());
    directory.set_plugins(&of_group("gold"), [plugin("b", 1, Reject)].into_iter().collect());
    directory.set_plugins(&of_consumer("bert"), OrderedPlugins::default());
    directory.set_plugins(&of_consumer("anna"), OrderedPlugins::default());
    assert!(directory.plugins.is_some(), "the group has a plugin");
    directory.set_plugins(&of_group("gold"), OrderedPlugins::default());
    assert!(directory.plugins.is_none());
}
