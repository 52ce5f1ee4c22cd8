//! Tests of objects that depend on flags and on each other: RBAC, disruption budgets, network policies, monitors, notes
//! and the number of replicas.

use anyhow::{Context, Result, ensure};
use portico_e2e::helm::Helm;
use serde_json::{Value, json};

use crate::helm::rendered::{NAMESPACE, name_of, render};

/// The permission for the Lease is in the namespace of the Lease, which may differ from that of the Pods. The Secret of
/// the keys is always in the namespace of the Pods.
pub(crate) fn rbac_follows_the_lease(helm: &Helm) -> Result<()> {
    let roles = |settings: &[&str]| -> Result<Vec<(String, Vec<Value>)>> {
        let rendered = render(helm, settings)?.into_iter().filter(|object| object["kind"] == "Role");
        let resources = |role: &Value| -> Vec<Value> {
            let rules = role["rules"].as_array().into_iter().flatten();
            rules.flat_map(|rule| rule["resources"].as_array().into_iter().flatten().cloned()).collect()
        };
        Ok(rendered.map(|role| (name_of(&role), resources(&role))).collect())
    };
    let lease = || vec![json!("leases"), json!("leases")];
    let home = || vec![json!("secrets"), json!("secrets"), json!("pods")];
    let one_namespace = [("Role portico-system/portico".to_owned(), [lease(), home()].concat())];
    ensure!(roles(&[])? == one_namespace);
    ensure!(roles(&["--set", &format!("config.leader-election-namespace={NAMESPACE}")])? == one_namespace);
    let other_namespace = ["--set", "config.leader-election-namespace=lead"];
    let mut found = roles(&other_namespace)?;
    found.sort_by(|(left, _), (right, _)| left.cmp(right));
    let expected =
        [("Role lead/portico-election".to_owned(), lease()), ("Role portico-system/portico".to_owned(), home())];
    ensure!(found == expected, "{found:?}");
    let bindings = render(helm, &other_namespace)?;
    let binding = bindings.iter().find(|object| name_of(object) == "RoleBinding lead/portico-election");
    let binding = binding.context("the Role is not bound")?;
    let account = json!([{ "kind": "ServiceAccount", "name": "portico", "namespace": NAMESPACE }]);
    ensure!(binding["subjects"] == account && binding["roleRef"]["name"] == "portico-election", "{binding:#}");
    Ok(())
}

/// A budget that Kubernetes cannot compute blocks every drain.
pub(crate) fn disruption_budgets_allow_drains(helm: &Helm) -> Result<()> {
    let budget = |settings: &str| -> Result<Option<Value>> {
        let rendered = render(helm, &["--set", settings])?;
        Ok(rendered
            .into_iter()
            .find(|object| object["kind"] == "PodDisruptionBudget")
            .map(|budget| budget["spec"].clone()))
    };
    ensure!(budget("kind=DaemonSet")?.is_none());
    // Previous releases had this default, which is ignored for a DaemonSet.
    ensure!(budget("kind=DaemonSet,podDisruptionBudget.maxUnavailable=1")?.is_none());
    ensure!(budget("podDisruptionBudget.enabled=false")?.is_none());
    for (settings, field, value) in [
        ("kind=Deployment", "maxUnavailable", json!(1)),
        ("podDisruptionBudget.maxUnavailable=50%", "maxUnavailable", json!("50%")),
        ("podDisruptionBudget.minAvailable=1", "minAvailable", json!(1)),
        ("podDisruptionBudget.minAvailable=50%", "minAvailable", json!("50%")),
        // Only an external autoscaler knows the number of Pods.
        ("replicas=null,podDisruptionBudget.minAvailable=2", "minAvailable", json!(2)),
        ("kind=DaemonSet,podDisruptionBudget.minAvailable=3", "minAvailable", json!(3)),
    ] {
        let spec = budget(settings)?.with_context(|| format!("{settings}: no PodDisruptionBudget"))?;
        let other = if field == "minAvailable" { "maxUnavailable" } else { "minAvailable" };
        ensure!(spec[field] == value && spec[other].is_null(), "{settings}: {spec}");
    }
    Ok(())
}

