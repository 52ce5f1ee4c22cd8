//! The variables of a container, and how they stand in its command line.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, EnvVarSource, Pod, Secret, Service};
use kube::api::ListParams;
use kube::{Api, Client};

use super::NODE;
use super::links::links;
use super::plan::Plan;
use crate::cluster::{ADDRESS, API_SERVER};

/// Names and values, as a program finds them.
pub(crate) type Environment = BTreeMap<String, String>;

/// Where programs are looked for by those that look, as container runtimes set it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All variables of a Pod's container. The error says what is not there yet, or what this node cannot do.
pub(crate) async fn environment(
    client: &Client,
    pod: &Pod,
    plan: &Plan,
    address: Ipv4Addr,
) -> Result<Environment, String> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let mut environment: Environment = [
        ("PATH", PATH.to_owned()),
        ("HOSTNAME", name),
        ("HOME", "/".to_owned()),
        // There is no balancer for Services of type ClusterIP, so Pods are led to the API server itself.
        ("KUBERNETES_SERVICE_HOST", ADDRESS.to_string()),
        ("KUBERNETES_SERVICE_PORT", API_SERVER.port().to_string()),
        ("KUBERNETES_SERVICE_PORT_HTTPS", API_SERVER.port().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let lookup = Lookup { client, namespace: &namespace };
    if pod.spec.as_ref().is_some_and(|spec| spec.enable_service_links != Some(false)) {
        let services: Api<Service> = Api::namespaced(client.clone(), &namespace);
        let services = services.list(&ListParams::default()).await;
        environment.extend(links(&services.map_err(|error| format!("Services of {namespace}: {error}"))?.items));
    }
    for source in &plan.variables_from {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let mut found = BTreeMap::new();
        if let Some(reference) = &source.config_map_ref {
            found.extend(lookup.config_map(&reference.name, reference.optional).await?);
        }
        if let Some(reference) = &source.secret_ref {
            found.extend(lookup.secret(&reference.name, reference.optional).await?);
        }
        environment.extend(found.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)));
    }
    for variable in &plan.variables {
        let value = match &variable.value_from {
            None => Some(expand(variable.value.as_deref().unwrap_or_default(), &environment)),
            Some(source) => {
                lookup.value(source, pod, address).await.map_err(|error| format!("env {}: {error}", variable.name))?
            }
        };
        environment.extend(value.map(|value| (variable.name.clone(), value)));
    }
    Ok(environment)
}

/// Writes what a Pod finds in `/etc` about names: its own, and where to ask for others. Nothing answers there, and a
/// program that gives up at once without these files would tell nothing about clusters.
pub(crate) fn names(root: &Path, pod: &Pod, address: Ipv4Addr) -> Result<()> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let folder = root.join("etc");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let search = format!("{namespace}.svc.cluster.local svc.cluster.local cluster.local");
    for (file, content) in [
        ("hosts", format!("127.0.0.1\tlocalhost\n{address}\t{name}\n")),
        ("hostname", format!("{name}\n")),
        ("resolv.conf", format!("search {search}\nnameserver {ADDRESS}\noptions ndots:5\n")),
    ] {
        let path = folder.join(file);
        // Never into the image, to which files are linked.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot replace {}", path.display()));
            }
            _ => fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?,
        }
    }
    Ok(())
}

/// Replaces `$(NAME)` by what NAME is. An unknown name stays as it is, and `$$` stands for one `$`.
pub(crate) fn expand(text: &str, environment: &Environment) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let variable = after.strip_prefix('(').and_then(|inside| inside.split_once(')'));
        if let Some(escaped) = after.strip_prefix('$') {
            expanded.push('$');
            rest = escaped;
        } else if let Some((name, behind)) = variable {
            match environment.get(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = behind;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

/// What a field of the Pod says: of those that the downward API has, the ones this node knows.
pub(crate) fn field(pod: &Pod, path: &str, address: Ipv4Addr) -> Result<String, String> {
    let metadata = &pod.metadata;
    let spec = pod.spec.clone().unwrap_or_default();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match map {
            "metadata.labels" => &metadata.labels,
            "metadata.annotations" => &metadata.annotations,
            _ => return Err(format!("fieldRef: there is no map `{map}`")),
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => text(&metadata.name),
        "metadata.namespace" => text(&metadata.namespace),
        "metadata.uid" => text(&metadata.uid),
        "spec.nodeName" => NODE.to_owned(),
        "spec.serviceAccountName" => text(&spec.service_account_name),
        "status.podIP" | "status.podIPs" => address.to_string(),
        "status.hostIP" | "status.hostIPs" => ADDRESS.to_string(),
        _ => return Err(format!("fieldRef: this node does not know the field `{path}`")),
    })
}

/// Secrets and ConfigMaps of one namespace.
struct Lookup<'a> {
    client: &'a Client,
    namespace: &'a str,
}

