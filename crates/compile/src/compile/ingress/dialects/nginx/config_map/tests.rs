//! Values of keys, and keys that are not in effect.

use super::*;

fn parsed(data: &[(&str, &str)], ignores_guards: bool) -> NginxConfig {
    let data = data.iter().map(|(name, value)| ((*name).to_owned(), Arc::from(*value))).collect();
    parse(&ObjectKey::new("ns", "controller"), &data, ignores_guards, RegexLimit::MEMORY_ONLY)
}

#[test]
fn statuses_are_sorted_and_in_their_range() {
    for (text, least, expected) in [
        ("503, 404,404", 400, Some(&[404, 503][..])),
        ("301", 300, Some(&[301])),
        ("301", 400, None),
        ("600", 300, None),
        ("4xx", 300, None),
        ("404 503", 400, None),
    ] {
        assert_eq!(statuses(text, least).as_deref(), expected, "{text}");
    }
}

#[test]
fn keys_replace_defaults() {
    let config = parsed(
        &[
            ("ssl-redirect", "false"),
            ("http-redirect-code", "301"),
            ("no-tls-redirect-locations", "/a, /b"),
            ("proxy-body-size", "8m"),
            ("proxy-read-timeout", "300"),
            ("proxy-next-upstream", "error http_502"),
            ("proxy-next-upstream-timeout", "5"),
            ("retry-non-idempotent", "true"),
            ("limit-rate", "100"),
            ("limit-rate-after", "500"),
            ("hsts-max-age", "60"),
            ("hsts-preload", "true"),
            ("whitelist-source-range", "10.0.0.0/8"),
            ("worker-processes", "4"),
            ("proxy-cookie-path", "/a/ /"),
            ("custom-http-errors", "503,404"),
            ("disable-proxy-intercept-errors", "true"),
            ("ssl-protocols", "TLSv1.3"),
            ("ssl-ciphers", "ECDHE+AESGCM"),
            ("ssl-prefer-server-ciphers", "false"),
        ],
        false,
    );
    assert_eq!((config.ssl_redirect, config.redirect_status.as_u16()), (false, 301));
    assert_eq!((config.body_bytes, config.read_seconds, config.send_seconds), (8 << 20, 300, 60));
    assert_eq!(config.no_tls_redirect_locations, ["/a", "/b"]);
    assert_eq!(config.next_upstream, NextUpstream::parse(["error", "http_502"]).unwrap());
    assert_eq!((config.rate_kilobytes, config.rate_after_kilobytes), (100, 500));
    assert_eq!((config.next_upstream_seconds, config.retries_non_idempotent), (5, true));
    assert_eq!((&*config.custom_errors, config.passes_endpoint_errors), (&[404, 503][..], true));
    assert_eq!(config.transport_security.unwrap(), "max-age=60; includeSubDomains; preload");
    assert_eq!(config.allowed.as_deref(), Some("10.0.0.0/8"));
    assert_eq!(config.endpoint_rewrites.get("proxy-cookie-path").map(|value| &**value), Some("/a/ /"));
    assert_eq!((config.tls_versions, config.prefers_server_ciphers), ((false, true), Some(false)));
    assert_eq!(config.ciphers.as_deref(), Some("ECDHE+AESGCM"));
    assert!(config.errors.is_empty() && config.notes.is_empty());
    for (name, value) in [("ssl-protocols", "TLSv1.1 TLSv1.2"), ("ssl-ciphers", "AES128-SHA")] {
        let config = parsed(&[(name, value)], false);
        assert_eq!((config.errors.len(), config.notes.len()), (0, 1), "{name}: {value}");
    }
    assert_eq!(parsed(&[("hsts", "false")], false).transport_security, None);
}

