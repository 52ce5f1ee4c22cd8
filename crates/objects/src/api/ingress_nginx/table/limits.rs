//! Limits of rates and connections.

use super::super::annotation::AnnotationRisk::Low;
use super::super::annotation::AnnotationTier::{A, C};
use super::super::annotation::OnBadValue::{Default, Reject};
use super::super::value::ValueKind;
use super::row::{COUNT, Row, path};

pub(super) const LIMITS: &[Row] = &[
    path("limit-connections", A, Low, COUNT, "", Reject)
        .wrong_form(Default)
        .says("Limits the concurrent requests of a client address."),
    path("limit-rps", A, Low, COUNT, "", Reject)
        .wrong_form(Default)
        .says("Limits the requests of a client address per second."),
    path("limit-rpm", A, Low, COUNT, "", Reject)
        .wrong_form(Default)
        .says("Limits the requests of a client address per minute."),
    path("limit-burst-multiplier", A, Low, COUNT, "5", Default)
        .says("Sets how many times the rate a burst of requests may reach."),
    path("limit-allowlist", C, Low, ValueKind::AddressList, "", Reject)
        .says("Exempts clients with these addresses from the limits of rate and connections."),
    path("limit-whitelist", A, Low, ValueKind::AddressList, "", Reject).says("Is the older name of limit-allowlist."),
    path("limit-rate", C, Low, COUNT, "0", Default)
        .says("Limits how many kilobytes of a response are sent per second."),
    path("limit-rate-after", C, Low, COUNT, "0", Default)
        .says("Sets after how many kilobytes of a response limit-rate begins."),
];
