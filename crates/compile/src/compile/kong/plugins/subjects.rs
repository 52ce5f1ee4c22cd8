//! The plugins that only consumers or groups refer to: they run on all routes for the requests of these consumers.
//!
//! Such a plugin is an entry of the consumer directory, not of the chains of rules, so its changes plan no route again.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Plugins;
use super::chain::duplicate_message;
use super::compiled_plugin::CompiledPlugin;
use super::plugins_of_rule::GLOBAL_COUNTERS;
use super::rejecting_guard;
use crate::api::kong::annotations::PLUGINS;
use crate::api::{Kind, ObjectId};
use crate::compile::CompileContext;
use crate::compile::kong::consumers::identity::{consumer_id, group_name};
use crate::compile::kong::consumers::served::is_served;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::{Diagnostic, Topic};
use crate::plugin_api::consumers::plugins::{ConsumerPlugin, OrderedPlugins, PluginSubject};
use crate::plugin_api::instance::ExecutionPlace;
use crate::store::Changes;

impl Plugins {
    /// The plugins that run on all routes for this consumer or group.
    pub(in crate::compile) fn of_subject(&self, cx: CompileContext<'_>, subject: &ObjectId) -> OrderedPlugins {
        let rejection = cx.store.is_rejected(subject).then(|| rejection_of_subject(subject));
        let rejection = rejection.filter(|_| is_served(cx, subject) && !cx.inputs.plugin_factory.fail_open);
        let attached = self.attached_to(cx, subject).filter_map(|compiled| compiled.for_subjects.clone());
        // Of a group, only the annotation with its plugins has an effect.
        let is_unknown = subject.kind == Kind::KongConsumer || cx.store.has_unreadable_plugins(subject);
        attached.chain(rejection.filter(|_| is_unknown)).collect()
    }

    /// Diagnostics for a consumer or group about its plugins that are not in effect.
    pub(in crate::compile) fn subject_diagnostics(
        &self,
        cx: CompileContext<'_>,
        subject: &ObjectId,
    ) -> Vec<Diagnostic> {
        let mut kinds = BTreeSet::new();
        let mut diagnostics = Vec::new();
        let mut report = |message: String, remedy: &str| {
            let diagnostic = Diagnostic::error(annotation_field(PLUGINS), message, remedy);
            diagnostics.push(diagnostic.with_topic(Topic::Plugin));
        };
        for compiled in self.attached_to(cx, subject) {
            if compiled.plugin.is_err() {
                let consequence = match &compiled.for_subjects {
                    Some(_) => "requests it would protect get status 503",
                    None => "requests are served without it",
                };
                let (reason, remedy) = compiled.unusable();
                report(format!("plugin {} {reason}, so {consequence}", compiled.object), remedy);
            }
            let Some(plugin) = &compiled.for_subjects else { continue };
            if !kinds.insert(plugin.place.kind) {
                report(duplicate_message(plugin.place.kind, &compiled.object), "keep one of them");
            }
        }
        diagnostics
    }

    /// The enabled plugins that run on all routes for this consumer or group. Of several of one kind, the first one is
    /// in effect.
    fn attached_to(&self, cx: CompileContext<'_>, subject: &ObjectId) -> impl Iterator<Item = &CompiledPlugin> {
        let references: BTreeSet<_> = cx.store.plugins_referenced_by(subject).collect();
        let is_attached =
            |id: &ObjectId| self.referrers.get(id).is_some_and(|referrers| referrers.runs_on_all_routes_for(subject));
        let attached: Vec<_> = references.into_iter().filter(is_attached).collect();
        attached.into_iter().filter_map(|id| self.plugins.get(&id)).filter(|compiled| compiled.is_active)
    }
}

impl CompiledPlugin {
    /// What runs for consumers and groups that refer to the plugin: the plugin, or a rejection if the plugin protects
    /// requests and cannot be used. Returns `before`, the earlier result, if nothing changed.
    ///
    /// An unknown plugin never runs for a consumer: it may authenticate, so its place is before the consumer is known.
    /// A rejected object of which not even the plugin can be read may be any other one.
    pub(super) fn for_subjects(
        &self,
        fail_open: bool,
        before: Option<Arc<ConsumerPlugin>>,
    ) -> Option<Arc<ConsumerPlugin>> {
        let scope = GLOBAL_COUNTERS.into();
        let must_reject = (self.kind.is_some() || self.has_unknown_kind()) && self.is_guard() && !fail_open;
        let rejection = || {
            let message = format!("{} of this route cannot be used", self.object);
            let (place, instance) = must_reject.then(|| rejecting_guard::in_place_of(self, &scope, message))?;
            // Its place must be one after that of the plugin that identifies the consumer.
            Some((if self.kind.is_some() { place } else { after_all(place) }, instance))
        };
        let usable = self.usable_instance(&scope);
        let (place, instance) = usable.or_else(rejection).filter(|_| self.is_active)?;
        let plugin = ConsumerPlugin { place, instance };
        Some(before.filter(|before| before.is_same(&plugin)).unwrap_or_else(|| Arc::new(plugin)))
    }
}

