//! Reads the annotations of an Ingress or HTTPRoute that configure its routes (docs/kong-compatibility.md, 2.2).

use std::sync::Arc;

use http::{HeaderName, Method, StatusCode};
use indexmap::IndexSet;

use super::known_annotations::{ROUTE_ANNOTATIONS, note_unknown};
use crate::api::kong::annotations::{
    FORCE_SSL_REDIRECT, HEADERS_PREFIX, HEADERS_SEPARATOR, HOST_ALIASES, HTTPS_REDIRECT_STATUS_CODE, METHODS,
    PATH_HANDLING, PRESERVE_HOST, PROTOCOLS, REGEX_PREFIX, REGEX_PRIORITY, REQUEST_BUFFERING, RESPONSE_BUFFERING,
    REWRITE, SNIS, STRIP_PATH, list,
};
use crate::api::names::{ANY_PATH_ANNOTATION, NO_SERVICE_ANNOTATION};
use crate::api::{Kind, Meta};
use crate::compile::CompileInputs;
use crate::compile::budgets::RegexBudget;
use crate::compile::objects::annotation_reader::{AnnotationReader, annotation_field};
use crate::diagnostic::Diagnostic;
use crate::snapshot::regex::{RegexAnchor, RegexLimit};
use crate::snapshot::router::by_conditions::{
    HEADER_REGEX_PREFIX, HeaderCondition, HeaderPattern, HostCondition, HostName, RouterFlavor,
};
use crate::snapshot::rule_options::Protocols;
use crate::snapshot::uri_template::UriTemplate;

/// The settings that all routes of one object share.
#[derive(Clone, Debug)]
pub(in crate::compile) struct RouteSettings {
    pub strip_path: bool,
    pub preserve_host: bool,
    pub protocols: Protocols,
    pub https_redirect: StatusCode,
    pub regex_priority: i64,
    pub regex_prefix: String,
    /// Whether paths are no conditions: the routes match every path, and their order is that of routes without paths.
    pub any_path: bool,
    /// Whether the routes have no service, so that only plugins respond.
    pub no_service: bool,
    pub methods: Vec<Method>,
    pub server_names: Arc<[HostName]>,
    /// Each alias once, in the order of the annotation.
    pub host_aliases: IndexSet<HostCondition>,
    pub headers: Arc<[HeaderCondition]>,
    /// The template for the path of requests. If the annotation is invalid, this is its diagnostic, and requests are
    /// not forwarded.
    pub rewrite: Result<Option<UriTemplate>, Diagnostic>,
    /// Conditions that cannot be evaluated: a route without them would match too many requests.
    pub errors: Vec<Diagnostic>,
    /// Warnings about annotations without effect.
    pub notes: Vec<Diagnostic>,
}

/// Reads all settings. `object`: the kind with its article, for notes.
pub(in crate::compile) fn read(
    inputs: &CompileInputs<'_>,
    regexes: &RegexBudget<'_>,
    meta: &Meta,
    kind: Kind,
    object: &str,
) -> RouteSettings {
    let mut reader = AnnotationReader::new(meta);
    let mut errors = Vec::new();
    let (protocols, is_redirect_forced) = parse_protocols(&mut reader, &mut errors);
    let status = reader.read(HTTPS_REDIRECT_STATUS_CODE, parse_redirect_status, "write 426, 301, 302, 307 or 308");
    let priority = reader.read(REGEX_PRIORITY, |text| text.trim().parse().ok(), "write a whole number");
    if priority.is_some() && inputs.ingress.flavor == RouterFlavor::Expressions {
        reader.note(REGEX_PRIORITY, "it has no effect with --kong-router expressions", "remove it");
    }
    match reader.text(PATH_HANDLING) {
        None | Some("v0") => {}
        Some("v1") => reader.note(PATH_HANDLING, "v1 has no effect with this router, as in Kong", "remove it"),
        // Adds the warning about an invalid value.
        Some(_) => drop(reader.read(PATH_HANDLING, |_| None::<()>, "write v0, or remove it")),
    }
    let settings = RouteSettings {
        strip_path: reader.bool(STRIP_PATH).unwrap_or(false),
        preserve_host: reader.bool(PRESERVE_HOST).unwrap_or(true),
        protocols,
        https_redirect: if is_redirect_forced {
            StatusCode::FOUND
        } else {
            status.unwrap_or(StatusCode::UPGRADE_REQUIRED)
        },
        regex_priority: priority.unwrap_or(0),
        regex_prefix: reader
            .read(
                REGEX_PREFIX,
                |text| (!text.is_empty()).then_some(text),
                "write the prefix of regular expressions, such as /~",
            )
            .unwrap_or("/~")
            .to_owned(),
        any_path: reader.bool(ANY_PATH_ANNOTATION).unwrap_or(false),
        no_service: reader.bool(NO_SERVICE_ANNOTATION).unwrap_or(false),
        methods: read_list(&mut reader, METHODS, parse_method, "methods", "write methods like GET,POST")
            .unwrap_or_default(),
        server_names: read_list(
            &mut reader,
            SNIS,
            HostName::parse,
            "host names",
            "write host names like a.example,b.example",
        )
        .unwrap_or_default()
        .into(),
        host_aliases: read_host_aliases(&mut reader),
        headers: parse_headers(&mut reader, regexes, &mut errors).into(),
        rewrite: reader.text(REWRITE).map(parse_rewrite).transpose(),
        errors,
        notes: Vec::new(),
    };
    // Bodies always stream, so these have no effect; invalid values are reported nevertheless.
    for annotation in [REQUEST_BUFFERING, RESPONSE_BUFFERING] {
        reader.bool(annotation);
    }
    note_unknown(&mut reader, kind, ROUTE_ANNOTATIONS, object);
    RouteSettings { notes: reader.notes, ..settings }
}

