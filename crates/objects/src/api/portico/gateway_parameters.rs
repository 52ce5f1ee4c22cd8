//! GatewayParameters: settings of Gateways: of the Services in front of them, of their access log and of their traces.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::core::ServiceType;
use crate::api::gateway::schema::form;
use crate::api::gateway::schema::rule::rule;
use crate::api::gateway::schema::transforms::{each, keyed_by};

/// Settings of Gateways: of the Services that Portico creates in front of them, of their access log and of their
/// traces. A GatewayClass refers to this object in `spec.parametersRef`, for all of its Gateways. A Gateway refers to
/// one of its own namespace in `spec.infrastructure.parametersRef`, whose fields take precedence over those of its
/// class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct GatewayParameters {
    /// The settings.
    #[serde(default)]
    pub spec: GatewayParametersSpec,
}

/// The settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct GatewayParametersSpec {
    /// Settings of the Service in front of a Gateway. They have no effect with an address pool, because clients then
    /// do not connect through the Service.
    #[serde(default)]
    pub service: GatewayServiceSettings,
    /// The access log entries of the requests and connections of a Gateway, in place of what flags say about them. They
    /// have no effect with `--access-log off`, unless `--access-log-otlp-endpoint` is set.
    #[serde(default, rename = "accessLog")]
    pub access_log: GatewayAccessLogSettings,
    /// The traces of the requests and connections of a Gateway, in place of what flags say about them. They have no
    /// effect without `--trace-otlp-endpoint`.
    #[serde(default)]
    pub tracing: GatewayTracingSettings,
}

/// Which access log entries a Gateway has, and what they contain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct GatewayAccessLogSettings {
    /// A template with variables of nginx, Envoy or Apache, as in `--access-log-format`; `combined` or `common`.
    #[schemars(length(min = 1, max = 8192))]
    pub format: Option<String>,
    /// Rules such as `keep status=5xx`, as in `--access-log-filter`: the first one that applies decides. An empty list
    /// writes all entries.
    #[schemars(length(max = 64), inner(length(min = 1, max = 1024)))]
    pub filter: Option<Vec<String>>,
}

/// Which requests of a Gateway are recorded, and in which fields their traces go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct GatewayTracingSettings {
    /// The part of the requests that is recorded, such as `5%`, unless one of the rules decides.
    #[schemars(regex(pattern = r"^(100(\.0{1,4})?|[0-9]{1,2}(\.[0-9]{1,4})?)%$"))]
    pub sampling: Option<String>,
    /// Rules such as `keep 50% route=HTTPRoute/shop/pay`, as in `--trace-rules`: the first one that applies decides. An
    /// empty list has none.
    #[schemars(length(max = 64), inner(length(min = 1, max = 1024)))]
    pub rules: Option<Vec<String>>,
    /// Formats in which trace contexts are read, in this order: `w3c`, `b3`, `b3-single`, `jaeger`, `ot`, `datadog`,
    /// `aws`, `gcp` or `instana`. Backends get the context in the format of the request, or in the first of the list if
    /// the request has none. With an empty list, each request begins a trace, and backends get what the client sent.
    #[schemars(length(max = 9), transform = each(form::one_of(TRACE_FORMATS)))]
    pub propagation: Option<Vec<String>>,
}

/// The formats of trace contexts.
const TRACE_FORMATS: [&str; 9] = ["w3c", "b3", "b3-single", "jaeger", "ot", "datadog", "aws", "gcp", "instana"];

/// Fields of a Service. Portico does not set absent ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "!has(self.loadBalancerClass) || !has(self.type) || self.type == 'LoadBalancer'",
    "loadBalancerClass requires type LoadBalancer; remove one of the two fields",
))]
#[schemars(transform = rule(
    "!has(self.nodePorts) || self.nodePorts.size() == 0 || !has(self.type) || self.type != 'ClusterIP'",
    "a Service of type ClusterIP has no node ports; remove nodePorts, or use another type",
))]
pub struct GatewayServiceSettings {
    /// Type of the Service, instead of that of the flag `--gateway-service-type`.
    #[serde(rename = "type")]
    #[schemars(transform = form::one_of(["LoadBalancer", "NodePort", "ClusterIP"]))]
    pub service_type: Option<String>,
    /// The nodes that forward connections of clients outside of the cluster: `Local`, only those with a ready Pod of
    /// Portico, which preserves the addresses of clients; or `Cluster`, all nodes.
    #[schemars(transform = form::one_of(TRAFFIC_POLICIES))]
    pub external_traffic_policy: Option<String>,
    /// The Pods of Portico to which clients in the cluster connect: `Local`, only those on the node of the client; or
    /// `Cluster`, all.
    #[schemars(transform = form::one_of(TRAFFIC_POLICIES))]
    pub internal_traffic_policy: Option<String>,
    /// The load balancer implementation that serves the Service. Kubernetes does not allow changing it in an existing
    /// Service of type LoadBalancer: Portico keeps the Service as it is, and the Gateway reports the difference.
    #[schemars(length(min = 1, max = 316), regex(pattern = form::QUALIFIED_NAME))]
    pub load_balancer_class: Option<String>,
    /// The networks whose clients the load balancer accepts, in CIDR notation; an empty list accepts all.
    #[schemars(length(max = 64), transform = each(cidr))]
    pub load_balancer_source_ranges: Option<Vec<String>>,
    /// Whether the ports of a Service of type LoadBalancer get node ports.
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// Node ports of listener ports. The API server assigns those of other ports.
    #[schemars(
        length(max = 64),
        transform = keyed_by(["port"]),
        transform = rule(
            "self.all(entry, self.exists_one(other, other.nodePort == entry.nodePort))",
            "two ports have the same node port; give each port a node port of its own",
        ),
    )]
    pub node_ports: Option<Vec<ListenerNodePort>>,
}