/// Rejects the requests of a consumer, or of the members of a group, whose object was rejected: which groups, or which
/// plugins it has is unknown.
fn rejection_of_subject(subject: &ObjectId) -> Arc<ConsumerPlugin> {
    let object: Arc<str> = format!("{}/{}", subject.kind, subject.key).into();
    let message = format!("{object} was rejected");
    let (place, instance) = rejecting_guard::in_place_of_unknown(object, &GLOBAL_COUNTERS.into(), message);
    Arc::new(ConsumerPlugin { place: after_all(place), instance })
}

fn after_all(place: ExecutionPlace) -> ExecutionPlace {
    ExecutionPlace { priority: i32::MIN, ..place }
}

/// The groups among these objects.
pub(in crate::compile) fn touched_groups(touched: &Changes) -> impl Iterator<Item = &ObjectId> {
    touched.iter().filter(|id| id.kind == Kind::KongConsumerGroup)
}

/// The key of a consumer or group in the consumer directory.
pub(in crate::compile) fn plugin_subject(id: &ObjectId) -> PluginSubject {
    match id.kind {
        Kind::KongConsumerGroup => PluginSubject::Group(group_name(&id.key)),
        _ => PluginSubject::Consumer(Arc::from(&*consumer_id(&id.key))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::rejecting_guard::UNKNOWN;
    use super::*;
    use crate::compile::Compiler;
    use crate::compile::testing::TestInputs;
    use crate::plugin_api::PluginRegistry;
    use crate::store::{AnyObject, Batch, Store, UnparseableObject};

    #[test]
    fn requests_of_members_are_refused_if_the_plugins_of_their_group_are_unknown() {
        let inputs = TestInputs::new(PluginRegistry { kinds: &[], internal: &[] });
        let (mut store, mut compiler) = (Store::default(), Compiler::default());
        let group = |plugins: Value| {
            let annotations = json!({"kubernetes.io/ingress.class": "portico", "konghq.com/plugins": plugins});
            json!({"metadata": {"namespace": "a", "name": "staff", "annotations": annotations}})
        };
        let mut refusals_after = |object: AnyObject| {
            let subject = plugin_subject(&object.id());
            let changes = store.apply(Batch { upserts: vec![object], removes: vec![] });
            let consumers = inputs.compile(&mut compiler, &store, &changes).snapshot.consumers.clone();
            let plugins = consumers.plugins_of(&subject);
            plugins.map_or(0, |plugins| plugins.iter().filter(|plugin| plugin.place.kind == UNKNOWN).count())
        };
        let rejected = |object: Value| {
            AnyObject::Unparseable(UnparseableObject::read(Kind::KongConsumerGroup, &object).unwrap().into())
        };
        assert_eq!(refusals_after(rejected(group(json!("none")))), 0, "its plugins are known");
        assert_eq!(refusals_after(rejected(group(json!(["none"])))), 1);
        assert_eq!(
            refusals_after(rejected(json!({"metadata": {"namespace": "a", "name": "staff", "annotations": []}}))),
            1
        );
        assert_eq!(refusals_after(AnyObject::parse(Kind::KongConsumerGroup, group(json!(""))).unwrap()), 0);
    }

    /// A token may name a consumer of which not even its groups can be read, and so not what restricts it.
    #[test]
    fn requests_of_rejected_consumers_are_refused() {
        let inputs = TestInputs::new(PluginRegistry { kinds: &[], internal: &[] });
        let (mut store, mut compiler) = (Store::default(), Compiler::default());
        let consumer = |credentials: Value| {
            let annotations = json!({"kubernetes.io/ingress.class": "portico"});
            json!({"metadata": {"namespace": "a", "name": "bob", "annotations": annotations}, "username": "bob",
                "credentials": credentials})
        };
        let mut refusals_after = |object: AnyObject| {
            let changes = store.apply(Batch { upserts: vec![object], removes: vec![] });
            let consumers = inputs.compile(&mut compiler, &store, &changes).snapshot.consumers.clone();
            let bob = consumers.by_id_or_username("bob").expect("it is known");
            let plugins = consumers.plugins_of(&PluginSubject::Consumer(Arc::from(&*bob.id)));
            plugins.map_or(0, |plugins| plugins.iter().filter(|plugin| plugin.place.kind == UNKNOWN).count())
        };
        let rejected = UnparseableObject::read(Kind::KongConsumer, &consumer(json!(5))).unwrap();
        assert_eq!(refusals_after(AnyObject::Unparseable(rejected.into())), 1);
        assert_eq!(refusals_after(AnyObject::parse(Kind::KongConsumer, consumer(json!([]))).unwrap()), 0);
    }
}
