//! Sessions that the provider has ended by logout tokens (OpenID Connect Back-Channel Logout), as this process knows
//! them. A provider sends a token to one address of a client, so it counts for all plugins of the client in the
//! namespace, wherever they have their sessions.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::super::config::Config;
use super::super::provider::without_document;
use super::super::tokens::ProviderSession;
use super::seen_logout_tokens::SeenLogoutTokens;
use crate::plugin_api::BuildCx;

/// The ended sessions of one client of a provider in this process.
#[derive(Debug, Default)]
pub(in crate::plugins::openid_connect) struct RevokedSessions {
    current: ArcSwap<Revocations>,
    /// The seconds after which no session exists any more, at none of the plugins.
    longest_session: AtomicU64,
    /// How many plugins receive logout tokens.
    receivers: AtomicUsize,
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

/// What a logout token names. Only the issuer of a session can end it: others may have the same ids for other users.
pub(super) struct RevokedName<'t> {
    pub(super) issuer: &'t str,
    pub(super) sessions: NamedSessions<'t>,
}

/// Which sessions of an issuer end.
#[derive(Clone, Copy)]
pub(super) enum NamedSessions<'t> {
    /// `sid`: one session.
    Session(&'t str),
    /// `sub`: all sessions of a user.
    Subject(&'t str),
}

impl RevokedName<'_> {
    pub(super) fn key(&self) -> Box<str> {
        match self.sessions {
            NamedSessions::Session(sid) => name_of_issuer("sid", self.issuer, sid),
            NamedSessions::Subject(sub) => name_of_issuer("sub", self.issuer, sub),
        }
    }
}

/// The name of something that an issuer has given an id. Names are in Redis, where other versions of Portico read them.
pub(super) fn name_of_issuer(kind: &str, issuer: &str, id: &str) -> Box<str> {
    // With the length, so that no text is both the end of an issuer and the beginning of an id.
    format!("{kind} {} {issuer} {id}", issuer.len()).into()
}

/// What logout tokens may name a session by.
pub(super) fn labels(session: &ProviderSession) -> Vec<Box<str>> {
    let ProviderSession { issuer, sid, subject } = session;
    let sessions = [sid.as_deref().map(NamedSessions::Session), subject.as_deref().map(NamedSessions::Subject)];
    sessions.into_iter().flatten().map(|sessions| RevokedName { issuer, sessions }.key()).collect()
}

/// Exists as long as a plugin receives logout tokens.
#[derive(Debug)]
pub(in crate::plugins::openid_connect) struct LogoutReceiver(Arc<RevokedSessions>);

impl LogoutReceiver {
    pub(in crate::plugins::openid_connect) fn new(revoked: &Arc<RevokedSessions>) -> Self {
        revoked.receivers.fetch_add(1, Ordering::Relaxed);
        LogoutReceiver(Arc::clone(revoked))
    }
}