/// The node port of a listener port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerNodePort {
    /// The port of the listeners.
    #[schemars(transform = form::port)]
    pub port: i32,
    /// The node port. It must be free, and in the range of the API server, which is 30000 to 32767 by default.
    #[schemars(transform = form::port)]
    pub node_port: i32,
}

/// The values of traffic policies.
pub const TRAFFIC_POLICIES: [&str; 2] = ["Cluster", "Local"];

impl GatewayServiceSettings {
    /// These settings, and those of `base` for absent fields. Node ports are merged by port.
    #[must_use]
    pub fn or(self, base: &GatewayServiceSettings) -> GatewayServiceSettings {
        let mut node_ports = self.node_ports.clone().unwrap_or_default();
        for entry in base.node_ports.iter().flatten() {
            if node_ports.iter().all(|own| own.port != entry.port) {
                node_ports.push(entry.clone());
            }
        }
        let with_base = |own: Option<String>, base: &Option<String>| own.or_else(|| base.clone());
        GatewayServiceSettings {
            service_type: with_base(self.service_type, &base.service_type),
            external_traffic_policy: with_base(self.external_traffic_policy, &base.external_traffic_policy),
            internal_traffic_policy: with_base(self.internal_traffic_policy, &base.internal_traffic_policy),
            load_balancer_class: with_base(self.load_balancer_class, &base.load_balancer_class),
            load_balancer_source_ranges: self
                .load_balancer_source_ranges
                .or_else(|| base.load_balancer_source_ranges.clone()),
            allocate_load_balancer_node_ports: self
                .allocate_load_balancer_node_ports
                .or(base.allocate_load_balancer_node_ports),
            node_ports: (!node_ports.is_empty()).then_some(node_ports),
        }
    }

    /// The type of the Service, if it is set to a known one.
    pub fn known_type(&self) -> Option<ServiceType> {
        self.service_type.as_deref().and_then(ServiceType::from_name)
    }

    /// The fields that are set, but that a Service of this type does not have.
    pub fn fields_without_effect(&self, service_type: ServiceType) -> Vec<&'static str> {
        use ServiceType::{ClusterIp, LoadBalancer};
        let mut fields = Vec::new();
        let mut field = |is_set: bool, name, has_effect: bool| {
            if is_set && !has_effect {
                fields.push(name);
            }
        };
        let is_balanced = service_type == LoadBalancer;
        let is_external = service_type != ClusterIp;
        field(self.external_traffic_policy.is_some(), "externalTrafficPolicy", is_external);
        field(self.load_balancer_class.is_some(), "loadBalancerClass", is_balanced);
        field(self.load_balancer_source_ranges.is_some(), "loadBalancerSourceRanges", is_balanced);
        field(self.allocate_load_balancer_node_ports.is_some(), "allocateLoadBalancerNodePorts", is_balanced);
        field(self.node_ports.is_some(), "nodePorts", is_external);
        fields
    }

    /// The node port of a listener port.
    pub fn node_port(&self, port: u16) -> Option<i32> {
        self.node_ports.iter().flatten().find(|entry| entry.port == i32::from(port)).map(|entry| entry.node_port)
    }
}

fn cidr(schema: &mut schemars::Schema) {
    schema.insert("format".to_owned(), serde_json::json!("cidr"));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(value: serde_json::Value) -> GatewayServiceSettings {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn settings_are_merged_field_by_field() {
        let class = settings(json!({
            "type": "NodePort", "externalTrafficPolicy": "Local", "loadBalancerSourceRanges": ["192.0.2.0/24"],
            "nodePorts": [{"port": 80, "nodePort": 30080}, {"port": 443, "nodePort": 30443}],
        }));
        let own = settings(json!({
            "externalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": false, "loadBalancerSourceRanges": [],
            "nodePorts": [{"port": 443, "nodePort": 31443}],
        }));
        let merged = settings(json!({
            "type": "NodePort", "externalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": false,
            "loadBalancerSourceRanges": [],
            "nodePorts": [{"port": 443, "nodePort": 31443}, {"port": 80, "nodePort": 30080}],
        }));
        assert_eq!(own.or(&class), merged);
        assert_eq!(GatewayServiceSettings::default().or(&class), class);
        assert_eq!(class.clone().or(&GatewayServiceSettings::default()), class);
        assert_eq!((merged.node_port(443), merged.node_port(8080)), (Some(31443), None));
    }

    #[test]
    fn fields_of_other_types_have_no_effect() {
        let all = settings(json!({
            "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local", "loadBalancerClass": "a.example/b",
            "loadBalancerSourceRanges": [], "allocateLoadBalancerNodePorts": true, "nodePorts": [],
        }));
        let cases = [
            (ServiceType::LoadBalancer, ""),
            (ServiceType::NodePort, "loadBalancerClass loadBalancerSourceRanges allocateLoadBalancerNodePorts"),
            (
                ServiceType::ClusterIp,
                "externalTrafficPolicy loadBalancerClass loadBalancerSourceRanges allocateLoadBalancerNodePorts \
                 nodePorts",
            ),
        ];
        for (service_type, expected) in cases {
            assert_eq!(all.fields_without_effect(service_type).join(" "), expected);
        }
        assert!(GatewayServiceSettings::default().fields_without_effect(ServiceType::ClusterIp).is_empty());
    }
}
