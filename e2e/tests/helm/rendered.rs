//! Tests the objects that the chart renders: they are equal to the manifests, have valid flags, and follow the values.
//! Also renders the chart for the other tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use portico_e2e::helm::Helm;
use portico_e2e::programs::Programs;
use serde_json::{Map, Value, json};

/// Objects by kind, namespace and name.
type Objects = BTreeMap<String, Value>;

pub(crate) const NAMESPACE: &str = "portico-system";

/// The manifests are written by hand, to be readable without Helm; the chart must render the same.
pub(crate) fn chart_and_manifests_are_equal(helm: &Helm) -> Result<()> {
    let chart = Helm::chart()?;
    let install_yaml = by_name(objects(&std::fs::read_to_string(manifests("install.yaml")?)?)?);
    for (values, overlay) in [
        (None, "base"),
        (Some("host-network"), "overlays/host-network"),
        (Some("autoscaling"), "overlays/autoscaling"),
        (Some("kong"), "overlays/kong"),
    ] {
        let file = values.map(|name| format!("{chart}/examples/{name}.yaml"));
        let settings: Vec<&str> = file.iter().flat_map(|file| ["--values", file.as_str()]).collect();
        let rendered = by_name(render(helm, &settings)?);
        let kustomized = by_name(objects(&kustomize(overlay)?)?);
        ensure!(overlay != "base" || kustomized == install_yaml, "manifests/install.yaml differs from manifests/base");
        let (chart, manifests) = (normalize_chart(rendered)?, normalize_manifests(kustomized));
        ensure_equal(&chart, &manifests)
            .with_context(|| format!("the chart with {values:?} and manifests/{overlay}"))?;
    }
    Ok(())
}

