//! Write calls to the API server, and the error message of each failure.

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
use super::error_chain;
use super::observed_state::StepResult;
use super::plan::{ApiCall, PlanStep, StepTarget};
use super::service::KnownService;
use crate::api::names::MANAGED_BY;
use crate::diagnostic::Diagnostic;
use crate::k8s::api_error::is_terminating;

/// Makes the call of a step, and returns the state of the object after it.
pub(super) async fn run_step(client: &Client, step: &PlanStep) -> Result<StepResult, Diagnostic> {
    let call = async {
        match step.target {
            StepTarget::Service => {
                Ok(match call::<Service>(client, step, |existing| KnownService::read(existing).is_some()).await? {
                    CallResult::Present(service) => StepResult::Service(service),
                    CallResult::Gone { uid } => StepResult::Gone { uid },
                })
            }
            StepTarget::Slice => Ok(match call::<EndpointSlice>(client, step, |_| true).await? {
                CallResult::Present(slice) => StepResult::Slice(slice),
                CallResult::Gone { uid } => StepResult::Gone { uid },
            }),
        }
    };
    timeout(CALL_TIMEOUT, call).await.map_err(|_| {
        Diagnostic::of_object(
            format!("the API server does not respond to a request for {}", describe(step)),
            "Portico retries",
        )
    })?
}

/// The state after a call.
enum CallResult<K> {
    Present(Box<K>),
    /// The object of this uid is deleted; another of the same name may exist.
    Gone {
        uid: String,
    },
}

/// Makes the call of a step for an object of type `K`. `is_own` is used for Services only: whether Portico made one.
async fn call<K>(client: &Client, step: &PlanStep, is_own: impl Fn(&K) -> bool) -> Result<CallResult<K>, Diagnostic>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), &step.key.namespace);
    let name = &step.key.name;
    let to_diagnostic = |error: Error| call_error(step, &error);
    let object = match &step.call {
        ApiCall::Create(object) => {
            if let Some(existing) = api.get_opt(name).await.map_err(to_diagnostic)? {
                // If the Service is Portico's, the watch has not reported it yet, or cannot without the permission.
                return if is_own(&existing) {
                    Ok(CallResult::Present(Box::new(existing)))
                } else {
                    Err(foreign_object_error(step))
                };
            }
            object
        }
        ApiCall::Apply(object) => object,
        ApiCall::Delete { uid } => {
            let same_uid = Preconditions { uid: Some(uid.clone()), resource_version: None };
            return match api.delete(name, &DeleteParams::background().preconditions(same_uid)).await {
                // An object with finalizers stays, with a deletion timestamp.
                Ok(response) => Ok(match response.left().filter(|object| object.meta().deletion_timestamp.is_some()) {
                    Some(terminating) => CallResult::Present(Box::new(terminating)),
                    None => CallResult::Gone { uid: uid.clone() },
                }),
                // Already deleted, or replaced by another one.
                Err(Error::Api(status)) if matches!(status.code, 404 | 409) => {
                    Ok(CallResult::Gone { uid: uid.clone() })
                }
                Err(error) => Err(to_diagnostic(error)),
            };
        }
        ApiCall::GiveUp(service_error) => return Err(service_error.clone()),
    };
    // Portico's fields are set again if another manager changed them; all other fields stay.
    let params = PatchParams::apply(MANAGED_BY).force();
    let applied = match api.patch(name, &params, &Patch::Apply(object)).await {
        Ok(applied) => applied,
        // The object to change is deleted, or another one has its name.
        Err(Error::Api(status)) if matches!(status.code, 404 | 409) && !object["metadata"]["uid"].is_null() => {
            let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            // Portico has no permission to get EndpointSlices, only Services. A later plan applies a slice again that
            // still exists.
            let existing =
                if step.target == StepTarget::Service { api.get_opt(name).await.map_err(to_diagnostic)? } else { None };
            return match existing {
                Some(existing) if existing.meta().uid.as_deref() == Some(&*uid) => {
                    Err(to_diagnostic(Error::Api(status)))
                }
                Some(existing) if is_own(&existing) => Ok(CallResult::Present(Box::new(existing))),
                _ => Ok(CallResult::Gone { uid }),
            };
        }
        Err(error) => return Err(to_diagnostic(error)),
    };
    debug!(object = describe(step), "Applied");
    let is_kept = serde_json::to_value(&applied).is_ok_and(|whole: Value| is_applied(object, &whole, MANAGED_BY));
    if is_kept { Ok(CallResult::Present(Box::new(applied))) } else { Err(overwritten_error(step)) }
}

fn describe(step: &PlanStep) -> String {
    let kind = match step.target {
        StepTarget::Service => "Service",
        StepTarget::Slice => "EndpointSlice",
    };
    format!("{kind} {}", step.key)
}

fn foreign_object_error(step: &PlanStep) -> Diagnostic {
    Diagnostic::of_object(
        format!("{} was not created by Portico, so it is not changed", describe(step)),
        "rename or delete it: Portico needs this name for the Gateway",
    )
}

/// A step with this error is retried ever more rarely, so that Portico and the other writer do not overwrite each other
/// all the time.
fn overwritten_error(step: &PlanStep) -> Diagnostic {
    Diagnostic::of_object(
        format!("{} is changed back after each write", describe(step)),
        "find the admission webhook or controller that changes it",
    )
}

fn call_error(step: &PlanStep, error: &Error) -> Diagnostic {
    let action = match step.call {
        ApiCall::Create(_) => "created",
        ApiCall::Apply(_) | ApiCall::GiveUp(_) => "changed",
        ApiCall::Delete { .. } => "deleted",
    };
    let remedy = match error {
        Error::Api(status) if is_terminating(status) => "nothing to do: its namespace is being deleted",
        Error::Api(status) if status.code == 403 => {
            "grant the ServiceAccount the permissions listed in manifests/, or check which admission policy rejects it"
        }
        // Only the Services of XBackends belong to no Gateway.
        Error::Api(status)
            if matches!(status.code, 400 | 422) && step.gateway.is_none() && step.target == StepTarget::Service =>
        {
            "correct spec.endpointSelector or spec.port of the XBackend"
        }
        Error::Api(status) if matches!(status.code, 400 | 422) => {
            "correct spec.infrastructure or spec.addresses of the Gateway, or its GatewayParameters"
        }
        _ => "Portico retries",
    };
    Diagnostic::of_object(format!("{} cannot be {action}: {}", describe(step), error_chain(error)), remedy)
}

/// An API server that takes longer is overloaded.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
