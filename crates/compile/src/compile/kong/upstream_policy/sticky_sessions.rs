//! The sessions of the algorithm `sticky-sessions`.

use std::sync::Arc;

use super::fields::UpstreamFields;
use super::findings::Findings;
use crate::api::gateway::{SessionCookie, SessionPersistence};
use crate::api::{Kind, ObjectKey};
use crate::compile::policies::session_persistence;
use crate::upstream::AffinitySettings;

/// The sessions with the endpoints of a Service; `None` if there are none. They have the cookie that Kong would use,
/// but its value is that of Portico's sessions, which names no address.
pub(super) fn translate(
    fields: &UpstreamFields<'_>,
    service: &ObjectKey,
    findings: &mut Findings,
) -> Option<Arc<AffinitySettings>> {
    if fields.algorithm != Some("sticky-sessions") {
        return None;
    }
    let Some(sticky) = fields.sticky_sessions else {
        let message = "sticky-sessions needs stickySessions, so round-robin is used";
        findings.problem("spec.algorithm", message, "set spec.stickySessions.cookie to the name of a cookie");
        return None;
    };
    let persistence = SessionPersistence {
        kind: "Cookie".to_owned(),
        absolute_timeout: None,
        cookie: Some(SessionCookie {
            name: Some(sticky.cookie.clone()),
            path: sticky.cookie_path.clone(),
            lifetime_type: "Session".to_owned(),
        }),
        header: None,
    };
    let owner = format!("{}/{}/{}", Kind::Service, service.namespace, service.name);
    let mut problems = Vec::new();
    let affinity = session_persistence::translate(&persistence, &owner, "", &mut problems);
    findings.problems.extend(problems.into_iter().map(|problem| {
        let field = if problem.field.ends_with("path") { "cookiePath" } else { "cookie" };
        problem.at(format!("spec.stickySessions.{field}"))
    }));
    affinity
}
