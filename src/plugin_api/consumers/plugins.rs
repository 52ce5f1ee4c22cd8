//! The plugins that only consumers and groups refer to. They run on the requests of these consumers, on all rules.
//!
//! The chains of rules do not contain these plugins. A chain looks them up when an authentication plugin has identified
//! the consumer, so a change of one consumer changes one entry here, whatever the number of rules.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use smallvec::SmallVec;

use super::{Consumer, MapIndex, PersistentMap};
use crate::plugin_api::instance::{ExecutionPlace, PluginInstance};

/// The plugins of all consumers and groups that have any.
#[derive(Clone, Debug, Default)]
pub struct ConsumerPlugins {
    consumers: PersistentMap<BySubject>,
    groups: PersistentMap<BySubject>,
    /// The number of entries with a plugin that reads heads in the log phase.
    log_heads: usize,
    /// The number of entries with a plugin that may wait in the access phase, or for the body.
    may_wait: usize,
}

/// A consumer or a group, as the object of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PluginSubject {
    /// By id.
    Consumer(Arc<str>),
    /// By name.
    Group(Arc<str>),
}

/// A plugin that runs for consumers or groups, with its place among the other plugins of a request.
#[derive(Clone)]
pub struct ConsumerPlugin {
    pub place: ExecutionPlace,
    pub instance: PluginInstance,
}

/// Plugins in the order of execution, at most one of each kind.
#[derive(Debug, Default)]
pub struct OrderedPlugins(Box<[Arc<ConsumerPlugin>]>);

/// The plugins of one consumer or group.
#[derive(Debug)]
pub struct SubjectPlugins {
    /// Id of the consumer, or name of the group.
    name: Arc<str>,
    plugins: OrderedPlugins,
}

/// The index of [`SubjectPlugins`] by name.
#[derive(Debug)]
pub struct BySubject;

impl MapIndex for BySubject {
    type Entry = Arc<SubjectPlugins>;
    type Key = [u8];

    fn key(entry: &Arc<SubjectPlugins>) -> Option<&[u8]> {
        Some(entry.name.as_bytes())
    }
}

impl ConsumerPlugins {
    pub fn is_empty(&self) -> bool {
        self.consumers.is_empty() && self.groups.is_empty()
    }

    /// Whether a plugin reads the heads of requests and responses in the log phase.
    pub fn logs_heads(&self) -> bool {
        self.log_heads > 0
    }

    /// Whether a plugin may wait in the access phase, or for the body.
    pub fn may_wait(&self) -> bool {
        self.may_wait > 0
    }

    /// The plugins of a consumer or group. `None` if there are none.
    pub fn of(&self, subject: &PluginSubject) -> Option<&OrderedPlugins> {
        let entry = match subject {
            PluginSubject::Consumer(id) => self.consumers.get(&**id),
            PluginSubject::Group(name) => self.groups.get(&**name),
        };
        entry.map(|entry| &entry.plugins)
    }

    /// Replaces the plugins of a consumer or group.
    pub(super) fn set(&mut self, subject: &PluginSubject, plugins: OrderedPlugins) {
        self.log_heads -= usize::from(self.of(subject).is_some_and(OrderedPlugins::logs_heads));
        self.may_wait -= usize::from(self.of(subject).is_some_and(OrderedPlugins::may_wait));
        let (map, name) = match subject {
            PluginSubject::Consumer(id) => (&mut self.consumers, id),
            PluginSubject::Group(name) => (&mut self.groups, name),
        };
        if plugins.is_empty() {
            return map.remove(&**name);
        }
        self.log_heads += usize::from(plugins.logs_heads());
        self.may_wait += usize::from(plugins.may_wait());
        map.insert(Arc::new(SubjectPlugins { name: Arc::clone(name), plugins }));
    }

    /// All entries, sorted: consumers by id, then groups by name.
    pub fn entries(&self) -> Vec<(PluginSubject, &OrderedPlugins)> {
        let consumers =
            self.consumers.iter().map(|entry| (PluginSubject::Consumer(Arc::clone(&entry.name)), &entry.plugins));
        let groups = self.groups.iter().map(|entry| (PluginSubject::Group(Arc::clone(&entry.name)), &entry.plugins));
        let mut entries: Vec<_> = consumers.chain(groups).collect();
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        entries
    }
}

impl ConsumerPlugin {
    /// Whether both are the same built plugin, attached in the same way.
    pub fn is_same(&self, other: &ConsumerPlugin) -> bool {
        self.place == other.place && self.instance == other.instance
    }
}

impl OrderedPlugins {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<ConsumerPlugin>> {
        self.0.iter()
    }

    fn logs_heads(&self) -> bool {
        self.iter().any(|plugin| plugin.instance.plugin.logs_heads())
    }

    fn may_wait(&self) -> bool {
        let reads_body = |plugin: &ConsumerPlugin| plugin.instance.plugin.body_buffer_limit().is_some();
        self.iter().any(|plugin| plugin.instance.may_wait() || reads_body(plugin))
    }
}

impl FromIterator<Arc<ConsumerPlugin>> for OrderedPlugins {
    /// Sorts the plugins. Of several plugins of one kind, the first one is kept.
    fn from_iter<I: IntoIterator<Item = Arc<ConsumerPlugin>>>(plugins: I) -> Self {
        let mut plugins: Vec<_> = plugins.into_iter().collect();
        // The sort is stable, and plugins of one kind have the same place.
        plugins.sort_by_key(|plugin| plugin.place);
        plugins.dedup_by_key(|plugin| plugin.place);
        OrderedPlugins(plugins.into())
    }
}

