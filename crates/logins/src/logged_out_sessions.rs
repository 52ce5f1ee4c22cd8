//! Sessions in cookies that have ended by a logout at this process.
//!
//! The response to a request that was sent before the logout may renew the session, and would set its cookie again. For
//! a day, this process therefore refuses the session and does not renew it. Other processes know nothing about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use crate::plugin_api::consumers::{Sha256Digest, sha256};
use crate::plugin_api::kind::BuildCx;
use crate::plugin_kit::digest_cache::{DigestCache, Expiring};
use crate::sealed_cookie::OpenedSession;

/// What a plugin keeps in a session.
pub trait SessionContents {
    /// What stays the same until the session ends, and distinguishes it from others that began in the same second.
    fn identity(&self) -> Box<str>;
}

/// Names a session without its contents.
pub(crate) type SessionDigest = Sha256Digest;

/// The name of a session, which its renewals keep.
pub(crate) fn session_digest<T: SessionContents>(session: &OpenedSession<T>) -> SessionDigest {
    let identity = session.data.identity();
    sha256(format!("{}\n{identity}", session.authenticated).as_bytes())
}

/// The logged-out sessions of all plugins of the process: those with the same secret accept the same cookies.
#[derive(Debug)]
pub struct LoggedOutSessions {
    /// Of more sessions than it has room for, arbitrary ones are forgotten.
    of_process: Arc<Ended>,
}

#[derive(Debug, Default)]
struct Ended {
    sessions: DigestCache<Expiring<()>>,
    /// Until when any session is known, in seconds since 1970. Mostly, there is none, and no digest is computed.
    until: AtomicU64,
}

impl LoggedOutSessions {
    pub fn of_plugin(cx: &BuildCx<'_>) -> Self {
        LoggedOutSessions { of_process: cx.state.get_or_create("logged-out sessions", Ended::default) }
    }

    /// `now`: in seconds since 1970.
    pub fn insert<T: SessionContents>(&self, session: &OpenedSession<T>, now: u64) {
        let time = |second: u64| UNIX_EPOCH + Duration::from_secs(second);
        let until = now.saturating_add(KEPT_SECONDS);
        self.of_process.sessions.insert_value(session_digest(session), Arc::default(), time(until), time(now));
        self.of_process.until.fetch_max(until, Ordering::Release);
    }

    pub fn contains<T: SessionContents>(&self, session: &OpenedSession<T>, now: u64) -> bool {
        self.may_contain(now) && self.contains_digest(&session_digest(session), now)
    }

    pub(crate) fn contains_digest(&self, digest: &SessionDigest, now: u64) -> bool {
        let now_time = UNIX_EPOCH + Duration::from_secs(now);
        self.may_contain(now) && self.of_process.sessions.find_value(digest, now_time).is_some()
    }

    fn may_contain(&self, now: u64) -> bool {
        self.of_process.until.load(Ordering::Acquire) > now
    }
}

/// Longer than any request takes.
const KEPT_SECONDS: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    struct Contents(&'static str);

    impl SessionContents for Contents {
        fn identity(&self) -> Box<str> {
            self.0.into()
        }
    }

    #[test]
    fn logged_out_sessions_are_known_for_a_day() {
        let logged_out = LoggedOutSessions { of_process: Arc::default() };
        let session = |name, began| OpenedSession::begin(Contents(name), began);
        logged_out.insert(&session("anna", 1000), 5000);
        for (name, began, now, expected) in [
            ("anna", 1000, 5000, true),
            ("anna", 1000, 91_399, true),
            ("anna", 1000, 91_400, false),
            ("anna", 1001, 5000, false),
            ("bert", 1000, 5000, false),
        ] {
            let found = logged_out.contains(&session(name, began), now);
            assert_eq!(found, expected, "{name} {began} {now}");
        }
    }
}
