//! What makes Portico serve the Ingresses in place of ingress-nginx: its IngressClasses and its ConfigMap, which the
//! uninstallation of ingress-nginx deletes, and the values of Portico's Helm chart that stand for its flags.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use serde_json::{Map, Value, json};

use super::args_file::ArgsFile;
use super::assumptions::usual_config_map;
use super::{flags, manifest_output};
use crate::api::ObjectKey;
use crate::app::stdout::print;
use crate::args::{ConvertIngressNginxOptions, NginxClassOptions};
use crate::store::Store;

/// The values and the objects.
pub(super) struct DropIn {
    /// Flags without hyphens, as `config` of the chart has them.
    flags: BTreeMap<String, Value>,
    /// What `flags` does not have: lines without an end.
    unset: Vec<String>,
    objects: Vec<Value>,
}

impl DropIn {
    /// `config_map`: that of ingress-nginx, if it was read. One that is only assumed would replace the real one.
    pub(super) fn new(
        store: &Store,
        options: &ConvertIngressNginxOptions,
        args: &ArgsFile,
        config_map: Option<&ObjectKey>,
    ) -> Self {
        let mut drop_in = DropIn { flags: BTreeMap::new(), unset: Vec::new(), objects: Vec::new() };
        let namespace = config_map.map_or_else(|| usual_config_map().0, |key| key.namespace.to_string());
        drop_in.add_flags(args, &namespace);
        drop_in.set("nginx-controller-class", options.classes.controller.clone());
        drop_in.set("nginx-class", options.classes.annotated.clone());
        let NginxClassOptions { controller, annotated, by_name, .. } = &options.classes;
        for class in store.ingress_classes.values() {
            if class.spec.controller != *controller && !(*by_name && *class.meta.key.name == **annotated) {
                continue;
            }
            let mut metadata = json!({"name": class.meta.key.name});
            if class.meta.annotations.get(IS_DEFAULT).is_some_and(|value| &**value == "true") {
                metadata["annotations"] = json!({IS_DEFAULT: "true"});
            }
            drop_in.objects.push(json!({
                "apiVersion": "networking.k8s.io/v1",
                "kind": "IngressClass",
                "metadata": metadata,
                "spec": {"controller": class.spec.controller},
            }));
        }
        let no_keys = BTreeMap::new();
        let config = config_map.and_then(|key| store.config_maps.get(key));
        if let (Some(key), Some(config)) = (config_map, &config) {
            drop_in.set("nginx-configmap", key.to_string());
            drop_in.add_config_map(key, &config.data);
        }
        let data = config.as_ref().map_or(&no_keys, |config| &config.data);
        let mut ports = Vec::new();
        for NamedConfigMap { key, port_suffix } in named_config_maps(args, data, &namespace) {
            let Some(config_map) = store.config_maps.get(&key) else { continue };
            drop_in.add_config_map(&key, &config_map.data);
            let numbers = config_map.data.keys().filter(|port| port.parse::<u16>().is_ok());
            ports.extend(
                port_suffix.into_iter().flat_map(|suffix| numbers.clone().map(move |port| format!("{port}{suffix}"))),
            );
        }
        if !ports.is_empty() {
            drop_in.set("ingress-stream-ports", ports.join(","));
        }
        drop_in
    }

    /// The replacements of the flags of ingress-nginx.
    fn add_flags(&mut self, args: &ArgsFile, pod_namespace: &str) {
        for row in flags::rows(&args.flags) {
            let Some(replacement) = row.replacement.as_deref().and_then(|text| text.strip_prefix("--")) else {
                continue;
            };
            let (name, value) = replacement.split_once(' ').unwrap_or((replacement, ""));
            if !FLAGS.contains(&name) {
                let note = if row.note.is_empty() { String::new() } else { format!(" ({})", row.note) };
                self.unset.push(format!("{}: --{replacement}{note}", row.flag));
                continue;
            }
            let value = value.replace(POD_NAMESPACE, pod_namespace);
            let value = if value.is_empty() { Value::Bool(true) } else { Value::String(value) };
            self.flags.insert(name.to_owned(), value);
        }
    }

