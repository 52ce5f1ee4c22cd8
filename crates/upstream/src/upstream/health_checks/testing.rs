//! Checks with usual settings, for tests.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};

use crate::upstream::settings::{ActiveCheck, CheckKind, InitialHealth, StatusRanges};

/// A check that opens a connection.
pub(super) fn tcp_check() -> ActiveCheck {
    ActiveCheck {
        kind: CheckKind::Tcp { send: Box::default(), expect: Box::default() },
        interval: Duration::from_secs(10),
        unhealthy_interval: Duration::from_secs(10),
        timeout: Duration::from_secs(1),
        unhealthy_threshold: 3,
        failure_thresholds: None,
        healthy_threshold: 2,
        initial: InitialHealth::Healthy,
        port: None,
        reuses_connection: true,
    }
}

/// A check that requests this path.
pub(super) fn http_check(path: &'static str) -> ActiveCheck {
    let kind = CheckKind::Http {
        tls: false,
        method: Method::GET,
        path: http::Uri::from_static(path),
        host: HeaderValue::from_static("web.shop.svc"),
        headers: HeaderMap::new(),
        expected: StatusRanges(Box::new([200..=299])),
        failing: None,
    };
    ActiveCheck { kind, ..tcp_check() }
}
