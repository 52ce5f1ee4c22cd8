//! The environment variables of a container, and their expansion in its command line.

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
use super::plan::PodPlan;
use super::service_links::service_variables;
use crate::cluster::{ADDRESS as NODE_ADDRESS, API_SERVER};

/// Names and values of variables.
pub(crate) type Environment = BTreeMap<String, String>;

/// The default PATH of container runtimes.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All variables of a Pod's container. The error names what is missing, or what this node does not support.
pub(crate) async fn environment(
    client: &Client,
    pod: &Pod,
    plan: &PodPlan,
    pod_address: Ipv4Addr,
) -> Result<Environment, String> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let mut environment: Environment = [
        ("PATH", DEFAULT_PATH.to_owned()),
        ("HOSTNAME", name),
        ("HOME", "/".to_owned()),
        // ClusterIPs are not served, so Pods connect to the API server directly.
        ("KUBERNETES_SERVICE_HOST", NODE_ADDRESS.to_string()),
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
        environment
            .extend(service_variables(&services.map_err(|error| format!("Services of {namespace}: {error}"))?.items));
    }
    for source in &plan.variables_from {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let mut variables = BTreeMap::new();
        if let Some(reference) = &source.config_map_ref {
            variables.extend(lookup.config_map(&reference.name, reference.optional).await?);
        }
        if let Some(reference) = &source.secret_ref {
            variables.extend(lookup.secret(&reference.name, reference.optional).await?);
        }
        environment.extend(variables.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)));
    }
    for variable in &plan.variables {
        let value = match &variable.value_from {
            None => Some(expand(variable.value.as_deref().unwrap_or_default(), &environment)),
            Some(source) => lookup
                .value(source, pod, pod_address)
                .await
                .map_err(|error| format!("env {}: {error}", variable.name))?,
        };
        environment.extend(value.map(|value| (variable.name.clone(), value)));
    }
    Ok(environment)
}

/// Writes `hosts`, `hostname` and `resolv.conf` in a Pod's `/etc`. No DNS server runs at the address in `resolv.conf`,
/// but some programs exit without these files.
pub(crate) fn write_etc_files(root: &Path, pod: &Pod, pod_address: Ipv4Addr) -> Result<()> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let folder = root.join("etc");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let search = format!("{namespace}.svc.cluster.local svc.cluster.local cluster.local");
    for (file, content) in [
        ("hosts", format!("127.0.0.1\tlocalhost\n{pod_address}\t{name}\n")),
        ("hostname", format!("{name}\n")),
        ("resolv.conf", format!("search {search}\nnameserver {NODE_ADDRESS}\noptions ndots:5\n")),
    ] {
        let path = folder.join(file);
        // Removed first, because files of the image are hard links.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot replace {}", path.display()));
            }
            _ => fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?,
        }
    }
    Ok(())
}

/// Replaces `$(NAME)` with the value of NAME. Unknown names are kept, and `$$` is an escaped `$`.
pub(crate) fn expand(text: &str, environment: &Environment) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        let variable = after.strip_prefix('(').and_then(|inside| inside.split_once(')'));
        if let Some(escaped) = after.strip_prefix('$') {
            expanded.push('$');
            rest = escaped;
        } else if let Some((name, remainder)) = variable {
            match environment.get(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = remainder;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

/// The value of a Pod field of the downward API; only some are supported.
pub(crate) fn pod_field(pod: &Pod, path: &str, pod_address: Ipv4Addr) -> Result<String, String> {
    let metadata = &pod.metadata;
    let spec = pod.spec.clone().unwrap_or_default();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match map {
            "metadata.labels" => &metadata.labels,
            "metadata.annotations" => &metadata.annotations,
            _ => {
                return Err(format!(
                    "fieldRef: `{map}` has no keys; only metadata.labels and metadata.annotations have keys"
                ));
            }
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => text(&metadata.name),
        "metadata.namespace" => text(&metadata.namespace),
        "metadata.uid" => text(&metadata.uid),
        "spec.nodeName" => NODE.to_owned(),
        "spec.serviceAccountName" => text(&spec.service_account_name),
        "status.podIP" | "status.podIPs" => pod_address.to_string(),
        "status.hostIP" | "status.hostIPs" => NODE_ADDRESS.to_string(),
        _ => return Err(format!("fieldRef: this node does not support the field `{path}`")),
    })
}

/// Looks up Secrets and ConfigMaps of one namespace.
struct Lookup<'a> {
    client: &'a Client,
    namespace: &'a str,
}

impl Lookup<'_> {
    /// The value of a variable; None if its source is optional and missing.
    async fn value(&self, source: &EnvVarSource, pod: &Pod, pod_address: Ipv4Addr) -> Result<Option<String>, String> {
        let (kind, name, key, optional, mut data) =
            match (&source.field_ref, &source.config_map_key_ref, &source.secret_key_ref) {
                (Some(reference), ..) => return pod_field(pod, &reference.field_path, pod_address).map(Some),
                (_, Some(reference), _) => {
                    let data = self.config_map(&reference.name, reference.optional).await?;
                    ("ConfigMap", &reference.name, &reference.key, reference.optional, data)
                }
                (.., Some(reference)) => {
                    let data = self.secret(&reference.name, reference.optional).await?;
                    ("Secret", &reference.name, &reference.key, reference.optional, data)
                }
                _ => {
                    let supported = "fieldRef, configMapKeyRef and secretKeyRef";
                    return Err(format!("valueFrom: this node supports only {supported}"));
                }
            };
        match data.remove(key) {
            None if optional != Some(true) => Err(format!("{kind} {}/{name} has no key `{key}`", self.namespace)),
            value => Ok(value),
        }
    }

    async fn config_map(&self, name: &str, optional: Option<bool>) -> Result<BTreeMap<String, String>, String> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace);
        let config_map =
            api.get_opt(name).await.map_err(|error| format!("ConfigMap {}/{name}: {error}", self.namespace))?;
        match config_map {
            Some(config_map) => Ok(config_map.data.unwrap_or_default()),
            None if optional == Some(true) => Ok(BTreeMap::new()),
            None => Err(format!("ConfigMap {}/{name} does not exist", self.namespace)),
        }
    }

    async fn secret(&self, name: &str, optional: Option<bool>) -> Result<BTreeMap<String, String>, String> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace);
        let secret = api.get_opt(name).await.map_err(|error| format!("Secret {}/{name}: {error}", self.namespace))?;
        let Some(secret) = secret else {
            let absent = format!("Secret {}/{name} does not exist", self.namespace);
            return if optional == Some(true) { Ok(BTreeMap::new()) } else { Err(absent) };
        };
        let data = secret.data.unwrap_or_default().into_iter();
        Ok(data.map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned())).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_expanded() {
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
    fn downward_api_fields_are_read() {
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
            assert_eq!(pod_field(&pod, path, address).as_deref(), Ok(expected), "{path}");
        }
        assert!(pod_field(&pod, "status.phase", address).unwrap_err().contains("`status.phase`"));
    }
}
