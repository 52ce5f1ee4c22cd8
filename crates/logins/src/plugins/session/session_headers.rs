//! The headers `Session-…` with the properties of a session.

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::SessionData;
use super::config::ValidatedConfig;
use crate::plugin_api::Identity;
use crate::plugin_api::consumers::{hex, sha256};
use crate::sealed_cookie::OpenedSession;

/// A property of a session that a header contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SessionProperty {
    /// `Session-Id`: the id of the session.
    Id,
    /// `Session-Audience`: the value of `audience`.
    Audience,
    /// `Session-Subject`: the username of the consumer, or its custom id, or the id of the credential if there is no
    /// consumer.
    Subject,
    /// `Session-Timeout`: the seconds until the session ends if it is not used.
    Timeout,
    /// `Session-Idling-Timeout`: the seconds until `idling_timeout`.
    IdlingTimeout,
    /// `Session-Rolling-Timeout`: the seconds until `rolling_timeout`.
    RollingTimeout,
    /// `Session-Absolute-Timeout`: the seconds until `absolute_timeout`.
    AbsoluteTimeout,
}

static NAMES: [HeaderName; 7] = [
    HeaderName::from_static("session-id"),
    HeaderName::from_static("session-audience"),
    HeaderName::from_static("session-subject"),
    HeaderName::from_static("session-timeout"),
    HeaderName::from_static("session-idling-timeout"),
    HeaderName::from_static("session-rolling-timeout"),
    HeaderName::from_static("session-absolute-timeout"),
];

impl SessionProperty {
    pub(super) fn name(self) -> &'static HeaderName {
        &NAMES[self as usize]
    }

    fn value(
        self,
        config: &ValidatedConfig,
        session: &OpenedSession<SessionData>,
        user: &SessionUser<'_>,
    ) -> Option<String> {
        let [idling, rolling, absolute] = config.sessions.cookies.timeouts.remaining(session.times, user.now);
        let data = &session.data;
        let seconds = |limit: Option<u64>| limit.map(|limit| limit.to_string());
        match self {
            SessionProperty::Id => Some(data.id.to_string()),
            SessionProperty::Audience => Some(config.audience.to_string()),
            SessionProperty::Subject => {
                let consumer = user.identity.consumer.as_ref();
                let subject = match consumer {
                    Some(consumer) => {
                        let custom_id = || consumer.custom_id().map(|id| &**id);
                        consumer.username.as_deref().or_else(custom_id).unwrap_or(consumer.reported_id())
                    }
                    None => data.subjects.last()?.credential(),
                };
                Some(if config.hashes_subject { hex(&sha256(subject.as_bytes())) } else { subject.to_owned() })
            }
            SessionProperty::Timeout => seconds([idling, rolling, absolute].into_iter().flatten().min()),
            SessionProperty::IdlingTimeout => seconds(idling),
            SessionProperty::RollingTimeout => seconds(rolling),
            SessionProperty::AbsoluteTimeout => seconds(absolute),
        }
    }
}

/// Whose session it is, at which second since 1970.
pub(super) struct SessionUser<'i> {
    pub(super) identity: &'i Identity,
    pub(super) now: u64,
}

/// The headers with their values. `user` has the identity that the request has at this moment.
pub(super) fn values(
    config: &ValidatedConfig,
    names: &[SessionProperty],
    session: &OpenedSession<SessionData>,
    user: &SessionUser<'_>,
) -> SmallVec<[(&'static HeaderName, HeaderValue); 4]> {
    let value = |header: &SessionProperty| {
        let value = header.value(config, session, user)?;
        Some((header.name(), HeaderValue::try_from(value).ok()?))
    };
    names.iter().filter_map(value).collect()
}