/// Removes what only the chart has: Helm's labels and the CRDs, which the folder `crds` has for users of the manifests.
/// Fails if a rendered CRD differs from that of the program.
fn normalize_chart(rendered: Objects) -> Result<Objects> {
    let (crds, mut others): (Objects, Objects) =
        rendered.into_iter().partition(|(_, object)| object["kind"] == "CustomResourceDefinition");
    for object in others.values_mut() {
        let labels = labels_of(object);
        ensure!(labels.remove("app.kubernetes.io/managed-by") == Some(json!("Helm")), "{object}");
        labels_of(object).remove("helm.sh/chart");
    }
    let expected: Vec<Value> =
        portico::app::crds().iter().map(|(_, text)| Ok(serde_saphyr::from_str(text)?)).collect::<Result<_>>()?;
    ensure!(crds.len() == expected.len(), "the chart renders {} CRDs", crds.len());
    for crd in expected {
        let found = crds.get(&name_of(&crd)).context("a CRD is missing")?;
        ensure!(found["spec"] == crd["spec"], "{} differs from the program's CRD", name_of(&crd));
        ensure!(found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep", "{}", found["metadata"]);
    }
    Ok(others)
}

/// Removes the namespace, which only the manifests have; `helm install --create-namespace` creates it.
fn normalize_manifests(mut objects: Objects) -> Objects {
    objects.retain(|_, object| object["kind"] != "Namespace");
    objects
}

fn ensure_equal(chart: &Objects, manifests: &Objects) -> Result<()> {
    let names = |objects: &Objects| objects.keys().cloned().collect::<Vec<_>>();
    ensure!(
        names(chart) == names(manifests),
        "the chart has {:#?}, the manifests have {:#?}",
        names(chart),
        names(manifests)
    );
    for (name, object) in chart {
        let in_manifests = &manifests[name];
        ensure!(object == in_manifests, "{name} is\n{object:#}\nin the chart and\n{in_manifests:#}\nin the manifests");
    }
    Ok(())
}

pub(crate) fn config_values_become_valid_flags(helm: &Helm) -> Result<()> {
    let command = portico::args::command();
    let run = command.find_subcommand("run").context("no subcommand run")?;
    let flags = run.get_arguments().chain(command.get_arguments()).filter(|flag| flag.get_long().is_some());
    let mut config = Map::new();
    let mut expected = Vec::new();
    for flag in flags {
        let name = flag.get_long().unwrap_or_default();
        if let Some((value, arguments)) = sample(name) {
            config.insert(name.to_owned(), value);
            expected.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        } else {
            ensure!(name == "help", "add a sample of --{name} to {}", file!());
        }
    }
    // These two flags exclude each other.
    for left_out in ["gateway-address-pool", "gateway-service-type"] {
        let mut config = config.clone();
        config.remove(left_out);
        let settings = format!("config={}", Value::Object(config));
        let rendered = by_name(render(helm, &["--set-json", &settings])?);
        let arguments = arguments(&rendered)?;
        portico::args::command().try_get_matches_from([vec!["portico".to_owned()], arguments.clone()].concat())?;
        let kept = |argument: &&String| !argument.starts_with(&format!("--{left_out}="));
        let mut expected: Vec<&String> = expected.iter().filter(kept).collect();
        expected.sort_by_key(|argument| argument.split('=').next().unwrap_or_default().to_owned());
        ensure!(arguments[1..].iter().collect::<Vec<_>>() == expected, "found {arguments:#?}, expected {expected:#?}");
    }

    // Some tools write an empty string for an unset value.
    let accepts_empty = |value: &Value| value.is_string() || value.is_array();
    let empty_values =
        config.iter().filter(|(_, value)| accepts_empty(value)).map(|(name, _)| (name.clone(), json!("")));
    let empty_config: Map<String, Value> = empty_values.collect();
    ensure!(empty_config.len() > 30, "{empty_config:?}");
    let rendered = |settings: &[&str]| render(helm, settings).map(by_name);
    let settings = format!("config={}", Value::Object(empty_config));
    ensure!(
        rendered(&["--set-json", &settings])? == rendered(&[])?,
        "{settings}: an empty value must be rendered like an absent one"
    );
    Ok(())
}

/// A value for a flag, and the arguments that the chart must render for it.
fn sample(flag: &str) -> Option<(Value, &'static [&'static str])> {
    Some(match flag {
        "manifests" => (json!(["/a", "/b"]), &["--manifests=/a", "--manifests=/b"]),
        "kong-config" => (json!("/k.yml"), &["--kong-config=/k.yml"]),
        "kubernetes" => (json!(true), &["--kubernetes"]),
        "kubeconfig" => (json!("/k"), &["--kubeconfig=/k"]),
        "context" => (json!("c"), &["--context=c"]),
        "watch-namespaces" => (json!(["shop", "blog"]), &["--watch-namespaces=shop", "--watch-namespaces=blog"]),
        "leader-election-namespace" => (json!("lead"), &["--leader-election-namespace=lead"]),
        "zone" => (json!("zone-a"), &["--zone=zone-a"]),
        "node" => (json!("worker-1"), &["--node=worker-1"]),
        "optional-kinds" => (json!(["UDPRoute"]), &["--optional-kinds=UDPRoute"]),
        "startup-timeout" => (json!("1m"), &["--startup-timeout=1m"]),
        "channel" => (json!("standard"), &["--channel=standard"]),
        "gateway-controller-name" => (json!("a.example/b"), &["--gateway-controller-name=a.example/b"]),
        "gateway-address-pool" => (json!(["192.0.2.1"]), &["--gateway-address-pool=192.0.2.1"]),
        "gateway-service-type" => (json!("NodePort"), &["--gateway-service-type=NodePort"]),
        "status-listen" => (json!("0.0.0.0:9100"), &["--status-listen=0.0.0.0:9100"]),
        "admin-listen" => (json!(false), &["--admin-listen=off"]),
        "echo" => (json!("127.0.0.1:9000"), &["--echo=127.0.0.1:9000"]),
        "allow-loopback-backends" => (json!(true), &["--allow-loopback-backends"]),
        "allow-aws-pod-credentials" => (json!(true), &["--allow-aws-pod-credentials"]),
        "allow-gcp-pod-credentials" => (json!(true), &["--allow-gcp-pod-credentials"]),
        "allow-address-annotation" => (json!(true), &["--allow-address-annotation"]),
        "deny-external-names" => (json!(true), &["--deny-external-names"]),
        "deny-endpoint-cidrs" => (
            json!(["10.96.0.1/32", "fd00::/8"]),
            &["--deny-endpoint-cidrs=10.96.0.1/32", "--deny-endpoint-cidrs=fd00::/8"],
        ),
        "allow-port-sharing" => (json!(false), &[]),
        "keep-header-case" => (json!(true), &["--keep-header-case"]),
        "trusted-ips" => (json!("10.0.0.0/8,::1"), &["--trusted-ips=10.0.0.0/8,::1"]),
        "reject-paths" => (json!(["backslash"]), &["--reject-paths=backslash"]),
        "proxy-protocol-from" => (json!(["10.0.0.0/8"]), &["--proxy-protocol-from=10.0.0.0/8"]),
        "workers" => (json!(4), &["--workers=4"]),
        "ingress-class" => (json!("kong"), &["--ingress-class=kong"]),
        "ingress-controller-name" => (json!("a.example/c"), &["--ingress-controller-name=a.example/c"]),
        "nginx-controller-class" => (json!("k8s.io/ingress-nginx"), &["--nginx-controller-class=k8s.io/ingress-nginx"]),
        "nginx-class" => (json!("public"), &["--nginx-class=public"]),
        "nginx-class-by-name" => (json!(true), &["--nginx-class-by-name"]),
        "nginx-without-class" => (json!(true), &["--nginx-without-class"]),
        "nginx-namespace-selector" => (json!("team=web"), &["--nginx-namespace-selector=team=web"]),
        "nginx-disable-catch-all" => (json!(true), &["--nginx-disable-catch-all"]),
        "nginx-annotation-prefix" => (json!(["a.example"]), &["--nginx-annotation-prefix=a.example"]),
        "nginx-tcp-services" => (json!("a/b"), &["--nginx-tcp-services=a/b"]),
        "nginx-udp-services" => (json!("a/b"), &["--nginx-udp-services=a/b"]),
        "nginx-configmap" => (json!("a/b"), &["--nginx-configmap=a/b"]),
        "nginx-default-backend" => (json!("a/b"), &["--nginx-default-backend=a/b"]),
        "nginx-ssl-passthrough" => (json!(true), &["--nginx-ssl-passthrough"]),
        "kong-router" => (json!("expressions"), &["--kong-router=expressions"]),
        "ingress-host-owner" => (json!("namespace"), &["--ingress-host-owner=namespace"]),
        "consumer-scope" => (json!("cluster"), &["--consumer-scope=cluster"]),
        "ignore-foreign-guards" => (json!(true), &["--ignore-foreign-guards"]),
        "kong-compat-fail-open" => (json!(true), &["--kong-compat-fail-open"]),
        "ingress-http-listen" => (json!("0.0.0.0:8080"), &["--ingress-http-listen=0.0.0.0:8080"]),
        "ingress-https-listen" => (json!("off"), &["--ingress-https-listen=off"]),
        "ingress-stream-ports" => {
            (json!(["9000", "5353/udp"]), &["--ingress-stream-ports=9000", "--ingress-stream-ports=5353/udp"])
        }
        "ingress-public-ports" => (json!("80,443"), &["--ingress-public-ports=80,443"]),
        "ingress-default-certificate" => (json!("a/b"), &["--ingress-default-certificate=a/b"]),
        "publish-service" => (json!(["a/b", "c/d"]), &["--publish-service=a/b", "--publish-service=c/d"]),
        "publish-status-address" => (json!(["192.0.2.7"]), &["--publish-status-address=192.0.2.7"]),
        "ingress-status" => (json!(false), &["--ingress-status=off"]),
        "tls-min-version" => (json!(1.3), &["--tls-min-version=1.3"]),
        "tls-ciphers" => (json!(["TLS_AES_128_GCM_SHA256"]), &["--tls-ciphers=TLS_AES_128_GCM_SHA256"]),
        "tls-handshake-timeout" => (json!("5s"), &["--tls-handshake-timeout=5s"]),
        "max-connections" => (json!(10_000_000), &["--max-connections=10000000"]),
        "max-buffered-bytes" => (json!("1GiB"), &["--max-buffered-bytes=1GiB"]),
        "client-min-rate" => (json!(500), &["--client-min-rate=500"]),
        "response-min-rate" => (json!("0"), &["--response-min-rate=0"]),
        "max-unforwarded-bytes" => (json!("512MiB"), &["--max-unforwarded-bytes=512MiB"]),
        "rate-limit-entries" => (json!(1_000_000), &["--rate-limit-entries=1000000"]),
        "max-plugin-connections" => (json!(100), &["--max-plugin-connections=100"]),
        "health-checks-per-second" => (json!(50), &["--health-checks-per-second=50"]),
        "admin-token-file" => (json!("/etc/portico/token"), &["--admin-token-file=/etc/portico/token"]),
        "file-log-folder" => (json!("/var/log/portico"), &["--file-log-folder=/var/log/portico"]),
        "max-cache-bytes" => (json!("64MiB"), &["--max-cache-bytes=64MiB"]),
        "max-queued-bytes" => (json!("64MiB"), &["--max-queued-bytes=64MiB"]),
        "client-header-timeout" => (json!("5s"), &["--client-header-timeout=5s"]),
        "client-header-bytes" => (json!("16KiB"), &["--client-header-bytes=16KiB"]),
        "client-header-count" => (json!(50), &["--client-header-count=50"]),
        "max-hops" => (json!(4), &["--max-hops=4"]),
        "client-idle-timeout" => (json!("1m30s"), &["--client-idle-timeout=1m30s"]),
        "client-body-timeout" => (json!("2m"), &["--client-body-timeout=2m"]),
        "client-http2-streams" => (json!(64), &["--client-http2-streams=64"]),
        "upgrade-idle-timeout" => (json!("1h"), &["--upgrade-idle-timeout=1h"]),
        "udp-idle-timeout" => (json!("20s"), &["--udp-idle-timeout=20s"]),
        "max-udp-sessions" => (json!(500), &["--max-udp-sessions=500"]),
        "max-stream-connections-per-client" => (json!(20), &["--max-stream-connections-per-client=20"]),
        "max-udp-sessions-per-client" => (json!(10), &["--max-udp-sessions-per-client=10"]),
        "stream-idle-timeout" => (json!("5m"), &["--stream-idle-timeout=5m"]),
        "upstream-connect-timeout" => (json!("500ms"), &["--upstream-connect-timeout=500ms"]),
        "upstream-response-timeout" => (json!("2m"), &["--upstream-response-timeout=2m"]),
        "external-auth-timeout" => (json!("3s"), &["--external-auth-timeout=3s"]),
        "response-idle-timeout" => (json!("10m"), &["--response-idle-timeout=10m"]),
        "upstream-idle-timeout" => (json!("5s"), &["--upstream-idle-timeout=5s"]),
        "limits-warn-only" => (json!(true), &["--limits-warn-only"]),
        "max-gateway-ports" => (json!(64), &["--max-gateway-ports=64"]),
        "namespace-budget" => (json!("128MiB"), &["--namespace-budget=128MiB"]),
        "kong-headers" => (json!(true), &["--kong-headers=on"]),
        "kong-metrics" => (json!(true), &["--kong-metrics"]),
        "product-token" => (json!("kong/3.9.1"), &["--product-token=kong/3.9.1"]),
        "drain-delay" => (json!("1s"), &["--drain-delay=1s"]),
        "drain-timeout" => (json!("30s"), &["--drain-timeout=30s"]),
        "log-level" => (json!("info,portico::proxy=debug"), &["--log-level=info,portico::proxy=debug"]),
        "log-format" => (json!("text"), &["--log-format=text"]),
        "access-log" => (json!("off"), &["--access-log=off"]),
        "access-log-fields" => (json!(["status", "time"]), &["--access-log-fields=status", "--access-log-fields=time"]),
        "access-log-format" => (json!("$remote_addr $status"), &["--access-log-format=$remote_addr $status"]),
        "access-log-filter" => (
            json!(["keep status=5xx", "keep 1%"]),
            &["--access-log-filter=keep status=5xx", "--access-log-filter=keep 1%"],
        ),
        "access-log-query-values" => {
            (json!(["page", "sort"]), &["--access-log-query-values=page", "--access-log-query-values=sort"])
        }
        "access-log-mask-clients" => (json!(true), &["--access-log-mask-clients"]),
        "trace-otlp-endpoint" => (json!("http://collector:4318"), &["--trace-otlp-endpoint=http://collector:4318"]),
        "trace-rules" => (
            json!(["keep route=HTTPRoute/shop/pay", "drop path=/healthz"]),
            &["--trace-rules=keep route=HTTPRoute/shop/pay", "--trace-rules=drop path=/healthz"],
        ),
        "trace-header" => (json!("X-Debug"), &["--trace-header=X-Debug"]),
        "trace-header-limit" => (json!(5), &["--trace-header-limit=5"]),
        "access-log-otlp-endpoint" => {
            (json!("http://collector:4318"), &["--access-log-otlp-endpoint=http://collector:4318"])
        }
        "metrics-otlp-endpoint" => (json!("http://collector:4318"), &["--metrics-otlp-endpoint=http://collector:4318"]),
        "metrics-otlp-interval" => (json!("30s"), &["--metrics-otlp-interval=30s"]),
        "otlp-protocol" => (json!("grpc"), &["--otlp-protocol=grpc"]),
        "otlp-headers-file" => (json!("/etc/portico/headers"), &["--otlp-headers-file=/etc/portico/headers"]),
        "otlp-ca-file" => (json!("/etc/portico/ca.crt"), &["--otlp-ca-file=/etc/portico/ca.crt"]),
        "otlp-client-cert-file" => (json!("/etc/portico/tls.crt"), &["--otlp-client-cert-file=/etc/portico/tls.crt"]),
        "otlp-client-key-file" => (json!("/etc/portico/tls.key"), &["--otlp-client-key-file=/etc/portico/tls.key"]),
        "trace-sampling" => (json!(0.5), &["--trace-sampling=0.5"]),
        "trace-errors" => (json!(true), &["--trace-errors"]),
        "trace-slow" => (json!("2s"), &["--trace-slow=2s"]),
        "trace-propagation" => (json!(["w3c", "b3"]), &["--trace-propagation=w3c", "--trace-propagation=b3"]),
        "metrics-max-series" => (json!(5000), &["--metrics-max-series=5000"]),
        "endpoint-metrics" => (json!(true), &["--endpoint-metrics"]),
        "nginx-metrics" => (json!(["per-host"]), &["--nginx-metrics=per-host"]),
        "color" => (json!("never"), &["--color=never"]),
        _ => return None,
    })
}

