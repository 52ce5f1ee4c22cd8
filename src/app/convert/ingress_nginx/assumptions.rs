//! What the input does not have and the verdicts need: the IngressClass of ingress-nginx, which no chart of an
//! application has, and its ConfigMap. They are added to the objects, and the report says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::bail;
use serde_json::{Value, json};

use super::args_file::ArgsFile;
use super::subject;
use crate::api::networking::Ingress;
use crate::api::{Kind, Object, ObjectKey};
use crate::args::{ConvertIngressNginxOptions, NamespacedName};
use crate::store::{AnyObject, Batch};

/// What was added, and the ConfigMap to use.
#[derive(Debug, Default)]
pub(super) struct Assumptions {
    /// Sentences without a full stop.
    pub(super) notes: Vec<String>,
    /// The ConfigMap of ingress-nginx: one of the input, or one that was added.
    pub(super) config_map: Option<ObjectKey>,
    /// Whether its keys were read, and are not only assumed.
    pub(super) has_config: bool,
}

/// Adds to the objects what they lack. An error if they lack the ConfigMap of the options: what it sets would be
/// unknown.
pub(super) fn add(
    batch: &mut Batch,
    options: &ConvertIngressNginxOptions,
    args: &ArgsFile,
) -> anyhow::Result<Assumptions> {
    let mut assumptions = Assumptions::default();
    assumptions.add_class(batch, options);
    match assumptions.find_config_map(batch, options, args) {
        Some(key) => {
            assumptions.config_map = Some(key);
            assumptions.has_config = true;
        }
        None => match options.config_map.as_ref().filter(|_| args.config.is_empty()) {
            Some((namespace, name)) => bail!(
                "--nginx-configmap {namespace}/{name}: this ConfigMap is not in the input; add it, or leave the flag \
                 out to assume a ConfigMap that allows snippets and sets nothing else"
            ),
            None => assumptions.add_config_map(batch, options, args),
        },
    }
    Ok(assumptions)
}

impl Assumptions {
    /// Adds the class that Ingresses name as usual, if there is no IngressClass of this name.
    fn add_class(&mut self, batch: &mut Batch, options: &ConvertIngressNginxOptions) {
        let (name, controller) = (&options.classes.annotated, &options.classes.controller);
        let is_named = ingresses(batch).any(|ingress| ingress.spec.ingress_class_name.as_ref() == Some(name));
        let is_class = |object: &AnyObject| object.id().kind == Kind::IngressClass && *object.meta().key.name == **name;
        if !is_named || batch.upserts.iter().any(is_class) {
            return;
        }
        let class = json!({"metadata": {"name": name}, "spec": {"controller": controller}});
        if add_object(batch, Kind::IngressClass, class) {
            let note = format!("IngressClass {name} is not in the input; its controller counts as {controller}");
            self.notes.push(note);
        }
    }

    /// The ConfigMap of the options, of the flags, or with a usual name.
    fn find_config_map(
        &mut self,
        batch: &Batch,
        options: &ConvertIngressNginxOptions,
        args: &ArgsFile,
    ) -> Option<ObjectKey> {
        let keys: Vec<&ObjectKey> = batch
            .upserts
            .iter()
            .filter(|object| matches!(object, AnyObject::ConfigMap(_)))
            .map(|object| &object.meta().key)
            .collect();
        if let Some((namespace, name)) = &options.config_map {
            return keys.into_iter().find(|key| *key.namespace == **namespace && *key.name == **name).cloned();
        }
        let candidates: Vec<&ObjectKey> = match args.config_map() {
            Some((namespace, name)) => {
                let is_named = |key: &&ObjectKey| {
                    *key.name == *name && namespace.is_none_or(|namespace| *key.namespace == *namespace)
                };
                keys.into_iter().filter(is_named).collect()
            }
            None => keys.into_iter().filter(|key| is_usual_name(&key.name)).collect(),
        };
        match &candidates[..] {
            [] => None,
            [only] => Some((*only).clone()),
            several => {
                let names: Vec<String> = several.iter().map(ToString::to_string).collect();
                self.notes.push(format!(
                    "Several ConfigMaps may be that of ingress-nginx, and none is used: {}; name one with \
                     --nginx-configmap",
                    names.join(", ")
                ));
                None
            }
        }
    }

    /// Adds the keys in the values of the Helm chart. Without them, the defaults of ingress-nginx apply, except that
    /// snippets are allowed: an Ingress would have none otherwise.
    fn add_config_map(&mut self, batch: &mut Batch, options: &ConvertIngressNginxOptions, args: &ArgsFile) {
        let has_snippets = ingresses(batch).any(|ingress| {
            ["configuration-snippet", "server-snippet"].iter().any(|name| subject::value(ingress, name).is_some())
        });
        let mut data: BTreeMap<String, Arc<str>> = args.config.clone();
        self.has_config = !data.is_empty();
        if self.has_config {
            self.notes.push("The keys of the ConfigMap are those in the values of the Helm chart".to_owned());
        } else if has_snippets {
            data.insert("allow-snippet-annotations".to_owned(), Arc::from("true"));
            data.insert("annotations-risk-level".to_owned(), Arc::from("Critical"));
            self.notes.push(
                "The ConfigMap of ingress-nginx is not in the input; it counts as one that allows snippets and sets \
                 nothing else"
                    .to_owned(),
            );
        } else {
            return;
        }
        let (namespace, name) = options.config_map.clone().unwrap_or_else(usual_config_map);
        let config_map = json!({"metadata": {"namespace": namespace, "name": name}, "data": data});
        if add_object(batch, Kind::ConfigMap, config_map) {
            self.config_map = Some(ObjectKey::new(&namespace, &name));
        }
    }
}

/// The Ingresses among objects.
fn ingresses(batch: &Batch) -> impl Iterator<Item = &Object<Ingress>> {
    batch.upserts.iter().filter_map(|object| match object {
        AnyObject::Ingress(ingress) => Some(&**ingress),
        _ => None,
    })
}

/// Adds an object of this program, which is valid.
fn add_object(batch: &mut Batch, kind: Kind, value: Value) -> bool {
    let object = AnyObject::parse(kind, value).ok();
    let is_valid = object.is_some();
    batch.upserts.extend(object);
    is_valid
}

/// Whether ingress-nginx or its Helm chart gives this name to its ConfigMap.
fn is_usual_name(name: &str) -> bool {
    name == "nginx-configuration" || name.ends_with("ingress-nginx-controller")
}

pub(super) fn usual_config_map() -> NamespacedName {
    ("ingress-nginx".to_owned(), "ingress-nginx-controller".to_owned())
}
