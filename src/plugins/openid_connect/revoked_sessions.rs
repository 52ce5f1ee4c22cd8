//! Sessions in cookies that the provider has ended by logout tokens (OpenID Connect Back-Channel Logout).

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::seen_logout_tokens::SeenLogoutTokens;
use super::session_tokens::SessionTokens;

/// The ended sessions of one plugin in this process.
#[derive(Debug, Default)]
pub(super) struct RevokedSessions {
    current: ArcSwap<Revocations>,
    /// Held while a changed copy is made.
    writing: Mutex<()>,
    pub(super) logout_tokens: SeenLogoutTokens,
}

#[derive(Clone, Debug, Default)]
struct Revocations {
    /// When the session or the user of this name was logged out, in seconds since 1970.
    by_name: HashMap<Box<str>, u64>,
    /// All sessions that began up to this second have ended: that of the newest revocation that is no longer stored.
    all_until: u64,
}

/// What a logout token names.
pub(super) enum RevokedName<'t> {
    /// `sid`: one session.
    Session(&'t str),
    /// `sub`: all sessions of a user.
    Subject(&'t str),
}

impl RevokedName<'_> {
    pub(super) fn key(&self) -> Box<str> {
        match self {
            RevokedName::Session(sid) => format!("sid {sid}").into(),
            RevokedName::Subject(sub) => format!("sub {sub}").into(),
        }
    }
}

/// What logout tokens may name a session by.
pub(super) fn labels(tokens: &SessionTokens) -> Vec<Box<str>> {
    let (sid, subject) = tokens.session_and_subject();
    let names = [sid.as_deref().map(RevokedName::Session), subject.as_deref().map(RevokedName::Subject)];
    names.iter().flatten().map(RevokedName::key).collect()
}

impl RevokedSessions {
    /// Ends the sessions that began up to now. `lifetime`: the seconds after which no session exists any more.
    pub(super) fn revoke(&self, name: &RevokedName<'_>, now: u64, lifetime: u64) {
        let _writing = self.writing.lock();
        let mut revocations = Revocations::clone(&self.current.load());
        revocations.by_name.retain(|_, second| now.saturating_sub(*second) < lifetime);
        revocations.by_name.insert(name.key(), now);
        if revocations.by_name.len() > MAX_REVOCATIONS {
            // Rather too many sessions end than too few.
            let oldest = revocations.by_name.values().copied().min().unwrap_or(now);
            revocations.by_name.retain(|_, second| *second > oldest);
            revocations.all_until = revocations.all_until.max(oldest);
        }
        self.current.store(Arc::new(revocations));
    }

    /// Whether a session that began in this second has ended.
    pub(super) fn has_ended(&self, began: u64, sid: Option<&str>, subject: Option<&str>) -> bool {
        let revocations = self.current.load();
        if revocations.all_until >= began && revocations.all_until > 0 {
            return true;
        }
        if revocations.by_name.is_empty() {
            return false;
        }
        let names = [sid.map(RevokedName::Session), subject.map(RevokedName::Subject)];
        names.into_iter().flatten().any(|name| revocations.by_name.get(&name.key()).is_some_and(|at| *at >= began))
    }
}

/// More revocations end all older sessions.
const MAX_REVOCATIONS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_end_by_their_id_or_their_user() {
        let revoked = RevokedSessions::default();
        assert!(!revoked.has_ended(0, Some("s"), Some("anna")));
        revoked.revoke(&RevokedName::Session("s"), 1000, 500);
        revoked.revoke(&RevokedName::Subject("anna"), 1200, 500);
        for (began, sid, subject, expected) in [
            (1000, "s", "bert", true),
            (1001, "s", "bert", false),
            (1000, "t", "bert", false),
            (1200, "t", "anna", true),
            (1201, "t", "anna", false),
            (900, "anna", "s", false),
        ] {
            assert_eq!(revoked.has_ended(began, Some(sid), Some(subject)), expected, "{began} {sid} {subject}");
        }
        assert!(!revoked.has_ended(0, None, None));
        revoked.revoke(&RevokedName::Session("u"), 1500, 500);
        assert!(!revoked.has_ended(1000, Some("s"), None), "all sessions of that time have ended by themselves");
    }

    #[test]
    fn sessions_of_forgotten_revocations_have_ended() {
        let revoked = RevokedSessions::default();
        let full = Revocations {
            by_name: (0..10_000_u64).map(|number| (format!("sid {number}").into(), 1000 + number)).collect(),
            all_until: 0,
        };
        revoked.current.store(Arc::new(full));
        revoked.revoke(&RevokedName::Session("new"), 20_000, 1_000_000);
        assert_eq!(revoked.current.load().by_name.len(), 10_000);
        assert!(revoked.has_ended(1000, Some("other"), None), "all sessions until the forgotten revocation");
        assert!(!revoked.has_ended(1001, Some("other"), None));
        assert!(revoked.has_ended(1001, Some("1"), None));
    }
}