pub(crate) fn derived_values_are_rendered(helm: &Helm) -> Result<()> {
    let pod = |settings: &[&str]| -> Result<Value> {
        let rendered = by_name(render(helm, settings)?);
        Ok(workload(&rendered)?["spec"]["template"]["spec"].clone())
    };
    let default_pod = pod(&[])?;
    ensure!(default_pod["terminationGracePeriodSeconds"] == 75, "{default_pod}");
    let with_timeouts =
        pod(&["--set", "config.drain-timeout=1m30s,config.drain-delay=500ms,lifecycle.preStop.sleep.seconds=3"])?;
    ensure!(with_timeouts["terminationGracePeriodSeconds"] == 91 + 3 + 10, "{with_timeouts}");
    let ipv6 = pod(&["--set", "service.ipFamilies={IPv6}"])?;
    let arguments = ipv6["containers"][0]["args"].to_string();
    for listens in ["--status-listen=[::]:8100", "--ingress-http-listen=[::]:8000", "--ingress-https-listen=[::]:8443"]
    {
        ensure!(arguments.contains(listens), "{arguments}");
    }
    let other_ports = pod(&["--set", "service.ports.http=8080"])?;
    ensure!(other_ports["containers"][0]["args"].to_string().contains("--ingress-public-ports=8080,443"));
    // With the host's network, clients see the listener ports, unless a Service is in front of them.
    let host = "hostNetwork=true,config.gateway-address-pool=0.0.0.0";
    for (more, expected) in [
        ("service.enabled=false", Some("--ingress-public-ports=8000,8443")),
        ("service.enabled=false,config.ingress-http-listen=0.0.0.0:8080", Some("--ingress-public-ports=8080,8443")),
        ("service.enabled=false,config.ingress-https-listen=off", Some("--ingress-public-ports=8000,443")),
        ("service.enabled=true", None),
    ] {
        let arguments = pod(&["--set", &format!("{host},{more}")])?["containers"][0]["args"].clone();
        let found = arguments.as_array().into_iter().flatten().filter_map(Value::as_str);
        let found: Vec<&str> = found.filter(|argument| argument.starts_with("--ingress-public-ports")).collect();
        ensure!(found == expected.into_iter().collect::<Vec<_>>(), "{more}: {arguments}");
    }
    let with_low_ports = pod(&["--set", "lowPorts=true"])?;
    ensure!(with_low_ports["securityContext"]["runAsNonRoot"] == true, "{with_low_ports}");
    ensure!(
        with_low_ports["securityContext"]["sysctls"][0]["name"] == "net.ipv4.ip_unprivileged_port_start",
        "{with_low_ports}"
    );
    // If low ports are allowed by the node or by the Pod's sysctls, the chart adds nothing.
    let allowed_by_node = pod(&["--set", &format!("{host},lowPorts=node,config.ingress-http-listen=0.0.0.0:80")])?;
    ensure!(allowed_by_node["securityContext"] == default_pod["securityContext"], "{allowed_by_node}");
    ensure!(
        allowed_by_node["containers"][0]["securityContext"] == default_pod["containers"][0]["securityContext"],
        "{allowed_by_node}"
    );
    let sysctls = r#"[{"name":"net.ipv4.ip_unprivileged_port_start","value":"80"}]"#;
    let sysctls = format!("podSecurityContext.sysctls={sysctls}");
    let allowed_by_pod = pod(&["--set", "config.ingress-http-listen=0.0.0.0:80", "--set-json", &sysctls])?;
    ensure!(
        allowed_by_pod["securityContext"]["sysctls"].as_array().is_some_and(|all| all.len() == 1),
        "{allowed_by_pod}"
    );
    // A disabled listener has no port that could conflict.
    pod(&["--set", "service.ports.http=443,config.ingress-http-listen=off"])?;
    pod(&["--set", "service.nodePorts.http=30443,service.nodePorts.https=30443,config.ingress-https-listen=off"])?;
    let other_namespace = pod(&["--set", "config.watch-namespaces={shop}"])?;
    ensure!(
        !other_namespace["containers"][0]["args"].to_string().contains("--publish-service"),
        "a Service outside of the watched namespaces cannot be read"
    );
    // All notations of a list have the same result.
    for namespaces in ["{shop,blog}", r"shop\, blog", r"{shop\,blog}"] {
        let settings = format!("rbac.namespaced=true,config.watch-namespaces={namespaces}");
        let rendered = by_name(render(helm, &["--set", &settings])?);
        for namespace in ["shop", "blog"] {
            let role = format!("Role {namespace}/portico-watched");
            ensure!(rendered.contains_key(&role), "{namespaces}: {:#?}", rendered.keys());
        }
    }
    let image = pod(&["--set", "image.registry=registry.example:5000,image.repository=a/portico,image.tag=x"])?;
    ensure!(image["containers"][0]["image"] == "registry.example:5000/a/portico:x", "{image}");
    for repository in ["localhost:5000/portico", "registry.example.com:5000/edge/portico"] {
        let image = &pod(&["--set", &format!("image.repository={repository},image.tag=x")])?["containers"][0]["image"];
        ensure!(*image == format!("{repository}:x"), "{image}");
    }

    let registry = "global.imageRegistry=registry.example,global.imagePullSecrets={one},imagePullSecrets[0].name=two";
    let from_global = pod(&["--set", &format!("{registry},image.repository=a/portico,image.tag=x")])?;
    ensure!(from_global["containers"][0]["image"] == "registry.example/a/portico:x", "{from_global}");
    ensure!(from_global["imagePullSecrets"] == json!([{"name": "two"}, {"name": "one"}]), "{from_global}");
    ensure!(from_global["automountServiceAccountToken"].is_null(), "{from_global}");
    ensure!(pod(&["--set", "automountServiceAccountToken=false"])?["automountServiceAccountToken"] == false);

    crds_are_chosen_without_a_cluster(helm)?;
    alerts_are_rendered_unchanged(helm)
}

