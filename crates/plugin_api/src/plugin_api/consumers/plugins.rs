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
pub struct RequestConsumerPlugins<'d> {
    consumer: Option<Arc<Consumer>>,
    found_groups: Vec<Arc<str>>,
    /// The consumer first, then the groups by name, each only if it has plugins. More than six take an allocation.
    subjects: SmallVec<[&'d SubjectPlugins; 6]>,
}

impl<'d> RequestConsumerPlugins<'d> {
    /// Looks up the plugins if the consumer or the groups are others than at the last call. `found_groups`: see
    /// [`add_consumer_groups`](crate::plugin_api::Identity::add_consumer_groups).
    pub fn look_up(
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

    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }

    /// The next plugin in the order of execution after this place. Of several plugins of one kind, that of the consumer
    /// takes precedence over those of the groups, and those of groups in the order of their names.
    pub fn next_after(&self, place: Option<ExecutionPlace>) -> Option<&'d Arc<ConsumerPlugin>> {
        let first_after = |subject: &&'d SubjectPlugins| {
            let subject: &'d SubjectPlugins = subject;
            subject.plugins.0.iter().find(|plugin| place.is_none_or(|place| plugin.place > place))
        };
        // Of equal plugins, `min_by_key` returns the first.
        self.subjects.iter().filter_map(first_after).min_by_key(|plugin| plugin.place)
    }

    /// The plugin at exactly this place.
    pub fn at(&self, place: ExecutionPlace) -> Option<&'d Arc<ConsumerPlugin>> {
        let of_subject = |subject: &&'d SubjectPlugins| {
            let subject: &'d SubjectPlugins = subject;
            subject.plugins.0.iter().find(|plugin| plugin.place == place)
        };
        self.subjects.iter().find_map(of_subject)
    }
}
