//! The ciphers and versions of TLS that a host of ingress-nginx accepts: `ssl-ciphers`, `ssl-prefer-server-ciphers`,
//! and the keys of the ConfigMap.

use portico::api::ingress_nginx::PREFIX;
use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 as AES128, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 as AES256,
    TLS13_AES_128_GCM_SHA256 as TLS13,
};

use super::nginx_client_certificates::TlsConnection;
use super::nginx_guards::{
    CLASS, WITH_CONFIG_MAP, config_map, echo, ingress, rule, start_with_tls, start_with_tls_and,
};
use crate::harness::eventually;
use crate::harness::site::Site;

/// The suite with which a client that offers these gets a response from a host.
fn negotiated(address: &str, host: &str, suites: &[SupportedCipherSuite]) -> Option<SupportedCipherSuite> {
    let mut connection = TlsConnection::open_with(address, host, None, suites);
    let (status, _) = connection.try_get(host, "/").ok()?;
    assert!(status == 200, "{host}: {status}");
    connection.suite()
}

fn with_ciphers(list: &str) -> String {
    format!("{PREFIX}ssl-ciphers: \"{list}\"")
}

const BOTH: &str = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256";

#[test]
fn annotations_narrow_the_ciphers_of_their_hosts() {
    let site = Site::new();
    let mut objects = CLASS.to_owned() + &echo("default") + &echo("other");
    let one = with_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256") + &format!(", {PREFIX}server-alias: alias.example");
    let clients = with_ciphers(BOTH) + &format!(", {PREFIX}ssl-prefer-server-ciphers: \"false\"");
    for (name, annotations) in [
        ("one", one.as_str()),
        ("open", ""),
        ("none", &with_ciphers("AES128-SHA")),
        ("server", &with_ciphers(BOTH)),
        ("client", &clients),
    ] {
        objects += &ingress("default", name, "01", annotations, &rule(&format!("{name}.example"), "/"));
    }
    // Neither a younger one nor another namespace decides.
    let wider = with_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384");
    objects += &ingress("default", "young", "02", &wider, &rule("one.example", "/young"));
    objects += &ingress("other", "foreign", "02", &wider, &rule("open.example", "/foreign"));
    site.save("manifests/all.yaml", &objects);
    let (program, _, https) = start_with_tls(&site);
    for (host, offered, expected) in [
        ("one.example", &[AES128][..], Some(AES128)),
        ("one.example", &[AES256], None),
        ("one.example", &[AES256, AES128], Some(AES128)),
        ("one.example", &[TLS13], Some(TLS13)),
        ("alias.example", &[AES128], Some(AES128)),
        ("alias.example", &[AES256], None),
        ("open.example", &[AES128], Some(AES128)),
        ("open.example", &[AES256], Some(AES256)),
        ("none.example", &[AES128, AES256], None),
        ("none.example", &[TLS13], Some(TLS13)),
        ("server.example", &[AES128, AES256], Some(AES256)),
        ("client.example", &[AES128, AES256], Some(AES128)),
    ] {
        assert_eq!(negotiated(&https, host, offered), expected, "{host}: {offered:?}");
    }
    let ended = program.stop().expect_success();
    for message in [
        "it names no cipher suite that is supported, so clients of its hosts need TLS 1.3",
        "an older Ingress, or another namespace, decides about the ciphers of one.example",
        "an older Ingress, or another namespace, decides about the ciphers of open.example",
    ] {
        assert!(ended.messages().contains(message), "{message}: {}", ended.messages());
    }
}

#[test]
fn flags_precede_annotations_and_the_config_map() {
    let site = Site::new();
    let objects = CLASS.to_owned() + &echo("default");
    let own = with_ciphers(BOTH);
    site.save("manifests/all.yaml", &(objects + &ingress("default", "a", "01", &own, &rule("a.example", "/"))));
    let keys = ", ssl-protocols: TLSv1.2, ssl-ciphers: ECDHE-ECDSA-AES128-GCM-SHA256";
    site.save("manifests/map.yaml", &config_map(keys));
    let suites = "TLS_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
    let (_program, _, https) = start_with_tls_and(&site, &[&WITH_CONFIG_MAP[..], &["--tls-ciphers", suites]].concat());
    assert_eq!(negotiated(&https, "a.example", &[AES128]), Some(AES128));
    assert_eq!(negotiated(&https, "a.example", &[AES256]), None);
    assert_eq!(negotiated(&https, "a.example", &[TLS13]), None);
    site.save("manifests/map.yaml", &config_map(", ssl-protocols: TLSv1.3"));
    let found = || [AES128, TLS13].map(|suite| negotiated(&https, "a.example", &[suite]));
    eventually("only TLS 1.3", || (found() == [None, Some(TLS13)]).then_some(()));
    site.save("manifests/map.yaml", &config_map(""));
    eventually("both", || (found() == [Some(AES128), Some(TLS13)]).then_some(()));
}