/// Without a cluster, Helm cannot see which CRDs have another owner.
fn crds_are_chosen_without_a_cluster(helm: &Helm) -> Result<()> {
    let excluded = "crds.exclude={kongplugins.configuration.konghq.com}";
    let rule = r#"rbac.extraRules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]"#;
    let rendered = by_name(render(helm, &["--set", excluded, "--set-json", rule])?);
    let name = |crd: &str| format!("CustomResourceDefinition /{crd}.configuration.konghq.com");
    ensure!(!rendered.contains_key(&name("kongplugins")), "{:#?}", rendered.keys());
    let annotations = &rendered[&name("kongconsumers")]["metadata"]["annotations"];
    ensure!(annotations["argocd.argoproj.io/sync-options"] == "Prune=false,Delete=false", "{annotations}");
    let role = rendered.values().find(|object| object["kind"] == "ClusterRole").context("no ClusterRole")?;
    let last = role["rules"].as_array().and_then(|rules| rules.last());
    ensure!(last == Some(&json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]})), "{role}");
    Ok(())
}

/// Alert rules are rendered with the braces of Prometheus templates unchanged. Only `PorticoAbsent` is different for
/// each release: it selects the Pods of the release.
fn alerts_are_rendered_unchanged(helm: &Helm) -> Result<()> {
    let chart = Helm::chart()?;
    let written: Value = serde_saphyr::from_str(&std::fs::read_to_string(format!("{chart}/files/alerts.yaml"))?)?;
    let monitors = ["metrics.serviceMonitor.enabled=true", "metrics.podMonitor.enabled=true"];
    for (release, namespace, settings, pod_selector) in [
        ("portico", "portico-system", monitors[0], ",pod=~\"portico-[^-]+(-[^-]+)?\""),
        ("portico", "shop", &format!("kind=DaemonSet,{}", monitors[1]), ",pod=~\"portico-[^-]+\""),
        ("edge", "shop", monitors[0], ",pod=~\"edge-portico-[^-]+(-[^-]+)?\""),
        // Without the Prometheus operator, the Pod label is unknown.
        ("edge", "shop", "kind=Deployment", ""),
    ] {
        let settings = format!("metrics.prometheusRule.enabled=true,{settings}");
        let command = ["template", release, &chart, "--namespace", namespace, "--set", &settings];
        let rendered = by_name(objects(&helm.run_without_cluster(&command)?)?);
        let rule = rendered.values().find(|object| object["kind"] == "PrometheusRule").context("no PrometheusRule")?;
        let mut expected = written["groups"].clone();
        let absent_rule = expected.pointer_mut("/0/rules/0").context("the first alert is missing")?;
        ensure!(
            absent_rule["alert"] == "PorticoAbsent" && absent_rule["expr"] == "absent(portico_build_info)",
            "{absent_rule:#}"
        );
        absent_rule["expr"] = json!(format!("absent(portico_build_info{{namespace=\"{namespace}\"{pod_selector}}})"));
        ensure!(rule["spec"]["groups"] == expected, "{rule:#}");
    }
    Ok(())
}

