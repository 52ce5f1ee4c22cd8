//! The ConfigMap of ingress-nginx: what applies to all Ingresses of the dialect whose annotations say nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderValue, StatusCode};

use super::balancing;
use super::cipher_list;
use super::config_keys::{GLOBAL_AUTH, GUARDS, INTERNAL, REPLACED_BY_FLAGS, STREAM_REMEDY};
use super::config_value::{count, set, statuses};
use super::endpoint_rewrites;
use super::log_settings;
use super::log_settings::LogSettings;
use super::parsed_snippets::{AUTH_SNIPPET, NotInEffect, of_all_locations, parse_auth_snippet, reasons_without_effect};
use super::stream_defaults::{self, StreamDefaults};
use super::tracing;
use super::tracing::TraceSettings;
use super::waf_engine::{self, GlobalWaf, WafEngine};
use crate::api::ingress_nginx::{self, AnnotationRisk, flag, integer, items, size};
use crate::api::{Kind, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::ingress_class::dialect::unknown_annotation_remedy;
use crate::compile::objects::missing_object::missing_object;
use crate::diagnostic::Diagnostic;
use crate::snapshot::next_upstream::NextUpstream;
use crate::snapshot::regex::RegexLimit;
use crate::upstream::RouteBalancing;

/// The settings, with the defaults of ingress-nginx for keys that are missing or have a bad value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NginxConfig {
    pub ssl_redirect: bool,
    pub force_ssl_redirect: bool,
    pub preserve_trailing_slash: bool,
    pub relative_redirects: bool,
    pub redirects_have_port: bool,
    /// Of redirects to HTTPS.
    pub redirect_status: StatusCode,
    /// Rules whose path begins with one of these are not redirected to HTTPS.
    pub no_tls_redirect_locations: Vec<String>,
    /// `Strict-Transport-Security` of responses over TLS.
    pub transport_security: Option<HeaderValue>,
    /// Lists of addresses, as they are written.
    pub allowed: Option<Arc<str>>,
    pub denied: Option<Arc<str>>,
    pub connect_seconds: u64,
    pub send_seconds: u64,
    pub read_seconds: u64,
    pub tries: u32,
    /// After which outcomes a request is sent again, in which time, and whether also with other methods than
    /// idempotent ones.
    pub next_upstream: NextUpstream,
    pub next_upstream_seconds: u64,
    pub retries_non_idempotent: bool,
    pub body_bytes: u64,
    /// How many kilobytes of a response are sent per second, and how many before that; a rate of 0 is no limit.
    pub rate_kilobytes: u64,
    pub rate_after_kilobytes: u64,
    pub service_upstream: bool,
    /// `None` for that of each Service.
    pub load_balance: Option<RouteBalancing>,
    /// Of responses of backends, by the names of the annotations.
    pub endpoint_rewrites: BTreeMap<Box<str>, Arc<str>>,
    /// Of requests above a rate, and above the number of concurrent ones.
    pub rate_status: StatusCode,
    pub concurrent_status: StatusCode,
    /// Whether annotations may name Secrets and ConfigMaps of other namespaces.
    pub allows_other_namespaces: bool,
    /// The headers that annotations may let responses have.
    pub allowed_response_headers: Vec<String>,
    /// Whether the annotations of snippets have an effect.
    pub allows_snippets: bool,
    /// The highest risk of annotations that are accepted. Snippets are critical.
    pub highest_risk: AnnotationRisk,
    /// What no value of an annotation may contain.
    pub blocked_words: Box<[Box<str>]>,
    /// Rules whose path begins with one of these need no login.
    pub no_auth_locations: Vec<String>,
    /// The server that permits requests of Ingresses without one, by the names of the annotations.
    pub global_auth: Option<BTreeMap<Box<str>, Arc<str>>>,
    /// The statuses that error backends replace, sorted.
    pub custom_errors: Box<[u16]>,
    /// Whether those of endpoints are not replaced.
    pub passes_endpoint_errors: bool,
    pub logs: LogSettings,
    pub traces: TraceSettings,
    /// For the ports of `--nginx-tcp-services` and `--nginx-udp-services`.
    pub streams: StreamDefaults,
    pub waf: GlobalWaf,
    /// What follows the snippets of all locations, which can be compiled.
    pub location_snippet: Option<Arc<str>>,
    /// Whether clients may use TLS 1.2, and TLS 1.3.
    pub tls_versions: (bool, bool),
    /// Of TLS 1.2, as OpenSSL lists them.
    pub ciphers: Option<Arc<str>>,
    pub prefers_server_ciphers: Option<bool>,
    /// Why no request may be forwarded.
    pub errors: Vec<Diagnostic>,
    pub notes: Vec<Diagnostic>,
}