    fn set(&mut self, flag: &str, value: String) {
        self.flags.insert(flag.to_owned(), Value::String(value));
    }

    fn add_config_map(&mut self, key: &ObjectKey, data: &BTreeMap<String, Arc<str>>) {
        let data: Map<String, Value> =
            data.iter().map(|(name, value)| (name.clone(), Value::String(value.to_string()))).collect();
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"namespace": key.namespace, "name": key.name},
            "data": data,
        });
        // One may be named several times.
        if !self.objects.contains(&object) {
            self.objects.push(object);
        }
    }

    /// The values of the chart, with what they do not set as comments.
    fn values(&self) -> anyhow::Result<String> {
        let mut text = format!("# {VALUES_TITLE}\n");
        if !self.unset.is_empty() {
            text.push_str(
                "# Flags of ingress-nginx that depend on the installation of Portico, and are not set here:\n",
            );
            text.extend(self.unset.iter().map(|line| format!("#   {}\n", line.replace(['\n', '\r'], " "))));
        }
        text.push_str(&yaml(&json!({"config": self.flags}))?);
        Ok(text)
    }

    /// The objects, below how to keep them.
    fn manifests(&self) -> anyhow::Result<String> {
        let objects: Result<Vec<String>, _> = self.objects.iter().map(yaml).collect();
        Ok(format!("{OBJECTS_TITLE}{}", objects?.join("---\n")))
    }

    /// Writes two files into a folder, or one text to stdout, in which the values are comments.
    pub(super) fn write(&self, folder: Option<&Path>) -> anyhow::Result<()> {
        let (values, objects) = (self.values()?, self.manifests()?);
        let Some(folder) = folder else {
            let comments: String = values.lines().map(|line| format!("# {line}\n")).collect();
            return print(&format!("{comments}{objects}"));
        };
        manifest_output::write_files(&[("values.yaml", &values), ("objects.yaml", &objects)], folder)
    }
}

/// A ConfigMap that the flags or the settings of ingress-nginx name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamedConfigMap {
    pub(super) key: ObjectKey,
    /// What follows the ports that are its keys in `--ingress-stream-ports`; `None` if its keys are no ports.
    port_suffix: Option<&'static str>,
}

/// Those of ports and of headers. The Helm chart of ingress-nginx deletes them with its release. `data`: the settings.
pub(super) fn named_config_maps(
    args: &ArgsFile,
    data: &BTreeMap<String, Arc<str>>,
    pod_namespace: &str,
) -> Vec<NamedConfigMap> {
    let of_flag = |name: &str| args.flags.iter().find(|flag| flag.name == name).map(|flag| &*flag.value);
    let of_key = |name: &str| data.get(name).map(|value| &**value);
    let named = [
        (of_flag("tcp-services-configmap"), Some("")),
        (of_flag("udp-services-configmap"), Some("/udp")),
        (of_key("proxy-set-headers"), None),
        (of_key("add-headers"), None),
    ];
    let mut found: Vec<NamedConfigMap> = Vec::new();
    for (value, port_suffix) in named {
        let Some((namespace, name)) = value.and_then(|value| value.trim().split_once('/')) else { continue };
        let namespace = if namespace == POD_NAMESPACE { pod_namespace } else { namespace };
        let key = ObjectKey::new(namespace, name);
        if !found.iter().any(|known| known.key == key && known.port_suffix == port_suffix) {
            found.push(NamedConfigMap { key, port_suffix });
        }
    }
    found
}

fn yaml(value: &Value) -> anyhow::Result<String> {
    serde_saphyr::to_string(value).context("an object cannot be written as YAML")
}

