//! Validates a Pod: it runs only if this node supports everything that its spec requests.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVar, Lifecycle, Pod, PodSpec};

use super::image::{Image, Images};
use super::privileges::Privileges;
use super::probe::Probes;
use super::volume::{Mount, mounts};

/// How to run a Pod: its only container, and what the container needs.
#[derive(Debug)]
pub(crate) struct PodPlan {
    pub(crate) image: Image,
    /// The program and its arguments, before the expansion of `$(NAME)`.
    pub(crate) command: Vec<String>,
    pub(crate) variables: Vec<EnvVar>,
    pub(crate) variables_from: Vec<EnvFromSource>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) privileges: Privileges,
    /// Sysctls of the Pod's network: files below /proc/sys and their content.
    pub(crate) sysctls: Vec<(String, String)>,
    pub(crate) probes: Probes,
    pub(crate) restart: RestartPolicy,
    pub(crate) termination: TerminationMode,
}

/// The restart policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

/// How a deleted Pod is terminated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TerminationMode {
    /// For Pods of the conformance suite: waiting for them would only cost time, and the suite limits the deletion of
    /// namespaces.
    Immediate,
    /// For Pods of Portico, whose shutdown is tested: a pause, SIGTERM, and a grace period.
    Graceful { pause: Duration, grace: Duration },
}

/// The label of Pods with graceful termination.
const GRACEFUL_LABEL: (&str, &str) = ("app.kubernetes.io/name", "portico");

impl PodPlan {
    /// The error names the unsupported field.
    pub(crate) fn from_pod(pod: &Pod, images: &Images) -> Result<PodPlan, String> {
        let spec = pod.spec.as_ref().ok_or("spec: missing")?;
        let [container] = spec.containers.as_slice() else {
            return Err(format!(
                "spec.containers: this node supports one container per Pod, but there are {}",
                spec.containers.len()
            ));
        };
        reject_unsupported(spec, container)?;
        let image = images.find(container.image.as_deref().unwrap_or_default())?;
        let mut command = container.command.clone().unwrap_or_default();
        if command.is_empty() {
            command.push(image.entrypoint.to_owned());
        }
        command.extend(container.args.clone().unwrap_or_default());
        let restart = match spec.restart_policy.as_deref() {
            None | Some("Always") => RestartPolicy::Always,
            Some("OnFailure") => RestartPolicy::OnFailure,
            Some("Never") => RestartPolicy::Never,
            Some(other) => {
                return Err(format!("spec.restartPolicy: `{other}` is not one of Always, OnFailure and Never"));
            }
        };
        Ok(PodPlan {
            privileges: Privileges::from_spec(spec, container, image.user)?,
            mounts: mounts(spec, container)?,
            sysctls: sysctls(spec)?,
            probes: Probes::from_container(container)?,
            termination: termination_mode(pod, spec, container)?,
            variables: container.env.clone().unwrap_or_default(),
            variables_from: container.env_from.clone().unwrap_or_default(),
            image,
            command,
            restart,
        })
    }
}

fn reject_unsupported(spec: &PodSpec, container: &Container) -> Result<(), String> {
    let lifecycle = container.lifecycle.as_ref();
    let unsupported = [
        ("spec.initContainers", spec.init_containers.as_ref().is_some_and(|containers| !containers.is_empty())),
        ("spec.hostNetwork", spec.host_network == Some(true)),
        ("spec.hostPID", spec.host_pid == Some(true)),
        ("spec.readinessGates", spec.readiness_gates.as_ref().is_some_and(|gates| !gates.is_empty())),
        ("spec.containers[0].workingDir", container.working_dir.as_deref().is_some_and(|folder| folder != "/")),
        ("spec.containers[0].lifecycle.postStart", lifecycle.is_some_and(|lifecycle| lifecycle.post_start.is_some())),
        ("spec.containers[0].lifecycle.stopSignal", lifecycle.is_some_and(|lifecycle| lifecycle.stop_signal.is_some())),
    ];
    match unsupported.iter().find(|(_, is_set)| *is_set) {
        Some((field, _)) => Err(format!("{field}: not supported by this node")),
        None => Ok(()),
    }
}

