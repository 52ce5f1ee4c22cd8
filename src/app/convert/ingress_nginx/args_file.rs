//! Reads the flags of ingress-nginx from a manifest of its Deployment, from values of its Helm chart, or from a list.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use serde_json::{Map, Value};

use crate::args::NamespacedName;

/// A flag as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WrittenFlag {
    /// Without hyphens.
    pub(super) name: String,
    /// Empty for a flag without a value.
    pub(super) value: String,
}

/// What a file says about ingress-nginx.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ArgsFile {
    pub(super) flags: Vec<WrittenFlag>,
    /// The content of the ConfigMap that the Helm chart writes. Empty for files that are no values of it.
    pub(super) config: BTreeMap<String, Arc<str>>,
}

impl ArgsFile {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let context = || format!("--args {}: cannot read the file", path.display());
        let mut text = String::new();
        let file = File::open(path).with_context(context)?;
        file.take(MAX_BYTES + 1).read_to_string(&mut text).with_context(context)?;
        if text.len() as u64 > MAX_BYTES {
            bail!("--args {}: the file is larger than {MAX_BYTES} bytes; name a smaller one", path.display());
        }
        let file = ArgsFile::parse(&text);
        if file == ArgsFile::default() {
            bail!(
                "--args {}: no flags are in it; name a manifest of a Deployment or DaemonSet, values of the chart \
                 ingress-nginx, or a list such as --ingress-class=nginx, one flag in each line",
                path.display()
            );
        }
        Ok(file)
    }

    fn parse(text: &str) -> Self {
        let documents = text.split("\n---").map(|document| serde_saphyr::from_str::<Value>(document).ok());
        let objects: Vec<Map<String, Value>> = documents
            .filter_map(|document| match document {
                Some(Value::Object(object)) => Some(object),
                _ => None,
            })
            .collect();
        if objects.is_empty() {
            return ArgsFile { flags: flags(text.lines().map(list_item)), ..ArgsFile::default() };
        }
        let mut file = ArgsFile::default();
        for object in &objects {
            match (object.get("kind").and_then(Value::as_str), object.get("items")) {
                (Some("List"), Some(Value::Array(items))) => {
                    items.iter().filter_map(Value::as_object).for_each(|item| file.add_workload(item));
                }
                (Some(_), _) => file.add_workload(object),
                (None, _) => file.add_values(object),
            }
        }
        file
    }

    /// Adds the flags of the container with ingress-nginx; those of all containers if none is called so.
    fn add_workload(&mut self, object: &Map<String, Value>) {
        let spec = object.get("spec").map(|spec| &spec["template"]["spec"]["containers"]);
        let containers: Vec<&Value> = spec.and_then(Value::as_array).into_iter().flatten().collect();
        let is_controller = |container: &&&Value| {
            let name = container["name"].as_str().unwrap_or_default();
            let image = container["image"].as_str().unwrap_or_default();
            name == "controller" || image.contains("ingress-nginx") || image.contains("nginx-ingress")
        };
        let controllers: Vec<&Value> = containers.iter().filter(is_controller).copied().collect();
        for container in if controllers.is_empty() { containers } else { controllers } {
            let words = ["command", "args"].iter().filter_map(|field| container[*field].as_array()).flatten();
            self.flags.extend(flags(words.filter_map(Value::as_str)));
        }
    }

    /// Adds what values of the Helm chart set. Those of a chart that has it as a part are below its name.
    fn add_values(&mut self, values: &Map<String, Value>) {
        let values = values.get("ingress-nginx").and_then(Value::as_object).unwrap_or(values);
        if !["controller", "defaultBackend"].iter().any(|part| values.contains_key(*part)) {
            return;
        }
        let controller = values.get("controller").unwrap_or(&Value::Null);
        let full_name = values.get("fullnameOverride").map(scalar).filter(|name| !name.is_empty());
        let full_name = full_name.unwrap_or_else(|| "ingress-nginx".to_owned());
        let in_own_namespace = |name: &str| format!("$(POD_NAMESPACE)/{full_name}-{name}");
        for (pointer, flag) in VALUES {
            let value = controller.pointer(pointer).map(scalar).filter(|value| !value.is_empty());
            self.flags.extend(value.map(|value| WrittenFlag { name: (*flag).to_owned(), value }));
        }
        let is_on = |pointer: &str| controller.pointer(pointer).and_then(Value::as_bool) == Some(true);
        if is_on("/scope/enabled") && controller.pointer("/scope/namespace").is_none_or(|name| scalar(name).is_empty())
        {
            self.flags.push(WrittenFlag { name: "watch-namespace".to_owned(), value: "$(POD_NAMESPACE)".to_owned() });
        }
        let is_off = |pointer: &str| controller.pointer(pointer).and_then(Value::as_bool) == Some(false);
        if !is_off("/publishService/enabled") {
            let path = controller.pointer("/publishService/pathOverride").map(scalar).filter(|path| !path.is_empty());
            let value = path.unwrap_or_else(|| in_own_namespace("controller"));
            self.flags.push(WrittenFlag { name: "publish-service".to_owned(), value });
        }
        let default_backend = values.get("defaultBackend").map(|backend| &backend["enabled"]).and_then(Value::as_bool);
        if default_backend == Some(true) {
            let value = in_own_namespace("defaultbackend");
            self.flags.push(WrittenFlag { name: "default-backend-service".to_owned(), value });
        }
        if !is_off("/admissionWebhooks/enabled") {
            self.flags.push(WrittenFlag { name: "validating-webhook".to_owned(), value: ":8443".to_owned() });
        }
        for (key, flag) in [("tcp", "tcp-services-configmap"), ("udp", "udp-services-configmap")] {
            let has_ports = values.get(key).and_then(Value::as_object).is_some_and(|ports| !ports.is_empty());
            if has_ports {
                let value = in_own_namespace(key);
                self.flags.push(WrittenFlag { name: flag.to_owned(), value });
            }
        }
        let extra = controller.get("extraArgs").and_then(Value::as_object).into_iter().flatten();
        self.flags.extend(extra.map(|(name, value)| WrittenFlag { name: name.clone(), value: scalar(value) }));
        let config = controller.get("config").and_then(Value::as_object).into_iter().flatten();
        self.config.extend(config.map(|(key, value)| (key.clone(), Arc::from(scalar(value)))));
        // The chart writes a ConfigMap for each, and its name into that of the settings.
        for (field, key, name) in [
            ("addHeaders", "add-headers", "custom-add-headers"),
            ("proxySetHeaders", "proxy-set-headers", "custom-proxy-headers"),
        ] {
            let headers = controller.get(field).and_then(Value::as_object).filter(|headers| !headers.is_empty());
            if headers.is_some() {
                self.config.insert(key.to_owned(), Arc::from(in_own_namespace(name)));
            }
        }
        // The chart always writes it, so that no values are empty.
        let allows_snippets = controller.get("allowSnippetAnnotations").and_then(Value::as_bool) == Some(true);
        let allows_snippets = Arc::from(allows_snippets.to_string());
        self.config.entry("allow-snippet-annotations".to_owned()).or_insert(allows_snippets);
    }

    /// Namespace and name of the default backend. `None` if it is in the namespace of the Pod, which is not known.
    pub(super) fn default_backend(&self) -> Option<NamespacedName> {
        let flag = self.flags.iter().find(|flag| flag.name == "default-backend-service")?;
        let (namespace, name) = flag.value.split_once('/')?;
        (!namespace.starts_with("$(")).then(|| (namespace.to_owned(), name.to_owned()))
    }

    /// What precedes the names of annotations, without the slash at its end; none if it is as usual.
    pub(super) fn annotation_prefixes(&self) -> Vec<String> {
        let mut of_flag = self.flags.iter().filter(|flag| flag.name == "annotations-prefix");
        let prefix = of_flag.next().map(|flag| flag.value.trim_end_matches('/').to_owned());
        prefix.filter(|prefix| !prefix.is_empty()).into_iter().collect()
    }

    /// Namespace and name of the ConfigMap. The namespace is `None` if it is that of the Pod.
    pub(super) fn config_map(&self) -> Option<(Option<&str>, &str)> {
        let flag = self.flags.iter().find(|flag| flag.name == "configmap")?;
        let (namespace, name) = flag.value.split_once('/')?;
        Some((Some(namespace).filter(|namespace| !namespace.starts_with("$(")), name))
    }
}

