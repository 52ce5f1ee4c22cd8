//! What KongPlugin and KongClusterPlugin have in common: everything but where their Secrets may be.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::schema::{free_form, unchanged, unset};
use super::secret_ref::{ConfigPatch, ConfigSource};
use crate::api::gateway::schema::form;
use crate::api::gateway::schema::rule::rule;
use crate::api::gateway::schema::shape::each;

/// Which plugin, how it is configured and for which requests it runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(
    transform = rule(
        "!has(self.config) || !has(self.configFrom)",
        "config and configFrom are both set; keep one of them, or use configPatches to add Secrets to config",
    ),
    transform = rule(
        "!has(self.configFrom) || !has(self.configPatches)",
        "configFrom and configPatches are both set; put everything into the Secret of configFrom, or write config in \
         place of configFrom",
    ),
)]
pub struct PluginSettings {
    /// Name of the plugin, for example `rate-limiting`. It cannot be changed; make another object for another plugin.
    #[schemars(transform = unchanged("plugin", "make another object for another plugin"))]
    pub plugin: String,
    /// Configuration, in the fields of the plugin. What is left out, or null, has the plugin's default.
    #[schemars(transform = free_form)]
    pub config: Option<Map<String, Value>>,
    /// Takes the whole configuration from a key of a Secret, which holds it as JSON or YAML. Excludes `config` and
    /// `configPatches`.
    pub config_from: Option<ConfigSource>,
    /// Puts values from Secrets into single locations of `config`, so that the rest of it can be read by everyone.
    #[serde(default)]
    pub config_patches: Vec<ConfigPatch>,
    /// Has no effect, as in Kong since its ingress controller 1.0: attach the plugin to a consumer by the annotation
    /// `konghq.com/plugins` of the KongConsumer.
    pub consumer_ref: Option<String>,
    /// Checks the plugin without running it.
    #[serde(default)]
    #[schemars(transform = unset)]
    pub disabled: bool,
    /// Taken and not used, since plugins are known here by the objects that configure them.
    #[serde(rename = "instance_name")]
    pub instance_name: Option<String>,
    /// Other plugins before or after which this one runs, whatever their priorities are.
    pub ordering: Option<PluginOrdering>,
    /// For requests of which protocols the plugin runs. Left out: those that the plugin was made for.
    #[serde(default)]
    #[schemars(transform = each(form::one_of(PROTOCOLS)))]
    pub protocols: Vec<String>,
    /// Has no effect; it chose between the two sides of a service mesh once.
    #[serde(rename = "run_on")]
    #[schemars(transform = form::one_of(["first", "second", "all"]))]
    pub run_on: Option<String>,
}

const PROTOCOLS: [&str; 7] = ["http", "https", "grpc", "grpcs", "tcp", "tls", "udp"];

/// Names of plugins by phase, normally `access`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct PluginOrdering {
    /// Plugins that run after this one.
    #[serde(default)]
    pub before: BTreeMap<String, Vec<String>>,
    /// Plugins that run before this one.
    #[serde(default)]
    pub after: BTreeMap<String, Vec<String>>,
}