impl Lookup<'_> {
    async fn value(&self, source: &EnvVarSource, pod: &Pod, address: Ipv4Addr) -> Result<Option<String>, String> {
        let (kind, name, key, optional, mut found) =
            match (&source.field_ref, &source.config_map_key_ref, &source.secret_key_ref) {
                (Some(reference), ..) => return field(pod, &reference.field_path, address).map(Some),
                (_, Some(reference), _) => {
                    let found = self.config_map(&reference.name, reference.optional).await?;
                    ("ConfigMap", &reference.name, &reference.key, reference.optional, found)
                }
                (.., Some(reference)) => {
                    let found = self.secret(&reference.name, reference.optional).await?;
                    ("Secret", &reference.name, &reference.key, reference.optional, found)
                }
                _ => return Err("this node knows fieldRef, configMapKeyRef and secretKeyRef".to_owned()),
            };
        match found.remove(key) {
            None if optional != Some(true) => Err(format!("{kind} {}/{name} has no key `{key}`", self.namespace)),
            value => Ok(value),
        }
    }

    async fn config_map(&self, name: &str, optional: Option<bool>) -> Result<BTreeMap<String, String>, String> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace);
        let found = api.get_opt(name).await.map_err(|error| format!("ConfigMap {}/{name}: {error}", self.namespace))?;
        match found {
            Some(found) => Ok(found.data.unwrap_or_default()),
            None if optional == Some(true) => Ok(BTreeMap::new()),
            None => Err(format!("ConfigMap {}/{name} does not exist", self.namespace)),
        }
    }

    async fn secret(&self, name: &str, optional: Option<bool>) -> Result<BTreeMap<String, String>, String> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace);
        let found = api.get_opt(name).await.map_err(|error| format!("Secret {}/{name}: {error}", self.namespace))?;
        let Some(found) = found else {
            let absent = format!("Secret {}/{name} does not exist", self.namespace);
            return if optional == Some(true) { Ok(BTreeMap::new()) } else { Err(absent) };
        };
        let data = found.data.unwrap_or_default().into_iter();
        Ok(data.map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned())).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_stand_in_other_texts() {
        let environment = Environment::from([("NAME".to_owned(), "value".to_owned())]);
        for (text, expected) in [
            ("plain", "plain"),
            ("a $(NAME) b $(NAME)", "a value b value"),
            ("$$(NAME)", "$(NAME)"),
            ("$(OTHER)", "$(OTHER)"),
            ("$NAME costs 5$", "$NAME costs 5$"),
            ("$(NAME", "$(NAME"),
        ] {
            assert_eq!(expand(text, &environment), expected, "{text}");
        }
    }

    #[test]
    fn fields_of_the_pod_are_known_by_their_paths() {
        let pod = json!({
            "metadata": { "name": "pod", "namespace": "space", "labels": { "a.b/c": "d" } },
            "spec": { "containers": [], "serviceAccountName": "account" },
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let address = Ipv4Addr::new(198, 18, 128, 9);
        for (path, expected) in [
            ("metadata.name", "pod"),
            ("metadata.namespace", "space"),
            ("metadata.labels['a.b/c']", "d"),
            ("metadata.annotations['a.b/c']", ""),
            ("spec.serviceAccountName", "account"),
            ("status.podIP", "198.18.128.9"),
        ] {
            assert_eq!(field(&pod, path, address).as_deref(), Ok(expected), "{path}");
        }
        assert!(field(&pod, "status.phase", address).unwrap_err().contains("`status.phase`"));
    }
}