/// All clients reach the ports of listeners, but not the status port and the admin port.
pub(crate) fn network_policy_allows_all_listeners(helm: &Helm) -> Result<()> {
    for (settings, expected) in [
        ("config.log-level=info", json!([[8000, null], [8443, null], [10000, 32767]])),
        ("config.gateway-address-pool=192.0.2.1", json!([[1, 8099], [8102, 65535]])),
        (
            "config.gateway-address-pool=192.0.2.1,config.status-listen=0.0.0.0:65535,config.admin-listen=off",
            json!([[1, 65534]]),
        ),
        (
            "config.status-listen=0.0.0.0:20000,config.admin-listen=127.0.0.1:10000,config.ingress-http-listen=off",
            json!([[8443, null], [10001, 19999], [20001, 32767]]),
        ),
    ] {
        let rendered = render(helm, &["--set", "networkPolicy.enabled=true", "--set", settings])?;
        let policy = rendered
            .iter()
            .find(|object| object["kind"] == "NetworkPolicy")
            .context("no NetworkPolicy was rendered")?;
        let rules = policy["spec"]["ingress"][0]["ports"].as_array().context("the NetworkPolicy has no ports")?;
        let of_protocol = |protocol: &'static str| rules.iter().filter(move |port| port["protocol"] == protocol);
        let range = |port: &Value| json!([port["port"], port["endPort"]]);
        let ports: Vec<Value> = of_protocol("TCP").map(range).collect();
        ensure!(json!(ports) == expected, "{settings}: found ports {ports:?}, expected {expected}");
        let udp: Vec<Value> = of_protocol("UDP").map(range).collect();
        let listeners = if settings.contains("address-pool") { json!([[1, 65535]]) } else { json!([[10000, 32767]]) };
        ensure!(json!(udp) == listeners, "{settings}: found UDP ports {udp:?}, expected {listeners}");
    }
    Ok(())
}

/// Dashboards and rules use the job name, which must not depend on the names of chart and release.
pub(crate) fn job_name_is_portico(helm: &Helm) -> Result<()> {
    for (monitor, labeled_kind) in [("serviceMonitor", "Service"), ("podMonitor", "Deployment")] {
        let settings = format!("nameOverride=edge,fullnameOverride=the-edge,metrics.{monitor}.enabled=true");
        let rendered = render(helm, &["--set", &settings])?;
        let object = |kind: &str, name: &str| {
            let object = rendered.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
            object.with_context(|| format!("no {kind} {name}"))
        };
        let kind = if monitor == "podMonitor" { "PodMonitor" } else { "ServiceMonitor" };
        let label = object(kind, "the-edge")?["spec"]["jobLabel"].as_str().context("no jobLabel")?;
        let target = match labeled_kind {
            "Service" => &object("Service", "the-edge-status")?["metadata"]["labels"],
            _ => &object("Deployment", "the-edge")?["spec"]["template"]["metadata"]["labels"],
        };
        ensure!(target[label] == "portico", "{kind}: {label} is {}", target[label]);
    }
    Ok(())
}

pub(crate) fn notes_follow_the_values(helm: &Helm) -> Result<()> {
    let chart = Helm::chart()?;
    let notes = |settings: &str| {
        helm.run_without_cluster(&[
            "install",
            "portico",
            &chart,
            "--namespace",
            NAMESPACE,
            "--dry-run=client",
            "--set",
            settings,
        ])
    };
    for (settings, words, absent) in [
        ("replicas=2", &["port: 80,", "portico-system 8101", "portico-leader in portico-system."][..], "on the nodes"),
        (
            "config.admin-listen=127.0.0.1:9101,config.status-listen=0.0.0.0:9100,config.leader-election-namespace=lead",
            &["portico-system 9101", "Metrics are on port 9100", "portico-leader in lead."],
            "8101",
        ),
        ("config.admin-listen=off", &["Metrics are on port 8100 of each Pod."], "port-forward"),
        (
            "hostNetwork=true,service.enabled=false,config.gateway-address-pool=0.0.0.0",
            &["port: 8080,", "on 8000 and 8443.", "set config.publish-status-address"],
            "at the Service",
        ),
    ] {
        let output = notes(settings)?;
        let notes = output.split_once("NOTES:").context("no notes in the output")?.1;
        for word in words {
            ensure!(notes.contains(word), "{settings}: `{word}` is missing in\n{notes}");
        }
        ensure!(!notes.contains(absent), "{settings}: unexpected `{absent}` in\n{notes}");
    }
    Ok(())
}

/// With an autoscaler, no number of replicas is rendered, so that a rollback to any revision keeps its number.
pub(crate) fn autoscaler_owns_replicas(helm: &Helm) -> Result<()> {
    let replicas = |settings: &str| -> Result<Value> {
        let rendered = render(helm, &["--set", settings])?;
        let workload = rendered.iter().find(|object| object["spec"]["template"].is_object());
        Ok(workload.context("no workload was rendered")?["spec"]["replicas"].clone())
    };
    ensure!(replicas("replicas=3")? == 3);
    ensure!(replicas("replicas=3,autoscaling.enabled=true")?.is_null());
    ensure!(replicas("replicas=3,kind=DaemonSet")?.is_null());
    ensure!(replicas("replicas=null")?.is_null());
    ensure!(replicas("replicas=0")? == 0);
    Ok(())
}
