//! What takes the place of the flags of ingress-nginx.

use super::args_file::WrittenFlag;
use crate::args::{NGINX_CLASS, NGINX_CONTROLLER, NginxClassOptions};
use crate::report::migration::FlagRow;

/// A row for each flag.
pub(super) fn rows(flags: &[WrittenFlag]) -> Vec<FlagRow> {
    flags.iter().map(row).collect()
}

fn row(flag: &WrittenFlag) -> FlagRow {
    let WrittenFlag { name, value } = flag;
    let known = FLAGS.iter().find(|known| known.names.iter().any(|pattern| is_match(pattern, name)));
    let (replacement, note) = match known.map(|known| (&known.replacement, known.note)) {
        Some((FlagReplacement::WithValue(flag), note)) => (Some(format!("{flag} {value}").trim_end().to_owned()), note),
        Some((FlagReplacement::Seconds(flag), note)) => (Some(format!("{flag} {value}s")), note),
        Some((FlagReplacement::Port(flag), note)) => (Some(format!("{flag} 0.0.0.0:{value}")), note),
        Some((FlagReplacement::IfSet(flag), note)) if is_true(value) => (Some((*flag).to_owned()), note),
        Some((FlagReplacement::IfUnset(flag), note)) if !is_true(value) => (Some((*flag).to_owned()), note),
        Some((FlagReplacement::IfSet(_) | FlagReplacement::IfUnset(_), _)) => {
            (None, "nothing to set: it is the default")
        }
        Some((FlagReplacement::None, note)) => (None, note),
        None => (None, "this flag is unknown"),
    };
    // A container has its namespace in a variable.
    let has_variable = replacement.is_some() && value.contains("$(");
    let variable = if has_variable { "write the namespace in place of the variable" } else { "" };
    let notes: Vec<&str> = [note, variable].into_iter().filter(|note| !note.is_empty()).collect();
    let is_secret = name == "maxmind-license-key";
    FlagRow {
        flag: format!("--{name}"),
        value: if is_secret { "…".to_owned() } else { value.clone() },
        replacement,
        note: notes.join("; "),
    }
}

/// Whether ingress-nginx passes TLS through. That is assumed if its flags are not known.
pub(super) fn pass_tls_through(flags: &[WrittenFlag]) -> bool {
    let is_set = |flag: &WrittenFlag| flag.name == "enable-ssl-passthrough" && is_true(&flag.value);
    flags.is_empty() || flags.iter().any(is_set)
}

/// Sets the classes that ingress-nginx serves as its flags say, unless the options of the command differ from its
/// defaults.
pub(super) fn set_classes(flags: &[WrittenFlag], classes: &mut NginxClassOptions) {
    let value = |name: &str| flags.iter().find(|flag| flag.name == name).map(|flag| &flag.value);
    for (name, default, class) in [
        ("controller-class", NGINX_CONTROLLER, &mut classes.controller),
        ("ingress-class", NGINX_CLASS, &mut classes.annotated),
    ] {
        let written = value(name).filter(|value| !value.is_empty());
        if let Some(written) = written.filter(|_| class == default) {
            class.clone_from(written);
        }
    }
    classes.by_name |= value("ingress-class-by-name").is_some_and(|value| is_true(value));
    classes.without_class |= value("watch-ingress-without-class").is_some_and(|value| is_true(value));
}

/// Whether a name is that of a row; a `*` at its end stands for any text.
fn is_match(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

fn is_true(value: &str) -> bool {
    value.is_empty() || crate::api::ingress_nginx::flag(value) == Some(true)
}

struct KnownFlag {
    /// Without hyphens.
    names: &'static [&'static str],
    replacement: FlagReplacement,
    /// What differs, or why nothing takes its place. A clause, or empty.
    note: &'static str,
}