/// The objects that the chart renders for the release `portico`.
pub(crate) fn render(helm: &Helm, settings: &[&str]) -> Result<Vec<Value>> {
    let chart = Helm::chart()?;
    let command = ["template", "portico", &chart, "--namespace", NAMESPACE];
    objects(&helm.run_without_cluster(&[&command, settings].concat())?)
}

/// The arguments of the container of the Deployment or DaemonSet.
fn arguments(objects: &Objects) -> Result<Vec<String>> {
    let arguments = &workload(objects)?["spec"]["template"]["spec"]["containers"][0]["args"];
    Ok(serde_json::from_value(arguments.clone())?)
}

fn workload(objects: &Objects) -> Result<&Value> {
    objects.values().find(|object| object["spec"]["template"].is_object()).context("no workload was rendered")
}

/// Parses YAML documents and drops empty ones.
pub(crate) fn objects(text: &str) -> Result<Vec<Value>> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(text)?;
    Ok(objects.into_iter().filter(|object| !object.is_null()).collect())
}

fn by_name(objects: Vec<Value>) -> Objects {
    objects.into_iter().map(|object| (name_of(&object), object)).collect()
}

/// `KIND NAMESPACE/NAME`.
pub(crate) fn name_of(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    format!("{} {}/{}", text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]))
}

fn labels_of(object: &mut Value) -> &mut Map<String, Value> {
    object["metadata"]["labels"].as_object_mut().expect("all objects have labels")
}

fn kustomize(folder: &str) -> Result<String> {
    let output = Command::new(Programs::build()?.kubectl()).arg("kustomize").arg(manifests(folder)?).output()?;
    if !output.status.success() {
        bail!("kubectl kustomize {folder}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn manifests(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("manifests").join(name);
    Ok(path.to_str().context("the checkout's path is not UTF-8")?.to_owned())
}