/// The sysctls of the Pod. Only those of the network are supported, because each Pod has its own network namespace.
fn sysctls(spec: &PodSpec) -> Result<Vec<(String, String)>, String> {
    let sysctls = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    let settings = sysctls.map(|sysctl| {
        let is_valid_name = sysctl.name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if !sysctl.name.starts_with("net.") || sysctl.name.contains("..") || !is_valid_name {
            return Err(format!("spec.securityContext.sysctls: this node supports only net.*, not `{}`", sysctl.name));
        }
        Ok((sysctl.name.replace('.', "/"), sysctl.value.clone()))
    });
    settings.collect()
}

fn termination_mode(pod: &Pod, spec: &PodSpec, container: &Container) -> Result<TerminationMode, String> {
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(GRACEFUL_LABEL.0));
    if label.map(String::as_str) != Some(GRACEFUL_LABEL.1) {
        return Ok(TerminationMode::Immediate);
    }
    let pause = pre_stop_pause(container.lifecycle.as_ref())?;
    let grace = u64::try_from(spec.termination_grace_period_seconds.unwrap_or(30)).unwrap_or_default();
    Ok(TerminationMode::Graceful { pause, grace: Duration::from_secs(grace) })
}

fn pre_stop_pause(lifecycle: Option<&Lifecycle>) -> Result<Duration, String> {
    let Some(action) = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else { return Ok(Duration::ZERO) };
    match &action.sleep {
        Some(sleep) => Ok(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or_default())),
        None => Err("spec.containers[0].lifecycle.preStop: this node supports only `sleep`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::{Value, json};

    use super::*;

    fn plan(spec: &Value, labels: &Value) -> Result<PodPlan, String> {
        let pod = json!({ "metadata": { "name": "pod", "labels": labels }, "spec": spec });
        let images = Images { echo_basic: PathBuf::from("/echo"), portico: PathBuf::from("/portico") };
        PodPlan::from_pod(&serde_json::from_value(pod).unwrap(), &images)
    }

    #[test]
    fn command_replaces_the_entry_point() {
        for (container, expected) in [
            (json!({}), vec!["/echo-basic"]),
            (json!({ "args": ["-v"] }), vec!["/echo-basic", "-v"]),
            (json!({ "command": ["/other", "a"], "args": ["-v"] }), vec!["/other", "a", "-v"]),
        ] {
            let mut merged = json!({ "name": "main", "image": "echo-basic:v1" });
            merged.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
            let plan = plan(&json!({ "containers": [merged] }), &json!({})).unwrap();
            assert_eq!(plan.command, expected);
        }
    }

    #[test]
    fn only_portico_pods_terminate_gracefully() {
        let container = json!({
            "name": "main",
            "image": "echo-basic:v1",
            "lifecycle": { "preStop": { "sleep": { "seconds": 3 } } },
        });
        let spec = json!({ "terminationGracePeriodSeconds": 40, "containers": [container] });
        let echo = plan(&spec, &json!({ "app": "infra-backend-v1" })).unwrap();
        assert_eq!(echo.termination, TerminationMode::Immediate);
        let portico = plan(&spec, &json!({ "app.kubernetes.io/name": "portico" })).unwrap();
        let expected = TerminationMode::Graceful { pause: Duration::from_secs(3), grace: Duration::from_secs(40) };
        assert_eq!(portico.termination, expected);
    }

    #[test]
    fn unsupported_fields_are_rejected_by_name() {
        let echo = json!({ "name": "main", "image": "echo-basic:v1" });
        for (spec, expected) in [
            (json!({ "containers": [echo, echo] }), "spec.containers"),
            (json!({ "containers": [echo], "hostNetwork": true }), "spec.hostNetwork"),
            (json!({ "containers": [echo], "initContainers": [echo] }), "spec.initContainers"),
            (json!({ "containers": [{ "name": "main", "image": "nginx" }] }), "no image `nginx`"),
            (
                json!({ "containers": [echo], "securityContext": { "sysctls": [{ "name": "vm.swappiness", "value": "1" }] } }),
                "not `vm.swappiness`",
            ),
            (json!({ "containers": [{ "name": "main", "image": "echo-basic", "workingDir": "/a" }] }), "workingDir"),
        ] {
            let error = plan(&spec, &json!({})).unwrap_err();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
