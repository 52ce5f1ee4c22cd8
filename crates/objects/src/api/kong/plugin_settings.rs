//! Fields of KongPlugin and KongClusterPlugin. The two kinds differ only in the namespaces of the Secrets that they may
//! refer to.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::schema::{free_form, immutable, without_default};
use super::secret_ref::{ConfigPatch, ConfigSource};
use crate::api::gateway::schema::form;
use crate::api::gateway::schema::rule::rule;
use crate::api::gateway::schema::transforms::each;

/// The plugin, its configuration and the requests that it runs for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(
    transform = rule(
        "!has(self.config) || !has(self.configFrom)",
        "config and configFrom are both set; keep one of them, or use configPatches to add Secrets to config",
    ),
    transform = rule(
        "!has(self.configFrom) || !has(self.configPatches)",
        "configFrom and configPatches are both set; move everything into the Secret of configFrom, or use config \
         instead of configFrom",
    ),
)]
pub struct PluginSettings {
    /// Name of the plugin, for example `rate-limiting`. Immutable; create another object for another plugin.
    #[schemars(transform = immutable("plugin", "create another object for another plugin"))]
    pub plugin: String,
    /// Configuration of the plugin. Absent and null fields have the plugin's defaults.
    #[schemars(transform = free_form)]
    pub config: Option<Map<String, Value>>,
    /// Reads the whole configuration from a key of a Secret, as JSON or YAML. Excludes `config` and `configPatches`.
    pub config_from: Option<ConfigSource>,
    /// Inserts values from Secrets at single locations of `config`, so that the rest does not need to be secret.
    #[serde(default)]
    pub config_patches: Vec<ConfigPatch>,
    /// Has no effect, as in Kong since its ingress controller 1.0: attach the plugin to a consumer by the annotation
    /// `konghq.com/plugins` of the KongConsumer.
    pub consumer_ref: Option<String>,
    /// Validates the plugin without running it.
    #[serde(default)]
    #[schemars(transform = without_default)]
    pub disabled: bool,
    /// Accepted and not used, since plugins are identified by the objects that configure them.
    #[serde(rename = "instance_name")]
    pub instance_name: Option<String>,
    /// Other plugins before or after which this one runs in the phase `access`, in place of the order by priorities. It
    /// has no effect for consumers and groups.
    pub ordering: Option<PluginOrdering>,
    /// Defaults to all protocols that the plugin supports. As in Kong, a plugin with any of `http`, `https`, `grpc`,
    /// `grpcs`, `ws` and `wss` runs for all requests, so `[https]` also covers plain HTTP. With stream protocols alone
    /// it never runs.
    #[serde(default)]
    #[schemars(transform = each(form::one_of(PROTOCOLS)))]
    pub protocols: Vec<String>,
    /// Has no effect; in old versions of Kong, it selected one side of a service mesh.
    #[serde(rename = "run_on")]
    #[schemars(transform = form::one_of(["first", "second", "all"]))]
    pub run_on: Option<String>,
}

const PROTOCOLS: [&str; 10] = ["http", "https", "grpc", "grpcs", "ws", "wss", "tcp", "tls", "tls_passthrough", "udp"];

/// Names of plugins by the phase of the request, normally `access`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct PluginOrdering {
    /// The plugins that this one runs before.
    #[serde(default)]
    pub before: BTreeMap<String, Vec<String>>,
    /// The plugins that this one runs after.
    #[serde(default)]
    pub after: BTreeMap<String, Vec<String>>,
}
