//! Limits of rates and connections.

use super::super::annotation::OnBadValue::{Default, Reject};
use super::super::value::ValueKind;
use super::row::{COUNT, Row, path};

pub(super) const LIMITS: &[Row] = &[
    path("limit-connections", COUNT, "", Reject)
        .wrong_form(Default)
        .says("Limits the concurrent requests of a client address."),
    path("limit-rps", COUNT, "", Reject)
        .wrong_form(Default)
        .says("Limits the requests of a client address per second."),
    path("limit-rpm", COUNT, "", Reject)
        .wrong_form(Default)
        .says("Limits the requests of a client address per minute."),
    path("limit-burst-multiplier", COUNT, "5", Default)
        .says("Sets how many times the rate a burst of requests may reach."),
    path("limit-allowlist", ValueKind::AddressList, "", Reject)
        .says("Exempts clients with these addresses from the limits of rate and connections."),
    path("limit-whitelist", ValueKind::AddressList, "", Reject).says("Is the older name of limit-allowlist."),
    path("limit-rate", COUNT, "0", Default).says("Limits how many kilobytes of a response are sent per second."),
    path("limit-rate-after", COUNT, "0", Default)
        .says("Sets after how many kilobytes of a response limit-rate begins."),
];