/// The protocols of requests, and whether plain text is redirected to TLS with 302.
fn parse_protocols(reader: &mut AnnotationReader<'_>, errors: &mut Vec<Diagnostic>) -> (Protocols, bool) {
    let default_protocols = Protocols { http: true, https: true, grpc: false, grpcs: false };
    let remedy = "use http, https, grpc and grpcs";
    let names = read_list(reader, PROTOCOLS, known_protocol, "protocols", remedy);
    if names.as_ref().is_some_and(Vec::is_empty) {
        reader.ignore(Diagnostic::error(annotation_field(PROTOCOLS), "the list is empty, so it has no effect", remedy));
    }
    let names = names.filter(|names| !names.is_empty());
    let mut protocols = names.as_ref().map_or(default_protocols, |names| Protocols::from_names(names.iter().copied()));
    let Protocols { http, https, grpc, grpcs } = protocols;
    if !(http || https || grpc || grpcs) {
        let message = "the list has no HTTP protocol, and streams are not supported by this version";
        errors.push(Diagnostic::error(annotation_field(PROTOCOLS), message, "use http, https, grpc or grpcs"));
    } else if (http || https) && (grpc || grpcs) {
        reader.note(
            PROTOCOLS,
            "a route serves either HTTP or gRPC, so http and https apply",
            "use http and https, or grpc and grpcs",
        );
        protocols = default_protocols;
    }
    let is_redirect_forced = reader.bool(FORCE_SSL_REDIRECT).unwrap_or(false);
    if is_redirect_forced {
        let Protocols { http, https, grpc, grpcs } = protocols;
        protocols = Protocols { http: false, https: http || https, grpc: false, grpcs: grpc || grpcs };
    }
    // A route for both http and https also accepts gRPC, which is carried over HTTP.
    if protocols == default_protocols {
        protocols = Protocols::ALL;
    }
    (protocols, is_redirect_forced)
}

fn known_protocol(name: &str) -> Option<&str> {
    const KNOWN: [&str; 10] = ["http", "https", "grpc", "grpcs", "tcp", "udp", "tls", "tls_passthrough", "ws", "wss"];
    KNOWN.contains(&name).then_some(name)
}

/// The entries of a list. `None` if it is missing, or if one of them is invalid: that makes the whole list invalid, as
/// in Kong, and adds a warning with the entry. `what`: "methods".
fn read_list<'a, T>(
    reader: &mut AnnotationReader<'a>,
    key: &str,
    parse: impl Fn(&'a str) -> Option<T>,
    what: &str,
    remedy: &str,
) -> Option<Vec<T>> {
    let text = reader.text(key)?;
    let invalid: Vec<&str> = list(text).filter(|entry| parse(entry).is_none()).collect();
    if invalid.is_empty() {
        return Some(list(text).filter_map(parse).collect());
    }
    let message = format!("invalid {what}: {}, so the whole list has no effect", quoted(&invalid));
    reader.ignore(Diagnostic::error(annotation_field(key), message, remedy));
    None
}

