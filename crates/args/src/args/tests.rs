//! Tests of whole command lines; single values are tested next to their parsers.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::access_log_syntax::AccessLogField;
use crate::limits::ProxyLimits;

/// Outside a Pod, without a terminal, with one core.
const PLAIN_ENVIRONMENT: Environment = Environment {
    stdout_is_terminal: false,
    stderr_is_terminal: false,
    no_color: false,
    cores: NonZeroUsize::MIN,
    in_cluster: false,
};

fn request(line: &str) -> Result<CliRequest, String> {
    request_in(line, &PLAIN_ENVIRONMENT)
}

fn request_in(line: &str, environment: &Environment) -> Result<CliRequest, String> {
    let argv = std::iter::once("portico").chain(line.split_whitespace()).map(OsString::from);
    try_parse(argv, environment).map_err(|error| error.to_string())
}

fn run(line: &str) -> RunOptions {
    run_in(line, &PLAIN_ENVIRONMENT)
}

fn run_in(line: &str, environment: &Environment) -> RunOptions {
    match request_in(&format!("run {line}"), environment) {
        Ok(CliRequest::Run(options)) => options,
        other => panic!("{other:?}"),
    }
}

#[test]
fn run_defaults() {
    let options = run("--manifests a b --manifests c");
    assert_eq!(options.manifests, ["a", "b", "c"].map(PathBuf::from));
    assert_eq!(options.cluster, None);
    assert_eq!(options.channel, schema::Channel::Experimental);
    assert_eq!(options.status_listen, Some("127.0.0.1:8100".parse().unwrap()));
    assert_eq!(options.admin_listen, Some("127.0.0.1:8101".parse().unwrap()));
    assert_eq!(options.echo, None);
    assert!(!options.allow_port_sharing);
    assert!(options.trusted_ips.is_empty() && options.proxy_protocol_from.is_empty());
    assert!(options.reject_paths.is_empty());
    assert_eq!(options.tls.min_version, TlsVersionArg::V1_2);
    assert!(options.tls.ciphers.is_empty());
    assert_eq!(options.workers, PLAIN_ENVIRONMENT.cores);
    assert_eq!(options.drain, DrainOptions { delay: Duration::ZERO, timeout: Duration::from_secs(60) });
    assert_eq!(options.access_log, AccessLogOptions::Stdout(LogFormat::Json));
    assert_eq!(options.log.format, LogFormat::Json);
    assert!(!options.log.color);
    assert_eq!(options.metrics_max_series.get(), 10_000);
    let product = concat!("portico/", env!("CARGO_PKG_VERSION")).into();
    assert_eq!(options.kong, KongOptions { headers: None, product, metrics: false });
    assert_eq!(options.limits, ProxyLimits::DEFAULT);
}

#[test]
fn lists_are_comma_separated_or_repeated() {
    let options = run("--manifests a --trusted-ips 10.0.0.0/8,::1 --trusted-ips 192.0.2.1 \
                       --gateway-address-pool 10.1.0.0/30,10.2.0.1");
    let forms = run("--manifests a --reject-paths backslash,encoded-slash,empty-segment \
                     --reject-paths dot-parameters,path-parameters");
    let expected = [
        PathFormArg::Backslash,
        PathFormArg::EncodedSlash,
        PathFormArg::EmptySegment,
        PathFormArg::DotParameters,
        PathFormArg::PathParameters,
    ];
    assert_eq!(forms.reject_paths, expected);
    let text: Vec<_> = options.trusted_ips.iter().map(ToString::to_string).collect();
    assert_eq!(text, ["10.0.0.0/8", "::1/128", "192.0.2.1/32"]);
    assert!(matches!(&options.gateways.addresses, AddressSource::Pool(pool) if pool.networks.len() == 2));
}

