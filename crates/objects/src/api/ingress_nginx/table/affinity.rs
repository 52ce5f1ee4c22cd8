//! Session affinity and load balancing.

use super::super::annotation::OnBadValue::{Default, Reject};
use super::super::characters::CharacterSet;
use super::super::value::ValueKind;
use super::row::{COUNT, Row, SIGNED_SECONDS, service};

pub(super) const AFFINITY_AND_BALANCING: &[Row] = &[
    service("affinity", AFFINITY, "", Default).says("Keeps each client at one endpoint by a cookie."),
    service("affinity-mode", AFFINITY_MODES, "balanced", Default)
        .says("Says whether a new endpoint takes clients over from the others."),
    service("affinity-canary-behavior", CANARY_BEHAVIORS, "sticky", Default)
        .says("Says whether the cookie also keeps the choice between canary and main backend."),
    service("session-cookie-name", ValueKind::SpacedText(CharacterSet::Basic), "INGRESSCOOKIE", Default)
        .says("Sets the name of the affinity cookie."),
    service("session-cookie-path", ValueKind::SpacedText(CharacterSet::Url), "", Default)
        .says("Sets the Path of the affinity cookie instead of the path of the rule."),
    service("session-cookie-domain", ValueKind::SpacedText(CharacterSet::Basic), "", Default)
        .says("Sets the Domain of the affinity cookie."),
    service("session-cookie-expires", SIGNED_SECONDS, "", Default)
        .says("Sets after how many seconds the affinity cookie expires, as a date."),
    service("session-cookie-max-age", SIGNED_SECONDS, "", Default)
        .says("Sets the Max-Age of the affinity cookie in seconds."),
    service("session-cookie-secure", ValueKind::Flag, "", Default)
        .says("Always sets Secure on the affinity cookie, instead of with TLS only."),
    service("session-cookie-samesite", SAME_SITE, "", Default)
        .says("Sets the SameSite attribute of the affinity cookie."),
    service("session-cookie-conditional-samesite-none", ValueKind::Flag, "false", Default)
        .says("Omits SameSite=None for browsers that do not support it."),
    service("session-cookie-change-on-failure", ValueKind::Flag, "false", Default)
        .says("Chooses another endpoint for the session after a failed attempt."),
    service("load-balance", BALANCERS, "round_robin", Reject).says("Sets the load balancing algorithm."),
    service("upstream-hash-by", ValueKind::SpacedText(CharacterSet::Variables), "", Reject)
        .says("Chooses the endpoint by a consistent hash of this text."),
    service("upstream-hash-by-subset", ValueKind::Flag, "false", Reject)
        .says("Lets upstream-hash-by choose a subset of the endpoints instead of one."),
    service("upstream-hash-by-subset-size", COUNT, "3", Reject)
        .wrong_form(Default)
        .says("Sets the number of endpoints in a subset of upstream-hash-by-subset."),
];

const AFFINITY: ValueKind = ValueKind::OneOf(&["cookie"]);
const AFFINITY_MODES: ValueKind = ValueKind::OneOf(&["balanced", "persistent"]);
const CANARY_BEHAVIORS: ValueKind = ValueKind::OneOf(&["sticky", "legacy"]);
const SAME_SITE: ValueKind = ValueKind::OneOfAnyCase(&["None", "Lax", "Strict"]);
const BALANCERS: ValueKind =
    ValueKind::OneOf(&["round_robin", "ewma", "chash", "chashsubset", "sticky_balanced", "sticky_persistent"]);
