//! An authority for certificates of clients in tests.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::CertificateDer;

pub struct TestAuthority(CertifiedIssuer<'static, KeyPair>);

/// Noon of this day of January 2026. Certificates are valid in this month.
pub fn at_day(day: u64) -> SystemTime {
    // 2026-01-01
    UNIX_EPOCH + Duration::from_secs(1_767_225_600 - 86400 + 12 * 3600 + 86400 * day)
}

fn parameters(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 1, 31));
    params
}

impl TestAuthority {
    /// 2026-01-31
    #[cfg(test)]
    pub(crate) const NOT_AFTER: i64 = 1_769_817_600;

    pub fn new(name: &str) -> Self {
        TestAuthority(CertifiedIssuer::self_signed(parameters(name), KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a client without names, which `edit` adds.
    pub fn issue(&self, edit: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 1, 31));
        edit(&mut params);
        params.signed_by(&KeyPair::generate().unwrap(), &self.0).unwrap().der().clone()
    }

    /// A certificate for a client with this common name.
    pub fn issue_for(&self, name: &str) -> CertificateDer<'static> {
        self.issue(|params| params.distinguished_name.push(DnType::CommonName, name))
    }

    /// An authority whose certificate this one has issued.
    pub fn intermediate(&self, name: &str) -> (CertificateDer<'static>, TestAuthority) {
        let issuer = CertifiedIssuer::signed_by(parameters(name), KeyPair::generate().unwrap(), &self.0).unwrap();
        (issuer.der().clone(), TestAuthority(issuer))
    }

    /// A certificate for a client, and what signs others with its key although it is no authority.
    pub fn client(&self, name: &str) -> (CertificateDer<'static>, TestAuthority) {
        let mut params = parameters(name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let issuer = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.0).unwrap();
        (issuer.der().clone(), TestAuthority(issuer))
    }

    /// An authority whose certificate has this serial number.
    #[cfg(test)]
    pub(crate) fn numbered_intermediate(&self, serial: u64) -> (CertificateDer<'static>, TestAuthority) {
        let mut params = parameters("sub");
        params.serial_number = Some(serial.into());
        let issuer = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.0).unwrap();
        (issuer.der().clone(), TestAuthority(issuer))
    }

    /// A list in PEM with these serial numbers, valid from day 1 to day 10.
    #[cfg(test)]
    pub(crate) fn revocation_list(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| rcgen::RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = rcgen::CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2026, 1, 10),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }

    /// A certificate that is the same for all cases of a test.
    #[cfg(test)]
    pub(crate) fn shared_certificate() -> &'static CertificateDer<'static> {
        static CERTIFICATE: std::sync::OnceLock<CertificateDer<'static>> = std::sync::OnceLock::new();
        CERTIFICATE.get_or_init(|| TestAuthority::new("ca").issue_for("anna"))
    }
}