const VALUES_TITLE: &str = "Values of Portico's Helm chart, which are flags of portico run";
const OBJECTS_TITLE: &str = "\
# Helm deletes these objects with the release of ingress-nginx, and without its IngressClass Portico does not serve the
# Ingresses that name it. To keep them, first upgrade that release with the annotation helm.sh/resource-policy: keep in
# its manifests, for the chart in controller.ingressClassResource.annotations and controller.configAnnotations.
# Otherwise apply this file directly after the uninstallation.
";
/// The variable for the namespace of a Pod, in flags of a container.
const POD_NAMESPACE: &str = "$(POD_NAMESPACE)";
const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";

/// The flags that say the same in Portico's Pods. Addresses to listen on, the Service, the kubeconfig and metrics are
/// those of its own installation.
const FLAGS: &[&str] = &[
    "deny-external-names",
    "drain-delay",
    "drain-timeout",
    "ingress-default-certificate",
    "ingress-status",
    "nginx-annotation-prefix",
    "nginx-class",
    "nginx-class-by-name",
    "nginx-configmap",
    "nginx-controller-class",
    "nginx-default-backend",
    "nginx-disable-catch-all",
    "nginx-namespace-selector",
    "nginx-ssl-passthrough",
    "nginx-tcp-services",
    "nginx-udp-services",
    "nginx-without-class",
    "publish-status-address",
    "watch-namespaces",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::convert::ingress_nginx::args_file::WrittenFlag;

    /// A flag that Portico does not have would stop its Pods.
    #[test]
    fn written_flags_exist() {
        let command = crate::args::command();
        let run = command.find_subcommand("run").unwrap();
        for flag in FLAGS.iter().chain(&["ingress-stream-ports"]) {
            assert!(run.get_arguments().any(|argument| argument.get_long() == Some(*flag)), "{flag}");
        }
    }

    #[test]
    fn config_maps_of_ports_and_headers_are_named() {
        let flag = |name: &str, value: &str| WrittenFlag { name: name.to_owned(), value: value.to_owned() };
        let flags = vec![
            flag("tcp-services-configmap", "$(POD_NAMESPACE)/tcp"),
            flag("udp-services-configmap", "edge/udp"),
            flag("configmap", "edge/settings"),
        ];
        let args = ArgsFile { flags, ..ArgsFile::default() };
        let data = [("add-headers", "edge/headers"), ("proxy-set-headers", "no-namespace"), ("use-gzip", "a/b")];
        let data = data.map(|(key, value)| (key.to_owned(), Arc::from(value))).into();
        let named = named_config_maps(&args, &data, "ingress");
        let found: Vec<_> = named.iter().map(|named| (named.key.to_string(), named.port_suffix)).collect();
        let expected = [("ingress/tcp", Some("")), ("edge/udp", Some("/udp")), ("edge/headers", None)];
        assert_eq!(found, expected.map(|(key, suffix)| (key.to_owned(), suffix)));
    }

    #[test]
    fn flags_of_the_installation_are_comments() {
        let flags =
            [("http-port", "80"), ("ingress-class-by-name", "true"), ("default-backend-service", "$(POD_NAMESPACE)/a")];
        let flags = flags.map(|(name, value)| WrittenFlag { name: name.to_owned(), value: value.to_owned() });
        let mut drop_in = DropIn { flags: BTreeMap::new(), unset: Vec::new(), objects: Vec::new() };
        drop_in.add_flags(&ArgsFile { flags: flags.into(), ..ArgsFile::default() }, "edge");
        let expected = [("nginx-class-by-name", json!(true)), ("nginx-default-backend", json!("edge/a"))];
        assert_eq!(drop_in.flags, expected.map(|(name, value)| (name.to_owned(), value)).into());
        let values = drop_in.values().unwrap();
        assert!(values.contains("#   --http-port: --ingress-http-listen 0.0.0.0:80"), "{values}");
    }
}
