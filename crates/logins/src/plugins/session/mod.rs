//! `session`: keeps clients authenticated by a cookie, so that they send their credential only once.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: sessions
//! plugin: session
//! config:
//!   cookie_name: __Host-session
//! configPatches:
//! - path: /secret
//!   valueFrom:
//!     secretKeyRef: {name: session-secret, key: secret}
//! ```
//!
//! The plugin is used together with plugins that authenticate and that have the field `anonymous`, such as key-auth. A
//! request with a valid credential gets a cookie with its response. Requests with the cookie are authenticated as the
//! same consumer, and those plugins are skipped. To reject requests without a credential and without a session, attach
//! `acl` to the route, or `request-termination` to the anonymous consumer.
//!
//! The cookie is encrypted. Without `secret`, its keys are in the Secret `portico-keys`, so that all replicas accept it
//! (docs/tasks/user-sessions.md). With the storage `cookie`, it contains the session itself and nothing is stored
//! elsewhere: a logout removes the cookie from the browser, and the replica that received it refuses copies for a day.
//! With the storage `redis`, it contains an id, and a logout ends the session. While the server is not available,
//! requests with such a cookie get 503.
//!
//! A session does not end when its credential is removed, but when its consumer is. A KongConsumer of the same name
//! that is created later in a cluster does not get it; objects of files have no UID, so there it does. To end all
//! sessions, replace `secret`; to replace it without ending sessions, move the former one to `former_secret`.

mod config;
mod session_headers;

use std::num::NonZeroU64;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, SET_COOKIE};
use http::{HeaderValue, Method, StatusCode, request};
use serde::{Deserialize, Serialize};

pub(crate) use self::config::Config;
use self::config::ValidatedConfig;
use self::session_headers::SessionUser;
use crate::diagnostic::Diagnostic;
use crate::logged_out_sessions::SessionContents;
use crate::plugin_api::consumers::Consumer;
use crate::plugin_api::dumped_fields::{DumpedFields, DumpedValue};
use crate::plugin_api::fields::{BodyFields, FieldValue, UrlEncodedForm};
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind, Scopes};
use crate::plugin_api::{
    AccessOutcome, Assertions, ChangedFields, CredentialLocations, HiddenCookies, Identity, Plugin, Reply, ReplyBody,
    RequestCx, ResponseCx, ResponseOutcome, Scheme, VerifiedSubjects,
};
use crate::plugin_kit::authentication::{AUTHENTICATED_GROUPS, AuthPolicy, VerifiedCredential, declare_identity};
use crate::sealed_cookie::{OpenedSession, SessionAge, SessionPlace, random_text, unix_second};
use crate::stored_sessions::{FoundSession, SessionError};

/// Keeps clients authenticated by a cookie.
#[derive(Debug)]
pub(crate) struct SessionPlugin {
    config: ValidatedConfig,
    policy: AuthPolicy,
}

/// What a session contains. The names are short, because a cookie contains them.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct SessionData {
    #[serde(rename = "i")]
    id: Box<str>,
    /// Id of the consumer.
    #[serde(rename = "c", skip_serializing_if = "Option::is_none", default)]
    consumer: Option<Box<str>>,
    /// What tells its object from a later one of the same name, if the object has a UID.
    #[serde(rename = "o", skip_serializing_if = "Option::is_none", default)]
    object: Option<NonZeroU64>,
    /// The subjects that other plugins have verified.
    #[serde(rename = "s")]
    subjects: VerifiedSubjects,
    /// The groups that do not depend on the consumer.
    #[serde(rename = "g", skip_serializing_if = "Vec::is_empty", default)]
    groups: Vec<Arc<str>>,
    /// The KongConsumerGroups that were found in addition to those of the consumer.
    #[serde(rename = "f", skip_serializing_if = "Vec::is_empty", default)]
    consumer_groups: Vec<Arc<str>>,
}

impl SessionData {
    /// Whether the session is that of an object with the name of this consumer which does not exist any more.
    fn is_of_another_object(&self, consumer: &Consumer) -> bool {
        self.object.is_some() && consumer.object().is_some() && self.object != consumer.object()
    }
}

impl SessionContents for SessionData {
    fn identity(&self) -> Box<str> {
        self.id.clone()
    }
}

/// The session of a request, from `access` to `response`.
#[derive(Default)]
struct RequestSession {
    opened: Option<OpenedSession<SessionData>>,
    place: SessionPlace,
    /// In seconds since 1970.
    now: u64,
    is_secure: bool,
    is_logout: bool,
}

impl PluginKind for SessionPlugin {
    const NAME: &'static str = "session";
    const HAS_CREDENTIALS: bool = true;
    const PRIORITY: i32 = 1900;
    const PHASES: Phases = Phases::ACCESS_AND_RESPONSE;
    const FAIL_CLOSED: bool = true;
    const ASSERTS: bool = true;
    const DUMPED_FIELDS: &'static [DumpedFields] = &[DumpedFields::new(&["bind"], DumpedValue::Nothing, "3.12")];
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let policy = AuthPolicy::new(None, true).map_err(|error| vec![error])?;
        Ok(SessionPlugin { config: config.validate(cx)?, policy })
    }
}