/// The valid aliases. Each of the others gets a warning: to leave out valid ones, too, would only serve fewer hosts.
fn read_host_aliases(reader: &mut AnnotationReader<'_>) -> IndexSet<HostCondition> {
    let entries = || reader.text(HOST_ALIASES).into_iter().flat_map(list);
    let aliases = entries().filter_map(HostCondition::parse).collect();
    let invalid: Vec<&str> = entries().filter(|entry| HostCondition::parse(entry).is_none()).collect();
    if !invalid.is_empty() {
        let message = format!("invalid host names: {}; only the others apply", quoted(&invalid));
        let remedy = "write host names like a.example,*.b.example";
        reader.ignore(Diagnostic::error(annotation_field(HOST_ALIASES), message, remedy));
    }
    aliases
}

/// The first entries of a list, in quotes.
fn quoted(entries: &[&str]) -> String {
    let shown: Vec<String> = entries.iter().take(MAX_SHOWN).map(|entry| format!("{entry:?}")).collect();
    let more =
        if entries.len() > MAX_SHOWN { format!(" and {} more", entries.len() - MAX_SHOWN) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

/// The number of invalid entries of a list that a diagnostic names.
const MAX_SHOWN: usize = 5;

fn parse_redirect_status(text: &str) -> Option<StatusCode> {
    let status = StatusCode::from_bytes(text.trim().as_bytes()).ok()?;
    matches!(status.as_u16(), 426 | 301 | 302 | 307 | 308).then_some(status)
}

fn parse_method(name: &str) -> Option<Method> {
    let name = name.to_ascii_uppercase();
    let is_valid = name.bytes().all(|byte| byte.is_ascii_uppercase());
    is_valid.then(|| Method::from_bytes(name.as_bytes()).ok()).flatten()
}

fn parse_rewrite(text: &str) -> Result<UriTemplate, Diagnostic> {
    UriTemplate::parse(text.trim()).map_err(|error| {
        let message = format!("{text:?} is invalid: {error}");
        Diagnostic::error(
            annotation_field(REWRITE),
            message,
            "write a path like /users/$1, where $1 is the first group of the path",
        )
    })
}

/// One match condition per annotation `konghq.com/headers.NAME`.
fn parse_headers(
    reader: &mut AnnotationReader<'_>,
    regexes: &RegexBudget<'_>,
    errors: &mut Vec<Diagnostic>,
) -> Vec<HeaderCondition> {
    let separator = reader.text(HEADERS_SEPARATOR).filter(|separator| !separator.is_empty()).unwrap_or(",");
    let mut headers: Vec<HeaderCondition> = Vec::new();
    for (name, value) in reader.with_prefix(HEADERS_PREFIX) {
        let field = annotation_field(&format!("{HEADERS_PREFIX}{name}"));
        let Ok(name) = HeaderName::try_from(name) else {
            let message = format!("{name:?} is not a header name");
            errors.push(Diagnostic::error(field, message, "use letters, digits and hyphens"));
            continue;
        };
        let values: Vec<&str> = value.split(separator).map(str::trim).filter(|value| !value.is_empty()).collect();
        match &values[..] {
            [] => reader.ignore(Diagnostic::error(
                field,
                "the value is empty, so it has no effect",
                "write a value, or remove it",
            )),
            // Only a single value may be a regular expression.
            [single] => {
                let pattern = single.strip_prefix(HEADER_REGEX_PREFIX);
                let condition = |limit| HeaderCondition::parse(name, [*single], limit);
                let syntax = "see docs/ingress.md for the syntax";
                let parsed = match pattern {
                    Some(pattern) => regexes.compile(pattern, RegexAnchor::Anywhere, &field, syntax, condition),
                    None => condition(RegexLimit::MEMORY_ONLY)
                        .map_err(|error| Diagnostic::error(&*field, error.to_string(), syntax)),
                };
                match parsed {
                    Ok(header) => headers.push(header),
                    Err(problem) => errors.push(problem),
                }
            }
            several => {
                let values = several.iter().map(|value| HeaderPattern::Equals((*value).into())).collect();
                headers.push(HeaderCondition { name, values });
            }
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::compile::budgets::{BudgetShare, Expansion};
    use crate::compile::testing::TestInputs;
    use crate::plugin_api::PluginRegistry;

    fn meta(annotations: &[(&str, &str)]) -> Meta {
        let annotations: serde_json::Map<_, _> =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        serde_json::from_value(json!({"namespace": "a", "name": "b", "annotations": annotations})).unwrap()
    }

    fn read_with(flavor: RouterFlavor, annotations: &[(&str, &str)]) -> RouteSettings {
        let mut inputs = TestInputs::new(PluginRegistry { kinds: &[], internal: &[] });
        inputs.ingress.flavor = flavor;
        let share = BudgetShare::Available(Expansion::MAX);
        read(
            &inputs.as_inputs(),
            &RegexBudget::new(&inputs.budgets, &share),
            &meta(annotations),
            Kind::Ingress,
            "an Ingress",
        )
    }

    /// The differences from the settings without annotations.
    fn differences(settings: &RouteSettings) -> Vec<String> {
        let RouteSettings { methods, server_names, host_aliases, headers, regex_priority, .. } = settings;
        let default_protocols = read_with(RouterFlavor::default(), &[]).protocols;
        let mut lines = Vec::new();
        let mut line = |differs: bool, text: String| lines.extend(differs.then_some(text));
        line(settings.strip_path, "strip".into());
        line(!settings.preserve_host, "host".into());
        let Protocols { http, https, grpc, grpcs } = settings.protocols;
        let letters: String = [(http, 'h'), (https, 'H'), (grpc, 'g'), (grpcs, 'G')]
            .iter()
            .filter_map(|(is_allowed, letter)| is_allowed.then_some(*letter))
            .collect();
        line(settings.protocols != default_protocols, format!("protocols {letters}"));
        line(settings.https_redirect != StatusCode::UPGRADE_REQUIRED, settings.https_redirect.as_str().to_owned());
        line(*regex_priority != 0, format!("priority {regex_priority}"));
        line(settings.regex_prefix != "/~", settings.regex_prefix.clone());
        line(!methods.is_empty(), format!("{methods:?}"));
        line(!server_names.is_empty(), format!("snis {}", server_names.len()));
        line(!host_aliases.is_empty(), format!("aliases {}", host_aliases.len()));
        for header in headers.iter() {
            let values: Vec<_> = header.values.iter().map(ToString::to_string).collect();
            line(true, format!("{}: {}", header.name, values.join("|")));
        }
        match &settings.rewrite {
            Ok(None) => {}
            Ok(Some(template)) => line(true, format!("rewrite {template}")),
            Err(_) => line(true, "no rewrite".into()),
        }
        lines
    }

    // docs/kong-compatibility.md, 2.2
    // docs/kong-compatibility.md, 7.25
    #[test]
    fn valid_and_invalid_route_annotations() {
        // (annotation, value, differences, number of notes, number of errors)
        let cases: &[(&str, &str, &[&str], usize, usize)] = &[
            ("konghq.com/strip-path", "TRUE", &["strip"], 0, 0),
            ("konghq.com/strip-path", "yes", &[], 1, 0),
            ("konghq.com/preserve-host", "false", &["host"], 0, 0),
            ("konghq.com/preserve-host", "", &[], 1, 0),
            ("konghq.com/protocols", "https", &["protocols H"], 0, 0),
            ("konghq.com/protocols", "grpc, grpcs", &["protocols gG"], 0, 0),
            ("konghq.com/protocols", "http,htps", &[], 1, 0),
            ("konghq.com/protocols", "http,grpc", &[], 1, 0),
            ("konghq.com/protocols", "tcp", &["protocols "], 0, 1),
            ("konghq.com/https-redirect-status-code", "301", &["301"], 0, 0),
            ("konghq.com/https-redirect-status-code", "303", &[], 1, 0),
            ("ingress.kubernetes.io/force-ssl-redirect", "true", &["protocols H", "302"], 0, 0),
            ("ingress.kubernetes.io/force-ssl-redirect", "false", &[], 0, 0),
            ("konghq.com/regex-priority", "7", &["priority 7"], 0, 0),
            ("konghq.com/regex-priority", "high", &[], 1, 0),
            ("konghq.com/methods", "get,POST", &["[GET, POST]"], 0, 0),
            ("konghq.com/methods", "GET,P-ST", &[], 1, 0),
            ("konghq.com/snis", "a.example,b.example", &["snis 2"], 0, 0),
            ("konghq.com/snis", "", &[], 0, 0),
            ("konghq.com/snis", "a.example,b example", &[], 1, 0),
            ("konghq.com/host-aliases", "a.example, *.b.example", &["aliases 2"], 0, 0),
            ("konghq.com/host-aliases", "a..example", &[], 1, 0),
            ("konghq.com/host-aliases", "a.example,b..example,c.example", &["aliases 2"], 1, 0),
            ("konghq.com/protocols", "", &[], 1, 0),
            ("konghq.com/methods", "", &[], 0, 0),
            ("konghq.com/headers.X-A", "one,two", &["x-a: one|two"], 0, 0),
            ("konghq.com/headers.X-A", "~*^one$", &["x-a: ~*^one$"], 0, 0),
            ("konghq.com/headers.X-A", "~*(", &[], 0, 1),
            // In a list of several values, a regular expression is plain text.
            ("konghq.com/headers.X-A", "~*(,~*b", &["x-a: ~*(|~*b"], 0, 0),
            ("konghq.com/headers.X A", "one", &[], 0, 1),
            ("konghq.com/headers.X-A", "", &[], 1, 0),
            ("konghq.com/path-handling", "v0", &[], 0, 0),
            ("konghq.com/path-handling", "v1", &[], 1, 0),
            ("konghq.com/path-handling", "v2", &[], 1, 0),
            ("konghq.com/request-buffering", "false", &[], 0, 0),
            ("konghq.com/response-buffering", "false", &[], 0, 0),
            ("konghq.com/response-buffering", "off", &[], 1, 0),
            ("konghq.com/regex-prefix", "/@", &["/@"], 0, 0),
            ("konghq.com/rewrite", "/x/$1", &["rewrite /x/$1"], 0, 0),
            ("konghq.com/rewrite", "/x/$", &["no rewrite"], 0, 0),
            ("konghq.com/tags", "a,b", &[], 0, 0),
            ("konghq.com/strippath", "true", &[], 1, 0),
            ("konghq.com/retries", "3", &[], 1, 0),
        ];
        for (key, value, expected, notes, errors) in cases {
            let settings = read_with(RouterFlavor::default(), &[(key, value)]);
            assert_eq!(differences(&settings), *expected, "{key}: {value}");
            assert_eq!((settings.notes.len(), settings.errors.len()), (*notes, *errors), "{key}: {value}");
        }
    }

    // docs/kong-compatibility.md, 2.2
    #[test]
    fn notes_name_invalid_entries_of_lists() {
        for (key, value, message) in [
            (
                "konghq.com/host-aliases",
                "a.example, b..example,c.example,d e",
                "invalid host names: \"b..example\", \"d e\"; only the others apply",
            ),
            ("konghq.com/methods", "GET,P-ST,PUT", "invalid methods: \"P-ST\", so the whole list has no effect"),
            ("konghq.com/snis", "a.example,b/c", "invalid host names: \"b/c\", so the whole list has no effect"),
            ("konghq.com/protocols", "http,htps", "invalid protocols: \"htps\", so the whole list has no effect"),
            ("konghq.com/protocols", " , ", "the list is empty, so it has no effect"),
            (
                "konghq.com/methods",
                "1,2,3,4,5,6,7",
                "invalid methods: \"1\", \"2\", \"3\", \"4\", \"5\" and 2 more, so the whole list has no effect",
            ),
        ] {
            let notes = read_with(RouterFlavor::default(), &[(key, value)]).notes;
            let found: Vec<_> = notes.iter().map(|note| (&*note.field, &*note.message)).collect();
            assert_eq!(found, [(&*annotation_field(key), message)]);
        }
    }

    // docs/kong-compatibility.md, 2.2
    #[test]
    fn combined_route_annotations() {
        const FORCE: (&str, &str) = ("ingress.kubernetes.io/force-ssl-redirect", "true");
        type Annotations = &'static [(&'static str, &'static str)];
        let cases: &[(Annotations, RouterFlavor, &[&str], usize)] = &[
            (
                &[FORCE, ("konghq.com/https-redirect-status-code", "308")],
                RouterFlavor::default(),
                &["protocols H", "302"],
                0,
            ),
            (&[FORCE, ("konghq.com/protocols", "grpc")], RouterFlavor::default(), &["protocols G", "302"], 0),
            (
                &[("konghq.com/headers.X-A", "a,b;c"), ("konghq.com/headers-separator", ";")],
                RouterFlavor::default(),
                &["x-a: a,b|c"],
                0,
            ),
            (&[("konghq.com/regex-priority", "7")], RouterFlavor::Expressions, &["priority 7"], 1),
        ];
        for (annotations, flavor, expected, notes) in cases {
            let settings = read_with(*flavor, annotations);
            assert_eq!(differences(&settings), *expected, "{annotations:?}");
            assert_eq!(settings.notes.len(), *notes, "{annotations:?}");
        }
    }
}