#[test]
fn bad_values_keep_defaults_and_guards_fail_closed() {
    for (name, value, errors, notes) in [
        ("proxy-read-timeout", "60s", 0, 1),
        ("proxy-next-upstream", "error,timeout", 0, 1),
        ("proxy-next-upstream-timeout", "-1", 0, 1),
        ("http-redirect-code", "200", 0, 1),
        ("ssl-redirect", "on", 0, 1),
        ("relative-redirects", "on", 0, 1),
        ("whitelist-source-range", "office", 1, 0),
        ("denylist-source-range", "10.0.0.0/99", 1, 0),
        ("block-user-agents", "curl", 1, 0),
        ("enable-modsecurity", "false", 0, 0),
        ("enable-modsecurity", "yes", 0, 1),
        ("enable-owasp-modsecurity-crs", "true", 0, 0),
        ("use-gzip", "true", 0, 1),
        ("proxy-body-sise", "8m", 0, 1),
        ("proxy-cookie-domain", "a", 0, 1),
        ("proxy-cookie-path", "/;", 0, 1),
        ("proxy-stream-timeout", "0", 0, 1),
        ("proxy-stream-timeout", "soon", 0, 1),
        ("proxy-stream-next-upstream", "on", 0, 1),
        ("proxy-stream-next-upstream-tries", "-1", 0, 1),
        ("proxy-stream-responses", "many", 0, 1),
        ("proxy-stream-responses", "2", 0, 0),
        ("block-cidrs", "", 0, 0),
        ("ssl-protocols", "TLSv1.1", 0, 1),
        ("ssl-protocols", "TLSv1.2,TLSv1.3", 0, 1),
        ("ssl-ciphers", "ALL;", 0, 1),
        ("ssl-prefer-server-ciphers", "on", 0, 1),
    ] {
        let config = parsed(&[(name, value)], false);
        assert_eq!((config.errors.len(), config.notes.len()), (errors, notes), "{name}: {value}");
        let unchanged =
            NginxConfig { errors: config.errors.clone(), notes: config.notes.clone(), ..NginxConfig::default() };
        assert_eq!(config, unchanged, "{name}: {value}");
    }
    assert!(parsed(&[("block-cidrs", "10.0.0.0/8")], true).errors.is_empty());
}

#[test]
fn snippet_of_the_global_server_is_in_effect_or_closes_all() {
    let url = ("global-auth-url", "http://a.example/");
    let method = ("global-auth-method", "POST");
    let set = ("global-auth-snippet", "proxy_set_header X-A $host;");
    let config = parsed(&[url, set], false);
    assert!(config.errors.is_empty() && config.notes.is_empty());
    assert!(config.global_auth.unwrap().contains_key(AUTH_SNIPPET));
    for (keys, errors, notes) in [
        (&[url, ("global-auth-snippet", "proxy_pass http://b;")][..], 1, 0),
        (&[url, ("global-auth-snippet", "proxy_set_header X-A b")], 1, 0),
        (&[url, ("global-auth-snippet", "proxy_method PUT;")], 0, 0),
        (&[url, method, ("global-auth-snippet", "proxy_method PUT;")], 1, 0),
        (&[url, ("global-auth-snippet", "proxy_buffer_size 16k;")], 0, 1),
    ] {
        let config = parsed(keys, false);
        assert_eq!((config.errors.len(), config.notes.len()), (errors, notes), "{keys:?}");
    }
}

#[test]
fn snippet_of_all_locations_is_in_effect_or_reported() {
    for (text, is_in_effect, errors, notes) in [
        ("add_header A b; if ($arg_a) { return 403; }", true, 0, 0),
        ("proxy_buffers 4 8k;", true, 0, 1),
        ("root /a; add_header A b;", false, 0, 1),
        ("root /a; deny all;", false, 1, 0),
        ("rewrite ^/a /b break;", false, 1, 0),
        ("proxy_set_header Host $arg_host;", false, 0, 1),
        ("deny all", false, 1, 0),
    ] {
        let config = parsed(&[("location-snippet", text)], false);
        let found = (config.location_snippet.is_some(), config.errors.len(), config.notes.len());
        assert_eq!(found, (is_in_effect, errors, notes), "{text}");
        assert!(parsed(&[("location-snippet", text)], true).errors.is_empty(), "{text}");
    }
}

#[test]
fn modsecurity_is_decided_for_each_ingress() {
    let config = parsed(&[("enable-modsecurity", "true"), ("modsecurity-snippet", "SecRuleEngine On")], false);
    assert_eq!((config.errors.len(), config.notes.len()), (0, 1));
    assert_eq!(config.waf, GlobalWaf { is_on: true, engine: Some(WafEngine::Refuses) });
    let problem = |name, value: &str| config_map_problem(&ObjectKey::new("ns", "controller"), name, &Arc::from(value));
    assert!(problem("modsecurity-snippet", "SecRuleEngine On").unwrap().is_error());
    assert_eq!(problem("modsecurity-snippet", "SecRuleEngine DetectionOnly"), None);
    assert!(!problem("enable-modsecurity", "true").unwrap().is_error());
}