/// Values of the Helm chart below `controller`, and the flags that it writes for them.
const VALUES: &[(&str, &str)] = &[
    ("/ingressClass", "ingress-class"),
    ("/ingressClassResource/controllerValue", "controller-class"),
    ("/ingressClassByName", "ingress-class-by-name"),
    ("/watchIngressWithoutClass", "watch-ingress-without-class"),
    ("/scope/namespace", "watch-namespace"),
    ("/scope/namespaceSelector", "watch-namespace-selector"),
    ("/reportNodeInternalIp", "report-node-internal-ip-address"),
    ("/metrics/enabled", "enable-metrics"),
    ("/enableTopologyAwareRouting", "enable-topology-aware-routing"),
    ("/enableAnnotationValidations", "enable-annotation-validation"),
    ("/disableLeaderElection", "disable-leader-election"),
    ("/electionID", "election-id"),
    ("/electionTTL", "election-ttl"),
    ("/maxmindLicenseKey", "maxmind-license-key"),
];

/// The flags among words; the value of one may be the next word.
fn flags<'a>(words: impl Iterator<Item = &'a str>) -> Vec<WrittenFlag> {
    let mut flags: Vec<WrittenFlag> = Vec::new();
    let mut takes_next = false;
    for word in words.flat_map(str::split_whitespace) {
        match word.strip_prefix('-') {
            Some(rest) => {
                let rest = rest.trim_start_matches('-');
                let (name, value) = rest.split_once('=').unwrap_or((rest, ""));
                takes_next = !rest.contains('=');
                if !name.is_empty() {
                    flags.push(WrittenFlag { name: name.to_owned(), value: value.to_owned() });
                }
            }
            None if takes_next => {
                takes_next = false;
                if let Some(flag) = flags.last_mut() {
                    word.clone_into(&mut flag.value);
                }
            }
            // The program itself.
            None => {}
        }
    }
    flags
}