impl Plugin for SessionPlugin {
    fn may_wait(&self) -> bool {
        self.config.sessions.are_stored()
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let now = unix_second(cx.now);
        if let Some(found) = self.config.sessions.open_now::<SessionData>(&cx.head.headers, now) {
            let session = self.remove_from_request(cx, found, now);
            if let Some(opened) = session.opened.as_ref().filter(|_| self.is_logout(cx)) {
                self.config.sessions.log_out(opened, now);
                return AccessOutcome::Reply(logged_out(cx, session));
            }
            self.begin_request(cx, session);
            return AccessOutcome::Continue;
        }
        AccessOutcome::Wait(Box::pin(async move {
            let sessions = &self.config.sessions;
            let Ok(found) = sessions.open::<SessionData>(&cx.head.headers, now).await else {
                return Some(unavailable());
            };
            if found.0.is_some() && self.is_logout(cx) {
                if sessions.end(&cx.head.headers).await.is_err() {
                    return Some(unavailable());
                }
                let session = self.remove_from_request(cx, found, now);
                return Some(logged_out(cx, session));
            }
            let session = self.remove_from_request(cx, found, now);
            self.begin_request(cx, session);
            None
        }))
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        let Some(mut session) = cx.plugin_data::<RequestSession>().map(std::mem::take) else {
            return ResponseOutcome::Continue;
        };
        let sessions = &self.config.sessions;
        if session.is_logout {
            sessions.cookies.clear(cx.headers, session.place, session.is_secure);
            return ResponseOutcome::Continue;
        }
        let opened = match session.opened.take() {
            Some(opened) if is_of(&opened.data, cx.identity) => {
                // The client may have logged out since the request began.
                if sessions.is_logged_out(&opened, session.now) {
                    return ResponseOutcome::Continue;
                }
                opened
            }
            other => {
                let restored = other.map(|opened| opened.data.subjects).unwrap_or_default();
                match self.data_of(cx.identity, &restored) {
                    Some(data) => OpenedSession::begin(data, session.now),
                    None => return ResponseOutcome::Continue,
                }
            }
        };
        if opened.age == SessionAge::Current {
            self.set_response_headers(cx, &opened, session.now);
            return ResponseOutcome::Continue;
        }
        let RequestSession { place, is_secure, now, .. } = session;
        if !sessions.are_stored() {
            let written = sessions.write_now(cx.headers, &opened, place, is_secure);
            self.after_writing(cx, written, &opened, now);
            return ResponseOutcome::Continue;
        }
        ResponseOutcome::Wait(Box::pin(async move {
            let written = sessions.write(cx.headers, &opened, place, is_secure, now).await;
            self.after_writing(cx, written, &opened, now);
            None
        }))
    }

    fn declare_assertions(&self, assertions: &mut Assertions) {
        declare_identity(assertions);
        assertions.fields.add_all(self.config.request_headers.iter().map(|header| header.name()));
        assertions.hidden_cookies.extend(self.config.sessions.cookies.names().into_iter().map(HiddenCookies::Named));
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.request.add(&COOKIE);
        fields.response.add(&SET_COOKIE);
        fields.response.add_all(self.config.response_headers.iter().map(|header| header.name()));
    }

    fn credential_locations(&self) -> Option<CredentialLocations> {
        Some(CredentialLocations { cookies: self.config.sessions.cookies.names(), ..CredentialLocations::default() })
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        self.config.reads_body_for_logout.then_some(MAX_BODY_BYTES)
    }

    fn buffers_body(&self, head: &request::Parts) -> bool {
        // A logout has a session, and a form that is small.
        let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        self.is_logout_method(&head.method)
            && head.headers.contains_key(COOKIE)
            && head.headers.contains_key(CONTENT_TYPE)
            && length.is_none_or(|length| length <= MAX_BODY_BYTES)
    }
}

impl SessionPlugin {
    /// Removes from the request what the endpoint must not get.
    fn remove_from_request(
        &self,
        cx: &mut RequestCx<'_>,
        (opened, place): FoundSession<SessionData>,
        now: u64,
    ) -> RequestSession {
        self.config.sessions.cookies.remove_from(&mut cx.head.headers);
        RequestSession { opened, place, now, is_secure: cx.client.scheme == Scheme::Https, is_logout: false }
    }

    /// Continues with the identity of the session, if there is one.
    fn begin_request(&self, cx: &mut RequestCx<'_>, mut session: RequestSession) {
        let now = session.now;
        let sessions = &self.config.sessions;
        session.opened =
            session.opened.filter(|opened| !sessions.is_logged_out(opened, now) && self.restore(cx, &opened.data));
        if let Some(opened) = &mut session.opened {
            opened.times = opened.times.after(opened.age, now);
            let user = SessionUser { identity: cx.identity, now };
            let values = session_headers::values(&self.config, &self.config.request_headers, opened, &user);
            for (name, value) in values {
                cx.assert_field(name, value);
            }
        }
        cx.set_plugin_data(session);
    }

