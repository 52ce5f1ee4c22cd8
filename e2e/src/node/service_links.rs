//! Service environment variables: `WEB_SERVICE_HOST`, `WEB_PORT` and so on. They are rarely used, but Pods have
//! them by default, and they may collide with variables that configure a program.

use k8s_openapi::api::core::v1::{Service, ServicePort};

/// The variables for the Services of one namespace.
pub(crate) fn service_variables(services: &[Service]) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for service in services {
        let (Some(name), Some(spec)) = (&service.metadata.name, &service.spec) else { continue };
        let address = spec.cluster_ip.as_deref().unwrap_or_default();
        let ports = spec.ports.as_deref().unwrap_or_default();
        let Some(first_port) = ports.first().filter(|_| !matches!(address, "" | "None")) else { continue };
        let name = variable_name(name);
        variables.push((format!("{name}_SERVICE_HOST"), address.to_owned()));
        variables.push((format!("{name}_SERVICE_PORT"), first_port.port.to_string()));
        variables.push((format!("{name}_PORT"), url(address, first_port)));
        for port in ports {
            if let Some(port_name) = port.name.as_deref().filter(|port_name| !port_name.is_empty()) {
                variables.push((format!("{name}_SERVICE_PORT_{}", variable_name(port_name)), port.port.to_string()));
            }
            let protocol = protocol(port);
            let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
            variables.push((prefix.clone(), url(address, port)));
            variables.push((format!("{prefix}_PROTO"), protocol));
            variables.push((format!("{prefix}_PORT"), port.port.to_string()));
            variables.push((format!("{prefix}_ADDR"), address.to_owned()));
        }
    }
    variables
}

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

fn url(address: &str, port: &ServicePort) -> String {
    format!("{}://{address}:{}", protocol(port), port.port)
}

fn protocol(port: &ServicePort) -> String {
    port.protocol.as_deref().unwrap_or("TCP").to_lowercase()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn services_with_a_cluster_ip_become_variables() {
        let services = json!([
            {
                "metadata": { "name": "my-web" },
                "spec": { "clusterIP": "10.96.0.7", "ports": [{ "name": "http", "port": 80 }, { "port": 53, "protocol": "UDP" }] },
            },
            { "metadata": { "name": "headless" }, "spec": { "clusterIP": "None", "ports": [{ "port": 80 }] } },
        ]);
        let services: Vec<Service> = serde_json::from_value(services).unwrap();
        let variables: Vec<String> =
            service_variables(&services).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let expected = [
            "MY_WEB_SERVICE_HOST=10.96.0.7",
            "MY_WEB_SERVICE_PORT=80",
            "MY_WEB_PORT=tcp://10.96.0.7:80",
            "MY_WEB_SERVICE_PORT_HTTP=80",
            "MY_WEB_PORT_80_TCP=tcp://10.96.0.7:80",
            "MY_WEB_PORT_80_TCP_PROTO=tcp",
            "MY_WEB_PORT_80_TCP_PORT=80",
            "MY_WEB_PORT_80_TCP_ADDR=10.96.0.7",
            "MY_WEB_PORT_53_UDP=udp://10.96.0.7:53",
            "MY_WEB_PORT_53_UDP_PROTO=udp",
            "MY_WEB_PORT_53_UDP_PORT=53",
            "MY_WEB_PORT_53_UDP_ADDR=10.96.0.7",
        ];
        assert_eq!(variables, expected);
    }
}