enum FlagReplacement {
    /// A flag with the same value.
    WithValue(&'static str),
    /// A flag with the number of seconds.
    Seconds(&'static str),
    /// A flag with an address of this port.
    Port(&'static str),
    /// A flag, if the value is true.
    IfSet(&'static str),
    /// A flag, if the value is false.
    IfUnset(&'static str),
    None,
}

const fn flag(names: &'static [&'static str], replacement: FlagReplacement, note: &'static str) -> KnownFlag {
    KnownFlag { names, replacement, note }
}

const fn none(names: &'static [&'static str], note: &'static str) -> KnownFlag {
    KnownFlag { names, replacement: FlagReplacement::None, note }
}

const FLAGS: &[KnownFlag] = &[
    flag(&["configmap"], FlagReplacement::WithValue("--nginx-configmap"), ""),
    flag(
        &["tcp-services-configmap"],
        FlagReplacement::WithValue("--nginx-tcp-services"),
        "list the ports in --ingress-stream-ports, such as 9000",
    ),
    flag(
        &["udp-services-configmap"],
        FlagReplacement::WithValue("--nginx-udp-services"),
        "list the ports in --ingress-stream-ports, such as 5353/udp",
    ),
    flag(&["default-backend-service"], FlagReplacement::WithValue("--nginx-default-backend"), ""),
    flag(&["default-ssl-certificate"], FlagReplacement::WithValue("--ingress-default-certificate"), ""),
    flag(&["ingress-class"], FlagReplacement::WithValue("--nginx-class"), ""),
    flag(&["controller-class"], FlagReplacement::WithValue("--nginx-controller-class"), ""),
    flag(&["ingress-class-by-name"], FlagReplacement::IfSet("--nginx-class-by-name"), ""),
    flag(&["watch-ingress-without-class"], FlagReplacement::IfSet("--nginx-without-class"), ""),
    flag(&["publish-service"], FlagReplacement::WithValue("--publish-service"), "name the Service of Portico"),
    flag(&["publish-status-address"], FlagReplacement::WithValue("--publish-status-address"), ""),
    flag(&["update-status"], FlagReplacement::IfUnset("--ingress-status off"), ""),
    none(&["update-status-on-shutdown"], "Portico keeps the status when it stops"),
    none(
        &["report-node-internal-ip-address"],
        "there is no equivalent yet; list addresses in --publish-status-address",
    ),
    flag(&["watch-namespace"], FlagReplacement::WithValue("--watch-namespaces"), ""),
    flag(&["watch-namespace-selector"], FlagReplacement::WithValue("--nginx-namespace-selector"), ""),
    flag(&["disable-catch-all"], FlagReplacement::IfSet("--nginx-disable-catch-all"), ""),
    flag(
        &["disable-svc-external-name"],
        FlagReplacement::IfSet("--deny-external-names"),
        "it is for the whole process",
    ),
    flag(&["http-port"], FlagReplacement::Port("--ingress-http-listen"), "clients see --ingress-public-ports"),
    flag(&["https-port"], FlagReplacement::Port("--ingress-https-listen"), "clients see --ingress-public-ports"),
    flag(&["healthz-port"], FlagReplacement::Port("--status-listen"), "/readyz shows whether it is ready"),
    flag(&["enable-ssl-passthrough"], FlagReplacement::IfSet("--nginx-ssl-passthrough"), ""),
    none(&["enable-ssl-chain-completion"], "write complete chains into the Secrets"),
    none(&["validating-webhook*"], "there is no equivalent yet; remove the ValidatingWebhookConfiguration"),
    flag(
        &["enable-metrics"],
        FlagReplacement::IfSet("--nginx-metrics per-host"),
        "at --status-listen, in addition to Portico's own metrics, within --metrics-max-series",
    ),
    flag(
        &["metrics-per-host"],
        FlagReplacement::IfUnset("--nginx-metrics basic"),
        "in place of per-host, which is the default of ingress-nginx",
    ),
    flag(&["metrics-per-undefined-host"], FlagReplacement::IfSet("--nginx-metrics per-host,per-undefined-host"), ""),
    flag(
        &["report-status-classes"],
        FlagReplacement::IfSet("--nginx-metrics status-classes"),
        "next to other values of the flag",
    ),
    flag(&["shutdown-grace-period"], FlagReplacement::Seconds("--drain-delay"), ""),
    flag(&["post-shutdown-grace-period"], FlagReplacement::Seconds("--drain-timeout"), ""),
    flag(&["annotations-prefix"], FlagReplacement::WithValue("--nginx-annotation-prefix"), ""),
    none(&["enable-topology-aware-routing"], "nothing to set: --zone and annotations of the Services decide"),
    none(
        &["election-id", "election-ttl", "disable-leader-election"],
        "the holder of the Lease portico-leader writes statuses; --leader-election-namespace is its namespace",
    ),
    flag(&["kubeconfig"], FlagReplacement::WithValue("--kubeconfig"), ""),
    none(&["apiserver-host", "certificate-authority"], "name the cluster in --kubeconfig"),
    none(&["v", "logtostderr", "alsologtostderr", "stderrthreshold", "vmodule"], "--log-level sets what is logged"),
    none(
        &["enable-annotation-validation", "deep-inspect"],
        "values are always validated, and none is interpreted as code",
    ),
    none(&["maxmind-*"], "there is no database of locations"),
    none(
        &[
            "sync-*",
            "health-check-*",
            "profiling",
            "profiler-*",
            "internal-logger-address",
            "disable-full-test",
            "disable-sync-events",
            "default-server-port",
            "status-port",
            "stream-port",
            "ssl-passthrough-proxy-port",
            "dynamic-configuration-retries",
            "monitor-max-batch-size",
            "exclude-socket-metrics",
            "time-buckets",
            "length-buckets",
            "size-buckets",
            "bucket-factor",
            "max-buckets",
            "status-update-interval",
        ],
        "it is about the inside of ingress-nginx",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn replaced(name: &str, value: &str) -> Option<String> {
        row(&WrittenFlag { name: name.to_owned(), value: value.to_owned() }).replacement
    }

    #[test]
    fn flags_have_a_replacement_or_a_reason() {
        for (name, value, expected) in [
            ("configmap", "ingress-nginx/c", Some("--nginx-configmap ingress-nginx/c")),
            ("tcp-services-configmap", "ingress-nginx/tcp", Some("--nginx-tcp-services ingress-nginx/tcp")),
            ("watch-namespace-selector", "team=web", Some("--nginx-namespace-selector team=web")),
            ("watch-ingress-without-class", "true", Some("--nginx-without-class")),
            ("watch-ingress-without-class", "false", None),
            ("disable-catch-all", "true", Some("--nginx-disable-catch-all")),
            ("update-status", "false", Some("--ingress-status off")),
            ("update-status", "true", None),
            ("disable-svc-external-name", "true", Some("--deny-external-names")),
            ("disable-svc-external-name", "", Some("--deny-external-names")),
            ("http-port", "8080", Some("--ingress-http-listen 0.0.0.0:8080")),
            ("shutdown-grace-period", "30", Some("--drain-delay 30s")),
            ("validating-webhook-key", "/key", None),
            ("no-such-flag", "x", None),
        ] {
            assert_eq!(replaced(name, value).as_deref(), expected, "{name}={value}");
        }
        let secret = row(&WrittenFlag { name: "maxmind-license-key".to_owned(), value: "s3cret".to_owned() });
        assert!(!format!("{secret:?}").contains("s3cret"), "{secret:?}");
    }

    #[test]
    fn classes_are_those_of_the_flags() {
        let flag = |name: &str, value: &str| WrittenFlag { name: name.to_owned(), value: value.to_owned() };
        let flags = [
            flag("controller-class", "k8s.io/internal"),
            flag("ingress-class", "internal"),
            flag("watch-ingress-without-class", "true"),
            flag("ingress-class-by-name", "false"),
        ];
        let classes = |annotated: &str| NginxClassOptions {
            controller: NGINX_CONTROLLER.to_owned(),
            annotated: annotated.to_owned(),
            by_name: false,
            without_class: false,
        };
        for (option, expected) in [(NGINX_CLASS, "internal"), ("public", "public")] {
            let mut found = classes(option);
            set_classes(&flags, &mut found);
            let controller = "k8s.io/internal".to_owned();
            assert_eq!(found, NginxClassOptions { controller, without_class: true, ..classes(expected) });
        }
        let mut unchanged = classes(NGINX_CLASS);
        set_classes(&[], &mut unchanged);
        assert_eq!(unchanged, classes(NGINX_CLASS));
    }

    /// A flag that Portico does not have would be no replacement.
    #[test]
    fn named_flags_exist() {
        let command = crate::args::command();
        let run = command.find_subcommand("run").unwrap();
        let known: BTreeSet<String> =
            run.get_arguments().filter_map(|flag| flag.get_long()).map(|long| format!("--{long}")).collect();
        for KnownFlag { names, replacement, note } in FLAGS {
            let flag = match replacement {
                FlagReplacement::WithValue(flag)
                | FlagReplacement::Seconds(flag)
                | FlagReplacement::Port(flag)
                | FlagReplacement::IfSet(flag)
                | FlagReplacement::IfUnset(flag) => flag,
                FlagReplacement::None => "",
            };
            assert!(!flag.is_empty() || !note.is_empty(), "{names:?}");
            let words = flag.split(' ').chain(note.split([' ', ';', ','])).filter(|word| word.starts_with("--"));
            for word in words {
                assert!(known.contains(word), "{names:?}: {word}");
            }
        }
    }
}
