//! Metrics of the remaining and total validity of served certificates.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::snapshot::Snapshot;
use crate::snapshot::certs::Certificate;

/// Reads the current snapshot at each scrape, so that compilation does not depend on the clock.
#[derive(Debug)]
pub(super) struct CertificateExpiry(pub(super) Arc<ArcSwap<Snapshot>>);

impl Collector for CertificateExpiry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let periods: Vec<_> = soonest_to_expire(validity_by_secret(&self.0.load())).collect();
        let now = Timestamp::try_from(SystemTime::now()).unwrap_or_default().as_second();
        let mut remaining = encoder.encode_descriptor(
            "portico_certificate_expiry_seconds",
            "Seconds until a served certificate, or one of its chain, expires",
            None,
            MetricType::Gauge,
        )?;
        for (secret, ValidityPeriod { expires, .. }) in &periods {
            remaining.encode_family(&[("secret", &**secret)])?.encode_gauge(&(expires - now))?;
        }
        let mut total = encoder.encode_descriptor(
            "portico_certificate_lifetime_seconds",
            "Total validity in seconds of the certificate in portico_certificate_expiry_seconds",
            None,
            MetricType::Gauge,
        )?;
        for (secret, ValidityPeriod { lifetime, .. }) in &periods {
            total.encode_family(&[("secret", &**secret)])?.encode_gauge(lifetime)?;
        }
        Ok(())
    }
}

/// Expiry and total validity of a certificate, in seconds.
#[derive(Clone, Copy)]
struct ValidityPeriod {
    expires: i64,
    lifetime: i64,
}

/// The certificates that expire first, up to `MAX_SERIES`; a cluster may have one for every host.
fn soonest_to_expire(periods: BTreeMap<Arc<str>, ValidityPeriod>) -> impl Iterator<Item = (Arc<str>, ValidityPeriod)> {
    let mut periods: Vec<_> = periods.into_iter().collect();
    periods.sort_by_key(|(_, period)| period.expires);
    periods.into_iter().take(MAX_SERIES)
}

const MAX_SERIES: usize = 1000;

/// The validity of each certificate by its Secret, no matter how many listeners use it.
fn validity_by_secret(snapshot: &Snapshot) -> BTreeMap<Arc<str>, ValidityPeriod> {
    let tables = snapshot.http_binds().filter_map(|bind| bind.tls.as_ref());
    let listeners = tables.flat_map(|tls| tls.certificates().map(|(_, certificates)| certificates));
    let certificates = listeners.flat_map(|certificates| certificates.all());
    let period =
        |certificate: &Certificate| ValidityPeriod { expires: certificate.expires, lifetime: certificate.lifetime };
    certificates.map(|certificate| (Arc::clone(&certificate.secret), period(certificate))).collect()
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;
    use rustls::crypto::aws_lc_rs::sign::any_supported_type;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::sign::CertifiedKey;

    use super::*;
    use crate::bind_address::BindAddress;
    use crate::snapshot::Bind;
    use crate::snapshot::certs::Certificates;
    use crate::snapshot::host::{HostMap, HostPattern};
    use crate::snapshot::port_tls::PortTls;

    #[test]
    fn each_secret_is_reported_once() {
        let generated = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(generated.signing_key.serialize_der()).unwrap();
        let key = Arc::new(CertifiedKey::new(vec![generated.cert.der().clone()], any_supported_type(&key).unwrap()));
        let now = Timestamp::try_from(SystemTime::now()).unwrap().as_second();
        let certificate = |secret: &str, expires| {
            let (secret, names) = (secret.into(), Box::default());
            Arc::new(Certificate { secret, key: key.clone(), names, expires, lifetime: 86400 })
        };
        let fresh = certificate("ns/fresh", now + 3600);
        let lists = [vec![fresh.clone(), certificate("ns/expired", now - 60)], vec![fresh]];
        let listeners = lists.into_iter().enumerate().map(|(index, list)| {
            (HostPattern::parse(Some(&format!("{index}.example"))), Arc::new(Certificates::new(list)))
        });
        let bind = Bind::with_http(HostMap::default(), Some(PortTls::terminating(listeners)));
        let snapshot = Snapshot {
            binds: [(BindAddress::tcp("127.0.0.1:443".parse().unwrap()), Arc::new(bind))].into(),
            ..Snapshot::default()
        };

        let mut registry = Registry::default();
        registry.register_collector(Box::new(CertificateExpiry(Arc::new(ArcSwap::from_pointee(snapshot)))));
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        let remaining = |secret: &str| -> Vec<i64> {
            let name = format!("portico_certificate_expiry_seconds{{secret=\"{secret}\"}} ");
            page.lines().filter_map(|line| line.strip_prefix(&name)?.parse().ok()).collect()
        };
        assert!(matches!(remaining("ns/fresh")[..], [3000..=3600]), "{page}");
        assert!(matches!(remaining("ns/expired")[..], [-3600..=-60]), "{page}");
        for secret in ["ns/fresh", "ns/expired"] {
            let line = format!("portico_certificate_lifetime_seconds{{secret=\"{secret}\"}} 86400\n");
            assert_eq!(page.matches(&line).count(), 1, "{page}");
        }
    }

    #[test]
    fn soonest_expiring_certificates_are_reported() {
        let periods = (0..MAX_SERIES as i64 + 5)
            .map(|end| (format!("ns/{end}").into(), ValidityPeriod { expires: end, lifetime: 86400 }))
            .collect();
        let reported: Vec<_> = soonest_to_expire(periods).collect();
        assert_eq!(
            (reported.len(), reported[0].1.expires, reported[MAX_SERIES - 1].1.expires),
            (MAX_SERIES, 0, MAX_SERIES as i64 - 1)
        );
    }
}
