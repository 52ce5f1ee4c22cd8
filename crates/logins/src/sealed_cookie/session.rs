//! A session in sealed cookies: one that ends with the browser, and one that remembers the session for longer.

use bytes::Bytes;
use http::HeaderMap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::cookies::{CookieParts, CookieTooLarge, SealedCookie};
use super::sealing_keys::SealingKeys;
use super::timeouts::{SessionAge, SessionTimeouts, SessionTimes};

/// The cookies of sessions and how long these last.
#[derive(Debug)]
pub struct SessionCookies {
    pub keys: SealingKeys,
    pub cookie: SealedCookie,
    pub timeouts: SessionTimeouts,
    /// The cookie from which a session begins again after the browser was closed, or after the session was idle.
    pub remember: Option<(SealedCookie, SessionTimeouts)>,
}

/// The session of a request.
#[derive(Debug)]
pub struct OpenedSession<T> {
    pub data: T,
    pub times: SessionTimes,
    /// When the client was authenticated. A remembered session begins again, but was authenticated earlier.
    pub authenticated: u64,
    pub age: SessionAge,
    /// Where the session is, if it is in a store.
    pub stored: Option<StoredPlace>,
}

/// Where a session was found in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPlace {
    pub id: Box<str>,
    /// The sealed text that was read. Only that is replaced when the session is written. `None`: whatever is there.
    pub text: Option<Bytes>,
}

/// Which cookies of sessions a request has sent, valid or not.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionPlace {
    session: CookieParts,
    remember: CookieParts,
}

/// A session as text.
#[derive(Serialize, Deserialize)]
pub struct Stored<T> {
    #[serde(rename = "t")]
    pub times: SessionTimes,
    #[serde(rename = "a")]
    pub authenticated: u64,
    #[serde(rename = "d")]
    pub data: T,
}

impl SessionCookies {
    /// The session in the cookies of a request, unless it has ended. `now`: in seconds since 1970.
    pub fn open<T: DeserializeOwned>(&self, request: &HeaderMap, now: u64) -> (Option<OpenedSession<T>>, SessionPlace) {
        let (text, session) = self.cookie.open(&self.keys, request);
        let mut place = SessionPlace { session, ..SessionPlace::default() };
        let opened = text.and_then(|text| read::<T>(&text)).and_then(|Stored { times, authenticated, data }| {
            let age = self.timeouts.age(times, now);
            (age != SessionAge::Expired).then_some(OpenedSession { data, times, authenticated, age, stored: None })
        });
        let Some((remember, timeouts)) = &self.remember else { return (opened, place) };
        let (text, parts) = remember.open(&self.keys, request);
        place.remember = parts;
        let opened = opened.or_else(|| {
            let Stored { times, authenticated, data } = read::<T>(&text?)?;
            (timeouts.age(times, now) != SessionAge::Expired).then_some(())?;
            // The session begins again, but not the time for which it is remembered.
            let times = SessionTimes::begin(now);
            Some(OpenedSession { data, times, authenticated, age: SessionAge::Renewed, stored: None })
        });
        (opened, place)
    }

    /// Sets the cookies of a session after a request. A new session, or one whose age is [`SessionAge::Renewed`], is
    /// also remembered again.
    pub fn write<T: Serialize>(
        &self,
        response: &mut HeaderMap,
        session: &OpenedSession<T>,
        place: SessionPlace,
        is_secure: bool,
    ) -> Result<(), CookieTooLarge> {
        let OpenedSession { data, times, authenticated, age, stored: _ } = session;
        let text = |times| {
            let stored = Stored { times, authenticated: *authenticated, data };
            serde_json::to_vec(&stored).expect("sessions consist of texts and numbers")
        };
        self.cookie.set(&self.keys, response, &text(*times), None, place.session, is_secure)?;
        if let Some((remember, timeouts)) = self.remember.as_ref().filter(|_| *age == SessionAge::Renewed) {
            let text = text(SessionTimes { created: *authenticated, ..*times });
            remember.set(&self.keys, response, &text, timeouts.longest(), place.remember, is_secure)?;
        }
        Ok(())
    }

    /// The ids in the cookies of a request: that of the session, and that by which it is remembered.
    pub(crate) fn open_ids(&self, request: &HeaderMap) -> ([Option<Box<str>>; 2], SessionPlace) {
        // Texts in cookies are sessions or ids, which are different types of JSON.
        let id = |text: Option<Vec<u8>>| serde_json::from_slice::<Box<str>>(&text?).ok();
        let (text, session) = self.cookie.open(&self.keys, request);
        let mut place = SessionPlace { session, ..SessionPlace::default() };
        let remembered = self.remember.as_ref().and_then(|(remember, _)| {
            let (text, parts) = remember.open(&self.keys, request);
            place.remember = parts;
            id(text)
        });
        ([id(text), remembered], place)
    }

    /// Sets the cookies of a stored session to its id, with the same effect as [`SessionCookies::write`].
    pub(crate) fn write_id(
        &self,
        response: &mut HeaderMap,
        id: &str,
        age: SessionAge,
        place: SessionPlace,
        is_secure: bool,
    ) -> Result<(), CookieTooLarge> {
        let text = serde_json::to_vec(id).expect("a text is JSON");
        self.cookie.set(&self.keys, response, &text, None, place.session, is_secure)?;
        if let Some((remember, timeouts)) = self.remember.as_ref().filter(|_| age == SessionAge::Renewed) {
            remember.set(&self.keys, response, &text, timeouts.longest(), place.remember, is_secure)?;
        }
        Ok(())
    }

    /// Removes the cookies from the browser.
    pub fn clear(&self, response: &mut HeaderMap, place: SessionPlace, is_secure: bool) {
        self.cookie.clear(response, place.session, is_secure);
        if let Some((remember, _)) = &self.remember {
            remember.clear(response, place.remember, is_secure);
        }
    }

    /// Removes the cookies from a request, so that the endpoint does not get them.
    pub fn remove_from(&self, request: &mut HeaderMap) {
        self.cookie.remove_from(request);
        if let Some((remember, _)) = &self.remember {
            remember.remove_from(request);
        }
    }

    /// The names of all cookies that may contain a session.
    pub fn names(&self) -> Vec<Box<str>> {
        let remember = self.remember.iter().flat_map(|(cookie, _)| cookie.names());
        self.cookie.names().chain(remember).collect()
    }
}

impl<T> OpenedSession<T> {
    /// A session that begins now.
    pub fn begin(data: T, now: u64) -> Self {
        let (times, age) = (SessionTimes::begin(now), SessionAge::Renewed);
        OpenedSession { data, times, authenticated: now, age, stored: None }
    }
}

impl SessionPlace {
    /// Whether the request has sent no cookie of a session.
    pub fn is_empty(self) -> bool {
        self.session == CookieParts::default() && self.remember == CookieParts::default()
    }
}

fn read<T: DeserializeOwned>(text: &[u8]) -> Option<Stored<T>> {
    serde_json::from_slice(text).ok()
}