impl Default for NginxConfig {
    fn default() -> Self {
        NginxConfig {
            ssl_redirect: true,
            force_ssl_redirect: false,
            preserve_trailing_slash: false,
            relative_redirects: false,
            redirects_have_port: false,
            redirect_status: StatusCode::PERMANENT_REDIRECT,
            no_tls_redirect_locations: vec![ACME_CHALLENGE.to_owned()],
            transport_security: transport_security(true, HSTS_SECONDS, true, false),
            allowed: None,
            denied: None,
            connect_seconds: 5,
            send_seconds: 60,
            read_seconds: 60,
            tries: 3,
            next_upstream: NextUpstream::default(),
            next_upstream_seconds: 0,
            retries_non_idempotent: false,
            body_bytes: 1 << 20,
            rate_kilobytes: 0,
            rate_after_kilobytes: 0,
            service_upstream: false,
            load_balance: None,
            endpoint_rewrites: BTreeMap::new(),
            rate_status: StatusCode::SERVICE_UNAVAILABLE,
            concurrent_status: StatusCode::SERVICE_UNAVAILABLE,
            allows_other_namespaces: false,
            allowed_response_headers: Vec::new(),
            allows_snippets: false,
            highest_risk: AnnotationRisk::High,
            blocked_words: Box::default(),
            no_auth_locations: vec![ACME_CHALLENGE.to_owned()],
            global_auth: None,
            custom_errors: Box::default(),
            passes_endpoint_errors: false,
            logs: LogSettings::default(),
            traces: TraceSettings::default(),
            streams: StreamDefaults::default(),
            waf: GlobalWaf::default(),
            location_snippet: None,
            tls_versions: (true, true),
            ciphers: None,
            prefers_server_ciphers: None,
            errors: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// The settings for all Ingresses. With a ConfigMap that cannot be read, no request may be forwarded: it may restrict
/// clients.
pub(super) fn read(cx: CompileContext<'_>) -> NginxConfig {
    let Some(key) = &cx.inputs.ingress.nginx_config_map else { return NginxConfig::default() };
    let Some(config_map) = cx.store.config_maps.get(key) else {
        let mut problem = missing_object(cx.store, "", Kind::ConfigMap, key);
        problem.message.push_str(", and it is that of --nginx-configmap, so requests get status 503");
        return NginxConfig { errors: vec![problem], ..NginxConfig::default() };
    };
    let limit = cx.inputs.budgets.regex_limit();
    parse(key, &config_map.data, cx.inputs.ingress.ignore_foreign_guards, limit)
}

/// What is wrong with one key of the ConfigMap, as all Ingresses report it. `None` if it has its effect, or if it
/// configures what Portico does in another way.
pub fn config_map_problem(config_map: &ObjectKey, name: &str, value: &Arc<str>) -> Option<Diagnostic> {
    let data = BTreeMap::from([(name.to_owned(), Arc::clone(value))]);
    let NginxConfig { errors, notes, waf, .. } = parse(config_map, &data, false, RegexLimit::MEMORY_ONLY);
    let of_rules = (waf.engine == Some(WafEngine::Refuses)).then(waf_engine::of_global_rules);
    errors.into_iter().chain(of_rules).chain(notes).next()
}

fn parse(key: &ObjectKey, data: &BTreeMap<String, Arc<str>>, ignores_guards: bool, limit: RegexLimit) -> NginxConfig {
    let mut config = NginxConfig::default();
    let mut hsts = (true, HSTS_SECONDS, true, false);
    for (name, value) in data.iter().filter(|(_, value)| !value.is_empty()) {
        let (object, text) = (format!("{} {key}, {name}", Kind::ConfigMap), value.trim());
        let known = match &**name {
            "ssl-redirect" => set(&mut config.ssl_redirect, flag(text)),
            "force-ssl-redirect" => set(&mut config.force_ssl_redirect, flag(text)),
            "preserve-trailing-slash" => set(&mut config.preserve_trailing_slash, flag(text)),
            "relative-redirects" => set(&mut config.relative_redirects, flag(text)),
            "use-port-in-redirects" => set(&mut config.redirects_have_port, flag(text)),
            "service-upstream" => set(&mut config.service_upstream, flag(text)),
            "load-balance" => set(&mut config.load_balance, balancing::of_name(text).map(Some)),
            "http-redirect-code" => set(&mut config.redirect_status, redirect_status(text)),
            "no-tls-redirect-locations" => {
                config.no_tls_redirect_locations = items(text).map(str::to_owned).collect();
                Some(())
            }
            "global-allowed-response-headers" => {
                config.allowed_response_headers = items(text).map(str::to_owned).collect();
                Some(())
            }
            "no-auth-locations" => {
                config.no_auth_locations = items(text).map(str::to_owned).collect();
                Some(())
            }
            "allow-cross-namespace-resources" => set(&mut config.allows_other_namespaces, flag(text)),
            "allow-snippet-annotations" => set(&mut config.allows_snippets, flag(text)),
            "annotations-risk-level" => set(&mut config.highest_risk, AnnotationRisk::parse(text)),
            "annotation-value-word-blocklist" => {
                config.blocked_words = items(text).map(Box::from).collect();
                Some(())
            }
            "limit-req-status-code" => set(&mut config.rate_status, error_status(text)),
            "limit-conn-status-code" => set(&mut config.concurrent_status, error_status(text)),
            "custom-http-errors" => set(&mut config.custom_errors, statuses(text, 300)),
            "disable-proxy-intercept-errors" => set(&mut config.passes_endpoint_errors, flag(text)),
            "enable-modsecurity" => {
                let is_on = flag(text);
                if is_on == Some(true) {
                    let message = format!("{object}: {}", waf_engine::ONLY_LOGS);
                    let note = Diagnostic::of_object(message, waf_engine::ONLY_LOGS_REMEDY);
                    config.notes.push(note.into_warning());
                }
                set(&mut config.waf.is_on, is_on)
            }
            "enable-owasp-modsecurity-crs" => flag(text).map(|_| ()),
            waf_engine::RULES => {
                config.waf.engine = WafEngine::of_rules(value);
                Some(())
            }
            "ssl-protocols" => set(&mut config.tls_versions, tls_versions(text)),
            "ssl-ciphers" => list(&mut config.ciphers, name, value),
            "ssl-prefer-server-ciphers" => set(&mut config.prefers_server_ciphers, flag(text).map(Some)),
            "hsts" => set(&mut hsts.0, flag(text)),
            "hsts-max-age" => set(&mut hsts.1, integer(text).and_then(|seconds| u64::try_from(seconds).ok())),
            "hsts-include-subdomains" => set(&mut hsts.2, flag(text)),
            "hsts-preload" => set(&mut hsts.3, flag(text)),
            "proxy-connect-timeout" => set(&mut config.connect_seconds, count(text)),
            "proxy-send-timeout" => set(&mut config.send_seconds, count(text)),
            "proxy-read-timeout" => set(&mut config.read_seconds, count(text)),
            "proxy-next-upstream-tries" => set(&mut config.tries, count(text).and_then(|tries| tries.try_into().ok())),
            "proxy-next-upstream" => set(&mut config.next_upstream, NextUpstream::parse(text.split_whitespace())),
            "proxy-next-upstream-timeout" => set(&mut config.next_upstream_seconds, count(text)),
            "retry-non-idempotent" => set(&mut config.retries_non_idempotent, flag(text)),
            "proxy-body-size" => set(&mut config.body_bytes, size(text)),
            "limit-rate" => set(&mut config.rate_kilobytes, count(text)),
            "limit-rate-after" => set(&mut config.rate_after_kilobytes, count(text)),
            "whitelist-source-range" => list(&mut config.allowed, name, value),
            "denylist-source-range" => list(&mut config.denied, name, value),
            name if stream_defaults::NAMES.contains(&name) => config.streams.set(name, text),
            name if endpoint_rewrites::NAMES.contains(&name) => endpoint_rewrite(&mut config, name, value),
            "global-auth-snippet" => {
                global_auth_snippet(&mut config, &object, value);
                Some(())
            }
            "location-snippet" => {
                location_snippet(&mut config, &object, value, (ignores_guards, limit));
                Some(())
            }
            name if GLOBAL_AUTH.contains(&name) => global_auth(&mut config, name, value),
            name if log_settings::NAMES.contains(&name) => {
                log_settings::set(&mut config.logs, &mut config.notes, &object, name, text)
            }
            name if tracing::NAMES.contains(&name) => {
                tracing::set(&mut config.traces, &mut config.notes, &object, name, text)
            }
            _ if INTERNAL.contains(&&**name) => Some(()),
            _ if GUARDS.contains(&&**name) && flag(text) != Some(false) => {
                if !ignores_guards {
                    let message =
                        format!("{object} restricts requests and is not supported yet, so requests get status 503");
                    let remedy = "remove it if requests may be served without it, or run Portico with \
                                  --ignore-foreign-guards";
                    config.errors.push(Diagnostic::of_object(message, remedy));
                }
                Some(())
            }
            name if !ingress_nginx::is_config_key(name) => {
                let message = format!("{object}: ingress-nginx has no such key, so it never had an effect");
                let remedy = unknown_annotation_remedy(name, ingress_nginx::config_keys());
                config.notes.push(Diagnostic::of_object(message, remedy).into_warning());
                Some(())
            }
            name => {
                let flag = REPLACED_BY_FLAGS.iter().find(|(key, _)| *key == name).map(|(_, flag)| flag);
                let problem = match flag {
                    Some(flag) => {
                        let message = format!("{object} has no effect: {flag} of portico run takes its place");
                        Diagnostic::of_object(message, format!("run Portico with {flag}, and remove the key"))
                    }
                    None => {
                        let message = format!("{object} is not supported, so it has no effect");
                        let remedy = if name == "stream-snippet" { STREAM_REMEDY } else { "remove it" };
                        Diagnostic::of_object(message, remedy)
                    }
                };
                config.notes.push(problem.into_warning());
                Some(())
            }
        };
        if known.is_some() {
            continue;
        }
        let is_guard =
            matches!(&**name, "whitelist-source-range" | "denylist-source-range") || GLOBAL_AUTH.contains(&&**name);
        let what = if is_guard { "so requests get status 503" } else { "so its default applies" };
        let problem =
            Diagnostic::of_object(format!("{object}: {value:?} is not a valid value, {what}"), "correct the value");
        if is_guard { config.errors.push(problem) } else { config.notes.push(problem.into_warning()) }
    }
    log_settings::finish(&mut config.logs, &mut config.notes, &format!("{} {key}", Kind::ConfigMap));
    config.transport_security = transport_security(hsts.0, hsts.1, hsts.2, hsts.3);
    let problems = handshake_problems(&config, data);
    let note = |(name, message, remedy): (&str, String, &str)| {
        Diagnostic::of_object(format!("{} {key}, {name}: {message}", Kind::ConfigMap), remedy).into_warning()
    };
    config.notes.extend(problems.into_iter().map(note));
    config
}

/// What the keys about handshakes with clients name in vain: the key, what is wrong and the remedy.
fn handshake_problems(
    config: &NginxConfig,
    data: &BTreeMap<String, Arc<str>>,
) -> Vec<(&'static str, String, &'static str)> {
    let mut problems = Vec::new();
    if let Some(list) = config.ciphers.as_deref().map(cipher_list::parse) {
        let none = "it names no cipher suite that is supported, so clients need TLS 1.3".to_owned();
        let problem = if list.suites.is_empty() { Some(none) } else { list.unknown_in_words() };
        problems.extend(problem.map(|problem| ("ssl-ciphers", problem, cipher_list::REMEDY)));
    }
    let versions = data.get("ssl-protocols").filter(|value| tls_versions(value).is_some());
    let is_supported = |version: &str| matches!(version, "TLSv1.2" | "TLSv1.3");
    if let Some(other) = versions.and_then(|value| value.split_whitespace().find(|word| !is_supported(word))) {
        let message = format!("{other} is not supported, so no client may use it");
        problems.push(("ssl-protocols", message, "remove this version"));
    }
    problems
}

fn list(target: &mut Option<Arc<str>>, name: &str, value: &Arc<str>) -> Option<()> {
    let row = ingress_nginx::find(name)?;
    set(target, row.value.check(value).ok().map(|()| Some(Arc::clone(value))))
}

/// Adds a key about responses of backends, whose value is one of the annotation of this name.
fn endpoint_rewrite(config: &mut NginxConfig, name: &str, value: &Arc<str>) -> Option<()> {
    let row = ingress_nginx::find(name)?;
    row.value.check(value).ok()?;
    config.endpoint_rewrites.insert(name.into(), Arc::clone(value));
    Some(())
}

/// Adds a key about the server that permits requests, whose value is one of the annotation of this name.
fn global_auth(config: &mut NginxConfig, name: &str, value: &Arc<str>) -> Option<()> {
    let name = name.strip_prefix("global-")?;
    let row = ingress_nginx::find(name)?;
    row.value.check(value).ok()?;
    config.global_auth.get_or_insert_default().insert(name.into(), Arc::clone(value));
    Some(())
}

/// Adds the snippet of requests to this server. One that is not in effect is an error: the server decides by what it
/// gets.
fn global_auth_snippet(config: &mut NginxConfig, object: &str, value: &Arc<str>) {
    let global = config.global_auth.get_or_insert_default();
    match parse_auth_snippet(value, global.contains_key("auth-method")) {
        Ok(snippet) => {
            for reason in reasons_without_effect(&snippet) {
                let note = Diagnostic::of_object(format!("{object}: {reason}, so it has no effect"), "remove it");
                config.notes.push(note.into_warning());
            }
            global.insert(AUTH_SNIPPET.into(), Arc::clone(value));
        }
        Err(NotInEffect { message, remedy, .. }) => {
            let message = format!("{object}: {message}, so requests get status 503");
            config.errors.push(Diagnostic::of_object(message, remedy));
        }
    }
}

/// Adds the snippet of all locations. One that is not in effect and may restrict requests is an error.
fn location_snippet(
    config: &mut NginxConfig,
    object: &str,
    value: &Arc<str>,
    (ignores_guards, limit): (bool, RegexLimit),
) {
    let warn = |message: String, remedy: &str| {
        Diagnostic::of_object(format!("{object}: {message}, so it has no effect"), remedy).into_warning()
    };
    match of_all_locations(value, limit) {
        Ok(snippet) => {
            config.notes.extend(snippet.ignored().iter().map(|ignored| {
                warn(format!("line {}: {}: {}", ignored.line, ignored.directive, ignored.reason), "remove it")
            }));
            config.location_snippet = Some(Arc::clone(value));
        }
        Err(NotInEffect { message, remedy, restricts: true }) if !ignores_guards => {
            let message = format!("{object}: {message}, and it may restrict requests, so they get status 503");
            config.errors.push(Diagnostic::of_object(message, remedy));
        }
        Err(NotInEffect { message, remedy, .. }) => config.notes.push(warn(message, &remedy)),
    }
}

fn error_status(text: &str) -> Option<StatusCode> {
    let status = StatusCode::from_bytes(text.as_bytes()).ok()?;
    (400..600).contains(&status.as_u16()).then_some(status)
}

/// Whether a list has TLS 1.2, and TLS 1.3. `None` if it has neither, or another word. Older versions, which are not
/// supported, are left out.
fn tls_versions(text: &str) -> Option<(bool, bool)> {
    let has = |version: &str| text.split_whitespace().any(|word| word == version);
    let known = ["SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];
    let is_known = text.split_whitespace().all(|word| known.contains(&word));
    let versions = (has("TLSv1.2"), has("TLSv1.3"));
    (is_known && versions != (false, false)).then_some(versions)
}

fn redirect_status(text: &str) -> Option<StatusCode> {
    matches!(text, "301" | "302" | "307" | "308").then(|| StatusCode::from_bytes(text.as_bytes()).ok()).flatten()
}

fn transport_security(is_on: bool, seconds: u64, subdomains: bool, preload: bool) -> Option<HeaderValue> {
    let subdomains = if subdomains { "; includeSubDomains" } else { "" };
    let preload = if preload { "; preload" } else { "" };
    let value = is_on.then(|| format!("max-age={seconds}{subdomains}{preload}"))?;
    HeaderValue::try_from(value).ok()
}

const HSTS_SECONDS: u64 = 31_536_000;
/// What solvers of ACME challenges use, without TLS.
const ACME_CHALLENGE: &str = "/.well-known/acme-challenge";

#[cfg(test)]
mod tests;