impl PartialEq for OrderedPlugins {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.iter().zip(other.iter()).all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

impl Hash for ConsumerPlugin {
    /// Covers what the fingerprint of the directory depends on. The hash is equal in every process, and does not reveal
    /// the configuration.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let PluginInstance { scope, object, configuration_hash, .. } = &self.instance;
        (self.place.kind, scope, object, configuration_hash).hash(hasher);
    }
}

impl PluginSubject {
    /// The hash of the subject with these plugins, equal in every process; 0 without plugins.
    pub(super) fn content_hash(&self, plugins: Option<&OrderedPlugins>) -> u64 {
        let Some(plugins) = plugins else { return 0 };
        let mut hasher = DefaultHasher::new();
        match self {
            PluginSubject::Consumer(id) => ("consumer", id).hash(&mut hasher),
            PluginSubject::Group(name) => ("group", name).hash(&mut hasher),
        }
        plugins.0.hash(&mut hasher);
        hasher.finish()
    }
}

impl fmt::Display for PluginSubject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PluginSubject::Consumer(id) => write!(formatter, "Consumer {id}"),
            PluginSubject::Group(name) => write!(formatter, "Group {name}"),
        }
    }
}

impl fmt::Debug for ConsumerPlugin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place.kind, self.instance.object)
    }
}

/// The plugins of the consumer of one request and of the groups. They are looked up again when a plugin identifies
/// another consumer, or finds groups.
#[derive(Default)]
pub(in crate::plugin_api) struct RequestConsumerPlugins<'d> {
    consumer: Option<Arc<Consumer>>,
    found_groups: Vec<Arc<str>>,
    /// The consumer first, then the groups by name, each only if it has plugins. More than six take an allocation.
    subjects: SmallVec<[&'d SubjectPlugins; 6]>,
}

impl<'d> RequestConsumerPlugins<'d> {
    /// Looks up the plugins if the consumer or the groups are others than at the last call. `found_groups`: see
    /// [`add_consumer_groups`](crate::plugin_api::Identity::add_consumer_groups).
    pub(in crate::plugin_api) fn look_up(
        &mut self,
        directory: Option<&'d ConsumerPlugins>,
        consumer: Option<&Arc<Consumer>>,
        found_groups: &[Arc<str>],
    ) {
        let has_same_consumer = match (&self.consumer, consumer) {
            (Some(before), Some(consumer)) => Arc::ptr_eq(before, consumer),
            (before, consumer) => before.is_none() && consumer.is_none(),
        };
        let is_same = has_same_consumer && self.found_groups == found_groups;
        let Some(directory) = directory.filter(|_| !is_same) else { return };
        self.subjects.clear();
        self.consumer = consumer.cloned();
        self.found_groups = found_groups.to_vec();
        let of_consumer = consumer.and_then(|consumer| directory.consumers.get(&*consumer.id));
        self.subjects.extend(of_consumer.map(|entry| &**entry));
        let groups =
            if found_groups.is_empty() { consumer.map_or(&[][..], |consumer| consumer.groups()) } else { found_groups };
        for group in groups {
            self.subjects.extend(directory.groups.get(&**group).map(|entry| &**entry));
        }
    }

    pub(in crate::plugin_api) fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }

    /// The next plugin in the order of execution after this place. Of several plugins of one kind, that of the consumer
    /// takes precedence over those of the groups, and those of groups in the order of their names.
    pub(in crate::plugin_api) fn next_after(&self, place: Option<ExecutionPlace>) -> Option<&'d Arc<ConsumerPlugin>> {
        let first_after = |subject: &&'d SubjectPlugins| {
            let subject: &'d SubjectPlugins = subject;
            subject.plugins.0.iter().find(|plugin| place.is_none_or(|place| plugin.place > place))
        };
        // Of equal plugins, `min_by_key` returns the first.
        self.subjects.iter().filter_map(first_after).min_by_key(|plugin| plugin.place)
    }

    /// The plugin at exactly this place.
    pub(in crate::plugin_api) fn at(&self, place: ExecutionPlace) -> Option<&'d Arc<ConsumerPlugin>> {
        let of_subject = |subject: &&'d SubjectPlugins| {
            let subject: &'d SubjectPlugins = subject;
            subject.plugins.0.iter().find(|plugin| plugin.place == place)
        };
        self.subjects.iter().find_map(of_subject)
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use parking_lot::Mutex;

    use super::*;
    use crate::plugin_api::chain::{AttachmentPoint, BaseScope, ChainBuilder, OverlayScope};
    use crate::plugin_api::consumers::{ConsumerDirectory, EntityId};
    use crate::plugin_api::testing::{TestRequest, global_instance, names};
    use crate::plugin_api::{AccessOutcome, LogCx, Plugin, Reply, RequestCx, ResponseCx, ResponseOutcome};

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
                 response first: first, response middle: middle, response late: late, response last: last, log first in global, log middle in global, \
                 log late in global, log last in global",
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
            many.iter()
                .for_each(|name| set(of_group(name), if *name == "group-00" { "group-00" } else { "later group" }));
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
}
