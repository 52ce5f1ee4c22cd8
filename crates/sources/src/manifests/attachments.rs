//! The plugins that the definitions of one object attach. The object that is used has those of all definitions, so that
//! a second definition of the same name does not open what the first one, or the second one, protects.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::api::kong::annotations::{GLOBAL_LABEL, INGRESS_CLASS, PLUGINS, list};
use crate::api::{Kind, Meta};
use crate::store::AnyObject;

/// The plugins of an object, and whether it is one that runs on every route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attachments {
    /// The annotation with the plugins of the object.
    plugins: Option<Arc<str>>,
    is_global: bool,
    /// The class whose routes a global plugin runs on. `None` if the object is not global.
    class: Option<Arc<str>>,
}

impl Attachments {
    pub(super) fn of(object: &AnyObject) -> Attachments {
        let meta = object.meta();
        let is_global = object.kind() == Kind::KongClusterPlugin
            && meta.labels.get(GLOBAL_LABEL).is_some_and(|value| &**value == "true");
        Attachments {
            plugins: meta.annotations.get(PLUGINS).cloned(),
            is_global,
            class: meta.annotations.get(INGRESS_CLASS).filter(|_| is_global).cloned(),
        }
    }

    /// Adds what another definition attaches, after what is there already.
    pub(super) fn add(&mut self, other: &Attachments) {
        let own_plugins = self.plugins.as_deref().unwrap_or_default();
        let union = united(own_plugins, other.plugins.as_deref().unwrap_or_default());
        if union.is_some() {
            self.plugins = union;
        }
        if other.is_global {
            self.is_global = true;
            self.class = self.class.take().or_else(|| other.class.clone());
        }
    }

    /// Writes them into an object. The class of an object that was not global is replaced: it had no effect, and the
    /// plugin has to run on the routes of the other class.
    pub(super) fn attach_to(&self, object: &mut AnyObject) {
        object.edit_meta(&|meta: &mut Meta| {
            if let Some(plugins) = &self.plugins {
                meta.annotations.insert(Arc::from(PLUGINS), Arc::clone(plugins));
            }
            if self.is_global {
                meta.labels.insert(Arc::from(GLOBAL_LABEL), Arc::from("true"));
                match &self.class {
                    Some(class) => meta.annotations.insert(Arc::from(INGRESS_CLASS), Arc::clone(class)),
                    None => meta.annotations.remove(INGRESS_CLASS),
                };
            }
        });
    }

    /// What an object with these attachments gets from another definition, as the end of a sentence.
    pub(super) fn note_of_added(&self, other: &Attachments) -> &'static str {
        let mut both = self.clone();
        both.add(other);
        match (both.plugins != self.plugins, (both.is_global, &both.class) != (self.is_global, &self.class)) {
            (false, false) => "",
            (true, false) => ", with the plugins that either of them names",
            (false, true) => ", with the label `global` and the class of this one",
            (true, true) => ", with the plugins, the label `global` and the class of this one",
        }
    }
}

/// A list with the entries of both. `None` if `own` has all entries of the other one.
fn united(own: &str, other: &str) -> Option<Arc<str>> {
    let mut known: BTreeSet<&str> = list(own).collect();
    let added: Vec<&str> = list(other).filter(|entry| known.insert(entry)).collect();
    if added.is_empty() {
        return None;
    }
    let all: Vec<&str> = list(own).chain(added).collect();
    Some(Arc::from(all.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn plugin(metadata: &Value) -> AnyObject {
        let mut metadata = metadata.clone();
        metadata["name"] = json!("keys");
        AnyObject::parse(Kind::KongClusterPlugin, json!({"metadata": metadata, "plugin": "key-auth"})).unwrap()
    }

    #[test]
    fn plugins_are_united_in_order() {
        for (own, other, expected, has_note) in [
            (None, None, None, false),
            (None, Some(" , "), None, false),
            (Some("a, b"), None, Some("a, b"), false),
            (Some("a, b"), Some("b,a"), Some("a, b"), false),
            (None, Some("b, a,b"), Some("b,a"), true),
            (Some(""), Some("a"), Some("a"), true),
            (Some("b , a"), Some("c,a,x:a"), Some("b,a,c,x:a"), true),
        ] {
            let annotated = |plugins: Option<&str>| match plugins {
                Some(plugins) => plugin(&json!({"annotations": {PLUGINS: plugins}})),
                None => plugin(&json!({})),
            };
            let (mut object, other) = (annotated(own), Attachments::of(&annotated(other)));
            let mut all = Attachments::of(&object);
            assert_eq!(!all.note_of_added(&other).is_empty(), has_note, "{own:?} {other:?}");
            all.add(&other);
            all.attach_to(&mut object);
            assert_eq!(object.meta().annotations.get(PLUGINS).map(|plugins| &**plugins), expected, "{own:?} {other:?}");
            assert_eq!(Attachments::of(&object), all);
        }
    }

    #[test]
    fn plugins_run_on_the_routes_of_the_class_for_which_they_are_global() {
        let global = |class: Option<&str>| match class {
            Some(class) => json!({"labels": {GLOBAL_LABEL: "true"}, "annotations": {INGRESS_CLASS: class}}),
            None => json!({"labels": {GLOBAL_LABEL: "true"}}),
        };
        let of_class = json!({"annotations": {INGRESS_CLASS: "b"}});
        let not_global = json!({"labels": {GLOBAL_LABEL: "false"}, "annotations": {INGRESS_CLASS: "b"}});
        for (own, other, is_global, class) in [
            (json!({}), of_class.clone(), false, None),
            (of_class.clone(), json!({}), false, Some("b")),
            (json!({}), global(Some("a")), true, Some("a")),
            (of_class.clone(), global(Some("a")), true, Some("a")),
            (not_global, global(Some("a")), true, Some("a")),
            (of_class.clone(), global(None), true, None),
            (global(None), global(Some("a")), true, Some("a")),
            (global(Some("a")), global(Some("b")), true, Some("a")),
            (global(Some("a")), of_class, true, Some("a")),
        ] {
            let (mut object, other_object) = (plugin(&own), plugin(&other));
            let (before, mut all) = (Attachments::of(&object), Attachments::of(&object));
            all.add(&Attachments::of(&other_object));
            if all != before {
                all.attach_to(&mut object);
            }
            let meta = object.meta();
            let label = meta.labels.get(GLOBAL_LABEL).map(|value| &**value);
            assert_eq!(label == Some("true"), is_global, "{own} {other}");
            assert_eq!(meta.annotations.get(INGRESS_CLASS).map(|class| &**class), class, "{own} {other}");
        }
    }
}