impl Drop for LogoutReceiver {
    fn drop(&mut self) {
        self.0.receivers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl RevokedSessions {
    /// Those of a client. `longest_session`: the seconds after which none of the sessions of one more plugin exists.
    pub(in crate::plugins::openid_connect) fn of_client(
        cx: &BuildCx<'_>,
        config: &Config,
        longest_session: u64,
    ) -> Arc<Self> {
        // With all that decides whose keys verify a logout token: a tenant whose plugin has keys of its own must not
        // end the sessions of another one. A name without dots is another Service in each namespace.
        let keys = (cx.namespace(), without_document(&config.issuer), &config.jwks_endpoint);
        let name = format!("openid-connect/revoked sessions {keys:?} {:?}", config.client_id);
        let revoked = cx.state.get_or_create(&name, RevokedSessions::default);
        revoked.longest_session.fetch_max(longest_session, Ordering::Relaxed);
        revoked
    }

    /// Whether any plugin receives logout tokens.
    pub(super) fn has_receiver(&self) -> bool {
        self.receivers.load(Ordering::Relaxed) > 0
    }

    /// How many seconds a revocation counts.
    pub(super) fn longest_session(&self) -> u64 {
        self.longest_session.load(Ordering::Relaxed)
    }

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

    /// Whether a session that began in this second has ended. `session`: parses a token, so it is called only if any
    /// session has ended.
    pub(super) fn has_ended(&self, began: u64, session: impl FnOnce() -> ProviderSession) -> bool {
        let revocations = self.current.load();
        let is_forgotten = revocations.all_until >= began && revocations.all_until > 0;
        is_forgotten || revocations.has_ended(began, session)
    }

    /// The same for a session in a store. Revocations that are forgotten here do not end it: the store has no limit for
    /// them, and after many logouts, they would end all sessions that began before.
    pub(super) fn has_ended_stored(&self, began: u64, session: impl FnOnce() -> ProviderSession) -> bool {
        self.current.load().has_ended(began, session)
    }
}

impl Revocations {
    fn has_ended(&self, began: u64, session: impl FnOnce() -> ProviderSession) -> bool {
        !self.by_name.is_empty()
            && labels(&session()).iter().any(|label| self.by_name.get(label).is_some_and(|at| *at >= began))
    }
}

/// More revocations end all older sessions.
const MAX_REVOCATIONS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_api::services::OfflineServices;
    use crate::plugin_api::{BuildNotes, PluginServices, PluginState};

    const ISSUER: &str = "https://a.example";

    fn session(issuer: &str, sid: Option<&str>, subject: Option<&str>) -> ProviderSession {
        ProviderSession { issuer: issuer.to_owned(), sid: sid.map(str::to_owned), subject: subject.map(str::to_owned) }
    }

    fn of(sid: &str, subject: &str) -> ProviderSession {
        session(ISSUER, Some(sid), Some(subject))
    }

    fn named(sessions: NamedSessions<'_>) -> RevokedName<'_> {
        RevokedName { issuer: ISSUER, sessions }
    }

    #[test]
    fn sessions_end_by_their_id_or_their_user() {
        let revoked = RevokedSessions::default();
        assert!(!revoked.has_ended(0, || panic!("no session has ended, so the token is not parsed")));
        revoked.revoke(&named(NamedSessions::Session("s")), 1000, 500);
        revoked.revoke(&named(NamedSessions::Subject("anna")), 1200, 500);
        for (began, sid, subject, expected) in [
            (1000, "s", "bert", true),
            (1001, "s", "bert", false),
            (1000, "t", "bert", false),
            (1200, "t", "anna", true),
            (1201, "t", "anna", false),
            (900, "anna", "s", false),
        ] {
            assert_eq!(revoked.has_ended(began, || of(sid, subject)), expected, "{began} {sid} {subject}");
        }
        assert!(!revoked.has_ended(0, || session(ISSUER, None, None)));
        revoked.revoke(&named(NamedSessions::Session("u")), 1500, 500);
        let former = || session(ISSUER, Some("s"), None);
        assert!(!revoked.has_ended(1000, former), "all sessions of that time have ended by themselves");
    }

    /// A tenant could sign logout tokens for the sessions of another one.
    #[test]
    fn only_plugins_with_the_same_keys_and_namespace_share_revocations() {
        let (state, notes) = (PluginState::default(), BuildNotes::default());
        let services: Arc<dyn PluginServices> = Arc::new(OfflineServices);
        let of_client = |object: &str, issuer: &str, client: &str, keys: Option<&str>| {
            let cx = BuildCx { object, state: &state, services: &services, node: "test", notes: &notes };
            let (issuer, jwks_endpoint) = (issuer.to_owned(), keys.map(str::to_owned));
            let config = Config { issuer, client_id: vec![client.to_owned()], jwks_endpoint, ..Config::default() };
            RevokedSessions::of_client(&cx, &config, 1)
        };
        let own = of_client("KongPlugin/a/login", ISSUER, "shop", None);
        let document = "https://a.example/.well-known/openid-configuration";
        for (object, issuer, client, keys, expected) in [
            ("KongPlugin/a/other", ISSUER, "shop", None, true),
            ("KongPlugin/a/other", "https://a.example/", "shop", None, true),
            ("KongPlugin/a/other", document, "shop", None, true),
            ("KongPlugin/b/login", ISSUER, "shop", None, false),
            ("KongClusterPlugin/login", ISSUER, "shop", None, false),
            ("KongPlugin/a/other", "https://b.example", "shop", None, false),
            ("KongPlugin/a/other", ISSUER, "other", None, false),
            ("KongPlugin/a/other", ISSUER, "shop", Some("https://evil.example/keys"), false),
        ] {
            let found = of_client(object, issuer, client, keys);
            assert_eq!(Arc::ptr_eq(&own, &found), expected, "{object} {issuer} {client} {keys:?}");
        }
    }

    /// Tenants of one provider may number their users and sessions alike.
    #[test]
    fn logouts_of_one_issuer_end_no_sessions_of_another() {
        for sessions in [NamedSessions::Session("1"), NamedSessions::Subject("1")] {
            let revoked = RevokedSessions::default();
            revoked.revoke(&named(sessions), 1000, 500);
            assert!(revoked.has_ended(1000, || of("1", "1")));
            for issuer in ["https://b.example", "https://a.example/", "https://a.example 1", ""] {
                assert!(!revoked.has_ended(1000, || session(issuer, Some("1"), Some("1"))), "{issuer}");
            }
        }
        // The same text for both, if it were not for the length.
        let (first, second) = (session("a b", Some("c"), None), session("a", Some("b c"), None));
        assert_ne!(labels(&first), labels(&second));
    }

    /// Another text would make sessions valid again that a replica with another version has ended.
    #[test]
    fn names_are_the_same_in_all_versions() {
        let names = labels(&session("https://\u{fc}.example/\"", Some("s"), Some("anna \u{0}")));
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        assert_eq!(names, ["sid 20 https://\u{fc}.example/\" s", "sub 20 https://\u{fc}.example/\" anna \u{0}"]);
    }

    #[test]
    fn sessions_of_forgotten_revocations_have_ended() {
        let revoked = RevokedSessions::default();
        let name = |number: u64| named(NamedSessions::Session(&number.to_string())).key();
        let full =
            Revocations { by_name: (0..10_000).map(|number| (name(number), 1000 + number)).collect(), all_until: 0 };
        revoked.current.store(Arc::new(full));
        revoked.revoke(&named(NamedSessions::Session("new")), 20_000, 1_000_000);
        assert_eq!(revoked.current.load().by_name.len(), 10_000);
        let other = || session(ISSUER, Some("other"), None);
        assert!(revoked.has_ended(1000, other), "all sessions until the forgotten revocation");
        assert!(!revoked.has_ended(1001, other));
        assert!(!revoked.has_ended_stored(1000, other), "the store knows whether it has ended");
        let known = || session(ISSUER, Some("1"), None);
        assert!(revoked.has_ended(1001, known) && revoked.has_ended_stored(1001, known));
    }
}
