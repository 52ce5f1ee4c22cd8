//! `spec.loadBalancing.sessionPersistence`.

use std::sync::Arc;

use super::block_reader::BlockReader;
use crate::api::gateway::{SessionCookie, SessionHeader, SessionPersistence};
use crate::api::portico::BackendSessionPersistence;
use crate::compile::policies::session_persistence;
use crate::diagnostic::Diagnostic;
use crate::upstream::AffinitySettings;
use crate::upstream::settings::SameSite;

/// `owner`: the name of the target, which identifies the sessions in all replicas. `None` if there are problems.
pub(super) fn translate(
    spec: &BackendSessionPersistence,
    owner: &str,
    problems: &mut Vec<Diagnostic>,
) -> Option<Arc<AffinitySettings>> {
    const FIELD: &str = "spec.loadBalancing.sessionPersistence";
    let is_header = spec.kind.as_deref() == Some("Header");
    let cookie = spec.cookie.clone().unwrap_or_default();
    let mut block = BlockReader::new(FIELD, problems);
    if is_header && spec.cookie.is_some() {
        block.problem("cookie", "it is for sessions of the type Cookie", "remove it, or set type to Cookie");
    }
    if is_header && spec.name.is_none() {
        block.problem("name", "a session in a header needs the name of the header", "add name");
        return None;
    }
    let same_site =
        block.object("cookie").choice("sameSite", cookie.same_site.as_ref(), super::request_hash::SAME_SITE);
    let same_site = same_site.unwrap_or(SameSite::Strict);
    let standard = SessionPersistence {
        kind: spec.kind.clone().unwrap_or_else(|| "Cookie".to_owned()),
        absolute_timeout: spec.absolute_timeout.clone(),
        cookie: (!is_header).then(|| SessionCookie {
            name: spec.name.clone(),
            path: cookie.path.unwrap_or_else(|| "/".to_owned()),
            lifetime_type: cookie.lifetime_type.unwrap_or_else(|| "Session".to_owned()),
        }),
        header: spec.name.clone().filter(|_| is_header).map(|name| SessionHeader { name }),
    };
    let idle_timeout =
        BlockReader::new(FIELD, problems).duration("idleTimeout", spec.idle_timeout.as_ref(), ["1s", "9999h"]);
    let settings = session_persistence::translate_with(&standard, same_site, owner, FIELD, problems)?;
    if idle_timeout.zip(settings.absolute_timeout).is_some_and(|(idle, absolute)| idle > absolute) {
        let message = "it is longer than absoluteTimeout";
        BlockReader::new(FIELD, problems).problem("idleTimeout", message, "shorten it");
    }
    Some(Arc::new(AffinitySettings {
        idle_timeout,
        strip: spec.strip.unwrap_or(false),
        ..AffinitySettings::clone(&settings)
    }))
}
