//! What a Pod asks for, checked: either this node can do all of it, or it says what it cannot and runs nothing.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVar, Lifecycle, Pod, PodSpec};

use super::image::{Image, Images};
use super::privileges::Privileges;
use super::probe::Probes;
use super::volume::{Mount, mounts};

/// A Pod's only container and what surrounds it.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) image: Image,
    /// The program and its arguments, in which `$(NAME)` still stands for variables.
    pub(crate) command: Vec<String>,
    pub(crate) variables: Vec<EnvVar>,
    pub(crate) variables_from: Vec<EnvFromSource>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) privileges: Privileges,
    /// Settings of the kernel for the Pod's network: files below /proc/sys and their content.
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) probes: Probes,
    pub(crate) restart: Restart,
    pub(crate) ending: Ending,
}

/// When a container that has ended starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restart {
    Always,
    OnFailure,
    Never,
}

/// How a Pod that is deleted ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As Pods of the conformance suite: awaiting them would only cost time, and its deletion of namespaces is timed.
    AtOnce,
    /// As Pods of Portico, whose last seconds are what is tested: a pause, a signal, and time to finish.
    InOrder { pause: Duration, grace: Duration },
}

/// The label of Pods that end in order.
const OURS: (&str, &str) = ("app.kubernetes.io/name", "portico");

impl Plan {
    /// The error names the field that this node cannot follow.
    pub(crate) fn of(pod: &Pod, images: &Images) -> Result<Plan, String> {
        let spec = pod.spec.as_ref().ok_or("spec: missing")?;
        let [container] = spec.containers.as_slice() else {
            return Err(format!(
                "spec.containers: this node runs one per Pod, and there are {}",
                spec.containers.len()
            ));
        };
        refuse_what_is_not_built(spec, container)?;
        let image = images.find(container.image.as_deref().unwrap_or_default())?;
        let mut command = container.command.clone().unwrap_or_default();
        if command.is_empty() {
            command.push(image.entrypoint.to_owned());
        }
        command.extend(container.args.clone().unwrap_or_default());
        let restart = match spec.restart_policy.as_deref() {
            None | Some("Always") => Restart::Always,
            Some("OnFailure") => Restart::OnFailure,
            Some("Never") => Restart::Never,
            Some(other) => return Err(format!("spec.restartPolicy: `{other}` is none of Always, OnFailure and Never")),
        };
        Ok(Plan {
            privileges: Privileges::of(spec, container, image.user)?,
            mounts: mounts(spec, container)?,
            settings: settings(spec)?,
            probes: Probes::of(container)?,
            ending: ending(pod, spec, container)?,
            variables: container.env.clone().unwrap_or_default(),
            variables_from: container.env_from.clone().unwrap_or_default(),
            image,
            command,
            restart,
        })
    }
}

fn refuse_what_is_not_built(spec: &PodSpec, container: &Container) -> Result<(), String> {
    let lifecycle = container.lifecycle.as_ref();
    let missing = [
        ("spec.initContainers", spec.init_containers.as_ref().is_some_and(|containers| !containers.is_empty())),
        ("spec.hostNetwork", spec.host_network == Some(true)),
        ("spec.hostPID", spec.host_pid == Some(true)),
        ("spec.readinessGates", spec.readiness_gates.as_ref().is_some_and(|gates| !gates.is_empty())),
        ("spec.containers[0].workingDir", container.working_dir.as_deref().is_some_and(|folder| folder != "/")),
        ("spec.containers[0].lifecycle.postStart", lifecycle.is_some_and(|lifecycle| lifecycle.post_start.is_some())),
        ("spec.containers[0].lifecycle.stopSignal", lifecycle.is_some_and(|lifecycle| lifecycle.stop_signal.is_some())),
    ];
    match missing.iter().find(|(_, there)| *there) {
        Some((field, _)) => Err(format!("{field}: this node cannot do that")),
        None => Ok(()),
    }
}

/// Only those of the network: each Pod has one of its own, and everything else would be the machine's.
fn settings(spec: &PodSpec) -> Result<Vec<(String, String)>, String> {
    let sysctls = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    let settings = sysctls.map(|sysctl| {
        let plain = sysctl.name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if !sysctl.name.starts_with("net.") || sysctl.name.contains("..") || !plain {
            return Err(format!("spec.securityContext.sysctls: this node can only set net.…, not `{}`", sysctl.name));
        }
        Ok((sysctl.name.replace('.', "/"), sysctl.value.clone()))
    });
    settings.collect()
}

fn ending(pod: &Pod, spec: &PodSpec, container: &Container) -> Result<Ending, String> {
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(OURS.0));
    if label.map(String::as_str) != Some(OURS.1) {
        return Ok(Ending::AtOnce);
    }
    let pause = pause(container.lifecycle.as_ref())?;
    let grace = u64::try_from(spec.termination_grace_period_seconds.unwrap_or(30)).unwrap_or_default();
    Ok(Ending::InOrder { pause, grace: Duration::from_secs(grace) })
}

fn pause(lifecycle: Option<&Lifecycle>) -> Result<Duration, String> {
    let Some(action) = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else { return Ok(Duration::ZERO) };
    match &action.sleep {
        Some(sleep) => Ok(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or_default())),
        None => Err("spec.containers[0].lifecycle.preStop: this node can only `sleep`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::{Value, json};

    use super::*;

    fn plan(spec: &Value, labels: &Value) -> Result<Plan, String> {
        let pod = json!({ "metadata": { "name": "pod", "labels": labels }, "spec": spec });
        let images = Images { echo_basic: PathBuf::from("/echo"), portico: PathBuf::from("/portico") };
        Plan::of(&serde_json::from_value(pod).unwrap(), &images)
    }

    #[test]
    fn the_command_replaces_the_entry_point_and_arguments_follow() {
        for (container, expected) in [
            (json!({}), vec!["/echo-basic"]),
            (json!({ "args": ["-v"] }), vec!["/echo-basic", "-v"]),
            (json!({ "command": ["/other", "a"], "args": ["-v"] }), vec!["/other", "a", "-v"]),
        ] {
            let mut whole = json!({ "name": "main", "image": "echo-basic:v1" });
            whole.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
            let plan = plan(&json!({ "containers": [whole] }), &json!({})).unwrap();
            assert_eq!(plan.command, expected);
        }
    }

    #[test]
    fn only_our_own_pods_end_in_order() {
        let container = json!({
            "name": "main",
            "image": "echo-basic:v1",
            "lifecycle": { "preStop": { "sleep": { "seconds": 3 } } },
        });
        let spec = json!({ "terminationGracePeriodSeconds": 40, "containers": [container] });
        let suite = plan(&spec, &json!({ "app": "infra-backend-v1" })).unwrap();
        assert_eq!(suite.ending, Ending::AtOnce);
        let ours = plan(&spec, &json!({ "app.kubernetes.io/name": "portico" })).unwrap();
        let expected = Ending::InOrder { pause: Duration::from_secs(3), grace: Duration::from_secs(40) };
        assert_eq!(ours.ending, expected);
    }

    #[test]
    fn what_is_not_built_is_refused_by_the_name_of_its_field() {
        let echo = json!({ "name": "main", "image": "echo-basic:v1" });
        for (spec, said) in [
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
            let refusal = plan(&spec, &json!({})).unwrap_err();
            assert!(refusal.contains(said), "{said}: {refusal}");
        }
    }
}
