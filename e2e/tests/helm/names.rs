//! Names and labels of objects, for all names of releases and additional labels.

use anyhow::{Context, Result, ensure};
use portico_e2e::helm::Helm;
use serde_json::Value;

use crate::helm::rendered::{name_of, objects, render};

/// Omits cluster-scoped objects that only one release of a cluster can own.
const NO_SHARED_OBJECTS: &str = "crds.install=false,gatewayClass.create=false,ingressClass.create=false";

pub(crate) fn releases_have_distinct_names(helm: &Helm) -> Result<()> {
    let names = |release: &str, namespace: &str| -> Result<Vec<String>> {
        Ok(render_release(helm, release, namespace, &["--set", NO_SHARED_OBJECTS])?.iter().map(name_of).collect())
    };
    let first = names("portico", "portico-system")?;
    for (release, namespace) in [("portico", "other"), ("edge", "portico-system")] {
        let second = names(release, namespace)?;
        let shared: Vec<_> = first.iter().filter(|name| second.contains(name)).collect();
        ensure!(shared.is_empty(), "{shared:?}");
    }
    Ok(())
}

/// Helm allows names of up to 53 characters with dots and leading digits. Names of Services must start with a letter,
/// and have no dots and at most 63 characters.
pub(crate) fn all_release_names_are_valid(helm: &Helm) -> Result<()> {
    let long = format!("{}.z", "a".repeat(51));
    for release in ["a.b.c", "1st", "123", "2portico", "true", &long] {
        // YAML reads a name of digits, such as that of this namespace, as a number unless it is quoted.
        for object in render_release(helm, release, "123", &["--set", "crds.install=false"])? {
            let name = object["metadata"]["name"].as_str().with_context(|| format!("{release}: {object:#}"))?;
            if object["kind"] == "Service" {
                let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
                let starts_with_letter = name.starts_with(|first: char| first.is_ascii_lowercase());
                ensure!(starts_with_letter && name.len() <= 63 && name.bytes().all(is_allowed), "{release}: {name}");
            }
            let metadata = [&object["metadata"], &object["spec"]["template"]["metadata"]];
            for labels in metadata.into_iter().filter_map(|metadata| metadata["labels"].as_object()) {
                ensure!(labels.values().all(Value::is_string), "{release}: {labels:?}");
                ensure!(labels["app.kubernetes.io/instance"] == *release, "{release}: {labels:?}");
            }
        }
    }
    Ok(())
}

/// No label is rendered twice, which would be invalid YAML: the labels of an object replace common ones, and common
/// labels do not replace those of the chart.
pub(crate) fn labels_are_unique(helm: &Helm) -> Result<()> {
    let rendered = render(helm, &["--set", "commonLabels.team=all,podLabels.team=pods,service.labels.team=front"])?;
    let team = |kind: &str, pointer: &str| -> Result<String> {
        let object = rendered.iter().find(|object| object["kind"] == kind).with_context(|| format!("no {kind}"))?;
        Ok(object
            .pointer(&format!("{pointer}/metadata/labels/team"))
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned())
    };
    let teams = [team("Deployment", "")?, team("Deployment", "/spec/template")?, team("Service", "")?];
    ensure!(teams == ["all", "pods", "front"], "{teams:?}");

    let common = ["part-of=platform", "managed-by=flux", "version=9"];
    let common = common.map(|label| format!(r"commonLabels.app\.kubernetes\.io/{label}")).join(",");
    let labels = |settings: &[&str]| -> Result<[Value; 5]> {
        let rendered = render(helm, settings)?;
        let workload = rendered.iter().find(|object| object["kind"] == "Deployment").context("no Deployment")?;
        let (workload_labels, pod_labels) =
            (&workload["metadata"]["labels"], &workload["spec"]["template"]["metadata"]["labels"]);
        let label = |labels: &Value, name: &str| labels[format!("app.kubernetes.io/{name}")].clone();
        let [part_of, version] = ["part-of", "version"];
        let all = [
            (workload_labels, part_of),
            (workload_labels, version),
            (workload_labels, "managed-by"),
            (pod_labels, part_of),
            (pod_labels, version),
        ];
        Ok(all.map(|(labels, name)| label(labels, name)))
    };
    let (by_default, with_common_labels) = (labels(&[])?, labels(&["--set-string", &common])?);
    ensure!(
        with_common_labels == by_default && by_default[2] == "Helm",
        "found {with_common_labels:?}, expected {by_default:?}"
    );
    Ok(())
}

fn render_release(helm: &Helm, release: &str, namespace: &str, settings: &[&str]) -> Result<Vec<Value>> {
    let chart = Helm::chart()?;
    objects(&helm.run_without_cluster(&[&["template", release, &chart, "--namespace", namespace], settings].concat())?)
}
