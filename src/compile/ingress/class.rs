//! The class of an Ingress: is it ours, and what does it say about all of its Ingresses (`kong-compat.md` §1.12, §3.1).

use super::super::Inputs;
use super::super::verdict::{Problem, Verdict};
use crate::api::kind::KONG_GROUP;
use crate::api::kong::IngressClassParametersSpec;
use crate::api::kong::annotations::INGRESS_CLASS;
use crate::api::networking::{Ingress, IngressClass, IngressClassParametersReference};
use crate::api::{Kind, Object, ObjectKey};
use crate::store::Store;

/// Settings that Ingresses of this class share. None if the class is not ours.
pub(super) fn of(store: &Store, inputs: &Inputs<'_>, ingress: &Object<Ingress>) -> Option<IngressClassParametersSpec> {
    let field = ingress.spec.ingress_class_name.as_deref();
    if !inputs.classes.own(store, &ingress.meta, field) {
        return None;
    }
    let class = match name(ingress) {
        Some(name) => store.ingress_classes.get(&ObjectKey::cluster(name)).map(|class| &**class),
        None => inputs.classes.default_one(store),
    };
    let parameters = class.and_then(|class| class.spec.parameters.as_ref()).and_then(|reference| key(reference).ok());
    let parameters = parameters.and_then(|key| store.ingress_class_parameters.get(&key));
    Some(parameters.map(|parameters| parameters.spec.clone()).unwrap_or_default())
}

fn name(ingress: &Object<Ingress>) -> Option<&str> {
    let annotation = ingress.meta.annotations.get(INGRESS_CLASS).map(|class| &**class);
    annotation.or(ingress.spec.ingress_class_name.as_deref())
}

/// What there is to say of an Ingress that is not ours. Those of other controllers are none of our business.
pub(super) fn foreign(store: &Store, inputs: &Inputs<'_>, ingress: &Object<Ingress>) -> Verdict {
    let own = &inputs.classes.name;
    let note = match name(ingress) {
        None => Some(Problem::new(
            "spec.ingressClassName",
            "it names no class, and no class of Portico is the default one",
            format!("write {own} to be served by Portico"),
        )),
        Some(name) if store.ingress_classes.contains_key(&ObjectKey::cluster(name)) => None,
        Some(name) => Some(Problem::new(
            "spec.ingressClassName",
            format!("IngressClass {name} does not exist, and this Portico serves {own}"),
            format!("write {own}, or take {name} over with --ingress-class {name}"),
        )),
    };
    Verdict { generation: ingress.meta.generation, notes: note.into_iter().collect(), ..Verdict::default() }
}

/// The verdict on a class; of a foreign one there is nothing to say.
pub(in crate::compile) fn verdict(store: &Store, inputs: &Inputs<'_>, class: &Object<IngressClass>) -> Verdict {
    let mut verdict = Verdict { generation: class.meta.generation, ..Verdict::default() };
    let Some(reference) = class.spec.parameters.as_ref().filter(|_| inputs.classes.is_ours(class)) else {
        return verdict;
    };
    match key(reference) {
        Err(problem) => verdict.notes.push(problem),
        Ok(key) if !store.ingress_class_parameters.contains_key(&key) => {
            let message =
                format!("{} {key} does not exist, so its settings have no effect", Kind::IngressClassParameters);
            verdict.notes.push(Problem::new("spec.parameters.name", message, "create it or correct the name"));
        }
        Ok(_) => {}
    }
    verdict
}

fn key(reference: &IngressClassParametersReference) -> Result<ObjectKey, Problem> {
    let kind = Kind::IngressClassParameters;
    if reference.api_group.as_deref() != Some(KONG_GROUP) || reference.kind != kind.name() {
        let message = format!("parameters of kind {} are not known, so they have no effect", reference.kind);
        return Err(Problem::new("spec.parameters.kind", message, format!("refer to an {kind} of group {KONG_GROUP}")));
    }
    match &reference.namespace {
        Some(namespace) => Ok(ObjectKey::new(namespace, &reference.name)),
        None => {
            let message = "no namespace is given, so the parameters have no effect";
            Err(Problem::new("spec.parameters.namespace", message, "set scope to Namespace and name the namespace"))
        }
    }
}