#[test]
fn kong_compatibility_flags() {
    let options = run("--manifests a --kong-headers off --product-token kong/3.9.1 --kong-metrics");
    let product = "kong/3.9.1".into();
    assert_eq!(options.kong, KongOptions { headers: Some(KongHeadersArg::Off), product, metrics: true });
    let error = request("run --manifests a --product-token a,b").unwrap_err();
    assert!(error.contains("--product-token") && error.contains("such as kong/3.9.1"), "{error}");
}

#[test]
fn ingress_flags() {
    let listen = |address: &str, public_port, explicit| {
        Some(IngressListenAddress { address: address.parse().unwrap(), public_port, explicit })
    };
    let by_default = run("--manifests a");
    assert_eq!((&*by_default.ingress_class.class, by_default.ingress_class.fail_open), ("portico", false));
    assert_eq!(by_default.ingress_class.router, KongRouter::TraditionalCompatible);
    assert_eq!(by_default.ingress_class.host_owner, HostOwner::Any);
    let with_owners = run("--manifests a --ingress-host-owner namespace");
    assert_eq!(with_owners.ingress_class.host_owner, HostOwner::Namespace);
    assert!(!by_default.ingress_class.ignore_foreign_guards);
    assert!(run("--manifests a --ignore-foreign-guards").ingress_class.ignore_foreign_guards);
    assert!(!by_default.ingress_class.nginx.ssl_passthrough);
    assert!(run("--manifests a --nginx-ssl-passthrough").ingress_class.nginx.ssl_passthrough);
    assert_eq!(by_default.ingress.http, listen("127.0.0.1:8000", 8000, false));
    assert_eq!(by_default.ingress.https, listen("127.0.0.1:8443", 8443, false));
    assert_eq!((by_default.ingress.default_certificate, by_default.ingress.publish), (None, PublishOptions::Nothing));

    let pod = Environment { in_cluster: true, ..PLAIN_ENVIRONMENT };
    let ingress = run_in("--publish-service a/b,c/d", &pod).ingress;
    assert_eq!((ingress.http, ingress.https), (listen("0.0.0.0:8000", 80, false), listen("0.0.0.0:8443", 443, false)));
    let name = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
    assert_eq!(ingress.publish, PublishOptions::Services(vec![name("a", "b"), name("c", "d")]));

    let with_flags = run("--manifests a --ingress-class kong --kong-router expressions --kong-compat-fail-open \
                     --ingress-http-listen 0.0.0.0:80 --ingress-https-listen off --ingress-public-ports 8080,8443 \
                     --ingress-default-certificate a/b --publish-service a/b --publish-status-address lb.example");
    assert_eq!((&*with_flags.ingress_class.class, with_flags.ingress_class.fail_open), ("kong", true));
    assert_eq!(with_flags.ingress_class.router, KongRouter::Expressions);
    assert_eq!((with_flags.ingress.http, with_flags.ingress.https), (listen("0.0.0.0:80", 8080, true), None));
    assert_eq!(with_flags.ingress.default_certificate, Some(name("a", "b")));
    assert_eq!(with_flags.ingress.publish, PublishOptions::Addresses(vec!["lb.example".to_owned()]));
    let without_status = run("--manifests a --publish-service a/b --ingress-status off");
    assert_eq!(without_status.ingress.publish, PublishOptions::Nothing);

    let same = request("run --manifests a --echo 127.0.0.1:8000 --ingress-http-listen 127.0.0.1:8000").unwrap_err();
    assert!(same.contains("--echo and --ingress-http-listen both listen on 127.0.0.1:8000"), "{same}");
    // Default addresses are bound only while an Ingress exists, so they do not collide.
    assert!(request("run --manifests a --echo 127.0.0.1:8000").is_ok());
}

#[test]
fn listeners_can_be_off() {
    let options = run("--manifests a --status-listen off --admin-listen off");
    assert_eq!((options.status_listen, options.admin_listen), (None, None));
}

