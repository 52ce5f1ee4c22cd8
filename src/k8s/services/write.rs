//! The calls of the API server that write, each with what to say if it is refused.

use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Error, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;
use tracing::debug;

use super::applied::is_applied;
use super::plan::{Call, Step, What};
use super::service::Known;
use super::world::Done;
use super::{Trouble, chain};
use crate::api::names::MANAGED_BY;
use crate::k8s::failure::is_terminating;

/// Takes one step.
pub(super) async fn take(client: &Client, step: &Step) -> Result<Done, Trouble> {
    if let Call::GiveUp(trouble) = &step.call {
        return Err(trouble.clone());
    }
    let call = async {
        match step.what {
            What::Service => Ok(match call::<Service>(client, step, |there| Known::read(there).is_some()).await? {
                Left::There(service) => Done::Service(service),
                Left::Gone { uid } => Done::Gone { uid },
            }),
            What::Slice => Ok(match call::<EndpointSlice>(client, step, |_| true).await? {
                Left::There(slice) => Done::Slice(slice),
                Left::Gone { uid } => Done::Gone { uid },
            }),
        }
    };
    timeout(PATIENCE, call).await.map_err(|_| Trouble {
        message: format!("the API server does not answer about {}", describe(step)),
        remedy: "it is tried again by itself".to_owned(),
    })?
}

/// What there is after a call.
enum Left<K> {
    There(Box<K>),
    /// The one of this uid is no more; there may be another of its name.
    Gone {
        uid: String,
    },
}

async fn call<K>(client: &Client, step: &Step, is_ours: impl Fn(&K) -> bool) -> Result<Left<K>, Trouble>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), &step.key.namespace);
    let name = &step.key.name;
    let refused = |error: Error| refusal(step, &error);
    let object = match &step.call {
        Call::Create(object) => {
            if let Some(there) = api.get_opt(name).await.map_err(refused)? {
                // One of ours that the watch has not told of, and maybe never will.
                return if is_ours(&there) { Ok(Left::There(Box::new(there))) } else { Err(foreign(step)) };
            }
            object
        }
        Call::Apply(object) => object,
        Call::Delete { uid } => {
            let this = Preconditions { uid: Some(uid.clone()), resource_version: None };
            return match api.delete(name, &DeleteParams::background().preconditions(this)).await {
                // If something has to be done before it goes, it says when that began.
                Ok(answer) => Ok(match answer.left().filter(|object| object.meta().deletion_timestamp.is_some()) {
                    Some(going) => Left::There(Box::new(going)),
                    None => Left::Gone { uid: uid.clone() },
                }),
                // Gone before, or another one by now.
                Err(Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Left::Gone { uid: uid.clone() }),
                Err(error) => Err(refused(error)),
            };
        }
        Call::GiveUp(trouble) => return Err(trouble.clone()),
    };
    // Whatever others set in our fields is set back; their own fields stay.
    let params = PatchParams::apply(MANAGED_BY).force();
    let applied = match api.patch(name, &params, &Patch::Apply(object)).await {
        Ok(applied) => applied,
        // It was to be this very one, and that is gone, or another has its name.
        Err(Error::Api(status)) if matches!(status.code, 404 | 409) && !object["metadata"]["uid"].is_null() => {
            let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            // We may look at Services; a slice that is there after all is applied again.
            let there = if step.what == What::Service { api.get_opt(name).await.map_err(refused)? } else { None };
            return match there {
                Some(there) if there.meta().uid.as_deref() == Some(&*uid) => Err(refused(Error::Api(status))),
                Some(there) if is_ours(&there) => Ok(Left::There(Box::new(there))),
                _ => Ok(Left::Gone { uid }),
            };
        }
        Err(error) => return Err(refused(error)),
    };
    debug!(object = describe(step), "Applied");
    let stays = serde_json::to_value(&applied).is_ok_and(|whole: Value| is_applied(object, &whole, MANAGED_BY));
    if stays { Ok(Left::There(Box::new(applied))) } else { Err(overwritten(step)) }
}

fn describe(step: &Step) -> String {
    let kind = match step.what {
        What::Service => "Service",
        What::Slice => "EndpointSlice",
    };
    format!("{kind} {}", step.key)
}

fn foreign(step: &Step) -> Trouble {
    Trouble {
        message: format!("{} is not one of Portico's, so it is left alone", describe(step)),
        remedy: "rename or delete it: the Gateway needs one of this name".to_owned(),
    }
}

/// Tried seldom from then on: otherwise we and whoever changes it would write without end.
fn overwritten(step: &Step) -> Trouble {
    Trouble {
        message: format!("{} does not stay as it is written", describe(step)),
        remedy: "see which admission webhook or controller changes it".to_owned(),
    }
}

fn refusal(step: &Step, error: &Error) -> Trouble {
    let what = match step.call {
        Call::Create(_) => "created",
        Call::Apply(_) | Call::GiveUp(_) => "changed",
        Call::Delete { .. } => "deleted",
    };
    let remedy = match error {
        Error::Api(status) if is_terminating(status) => "its namespace is being deleted, and it goes with it",
        Error::Api(status) if status.code == 403 => {
            "grant the ServiceAccount what manifests/ lists, or see which admission policy refuses it"
        }
        Error::Api(status) if matches!(status.code, 400 | 422) => {
            "correct spec.infrastructure or spec.addresses of the Gateway"
        }
        _ => "it is tried again by itself",
    };
    Trouble { message: format!("{} cannot be {what}: {}", describe(step), chain(error)), remedy: remedy.to_owned() }
}

/// An API server that takes longer has other worries.
const PATIENCE: Duration = Duration::from_secs(10);
