//! Tests of what hosts require of the certificates of their clients.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, date_time_ymd,
};

use super::super::LocationSteps;
use super::*;
use crate::plugin_api::instance::ExecutionPlace;
use crate::plugin_chain::Chain;
use crate::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder};
use crate::plugin_chain::testing::{TestOutcome, TestRequest, names};
use crate::snapshot::location_steps::HttpsRedirectOfLocation;
use crate::snapshot::regex::compile_regex;

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// Parameters with this common name, for a certificate that is valid in January 2026.
fn parameters(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Shop");
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 1, 31));
    params
}

fn authority_parameters(name: &str) -> CertificateParams {
    let mut params = parameters(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(super) fn authority(name: &str) -> Issuer {
    CertifiedIssuer::self_signed(authority_parameters(name), KeyPair::generate().unwrap()).unwrap()
}

fn intermediate(name: &str, issuer: &Issuer) -> Issuer {
    CertifiedIssuer::signed_by(authority_parameters(name), KeyPair::generate().unwrap(), issuer).unwrap()
}

pub(super) fn client(name: &str, serial: u64, issuer: &Issuer) -> CertificateDer<'static> {
    let mut params = parameters(name);
    params.serial_number = Some(serial.into());
    params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
}

/// A list that is valid to January 10.
fn revocation_list(issuer: &Issuer, serial: u64) -> String {
    let revoked = RevokedCertParams {
        serial_number: serial.into(),
        revocation_time: date_time_ymd(2026, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(2026, 1, 10),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap().pem().unwrap()
}

/// Noon of this day of January 2026.
fn at_day(day: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_767_225_600 + (day - 1) * 86_400 + 43_200)
}

pub(super) fn settings(authorities: &[&Issuer], lists: Option<&str>, mode: CertificateMode) -> ClientCertificates {
    let pem: String = authorities.iter().map(|authority| authority.pem()).collect();
    ClientCertificates {
        mode,
        authorities: Arc::new(ClientAuthorities::parse(pem.as_bytes(), lists.map(str::as_bytes)).unwrap()),
        max_intermediates: 1,
        error_page: None,
        forwards_certificate: false,
        subject: None,
    }
}

fn chain(settings: ClientCertificates, https_redirect: Option<HttpsRedirectOfLocation>) -> Arc<Chain> {
    let step = CertificateStep::Verify { settings: Arc::new(settings), permits_plain_text: false };
    chain_of(LocationSteps { certificates: Some(step), https_redirect, ..LocationSteps::default() })
}

pub(super) fn chain_of(steps: LocationSteps) -> Arc<Chain> {
    let mut builder = ChainBuilder::default();
    let (ExecutionPlace { kind, priority }, instance) = Arc::new(steps).into_instance("a".into(), "a".into());
    builder.add(kind, priority, AttachmentPoint::Base(BaseScope::Route), instance);
    builder.build(names()).unwrap()
}

/// A request on a TLS connection with these certificates; `None` if it was opened without the request for one.
pub(super) async fn run(chain: &Arc<Chain>, certificates: Option<&[CertificateDer<'static>]>, day: u64) -> TestOutcome {
    let mut request = TestRequest::get("/")
        .header("ssl-client-verify", "SUCCESS")
        .header("ssl_client_subject_dn", "CN=forged")
        .header("ssl-client-cert", "forged");
    (request.certificates, request.now) = (certificates.map(<[_]>::to_vec), at_day(day));
    request.scheme = Scheme::Https;
    request.run(chain).await
}

/// The status of the reply, or else the value of `ssl-client-verify`.
fn result(outcome: &TestOutcome) -> String {
    match outcome.reply_status() {
        Some(status) => status.as_str().to_owned(),
        None => outcome.upstream_header("ssl-client-verify").unwrap_or("-").to_owned(),
    }
}

#[tokio::test]
async fn mode_decides_about_each_certificate() {
    use CertificateMode::{AnyAuthority, Off, Optional, Required};
    let (own, other) = (authority("ca"), authority("other"));
    let (good, bad) = ([client("anna", 1, &own)], [client("anna", 1, &other)]);
    let self_signed = parameters("anna").self_signed(&KeyPair::generate().unwrap()).unwrap();
    let self_signed = [self_signed.der().clone()];
    for (mode, expected) in [
        (Required, ["421", "400", "SUCCESS", "400", "400", "400"]),
        (Optional, ["421", "NONE", "SUCCESS", "400", "400", "400"]),
        (
            AnyAuthority,
            [
                "421",
                "NONE",
                "SUCCESS",
                "FAILED:unable to verify the first certificate",
                "FAILED:self-signed certificate",
                // Only the authority may be unknown.
                "400",
            ],
        ),
        (Off, ["NONE"; 6]),
    ] {
        let chain = chain(settings(&[&own], None, mode), None);
        let found = [
            run(&chain, None, 5).await,
            run(&chain, Some(&[]), 5).await,
            run(&chain, Some(&good), 5).await,
            run(&chain, Some(&bad), 5).await,
            run(&chain, Some(&self_signed), 5).await,
            run(&chain, Some(&good), 32).await,
        ];
        assert_eq!(found.each_ref().map(result), expected, "{mode:?}");
        for outcome in found.iter().filter(|outcome| outcome.reply.is_none()) {
            assert_eq!(outcome.upstream_header("ssl_client_subject_dn"), None);
            assert_eq!(outcome.upstream_header("ssl-client-cert"), None);
            let has_certificate = result(outcome) != "NONE";
            assert_eq!(outcome.upstream_header("ssl-client-subject-dn"), has_certificate.then_some("CN=anna,O=Shop"));
        }
    }
}

#[tokio::test]
async fn chains_have_a_greatest_length() {
    let root = authority("root");
    let first = intermediate("first", &root);
    let second = intermediate("second", &first);
    let (of_root, of_first, of_second) = (client("a", 1, &root), client("a", 1, &first), client("a", 1, &second));
    let (first_sent, second_sent) = (first.der().clone(), second.der().clone());
    for (authorities, sent, max_intermediates, expected) in [
        (vec![&root], vec![of_root.clone()], 0, "SUCCESS"),
        (vec![&root], vec![of_first.clone(), first_sent.clone()], 0, "400"),
        (vec![&root], vec![of_first.clone(), first_sent.clone()], 1, "SUCCESS"),
        (vec![&root], vec![of_second.clone(), second_sent.clone(), first_sent.clone()], 1, "400"),
        (vec![&root], vec![of_second.clone(), second_sent, first_sent], 2, "SUCCESS"),
        // The client sends only its own.
        (vec![&root], vec![of_first.clone()], 1, "400"),
        (vec![&root, &first], vec![of_first.clone()], 1, "SUCCESS"),
        (vec![&first, &root, &second], vec![of_second.clone()], 1, "400"),
        // Without one that has signed itself, every certificate is an authority.
        (vec![&first], vec![of_first], 0, "SUCCESS"),
    ] {
        let settings =
            ClientCertificates { max_intermediates, ..settings(&authorities, None, CertificateMode::Required) };
        let found = result(&run(&chain(settings, None), Some(&sent), 5).await);
        assert_eq!(found, expected, "{} authorities, {max_intermediates}", authorities.len());
    }
}

#[tokio::test]
async fn revoked_certificates_are_rejected_and_so_are_all_without_a_current_list() {
    let (own, other) = (authority("ca"), authority("other"));
    for (list, day, expected) in [
        (revocation_list(&own, 7), 5, ["SUCCESS", "400"]),
        (revocation_list(&own, 7), 20, ["400", "400"]),
        (revocation_list(&other, 7), 5, ["400", "400"]),
    ] {
        let chain = chain(settings(&[&own], Some(&list), CertificateMode::Required), None);
        for (serial, expected) in [6, 7].into_iter().zip(expected) {
            assert_eq!(result(&run(&chain, Some(&[client("a", serial, &own)]), day).await), expected, "{serial} {day}");
        }
    }
}

#[tokio::test]
async fn subject_must_match_anywhere() {
    let own = authority("ca");
    let certificate = [client("anna", 1, &own)];
    for (pattern, with, without) in [
        ("CN=anna", "SUCCESS", "403"),
        ("CN=an", "SUCCESS", "403"),
        ("CN=bert", "403", "403"),
        ("CN=anna$", "403", "403"),
        ("CN=anna,O=Shop$", "SUCCESS", "403"),
    ] {
        let subject = Some(compile_regex(&format!("(?s:.*)(?:{pattern})(?s:.*)")).unwrap());
        let settings = ClientCertificates { subject, ..settings(&[&own], None, CertificateMode::Optional) };
        let chain = chain(settings, None);
        let found = [run(&chain, Some(&certificate), 5).await, run(&chain, Some(&[]), 5).await];
        assert_eq!(found.each_ref().map(result), [with, without], "{pattern}");
        assert_eq!(found[1].message(), Some("client certificate unauthorized"));
        // It has no subject.
        assert_eq!(result(&TestRequest::get("/").run(&chain).await), "403", "{pattern}");
    }
}

#[tokio::test]
async fn plain_text_is_redirected_or_denied_if_a_certificate_is_required() {
    use CertificateMode::{AnyAuthority, Off, Optional, Required};
    let own = authority("ca");
    let status = StatusCode::PERMANENT_REDIRECT;
    let redirect = HttpsRedirectOfLocation { status, keeps_trailing_slash: false, port: None };
    for (mode, redirect, expected) in [
        (Required, None, "403"),
        (Required, Some(redirect), "308"),
        (Optional, None, "-"),
        (AnyAuthority, None, "-"),
        (Off, None, "-"),
        (Optional, Some(redirect), "308"),
    ] {
        let chain = chain(settings(&[&own], None, mode), redirect);
        let request = || TestRequest::get("/").header("ssl-client-verify", "SUCCESS");
        assert_eq!(result(&request().run(&chain).await), expected, "{mode:?}");
        // A trusted proxy reports HTTPS, so that nothing is redirected; what it has verified is not known.
        let mut reported = request();
        (reported.scheme, reported.is_peer_trusted) = (Scheme::Https, true);
        let expected = if mode == Required { "403" } else { "-" };
        assert_eq!(result(&reported.run(&chain).await), expected, "{mode:?}");
    }
    let settings = Arc::new(settings(&[&own], None, Required));
    let step = CertificateStep::Verify { settings, permits_plain_text: true };
    let steps = LocationSteps { certificates: Some(step), ..LocationSteps::default() };
    assert_eq!(result(&TestRequest::get("/").run(&chain_of(steps)).await), "-");
}

#[tokio::test]
async fn error_page_replaces_400_only() {
    let (own, other) = (authority("ca"), authority("other"));
    let settings = ClientCertificates {
        error_page: Some(HeaderValue::from_static("https://a.example/denied")),
        subject: Some(compile_regex("(?s:.*)CN=bert(?s:.*)").unwrap()),
        ..settings(&[&own], None, CertificateMode::Required)
    };
    let chain = chain(settings, None);
    for (certificates, expected) in [
        (vec![], ("302", Some("https://a.example/denied"))),
        (vec![client("bert", 1, &other)], ("302", Some("https://a.example/denied"))),
        (vec![client("anna", 1, &own)], ("403", None)),
        (vec![client("bert", 1, &own)], ("SUCCESS", None)),
    ] {
        let outcome = run(&chain, Some(&certificates), 5).await;
        let location = outcome.response.headers.get(LOCATION).map(|value| value.to_str().unwrap());
        assert_eq!((&*result(&outcome), location), expected);
    }
}

#[tokio::test]
async fn certificate_is_forwarded_with_escapes() {
    let own = authority("ca");
    let settings =
        ClientCertificates { forwards_certificate: true, ..settings(&[&own], None, CertificateMode::Required) };
    let outcome = run(&chain(settings, None), Some(&[client("anna", 1, &own)]), 5).await;
    assert_eq!(outcome.upstream_header("ssl-client-issuer-dn"), Some("CN=ca,O=Shop"));
    let forwarded = outcome.upstream_header("ssl-client-cert").unwrap();
    assert!(forwarded.starts_with("-----BEGIN%20CERTIFICATE-----%0AMII"), "{forwarded}");
    assert!(forwarded.ends_with("%0A-----END%20CERTIFICATE-----%0A"), "{forwarded}");
}

#[tokio::test]
async fn host_without_known_authorities_is_closed() {
    let steps = LocationSteps { certificates: Some(CertificateStep::Deny), ..LocationSteps::default() };
    let chain = chain_of(steps);
    let good = [client("anna", 1, &authority("ca"))];
    assert_eq!(result(&run(&chain, Some(&good), 5).await), "403");
    assert_eq!(result(&TestRequest::get("/").run(&chain).await), "403");
}

#[test]
fn result_of_a_connection_ends_with_what_it_depends_on() {
    let own = authority("ca");
    let with_list = |list: Option<&str>| Arc::new(settings(&[&own], list, CertificateMode::Required));
    let (plain, list) = (with_list(None), revocation_list(&own, 7));
    let certificates = [client("anna", 1, &own)];
    let kept = VerifiedChain::new(&plain, &certificates, at_day(5));
    // The certificates end at the beginning of day 31.
    assert!(kept.is_of(&plain, at_day(30)) && !kept.is_of(&plain, at_day(31)));
    assert!(kept.is_of(&with_list(None), at_day(5)), "equal settings");
    let listed = with_list(Some(&list));
    assert!(!kept.is_of(&listed, at_day(5)), "other settings");
    let kept = VerifiedChain::new(&listed, &certificates, at_day(5));
    assert!(kept.is_of(&listed, at_day(9)) && !kept.is_of(&listed, at_day(11)));
}

#[test]
fn unusable_texts_are_reported() {
    let pem = authority("ca").pem();
    let list = revocation_list(&authority("ca"), 1);
    for (authorities, lists, expected) in [
        ("", None, "ca.crt has no certificate in PEM"),
        ("x", None, "ca.crt has no certificate in PEM"),
        (&*pem.replacen("MI", "AA", 1), None, "ca.crt has a block that is not an X.509 certificate"),
        (&*pem, Some(""), "ca.crl is not a list of revoked certificates in PEM"),
        (&*pem, Some(&*pem), "ca.crl is not a list of revoked certificates in PEM"),
        (&*pem, Some(&*list.replacen("MI", "AA", 1)), "ca.crl is not a list of revoked certificates in PEM"),
    ] {
        let problem = ClientAuthorities::parse(authorities.as_bytes(), lists.map(str::as_bytes)).unwrap_err();
        assert_eq!(problem, expected);
    }
}