/// A line of a list without the marks of YAML. A comment is empty.
fn list_item(line: &str) -> &str {
    let line = line.trim();
    let line = line.strip_prefix("- ").unwrap_or(line).trim();
    let line = line.trim_matches(['"', '\'']);
    if line.starts_with('#') { "" } else { line }
}

/// A value as it is written in a flag.
fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Maximum size of the file.
const MAX_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Vec<String> {
        let flags = ArgsFile::parse(text).flags;
        flags.into_iter().map(|WrittenFlag { name, value }| format!("{name}={value}")).collect()
    }

    #[test]
    fn lists_and_manifests_have_flags() {
        let list = "# the flags\n/nginx-ingress-controller\n--ingress-class=nginx\n--v 3\n- \"--enable-metrics\"\n";
        assert_eq!(written(list), ["ingress-class=nginx", "v=3", "enable-metrics="]);
        let manifest = "
kind: Service
spec: {}
---
kind: Deployment
spec:
  template:
    spec:
      containers:
        - name: sidecar
          args: [--other]
        - name: controller
          args:
            - /nginx-ingress-controller
            - --configmap=$(POD_NAMESPACE)/controller
";
        assert_eq!(written(manifest), ["configmap=$(POD_NAMESPACE)/controller"]);
        assert_eq!(ArgsFile::parse(manifest).config_map(), Some((None, "controller")));
        assert_eq!(ArgsFile::parse("kind: ConfigMap\ndata: {}\n"), ArgsFile::default());
    }

    #[test]
    fn values_of_the_chart_have_flags_and_keys() {
        let values = "
controller:
  extraArgs: {default-ssl-certificate: ns/tls}
  config: {use-gzip: true}
  ingressClassResource: {controllerValue: k8s.io/internal}
  admissionWebhooks: {enabled: false}
tcp: {\"9000\": \"a/b:80\"}
";
        let expected = [
            "controller-class=k8s.io/internal",
            "publish-service=$(POD_NAMESPACE)/ingress-nginx-controller",
            "tcp-services-configmap=$(POD_NAMESPACE)/ingress-nginx-tcp",
            "default-ssl-certificate=ns/tls",
        ];
        assert_eq!(written(values), expected);
        let config = ArgsFile::parse(values).config;
        let config: Vec<(&str, &str)> = config.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(config, [("allow-snippet-annotations", "false"), ("use-gzip", "true")]);
    }

    /// The chart makes objects of these values, and names them in flags and keys.
    #[test]
    fn values_that_become_objects_have_flags_and_keys() {
        let values = "
fullnameOverride: edge
defaultBackend: {enabled: true}
controller:
  addHeaders: {X-Frame-Options: DENY}
  proxySetHeaders: {X-Team: shop}
  publishService: {enabled: true, pathOverride: edge/public}
  admissionWebhooks: {enabled: false}
";
        let expected = ["publish-service=edge/public", "default-backend-service=$(POD_NAMESPACE)/edge-defaultbackend"];
        assert_eq!(written(values), expected);
        let config = ArgsFile::parse(values).config;
        let value = |key: &str| config.get(key).map(|value| value.to_string());
        assert_eq!(value("add-headers").as_deref(), Some("$(POD_NAMESPACE)/edge-custom-add-headers"));
        assert_eq!(value("proxy-set-headers").as_deref(), Some("$(POD_NAMESPACE)/edge-custom-proxy-headers"));
        let values = "controller: {publishService: {enabled: false}, admissionWebhooks: {enabled: false}}";
        assert!(written(values).is_empty());
    }

    #[test]
    fn a_default_backend_has_a_known_namespace() {
        let parsed = |value: &str| ArgsFile::parse(&format!("--default-backend-service={value}\n")).default_backend();
        assert_eq!(parsed("web/errors"), Some(("web".to_owned(), "errors".to_owned())));
        assert_eq!(parsed("$(POD_NAMESPACE)/errors"), None);
    }
}
