//! Logins in progress: each has a sealed cookie of its own, so that several tabs can log in at the same time, and any
//! replica can finish a login.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use serde::{Deserialize, Serialize};

use super::authentication_level::AuthenticationLevel;
use crate::sealed_cookie::{
    CookieAttributes, CookieParts, SealedCookie, SealingKeys, cookies, random_text, remove_cookies,
};

/// A login from the redirect to the provider until the browser comes back.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LoginState {
    /// Binds the response of the provider to this browser.
    #[serde(rename = "s")]
    pub(super) state: Box<str>,
    /// Binds the ID token to this login.
    #[serde(rename = "n")]
    pub(super) nonce: Box<str>,
    /// The verifier of PKCE (RFC 7636).
    #[serde(rename = "v")]
    pub(super) verifier: Box<str>,
    #[serde(rename = "r")]
    pub(super) redirect_uri: Box<str>,
    /// The page that was requested.
    #[serde(rename = "p")]
    pub(super) page: Box<str>,
    /// When the login began, in seconds since 1970.
    #[serde(rename = "c")]
    pub(super) created: u64,
    /// What the plugin that began the login requires.
    #[serde(rename = "l", skip_serializing_if = "Option::is_none", default)]
    pub(super) level: Option<AuthenticationLevel>,
}

/// The cookies of logins in progress.
#[derive(Debug)]
pub(in crate::plugins::openid_connect) struct LoginCookies {
    /// The beginning of their names.
    prefix: Box<str>,
    attributes: CookieAttributes,
    context: Box<str>,
    /// Seconds that a login may take.
    lifetime: u64,
}

impl LoginState {
    pub(super) fn begin(redirect_uri: &str, page: &str, level: Option<AuthenticationLevel>, now: u64) -> Self {
        LoginState {
            state: random_text(SECRET_BYTES).into(),
            nonce: random_text(SECRET_BYTES).into(),
            verifier: random_text(SECRET_BYTES).into(),
            redirect_uri: redirect_uri.into(),
            page: page.into(),
            created: now,
            level,
        }
    }

    /// The challenge of PKCE with the method S256.
    pub(super) fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.verifier.as_bytes()))
    }
}

impl LoginCookies {
    /// `context` names the issuer and the client, so that a login at one provider cannot be finished as one at another.
    pub(in crate::plugins::openid_connect) fn new(attributes: CookieAttributes, context: &str, lifetime: u64) -> Self {
        LoginCookies { prefix: format!("{}_", attributes.name()).into(), attributes, context: context.into(), lifetime }
    }

    /// The login that a response of the provider belongs to, if this browser began it and it has not timed out.
    pub(super) fn find(&self, keys: &SealingKeys, request: &HeaderMap, state: &str, now: u64) -> Option<LoginState> {
        let cookie = self.cookie(&self.name_of(state)?);
        let login: LoginState = serde_json::from_slice(&cookie.open(keys, request).0?).ok()?;
        let is_same = verify_slices_are_equal(login.state.as_bytes(), state.as_bytes()).is_ok();
        (is_same && self.is_current(&login, now)).then_some(login)
    }

    /// The login of one more tab. If the browser has begun many in the last minutes, the tab joins the newest one, so
    /// that none is removed before the user has finished it. Also returns whether it is the new one.
    pub(super) fn join(
        &self,
        keys: &SealingKeys,
        request: &HeaderMap,
        new_login: LoginState,
        now: u64,
    ) -> (LoginState, bool) {
        let is_recent = |login: &LoginState| {
            now.saturating_sub(login.created) < self.lifetime / 2
                && (&login.redirect_uri, &login.level) == (&new_login.redirect_uri, &new_login.level)
        };
        let mut recent = self.found(keys, request);
        recent.retain(|(login, _)| login.as_ref().is_some_and(is_recent));
        if recent.len() < MAX_LOGINS {
            return (new_login, true);
        }
        match recent.into_iter().next() {
            Some((Some(newest), _)) => (newest, false),
            _ => (new_login, true),
        }
    }

    /// Sets the cookie of a login that begins. If the cookies become too long for a request, the oldest are removed.
    pub(super) fn set(
        &self,
        keys: &SealingKeys,
        login: &LoginState,
        request: &HeaderMap,
        response: &mut HeaderMap,
        is_secure: bool,
    ) {
        let mut bytes = 0;
        // Those that cannot be read may be logins at another provider.
        for (_, cookie) in self.found(keys, request) {
            bytes += cookie.bytes_in(request);
            if bytes > MAX_BYTES {
                cookie.clear(response, cookie.parts_in(request), is_secure);
            }
        }
        let Some(name) = self.name_of(&login.state) else { return };
        let text = serde_json::to_vec(login).expect("a login consists of texts and numbers");
        self.cookie(&name)
            .set(keys, response, &text, Some(self.lifetime), CookieParts::default(), is_secure)
            .expect("a login is short: its page is limited");
    }