    fn after_writing(
        &self,
        cx: &mut ResponseCx<'_>,
        written: Result<(), SessionError>,
        opened: &OpenedSession<SessionData>,
        now: u64,
    ) {
        match written {
            Ok(()) => self.set_response_headers(cx, opened, now),
            Err(SessionError::Cookie(error)) => {
                tracing::warn!(scope = cx.scope, %error, "Cannot begin a session, which has too many groups");
            }
            // The condition of the object reports it, and the client is authenticated again with its next request.
            Err(SessionError::Store(error)) => tracing::debug!(scope = cx.scope, %error, "Cannot write a session"),
        }
    }

    fn set_response_headers(&self, cx: &mut ResponseCx<'_>, opened: &OpenedSession<SessionData>, now: u64) {
        let user = SessionUser { identity: cx.identity, now };
        for (name, value) in session_headers::values(&self.config, &self.config.response_headers, opened, &user) {
            cx.headers.insert(name, value);
        }
    }

    /// Sets the identity of the session. False if its consumer no longer exists.
    fn restore(&self, cx: &mut RequestCx<'_>, data: &SessionData) -> bool {
        let consumers = cx.consumers;
        let consumer = data.consumer.as_deref().map(|id| consumers.consumers.get(id));
        if consumer == Some(None) || consumer.flatten().is_some_and(|consumer| data.is_of_another_object(consumer)) {
            return false;
        }
        let identifier = data.subjects.last().map(|subject| subject.credential().header());
        for subject in data.subjects.iter() {
            let consumer = consumer.flatten();
            self.policy.accept(cx, VerifiedCredential { consumer, subject: subject.cloned(), identifier });
        }
        if !data.groups.is_empty()
            && let Ok(groups) = HeaderValue::from_bytes(data.groups.join(", ").as_bytes())
        {
            cx.assert_field(&AUTHENTICATED_GROUPS, groups);
        }
        cx.identity.groups.clone_from(&data.groups);
        // The consumer may have other groups by now, which are added.
        cx.identity.add_consumer_groups(data.consumer_groups.clone());
        true
    }

    /// The session of a request whose credential another plugin has accepted. `restored`: the subjects of the session
    /// that it replaces.
    fn data_of(&self, identity: &Identity, restored: &VerifiedSubjects) -> Option<SessionData> {
        if !identity.has_accepted_credential() {
            return None;
        }
        Some(SessionData {
            id: random_text(16).into(),
            consumer: identity.consumer.as_ref().map(|consumer| Box::from(&*consumer.id)),
            object: identity.consumer.as_ref().and_then(|consumer| consumer.object()),
            subjects: identity.subjects.without(restored),
            groups: identity.groups.clone(),
            consumer_groups: found_groups(identity).cloned().collect(),
        })
    }

    /// Whether the client requests to end its session.
    fn is_logout(&self, cx: &RequestCx<'_>) -> bool {
        if !self.is_logout_method(&cx.head.method) {
            return false;
        }
        let query = UrlEncodedForm(cx.query.unwrap_or_default().as_bytes());
        if query.find(self.config.logout_query_arg.as_bytes()) != FieldValue::Absent {
            return true;
        }
        let body = cx.body.filter(|_| self.config.reads_body_for_logout);
        let fields = body.and_then(|body| BodyFields::parse(&cx.head.headers, body));
        fields.is_some_and(|fields| fields.find(&self.config.logout_post_arg) != FieldValue::Absent)
    }

    fn is_logout_method(&self, method: &Method) -> bool {
        self.config.logout_methods.contains(method)
    }
}

/// The reply to a logout, whose response removes the cookies.
fn logged_out(cx: &mut RequestCx<'_>, session: RequestSession) -> Box<Reply> {
    cx.set_plugin_data(RequestSession { is_logout: true, ..session });
    Reply::new(StatusCode::OK, ReplyBody::Empty, "logged_out")
}

/// The reply while sessions cannot be read or ended. Without it, the client would become an anonymous one.
fn unavailable() -> Box<Reply> {
    let message = "Sessions are currently unavailable";
    Reply::negotiated(StatusCode::SERVICE_UNAVAILABLE, message, "session_store_unavailable")
}

/// Whether the session is that of the identity.
fn is_of(data: &SessionData, identity: &Identity) -> bool {
    identity.subjects.continue_those(&data.subjects)
        && identity.consumer.as_ref().map(|consumer| &*consumer.id) == data.consumer.as_deref()
        && !identity.consumer.as_ref().is_some_and(|consumer| data.is_of_another_object(consumer))
        && identity.groups == data.groups
        && data.consumer_groups.iter().all(|group| identity.found_consumer_groups.contains(group))
        && found_groups(identity).all(|group| data.consumer_groups.contains(group))
}

/// The KongConsumerGroups that an authentication plugin has found in addition to those of the consumer.
fn found_groups(identity: &Identity) -> impl Iterator<Item = &Arc<str>> {
    let own: &[Arc<str>] = identity.consumer.as_ref().map_or(&[], |consumer| consumer.groups());
    identity.found_consumer_groups.iter().filter(move |group| !own.contains(group))
}

/// Size limit of bodies that are searched for a logout, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests;