#[test]
fn log_format_and_color_follow_the_terminal() {
    let argv = |line: &str| -> Vec<OsString> { line.split(' ').map(OsString::from).collect() };
    let terminal = Environment { stdout_is_terminal: true, stderr_is_terminal: true, ..PLAIN_ENVIRONMENT };
    let cases = [
        ("portico run --manifests a", AccessLogOptions::Stdout(LogFormat::Text), LogFormat::Text, true),
        (
            "portico run --manifests a --log-format json",
            AccessLogOptions::Stdout(LogFormat::Json),
            LogFormat::Json,
            true,
        ),
        ("portico run --manifests a --color never --access-log off", AccessLogOptions::Off, LogFormat::Text, false),
        (
            "portico run --manifests a --access-log x.log",
            AccessLogOptions::File("x.log".into(), LogFormat::Json),
            LogFormat::Text,
            true,
        ),
    ];
    for (line, access_log, format, color) in cases {
        let Ok(CliRequest::Run(options)) = try_parse(argv(line), &terminal) else { panic!("{line}") };
        assert_eq!(
            (&options.access_log, options.log.format, options.log.color),
            (&access_log, format, color),
            "{line}"
        );
    }
    let no_color = Environment { no_color: true, ..terminal };
    for (line, color) in [("portico run --manifests a", false), ("portico run --manifests a --color always", true)] {
        let Ok(CliRequest::Run(options)) = try_parse(argv(line), &no_color) else { panic!("{line}") };
        assert_eq!((options.log.color, options.color_stdout), (color, color), "{line}");
    }
}

#[test]
fn access_log_fields_are_selectable() {
    assert_eq!(run("--manifests a").access_log_content.fields, AccessLogField::defaults());
    let options = run("--manifests a --access-log-fields status,time --access-log-fields query");
    assert_eq!(
        options.access_log_content.fields,
        [AccessLogField::Status, AccessLogField::Time, AccessLogField::Query]
    );
    let unknown = request("run --manifests a --access-log-fields status,referer").unwrap_err();
    assert!(unknown.contains("there is no field `referer`; use a comma-separated list of time, client,"), "{unknown}");
    assert!(unknown.contains("error, user_agent"), "{unknown}");
    let twice = request("run --manifests a --access-log-fields status,time,status").unwrap_err();
    assert!(twice.contains("--access-log-fields contains `status` twice"), "{twice}");
}

#[test]
fn access_log_has_a_template_and_rules() {
    let content = |line: &[&str]| {
        let line = ["portico", "run", "--manifests", "a"].iter().chain(line);
        match try_parse(line.map(|word| OsString::from(*word)), &PLAIN_ENVIRONMENT) {
            Ok(CliRequest::Run(options)) => Ok((options.access_log, options.access_log_content)),
            Ok(_) => panic!("run is the command"),
            Err(error) => Err(error.to_string()),
        }
    };
    let (_, defaults) = content(&[]).unwrap();
    assert!(defaults.template.is_none() && defaults.rules.is_empty() && !defaults.masks_clients);
    let (options, text) = content(&["--access-log-format", "text", "--log-format", "json"]).unwrap();
    assert_eq!((options, text.template), (AccessLogOptions::Stdout(LogFormat::Text), None));
    let flags = ["--access-log-format=$status $request", "--access-log-filter", "keep status=5xx, keep 1%"];
    let (_, chosen) = content(&flags).unwrap();
    assert_eq!((chosen.template.unwrap().parts.len(), chosen.rules.0.len()), (2, 2));
    for (flags, expected) in [
        (&["--access-log-format=$stats"][..], "character 1: there is no variable $stats; did you mean $status?"),
        (
            &["--access-log-format=combined", "--access-log-fields=time"],
            "--access-log-fields has no effect on a template",
        ),
        (&["--access-log-filter=kep 1%"], "a rule begins with `keep` or `drop`"),
    ] {
        let error = content(flags).unwrap_err();
        assert!(error.contains(expected), "{flags:?}: {error}");
    }
}

