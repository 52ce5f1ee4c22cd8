//! Canaries: a second backend for a part of the requests.

use super::super::annotation::OnBadValue::Default;
use super::super::characters::CharacterSet;
use super::super::value::ValueKind;
use super::row::{COUNT, INTEGER, Row, path};

pub(super) const CANARY: &[Row] = &[
    path("canary", ValueKind::Flag, "false", Default)
        .says("Makes the Ingress a canary of the one with the same host and path."),
    path("canary-by-header", ValueKind::SpacedText(CharacterSet::Basic), "", Default)
        .says("Chooses the canary by this header: always, never, or another value."),
    path("canary-by-header-value", ValueKind::SpacedText(CharacterSet::Basic), "", Default)
        .says("Chooses the canary if canary-by-header has this value."),
    path("canary-by-header-pattern", ValueKind::Text(CharacterSet::Regex), "", Default)
        .says("Chooses the canary if canary-by-header matches this expression."),
    path("canary-by-cookie", ValueKind::SpacedText(CharacterSet::Basic), "", Default)
        .says("Chooses the canary by this cookie: always or never."),
    path("canary-weight", COUNT, "0", Default).says("Sets the share of requests for the canary."),
    path("canary-weight-total", INTEGER, "100", Default).says("Sets the sum of the weights of both backends."),
];