    /// The logins of a request and their cookies, the newest first, then those that cannot be read.
    fn found(&self, keys: &SealingKeys, request: &HeaderMap) -> Vec<(Option<LoginState>, SealedCookie)> {
        let mut found: Vec<(Option<LoginState>, SealedCookie)> = cookies(request)
            .filter_map(|(name, _)| std::str::from_utf8(name).ok().filter(|name| name.starts_with(&*self.prefix)))
            .filter(|name| name.len() == self.prefix.len() + NAME_BYTES)
            .take(MAX_INSPECTED)
            .map(|name| {
                let cookie = self.cookie(name);
                let text = cookie.open(keys, request).0;
                (text.and_then(|text| serde_json::from_slice(&text).ok()), cookie)
            })
            .collect();
        found.sort_by_key(|(login, _)| std::cmp::Reverse(login.as_ref().map_or(0, |login| login.created)));
        found
    }

    /// Removes the cookie of a login that has ended: all of its parts that the request has.
    pub(super) fn clear(&self, state: &str, request: &HeaderMap, response: &mut HeaderMap, is_secure: bool) {
        if let Some(name) = self.name_of(state) {
            let cookie = self.cookie(&name);
            cookie.clear(response, cookie.parts_in(request), is_secure);
        }
    }

    /// With what the names of all cookies begin.
    pub(in crate::plugins::openid_connect) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Removes the cookies from a request, so that the endpoint does not get them.
    pub(in crate::plugins::openid_connect) fn remove_from(&self, request: &mut HeaderMap) {
        remove_cookies(request, |name| name.starts_with(self.prefix.as_bytes()));
    }

    fn is_current(&self, login: &LoginState, now: u64) -> bool {
        now.saturating_sub(login.created) < self.lifetime
    }

    /// The name of the cookie for a state. `None` if it cannot be a state of Portico.
    fn name_of(&self, state: &str) -> Option<String> {
        let is_state = state.len() == STATE_LENGTH
            && state.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        is_state.then(|| format!("{}{}", self.prefix, &state[..NAME_BYTES]))
    }

    fn cookie(&self, name: &str) -> SealedCookie {
        SealedCookie::new(self.attributes.renamed(name), &self.context)
    }
}

