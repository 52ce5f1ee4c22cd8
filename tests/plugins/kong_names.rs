//! The list of all plugins of Kong in docs/kong-compatibility.md: each has a row, which says whether Portico has it.

use std::fmt::Write;
use std::fs;

use portico::plugins::REGISTRY;

use crate::golden::is_update;
use crate::root;

/// The 45 plugins of Kong without a license.
const FREE: [&str; 45] = [
    "acl",
    "acme",
    "ai-prompt-decorator",
    "ai-prompt-guard",
    "ai-prompt-template",
    "ai-proxy",
    "ai-request-transformer",
    "ai-response-transformer",
    "aws-lambda",
    "azure-functions",
    "basic-auth",
    "bot-detection",
    "correlation-id",
    "cors",
    "datadog",
    "file-log",
    "grpc-gateway",
    "grpc-web",
    "hmac-auth",
    "http-log",
    "ip-restriction",
    "jwt",
    "key-auth",
    "ldap-auth",
    "loggly",
    "oauth2",
    "opentelemetry",
    "post-function",
    "pre-function",
    "prometheus",
    "proxy-cache",
    "rate-limiting",
    "redirect",
    "request-size-limiting",
    "request-termination",
    "request-transformer",
    "response-ratelimiting",
    "response-transformer",
    "session",
    "standard-webhooks",
    "statsd",
    "syslog",
    "tcp-log",
    "udp-log",
    "zipkin",
];

/// The plugins of Kong that need a license, without those of artificial intelligence, which have one row.
const PAID: [&str; 53] = [
    "ace",
    "app-dynamics",
    "canary",
    "confluent",
    "confluent-consume",
    "datakit",
    "degraphql",
    "exit-transformer",
    "forward-proxy",
    "graphql-proxy-cache-advanced",
    "graphql-rate-limiting-advanced",
    "header-cert-auth",
    "injection-protection",
    "jq",
    "json-threat-protection",
    "jwe-decrypt",
    "jwt-signer",
    "kafka-consume",
    "kafka-log",
    "kafka-upstream",
    "key-auth-enc",
    "konnect-application-auth",
    "ldap-auth-advanced",
    "metering-and-billing",
    "mocking",
    "mtls-auth",
    "oas-validation",
    "oauth2-introspection",
    "opa",
    "openid-connect",
    "proxy-cache-advanced",
    "rate-limiting-advanced",
    "request-callout",
    "request-transformer-advanced",
    "request-validator",
    "response-transformer-advanced",
    "route-by-header",
    "route-transformer-advanced",
    "saml",
    "service-protection",
    "solace-consume",
    "solace-log",
    "solace-upstream",
    "statsd-advanced",
    "tls-handshake-modifier",
    "tls-metadata-headers",
    "upstream-oauth",
    "upstream-timeout",
    "vault-auth",
    "websocket-size-limit",
    "websocket-validator",
    "xml-threat-protection",
    // Of earlier versions.
    "application-registration",
];

/// What serves the purpose of a plugin that Portico does not have.
fn replacement(name: &str) -> Option<&'static str> {
    Some(match name {
        "acme" => "cert-manager writes certificates into Secrets, which [Gateways and Ingresses](tasks/tls.md) use",
        "exit-transformer" => "[error-pages](plugins/error-pages.md); a status cannot be changed",
        "key-auth-enc" => "[digests of keys](tasks/authentication.md#hashes-in-place-of-secrets) with key-auth",
        "route-transformer-advanced" => "the filter `URLRewrite` of an [HTTPRoute](routing.md)",
        "service-protection" => "[rate-limiting](plugins/rate-limiting.md) on the Service",
        "statsd-advanced" => "[statsd](plugins/statsd.md)",
        "tls-handshake-modifier" | "tls-metadata-headers" => {
            "[client certificates](tasks/client-certificates.md) and [mtls-auth](plugins/mtls-auth.md)"
        }
        _ => return None,
    })
}

const BEGIN: &str = "<!-- generated: plugins -->\n";
const END: &str = "<!-- end of generated: plugins -->\n";

// docs/kong-compatibility.md, 4.0
#[test]
fn every_plugin_of_kong_has_a_row() {
    let path = root().join("docs/kong-compatibility.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has the beginning of the list");
    let (shown, after) = rest.split_once(END).expect("the page has the end of the list");
    let expected = table(&format!("{before}{after}"));
    if shown != expected && is_update() {
        fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
        return;
    }
    assert!(
        shown == expected,
        "UPDATE=1 writes the list of plugins of Kong in docs/kong-compatibility.md:\n{expected}"
    );
}

// docs/kong-compatibility.md, 4.2
// docs/kong-compatibility.md, 4.40
#[test]
fn plugins_of_kong_are_listed_once() {
    let mut names: Vec<&str> = FREE.iter().chain(&PAID).copied().collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    let is_built = |name: &&str| REGISTRY.find(name).is_some();
    let missing: Vec<_> = FREE.iter().filter(|name| !is_built(name)).copied().collect();
    let is_expected = |name: &&str| *name == "acme" || name.starts_with("ai-");
    assert!(missing.iter().all(is_expected), "{missing:?}");
}

// Two rows about one topic contradict each other sooner or later.
#[test]
fn each_topic_has_one_row() {
    let page = fs::read_to_string(root().join("docs/kong-compatibility.md")).unwrap();
    let is_row =
        |line: &&str| line.strip_prefix("| ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let mut topics: Vec<_> =
        page.lines().filter(is_row).map(|line| line.split(" | ").take(2).collect::<Vec<_>>()).collect();
    topics.sort_unstable();
    let twice: Vec<_> = topics.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].join(" ")).collect();
    assert!(topics.len() > 60 && twice.is_empty(), "{twice:?}");
}

/// The list. `page`: the rest of the page, whose first table has the differences.
fn table(page: &str) -> String {
    let mut out = "| plugin | in Kong | in Portico |\n| --- | --- | --- |\n".to_owned();
    for (license, names) in [("free", &FREE[..]), ("with a license", &PAID[..])] {
        let mut names = names.to_vec();
        names.sort_unstable();
        for name in names {
            let (cell, remark) = match (REGISTRY.find(name), replacement(name)) {
                (Some(_), Some(_)) => panic!("{name} is built and needs no replacement"),
                (Some(_), None) => (format!("[{name}](plugins/{name}.md)"), remark_of_built(name, page)),
                (None, Some(replacement)) => (name.to_owned(), format!("not built; instead: {replacement}")),
                (None, None) => (name.to_owned(), "not built".to_owned()),
            };
            writeln!(out, "| {cell} | {license} | {remark} |").unwrap();
        }
    }
    out += "| ai-proxy-advanced and all others that begin with `ai-` | with a license | not built |\n";
    out
}

/// Whether the first table of the page has a row about the plugin that names a difference.
fn remark_of_built(name: &str, page: &str) -> String {
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        Some((cells.next()?, cells.next()?, cells.next()?.trim_end_matches(" |")))
    });
    let row = rows.into_iter().find(|(_, topic, _)| topic.split(", ").any(|topic| topic == name));
    match row {
        Some((_, _, "yes")) | None => "as it is".to_owned(),
        Some((section, _, _)) => format!("with the differences of {section}"),
    }
}
