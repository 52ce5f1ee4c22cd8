//! The configuration of `graphql-rate-limiting-advanced` and its validation.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cost::CostStrategy;
use super::schema::FieldCost;
use super::schema_source::{SchemaServer, SchemaSource};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::{BuildCx, record};
use crate::plugin_formats::graphql::is_name;
use crate::plugin_kit::counting::{
    CountStrategy, CountStrategyName, LimitBy, LimitRule, NEVER_SYNCED, WindowType, check_counter_namespace,
    read_windows,
};
use crate::plugin_kit::redis::RedisConfig;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The most that requests may cost in each window of `window_size`, in the same order. Required.
    limit: Vec<u64>,
    /// The lengths of the windows in seconds. Required.
    window_size: Vec<u64>,
    /// How costs are counted.
    window_type: WindowType,
    /// The property of a request that selects its counter. Requests without this property are counted by client
    /// address.
    identifier: IdentifierName,
    /// Objects of one Kubernetes namespace with the same name here, and with windows of the same lengths and type,
    /// share their counters, whatever they are attached to. If unset, the counters belong to this object, separately
    /// for each route, service or other object that it is attached to.
    namespace: Option<String>,
    /// Where counters are stored.
    strategy: CountStrategyName,
    /// For `strategy: redis`, where it is required. `0` updates the server on each request, which is exact for all
    /// replicas. 0.02 to 3600 is an interval in seconds: requests are counted in memory and synchronized with the
    /// server at this interval. `-1` never synchronizes: each replica counts separately.
    sync_rate: Option<f64>,
    /// The server for `strategy: redis`. While it is unavailable, each replica counts separately.
    #[serde(deserialize_with = "record")]
    redis: RedisConfig,
    /// Without effect: the counters in memory have no named dictionary.
    dictionary_name: String,
    /// Omit the response headers with limits and what is left of them.
    hide_client_headers: bool,
    /// How costs are computed.
    cost_strategy: CostStrategy,
    /// The most that a request may cost, before `score_factor`. Others get 400. 0 is no limit.
    max_cost: f64,
    /// What costs are multiplied with before they are counted. Greater than 0.
    score_factor: f64,
    /// Rejected if true: the types are read once for all clients, so that their headers cannot be sent. Use
    /// `introspection_headers`.
    pass_all_downstream_headers: bool,
    /// What fields cost, in addition to KongCustomEntities. Kong has only the latter.
    costs: Vec<CostConfig>,
    /// The URL of the GraphQL server, which the types of fields are read from. Required if there are costs of fields.
    /// Kong uses the URL of the service instead.
    introspection_url: Option<String>,
    /// Headers of the requests to that URL, such as `Authorization`.
    introspection_headers: BTreeMap<String, String>,
    /// The timeout of the requests to that URL in milliseconds.
    introspection_timeout: u32,
    /// Whether the certificate of that server is verified.
    introspection_ssl_verify: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CostConfig {
    /// The type and the field, such as `Query.allPeople`.
    type_path: String,
    /// What the field costs.
    #[serde(default = "one")]
    add_constant: f64,
    /// Arguments whose values are added to it.
    #[serde(default)]
    add_arguments: Vec<String>,
    /// What the selections of the field are multiplied with.
    #[serde(default = "one")]
    mul_constant: f64,
    /// Arguments whose values they are multiplied with, too.
    #[serde(default)]
    mul_arguments: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            limit: Vec::new(),
            window_size: Vec::new(),
            window_type: WindowType::Sliding,
            identifier: IdentifierName::Consumer,
            namespace: None,
            strategy: CountStrategyName::Local,
            sync_rate: None,
            redis: RedisConfig::default(),
            dictionary_name: "kong_rate_limiting_counters".to_owned(),
            hide_client_headers: false,
            cost_strategy: CostStrategy::Default,
            max_cost: 0.0,
            score_factor: 1.0,
            pass_all_downstream_headers: false,
            costs: Vec::new(),
            introspection_url: None,
            introspection_headers: BTreeMap::new(),
            introspection_timeout: 5000,
            introspection_ssl_verify: true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum IdentifierName {
    /// The consumer; or the credential, if no consumer belongs to it.
    Consumer,
    /// The client address. IPv6 addresses with the same first 64 bits share a counter.
    Ip,
    /// The credential that authenticated the request: a key, or the user that a token, a certificate or a directory
    /// names.
    Credential,
}

/// A validated configuration.
pub(super) struct ValidatedConfig {
    pub(super) rules: Arc<[LimitRule]>,
    pub(super) identifier: LimitBy,
    pub(super) count_strategy: CountStrategy,
    pub(super) namespace: Option<String>,
    pub(super) hides_headers: bool,
    pub(super) strategy: CostStrategy,
    pub(super) max_cost: f64,
    pub(super) score_factor: f64,
    pub(super) schemas: Option<Arc<SchemaSource>>,
}

impl Config {
    pub(super) fn validate(mut self, cx: &BuildCx<'_>) -> Result<ValidatedConfig, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let rules = read_windows(&self.limit, &self.window_size, self.window_type, &mut invalid);
        check_counter_namespace(self.namespace.as_deref(), &mut invalid);
        let numbers = [("max_cost", self.max_cost, 0.0), ("score_factor", self.score_factor, f64::MIN_POSITIVE)];
        for (field, value, least) in numbers {
            if !(least..=MAX_COST).contains(&value) {
                let (message, remedy) = (format!("{value} is out of range"), format!("use 0 to {MAX_COST}"));
                let remedy = if least > 0.0 { format!("use more than 0, and at most {MAX_COST}") } else { remedy };
                invalid.push(Diagnostic::in_config(field, message, remedy));
            }
        }
        if self.pass_all_downstream_headers {
            let message = "the types are read once for all clients, so headers of one cannot be sent";
            let remedy = "remove it, and set introspection_headers to what the server needs";
            invalid.push(Diagnostic::in_config("pass_all_downstream_headers", message, remedy));
        }
        let costs = self.field_costs(&mut invalid);
        let redis = std::mem::take(&mut self.redis);
        let count_strategy = self.count_strategy(redis, cx, &mut invalid);
        let schemas = self.schemas(costs, cx, &mut invalid);
        let Some(count_strategy) = count_strategy.filter(|_| invalid.is_empty()) else { return Err(invalid) };
        Ok(ValidatedConfig {
            rules,
            identifier: match self.identifier {
                IdentifierName::Consumer => LimitBy::Consumer,
                IdentifierName::Ip => LimitBy::Ip,
                IdentifierName::Credential => LimitBy::Credential,
            },
            count_strategy,
            namespace: self.namespace,
            hides_headers: self.hide_client_headers,
            strategy: self.cost_strategy,
            max_cost: self.max_cost,
            score_factor: self.score_factor,
            schemas,
        })
    }

    fn field_costs(&self, invalid: &mut Vec<Diagnostic>) -> Vec<FieldCost> {
        let mut costs: Vec<FieldCost> = Vec::new();
        for (index, config) in self.costs.iter().enumerate() {
            let mut refuse = |field: &str, message: String, remedy: &str| {
                invalid.push(Diagnostic::in_config(format!("costs[{index}].{field}"), message, remedy));
            };
            let path = config.type_path.split_once('.').filter(|(kind, field)| is_name(kind) && is_name(field));
            let Some((kind, field)) = path else {
                let message = format!("{:?} is not the path of a field", config.type_path);
                refuse("type_path", message, "write the type and the field, such as Query.allPeople");
                continue;
            };
            if costs.iter().any(|other| *other.kind == *kind && *other.field == *field) {
                refuse("type_path", format!("another entry is for {kind}.{field}"), "remove one of the two");
            }
            for (name, value) in [("add_constant", config.add_constant), ("mul_constant", config.mul_constant)] {
                if !(0.0..=MAX_COST).contains(&value) {
                    refuse(name, format!("{value} is out of range"), "use a number of at least 0");
                }
            }
            for (name, arguments) in
                [("add_arguments", &config.add_arguments), ("mul_arguments", &config.mul_arguments)]
            {
                if arguments.len() > MAX_ARGUMENTS || arguments.iter().any(|argument| !is_name(argument)) {
                    refuse(name, "contains what is not the name of an argument".to_owned(), "write up to 16 names");
                }
            }
            costs.push(FieldCost {
                kind: kind.into(),
                field: field.into(),
                add: config.add_constant,
                add_arguments: config.add_arguments.iter().map(|name| name.as_str().into()).collect(),
                mul: config.mul_constant,
                mul_arguments: config.mul_arguments.iter().map(|name| name.as_str().into()).collect(),
            });
        }
        costs
    }

    fn count_strategy(
        &self,
        redis: RedisConfig,
        cx: &BuildCx<'_>,
        invalid: &mut Vec<Diagnostic>,
    ) -> Option<CountStrategy> {
        let is_synced = self.sync_rate.is_some_and(|rate| rate != NEVER_SYNCED);
        if is_synced && self.strategy == CountStrategyName::Local {
            // Kong requires the field, so that it is no mistake.
            let message = "has an effect only with the strategy `redis`";
            cx.note(Diagnostic::in_config("sync_rate", message, "set `strategy: redis` to share counters"));
        }
        self.strategy.validate(self.sync_rate, redis, cx, invalid)
    }

    fn schemas(
        &self,
        costs: Vec<FieldCost>,
        cx: &BuildCx<'_>,
        invalid: &mut Vec<Diagnostic>,
    ) -> Option<Arc<SchemaSource>> {
        let Some(url) = &self.introspection_url else {
            if !costs.is_empty() {
                let message = "is missing, which the costs of fields need: types are read from there";
                let remedy = "write the URL of the GraphQL server, such as http://films.shop:8080/graphql";
                invalid.push(Diagnostic::in_config("introspection_url", message, remedy));
            }
            return None;
        };
        let server = SchemaServer {
            url,
            headers: &self.introspection_headers,
            timeout: self.introspection_timeout,
            verify: self.introspection_ssl_verify,
        };
        match SchemaSource::for_config(&server, &costs, cx) {
            Ok(_) if costs.is_empty() => {
                let message = "has no effect without costs of fields, for which types are read from there";
                cx.note(Diagnostic::in_config("introspection_url", message, "add costs, or remove it"));
                None
            }
            Ok(source) => Some(source),
            Err(errors) => {
                invalid.extend(errors);
                None
            }
        }
    }
}

fn one() -> f64 {
    1.0
}

/// Costs above it are this one, so that they stay exact.
pub(super) const MAX_COST: f64 = 1e12;
const MAX_ARGUMENTS: usize = 16;