/// The bytes of state, nonce and verifier. RFC 7636 recommends this size.
const SECRET_BYTES: usize = 32;
/// The characters of a state.
const STATE_LENGTH: usize = 43;
/// How many characters of the state the name of the cookie has.
const NAME_BYTES: usize = 12;
/// How many logins a browser begins before further tabs join the newest one.
const MAX_LOGINS: usize = 5;
/// How many cookies of logins are opened to find the newest ones.
const MAX_INSPECTED: usize = 32;
/// The most bytes of all cookies of logins, so that they fit into the head of a request. Few logins have more than a
/// thousand.
const MAX_BYTES: usize = 16 * 1024;
/// The longest page that a login returns to, so that its cookie is short.
pub(super) const MAX_PAGE_BYTES: usize = 1500;

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{COOKIE, SET_COOKIE};

    use super::*;
    use crate::sealed_cookie::{CookieSameSite, CookieSettings};

    fn login_cookies(context: &str) -> LoginCookies {
        let settings = CookieSettings {
            name: "authorization",
            path: "/",
            domain: None,
            same_site: CookieSameSite::Lax,
            http_only: true,
            secure: None,
        };
        LoginCookies::new(CookieAttributes::validate(&settings, "", "").unwrap(), context, 600)
    }

    fn request_after(response: &HeaderMap) -> HeaderMap {
        let pairs = response.get_all(SET_COOKIE).iter().map(|value| value.to_str().unwrap());
        let pairs: Vec<&str> =
            pairs.filter(|text| !text.contains("Max-Age=0")).map(|text| text.split(';').next().unwrap()).collect();
        HeaderMap::from_iter([(COOKIE, HeaderValue::try_from(pairs.join("; ")).unwrap())])
    }

    #[test]
    fn logins_are_bound_to_browser_state_and_provider() {
        let (cookies, keys) = (login_cookies("a"), SealingKeys::for_tests("k"));
        let login =
            LoginState::begin("https://a.example/cb", &format!("/{}", "p".repeat(MAX_PAGE_BYTES - 1)), None, 1000);
        let mut response = HeaderMap::new();
        cookies.set(&keys, &login, &HeaderMap::new(), &mut response, true);
        let request = request_after(&response);
        assert_eq!(cookies.find(&keys, &request, &login.state, 1599), Some(LoginState { ..clone(&login) }));
        assert_eq!(cookies.find(&keys, &request, &login.state, 1600), None, "it has timed out");
        assert_eq!(cookies.find(&keys, &HeaderMap::new(), &login.state, 1000), None, "another browser");
        assert_eq!(login_cookies("b").find(&keys, &request, &login.state, 1000), None, "another provider");
        assert_eq!(cookies.find(&SealingKeys::for_tests("x"), &request, &login.state, 1000), None, "another key");
        let same_name = format!("{}{}", &login.state[..NAME_BYTES], "A".repeat(STATE_LENGTH - NAME_BYTES));
        for state in [&*same_name, "", "a", &"/".repeat(STATE_LENGTH), &"é".repeat(22)] {
            assert_eq!(cookies.find(&keys, &request, state, 1000), None, "{state}");
        }
        let mut to_endpoint = request.clone();
        cookies.remove_from(&mut to_endpoint);
        assert!(to_endpoint.is_empty());
    }

    /// A long redirect URI and a long page need two cookies.
    #[test]
    fn all_parts_of_a_login_are_removed() {
        let (cookies, keys) = (login_cookies("a"), SealingKeys::for_tests("k"));
        let long = |start: &str| format!("{start}{}", "p".repeat(MAX_PAGE_BYTES - start.len()));
        let login = LoginState::begin(&long("https://a.example/"), &long("/"), None, 1000);
        let mut response = HeaderMap::new();
        cookies.set(&keys, &login, &HeaderMap::new(), &mut response, true);
        let names = |response: &HeaderMap| -> Vec<String> {
            let lines = response.get_all(SET_COOKIE).iter().map(|value| value.to_str().unwrap());
            lines.map(|line| line.split('=').next().unwrap().to_owned()).collect()
        };
        let set = names(&response);
        assert_eq!(set.len(), 2, "{set:?}");
        let request = request_after(&response);
        assert!(cookies.find(&keys, &request, &login.state, 1000).is_some());
        let mut response = HeaderMap::new();
        cookies.clear(&login.state, &request, &mut response, true);
        assert_eq!(names(&response), set);
        assert!(response.values().all(|value| value.to_str().unwrap().contains("Max-Age=0")), "{response:?}");
    }

    /// The cookies of a browser that gets these responses.
    #[derive(Default)]
    struct Browser(Vec<String>);

    impl Browser {
        fn request(&self) -> HeaderMap {
            HeaderMap::from_iter([(COOKIE, HeaderValue::try_from(self.0.join("; ")).unwrap())])
        }

        fn receive(&mut self, response: &HeaderMap) {
            for value in response.get_all(SET_COOKIE).iter().map(|value| value.to_str().unwrap()) {
                let pair = value.split(';').next().unwrap().to_owned();
                let name = pair.split('=').next().unwrap().to_owned();
                self.0.retain(|other| other.split('=').next() != Some(&name));
                if !value.contains("Max-Age=0") {
                    self.0.push(pair);
                }
            }
        }

        /// The login of one more tab.
        fn open(&mut self, cookies: &LoginCookies, keys: &SealingKeys, new_login: LoginState, now: u64) -> LoginState {
            let request = self.request();
            let (login, is_new) = cookies.join(keys, &request, new_login, now);
            if is_new {
                let mut response = HeaderMap::new();
                cookies.set(keys, &login, &request, &mut response, true);
                self.receive(&response);
            }
            login
        }
    }

    #[test]
    fn no_tab_removes_the_login_of_another() {
        let (cookies, keys) = (login_cookies("a"), SealingKeys::for_tests("k"));
        let mut browser = Browser::default();
        let other_provider = login_cookies("b");
        let foreign = browser.open(&other_provider, &keys, LoginState::begin("r", "/", None, 990), 990);
        let states: Vec<_> = (1000..1020)
            .map(|now| browser.open(&cookies, &keys, LoginState::begin("r", "/", None, now), now).state)
            .collect();
        for state in &states {
            assert!(cookies.find(&keys, &browser.request(), state, 1020).is_some(), "{states:?}");
        }
        assert!(other_provider.find(&keys, &browser.request(), &foreign.state, 1020).is_some());
        let distinct: std::collections::BTreeSet<_> = states.iter().collect();
        assert_eq!(distinct.len(), MAX_LOGINS);
        // One that is about to time out is not joined, nor one for another redirect URI.
        for (redirect_uri, now) in [("r", 1350), ("other", 1020)] {
            let new_login = LoginState::begin(redirect_uri, "/", None, now);
            let state = new_login.state.clone();
            assert_eq!(browser.open(&cookies, &keys, new_login, now).state, state);
        }
        assert!(cookies.find(&keys, &browser.request(), &states[0], 1350).is_some(), "the first tab can still finish");
    }

    /// Tabs that are opened at the same moment do not know of each other.
    #[test]
    fn cookies_of_logins_fit_into_a_request() {
        let (cookies, keys) = (login_cookies("a"), SealingKeys::for_tests("k"));
        let mut browser = Browser::default();
        let page = "p".repeat(MAX_PAGE_BYTES);
        for now in 1000..1020 {
            let mut response = HeaderMap::new();
            cookies.set(&keys, &LoginState::begin("r", &page, None, now), &HeaderMap::new(), &mut response, true);
            browser.receive(&response);
        }
        let newest = LoginState::begin("r", &page, None, 1020);
        let mut response = HeaderMap::new();
        cookies.set(&keys, &newest, &browser.request(), &mut response, true);
        browser.receive(&response);
        let bytes: usize = browser.0.iter().map(String::len).sum();
        assert!(bytes < MAX_BYTES + 4096, "{bytes}");
        assert!(cookies.find(&keys, &browser.request(), &newest.state, 1020).is_some());
    }

    fn clone(login: &LoginState) -> LoginState {
        serde_json::from_value(serde_json::to_value(login).unwrap()).unwrap()
    }
}