#[test]
fn otlp_has_servers_of_its_own_for_each_signal() {
    let run = |line: &str| match request(&format!("run --manifests a {line}")) {
        Ok(CliRequest::Run(options)) => options,
        Ok(_) => panic!("run is the command"),
        Err(error) => panic!("{line}: {error}"),
    };
    let none = run("--trace-propagation w3c");
    assert_eq!((&none.tracing, &none.otlp.access_log, &none.otlp.metrics), (&None, &None, &None));
    let all =
        run("--trace-otlp-endpoint http://a --access-log-otlp-endpoint http://b --metrics-otlp-endpoint http://c \
                   --metrics-otlp-interval 5s --otlp-protocol grpc --otlp-ca-file ca.pem \
                   --otlp-client-cert-file tls.crt --otlp-client-key-file tls.key --trace-propagation none");
    assert_eq!(all.otlp.access_log.as_deref(), Some("http://b"));
    assert_eq!(all.otlp.metrics, Some(("http://c".to_owned(), Duration::from_secs(5))));
    assert_eq!((all.otlp.protocol, all.otlp.ca_file), (OtlpProtocolArg::Grpc, Some("ca.pem".into())));
    assert_eq!(all.otlp.client_certificate, Some(("tls.crt".into(), "tls.key".into())));
    let tracing = all.tracing.unwrap();
    assert_eq!((tracing.propagation, tracing.header), (Vec::new(), None));
    let rules = "run --manifests a --trace-otlp-endpoint http://a --trace-header X-Debug --trace-rules";
    let words = rules.split(' ').chain(["keep 5% route=HTTPRoute/a/b,drop path=/healthz"]);
    let words = std::iter::once("portico").chain(words).map(OsString::from);
    let Ok(CliRequest::Run(options)) = try_parse(words, &PLAIN_ENVIRONMENT) else { panic!("{rules}") };
    let tracing = options.tracing.unwrap();
    assert_eq!(tracing.rules.0.len(), 2);
    assert_eq!(tracing.header.map(|(name, limit)| (name.to_string(), limit)), Some(("x-debug".to_owned(), 10)));
    for (line, expected) in [
        ("--otlp-protocol grpc", "--trace-otlp-endpoint"),
        ("--otlp-ca-file a", "--access-log-otlp-endpoint"),
        ("--otlp-client-cert-file a --trace-otlp-endpoint https://a", "--otlp-client-key-file"),
        ("--otlp-client-key-file a --trace-otlp-endpoint https://a", "--otlp-client-cert-file"),
        ("--trace-sampling 1", "--trace-otlp-endpoint"),
        ("--trace-errors", "--trace-errors is given without --trace-otlp-endpoint"),
        ("--trace-header-limit 5 --trace-otlp-endpoint http://a", "--trace-header"),
        ("--trace-header-limit 0 --trace-header a --trace-otlp-endpoint http://a", "from 1 to 10000"),
        ("--trace-propagation w3c,none", "give `none` alone"),
        ("--metrics-otlp-interval 5s", "--metrics-otlp-endpoint"),
        ("--trace-otlp-endpoint http://a --trace-rules drop_all", "a rule begins with `keep` or `drop`"),
    ] {
        let Err(error) = request(&format!("run --manifests a {line}")) else { panic!("{line} is accepted") };
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn contradictions_name_the_flags_and_the_fix() {
    let cases = [
        ("run", "no source of objects is given; give --manifests PATH"),
        ("run --manifests - -", "--manifests names standard input (-) twice"),
        ("check - -", "PATH names standard input (-) twice"),
        (
            "run --manifests a --echo 127.0.0.1:8101",
            "--admin-listen and --echo both listen on 127.0.0.1:8101; give one of them another port",
        ),
        ("run --manifests a --workers 0", "invalid value '0' for '--workers <NUMBER>': not in range; write a whole"),
        ("run --manifests a --tls-min-version 1.1", "invalid value '1.1' for '--tls-min-version <VERSION>'"),
        ("run --manifests a --tls-ciphers RC4", "not a supported cipher suite; choose from TLS_AES_256_GCM_SHA384,"),
        (
            "run --manifests a --tls-min-version 1.3 --tls-ciphers TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "--tls-min-version 1.3 excludes all of --tls-ciphers",
        ),
        ("run --manifests a --drain-timeout 10", "'--drain-timeout <DURATION>': has no unit; write 10s or 10ms"),
        ("run --manifests a --kubernetes", "--kubernetes does not select a cluster outside of a Pod"),
        ("run --watch-namespaces a", "no source of objects is given"),
        ("run --manifests a --kubeconfig x", "--kubeconfig is given without --kubernetes"),
        ("run --manifests a --context x", "--context is given without --kubernetes"),
        ("run --manifests a --watch-namespaces x", "--watch-namespaces is given without --kubernetes"),
        ("run --manifests a --allow-loopback-backends", "--allow-loopback-backends is given without --kubernetes"),
        ("run --manifests a --allow-aws-pod-credentials", "--allow-aws-pod-credentials is given without --kubernetes"),
        ("run --manifests a --allow-gcp-pod-credentials", "--allow-gcp-pod-credentials is given without --kubernetes"),
        ("run --manifests a --allow-address-annotation", "--allow-address-annotation is given without --kubernetes"),
        ("run --manifests a --deny-external-names", "--deny-external-names is given without --kubernetes"),
        ("run --manifests a --deny-endpoint-cidrs ::1", "--deny-endpoint-cidrs is given without --kubernetes"),
        ("run --context x --deny-endpoint-cidrs 10.0.0.1/8", "has bits set beyond its prefix; write 10.0.0.0/8 for"),
        ("run --context x --watch-namespaces a,B", "'--watch-namespaces <NAME>': not the name of a namespace"),
        ("check", "required arguments were not provided"),
        ("convert ingress-nginx", "no Ingresses are given; give PATH"),
        ("convert ingress-nginx --kubernetes", "--kubernetes does not select a cluster outside of a Pod"),
        ("convert ingress-nginx --context x a.yaml", "files and a cluster exclude each other"),
        ("convert ingress-nginx --output x a.yaml", "required arguments were not provided"),
    ];
    for (line, expected) in cases {
        let message = request(line).unwrap_err();
        assert!(message.contains(expected), "portico {line}\n{message}");
        assert!(message.contains("try '--help'"), "portico {line}\n{message}");
    }
}

#[test]
fn cluster_is_contacted_only_by_flag_or_in_a_pod() {
    let pod = Environment { in_cluster: true, ..PLAIN_ENVIRONMENT };
    let file = |file: Option<&str>, context: Option<&str>| {
        let (file, context) = (file.map(PathBuf::from), context.map(str::to_owned));
        Some(ClusterAccess::Kubeconfig { file, context })
    };
    let cases = [
        (&PLAIN_ENVIRONMENT, "--manifests a", None),
        (&PLAIN_ENVIRONMENT, "--kubeconfig x", file(Some("x"), None)),
        (&PLAIN_ENVIRONMENT, "--kubernetes --context y --manifests a", file(None, Some("y"))),
        (&PLAIN_ENVIRONMENT, "--kubernetes --context y --kubeconfig x", file(Some("x"), Some("y"))),
        (&pod, "", Some(ClusterAccess::Pod)),
        (&pod, "--kubernetes --manifests a", Some(ClusterAccess::Pod)),
        (&pod, "--manifests a", None),
        (&pod, "--kubeconfig x", file(Some("x"), None)),
    ];
    for (environment, line, expected) in cases {
        let options = run_in(line, environment);
        assert_eq!(options.cluster.map(|cluster| cluster.access), expected, "run {line}");
    }
    let namespaces = run_in("--watch-namespaces a,b --watch-namespaces a", &pod).cluster.unwrap().namespaces;
    assert_eq!(namespaces, ["a", "b"]);
    let loopback = |line| run_in(line, &pod).cluster.unwrap().loopback_backends;
    assert_eq!([loopback(""), loopback("--allow-loopback-backends")], [false, true]);
    let aws = |line| run_in(line, &pod).cluster.unwrap().aws_pod_credentials;
    assert_eq!([aws(""), aws("--allow-aws-pod-credentials")], [false, true]);
    let google = |line| run_in(line, &pod).cluster.unwrap().gcp_pod_credentials;
    assert_eq!([google(""), google("--allow-gcp-pod-credentials")], [false, true]);
    let sources = |line| {
        let cluster = run_in(line, &pod).cluster.unwrap();
        (cluster.address_annotation, cluster.external_names)
    };
    assert_eq!(sources(""), (false, true));
    assert_eq!(sources("--allow-address-annotation --deny-external-names"), (true, false));
    let denied = |line| run_in(line, &pod).cluster.unwrap().denied_endpoints;
    assert_eq!(denied(""), []);
    let networks = ["10.96.0.0/12", "192.0.2.7/32", "fd00::/8"].map(|text| text.parse().unwrap());
    assert_eq!(denied("--deny-endpoint-cidrs 10.96.0.0/12,192.0.2.7 --deny-endpoint-cidrs fd00::/8"), networks);
}

#[test]
fn defaults_differ_in_a_cluster() {
    let pod = Environment { in_cluster: true, ..PLAIN_ENVIRONMENT };
    let listen_and_delay =
        |options: RunOptions| (options.status_listen.unwrap().to_string(), options.drain.delay.as_secs());
    assert_eq!(listen_and_delay(run_in("", &pod)), ("0.0.0.0:8100".to_owned(), 5));
    assert_eq!(listen_and_delay(run_in("--manifests a", &pod)), ("127.0.0.1:8100".to_owned(), 0));
    assert_eq!(listen_and_delay(run("--context x")), ("127.0.0.1:8100".to_owned(), 0));
    assert_eq!(
        listen_and_delay(run_in("--drain-delay 1s --status-listen 127.0.0.1:1", &pod)),
        ("127.0.0.1:1".to_owned(), 1)
    );
}

#[test]
fn port_zero_never_collides() {
    run("--manifests a --status-listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --echo 127.0.0.1:0");
}

#[test]
fn clap_accepts_the_definition() {
    command().debug_assert();
}

/// Every flag of every command.
fn flags() -> Vec<(String, clap::Arg)> {
    let root = command();
    let mut flags: Vec<_> = root.get_arguments().map(|arg| ("portico".to_owned(), arg.clone())).collect();
    for subcommand in root.get_subcommands() {
        flags.extend(subcommand.get_arguments().map(|arg| (subcommand.get_name().to_owned(), arg.clone())));
    }
    flags
}

#[test]
fn every_flag_has_an_environment_variable() {
    let mut seen = BTreeSet::new();
    for (command, flag) in flags() {
        let Some(long) = flag.get_long() else {
            assert!(flag.is_positional(), "{command}: every flag has a long name");
            continue;
        };
        let variable = flag.get_env().unwrap_or_else(|| panic!("{command} --{long} has no variable")).to_str().unwrap();
        assert_eq!(variable, format!("PORTICO_{}", long.to_uppercase().replace('-', "_")), "{command} --{long}");
        assert!(flag.is_hide_env_set(), "{command} --{long}: the help states the rule for all variables once");
        seen.insert(variable.to_owned());
    }
    assert!(seen.len() > 25, "the walk found only {seen:?}");
    // For a Service named portico or portico-*, Kubernetes injects variables such as PORTICO_SERVICE_HOST and
    // PORTICO_PORT_80_TCP into every Pod of its namespace.
    for variable in seen {
        let injected = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"].iter().any(|end| variable.ends_with(end));
        assert!(!injected && !variable.starts_with("PORTICO_PORT_"), "{variable} may be set by Kubernetes");
    }
}

#[test]
fn every_flag_has_help() {
    for (command, flag) in flags() {
        let help = flag.get_help().unwrap_or_else(|| panic!("{command} {} has no help", flag.get_id())).to_string();
        assert!(!help.ends_with('.'), "{command} {}: {help}", flag.get_id());
        assert!(help.starts_with(|first: char| first.is_uppercase()), "{command} {}: {help}", flag.get_id());
    }
}
