//! Logins of browsers: the redirect to the provider, and the way back.
//!
//! ```text
//!   page ─▶ begin: state, nonce and PKCE in a sealed cookie ─▶ provider ─▶ finish: the cookie of this browser?
//!                                                                             │
//!   page ◀─ session ◀─ ID token of this login? ◀─ tokens for code and verifier ◀─ issuer of this provider?
//! ```

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method};

use super::super::claims::ClaimSources;
use super::super::decision::{OpenIdDecision, is_secure};
use super::super::form_parameters::{encode_form, single, with_query};
use super::super::provider::ProviderMetadata;
use super::super::replies::{self, OpenIdRejection};
use super::super::settings::OpenIdSettings;
use super::super::tokens::{AuthenticationError, CodeGrant, SessionTokens};
use super::login_state::{LoginState, MAX_PAGE_BYTES};
use crate::plugin_api::RequestCx;
use crate::plugin_api::fields::{FieldValue, UrlEncodedForm};
use crate::plugin_kit::redis::RedisStoreError;
use crate::rejection_log::RejectionLog;
use crate::sealed_cookie::OpenedSession;
use crate::stored_sessions::SessionError;

/// The logins of one plugin.
#[derive(Clone, Copy)]
pub(in crate::plugins::openid_connect) struct BrowserLogins<'p> {
    pub(in crate::plugins::openid_connect) settings: &'p OpenIdSettings,
    pub(in crate::plugins::openid_connect) log: &'p RejectionLog,
}

impl BrowserLogins<'_> {
    /// Whether the request is one that begins a login: a browser opens a page.
    fn begins_logins(&self, cx: &RequestCx<'_>) -> bool {
        self.settings.begins_logins
            && matches!(cx.head.method, Method::GET | Method::HEAD)
            && opens_page(&cx.head.headers)
    }

    /// Whether a client with a session must log in again, because its login was not sufficient. A client that is
    /// forbidden anyway need not.
    pub(in crate::plugins::openid_connect) fn begins_again(
        &self,
        cx: &RequestCx<'_>,
        claims: &ClaimSources,
        now: u64,
    ) -> bool {
        let Some(level) = &self.settings.level else { return false };
        level.unmet(claims, now).is_some() && self.begins_logins(cx) && self.settings.claims.violated(claims).is_none()
    }

    /// As [`BrowserLogins::begin`], and may wait for the document of the provider.
    pub(in crate::plugins::openid_connect) async fn begin_or_reject(
        &self,
        cx: &RequestCx<'_>,
        now: u64,
    ) -> OpenIdDecision {
        match self.settings.party.metadata().await {
            Ok(metadata) => {
                let begun = self.begin(cx, &metadata, now);
                begun.unwrap_or(OpenIdDecision::Reject(OpenIdRejection::NoCredentials))
            }
            Err(error) if self.begins_logins(cx) => OpenIdDecision::unavailable(cx, self.log, &error.to_string()),
            Err(_) => OpenIdDecision::Reject(OpenIdRejection::NoCredentials),
        }
    }

    /// Sends the browser to the provider. `None` if the request does not begin a login.
    pub(in crate::plugins::openid_connect) fn begin(
        &self,
        cx: &RequestCx<'_>,
        metadata: &ProviderMetadata,
        now: u64,
    ) -> Option<OpenIdDecision> {
        if !self.begins_logins(cx) {
            return Some(OpenIdDecision::Reject(OpenIdRejection::NoCredentials));
        }
        let Some(endpoint) = &metadata.authorization else {
            return Some(OpenIdDecision::unavailable(
                cx,
                self.log,
                "the document of the provider has no `authorization_endpoint`",
            ));
        };
        let origin = cx.client.origin();
        let url = format!("{origin}{}", cx.path);
        let redirect_uri = self.settings.redirect_uri.as_ref().map_or(&*url, |redirect_uri| &redirect_uri.url);
        let full_url = cx.query.map(|query| format!("{url}?{query}"));
        // Absolute, so that a path that begins with `//` is none of another host.
        let mut pages = [full_url.as_deref(), Some(&*url)].into_iter().flatten();
        let page = pages.find(|page| page.len() <= MAX_PAGE_BYTES).unwrap_or(&origin);
        if redirect_uri.len() > MAX_PAGE_BYTES {
            return Some(OpenIdDecision::Reject(OpenIdRejection::NoCredentials));
        }
        let keys = &self.settings.sessions.cookies.keys;
        let new_login = LoginState::begin(redirect_uri, page, self.settings.level.clone(), now);
        let (login, is_new) = self.settings.logins.join(keys, &cx.head.headers, new_login, now);
        let party = &self.settings.party;
        let challenge = login.challenge();
        let parameters = [
            ("response_type", "code"),
            ("client_id", &*party.client.client_id),
            ("redirect_uri", &*login.redirect_uri),
            ("scope", &*party.scope),
            ("state", &*login.state),
            ("nonce", &*login.nonce),
            ("code_challenge", &*challenge),
            ("code_challenge_method", "S256"),
        ];
        let args = self.settings.authorization_args.iter().map(|(name, value)| (&**name, &**value));
        let location = with_query(endpoint, &encode_form(parameters.into_iter().chain(args)));
        let mut reply = replies::redirect_to_login(&location)?;
        if is_new {
            self.settings.logins.set(keys, &login, &cx.head.headers, &mut reply.headers, is_secure(cx));
        }
        Some(OpenIdDecision::Reply(reply))
    }

    /// Finishes a login. `None` if no login of this browser belongs to the request, and it `may_be_forwarded`.
    pub(in crate::plugins::openid_connect) async fn finish(
        &self,
        cx: &RequestCx<'_>,
        may_be_forwarded: bool,
        now: u64,
    ) -> Option<OpenIdDecision> {
        let keys = &self.settings.sessions.cookies.keys;
        let state = single(cx.query.unwrap_or_default(), "state").unwrap_or_default();
        let Some(login) = self.settings.logins.find(keys, &cx.head.headers, &state, now) else {
            if may_be_forwarded {
                return None;
            }
            return Some(self.failed_login(cx, None, "this browser has not begun the login, or too long ago"));
        };
        let metadata = match self.settings.party.metadata().await {
            Ok(metadata) => metadata,
            Err(error) => return Some(OpenIdDecision::unavailable(cx, self.log, &error.to_string())),
        };
        let code = match code_of_response(cx.query.unwrap_or_default(), &metadata) {
            Ok(code) => code,
            Err(message) => return Some(self.failed_login(cx, Some(&login), message)),
        };
        let grant = CodeGrant {
            code: &code,
            redirect_uri: &login.redirect_uri,
            verifier: &login.verifier,
            nonce: &login.nonce,
        };
        let tokens = match self.settings.party.finish_login(grant, cx.client.address, now).await {
            Ok(tokens) => tokens,
            Err(AuthenticationError::Rejected(message)) => {
                return Some(self.failed_login(cx, Some(&login), &message));
            }
            Err(AuthenticationError::Unavailable(message)) => {
                return Some(OpenIdDecision::unavailable(cx, self.log, &message));
            }
        };
        // Another login would give the same tokens, so the browser is not sent to the provider again.
        let unmet = login.level.as_ref().and_then(|level| level.unmet(&tokens.claims(), now));
        match unmet {
            Some(field) => Some(self.insufficient_login(cx, &login, field)),
            None => self.begin_session(cx, &login, tokens, now).await,
        }
    }

    /// Ends the former session of the browser, and begins one with these tokens. `None` if the page of the login is not
    /// valid in a header.
    async fn begin_session(
        &self,
        cx: &RequestCx<'_>,
        login: &LoginState,
        tokens: SessionTokens,
        now: u64,
    ) -> Option<OpenIdDecision> {
        let sessions = &self.settings.sessions;
        let (_, place) = sessions.cookies.open_ids(&cx.head.headers);
        let page = self.settings.login_page.as_deref().unwrap_or(&login.page);
        let mut reply = replies::logged_in(page, self.settings.has_strict_cookie)?;
        // A former session of this browser must not outlive its cookie.
        let ended = sessions.end(&cx.head.headers).await.map_err(SessionError::from);
        let session = OpenedSession::begin(tokens, now);
        let written = match ended {
            Ok(()) => sessions.write(&mut reply.headers, &session, place, is_secure(cx), now).await,
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => {}
            Err(SessionError::Store(RedisStoreError::Unavailable)) => {
                return Some(OpenIdDecision::without_sessions(cx, self.log, RedisStoreError::Unavailable));
            }
            Err(error) => return Some(self.failed_login(cx, Some(login), &error.to_string())),
        }
        self.settings.logins.clear(&login.state, &cx.head.headers, &mut reply.headers, is_secure(cx));
        Some(OpenIdDecision::Reply(reply))
    }

    fn insufficient_login(&self, cx: &RequestCx<'_>, login: &LoginState, field: &str) -> OpenIdDecision {
        self.log.rejected(cx.scope, "login", &format!("the claims of the new tokens do not satisfy `{field}`"));
        let mut reply = replies::insufficient_login(&self.settings.forbidden);
        self.settings.logins.clear(&login.state, &cx.head.headers, &mut reply.headers, is_secure(cx));
        OpenIdDecision::Reply(reply)
    }

    fn failed_login(&self, cx: &RequestCx<'_>, login: Option<&LoginState>, message: &str) -> OpenIdDecision {
        self.log.rejected(cx.scope, "login", message);
        let mut reply = replies::failed_login(&self.settings.unauthorized);
        if let Some(login) = login {
            self.settings.logins.clear(&login.state, &cx.head.headers, &mut reply.headers, is_secure(cx));
        }
        OpenIdDecision::Reply(reply)
    }
}

/// The code in a response of the provider, or why the login has failed.
fn code_of_response(query: &str, metadata: &ProviderMetadata) -> Result<String, &'static str> {
    let has = |name: &str| UrlEncodedForm(query.as_bytes()).find(name.as_bytes()) != FieldValue::Absent;
    // RFC 9207: the response of another provider must not be taken for one of this provider.
    match single(query, "iss") {
        Some(issuer) if *issuer == *metadata.issuer => {}
        None if !has("iss") && !metadata.names_issuer => {}
        None if !has("iss") => return Err("the response has no `iss`"),
        _ => return Err("`iss` of the response is another issuer"),
    }
    single(query, "code").filter(|_| !has("error")).ok_or("the provider has not allowed the login")
}

/// Whether a browser opens a page. Over HTTPS, it says so in `Sec-Fetch-Mode`; everywhere, it asks for HTML. It follows
/// no redirect of the handshake of a WebSocket, and a page that is fetched in advance may never be shown.
fn opens_page(headers: &HeaderMap) -> bool {
    let is_page = match headers.get("sec-fetch-mode") {
        Some(mode) => mode == "navigate",
        None => headers.get_all(ACCEPT).iter().any(accepts_html),
    };
    let is_in_advance = || {
        let mut purposes = ["sec-purpose", "purpose", "x-moz"].into_iter().filter_map(|name| headers.get(name));
        purposes.any(|purpose| purpose.as_bytes().to_ascii_lowercase().starts_with(b"prefetch"))
    };
    let is_of_script = || {
        let marks = ["x-requested-with", "sec-websocket-key", "sec-websocket-version"];
        marks.into_iter().any(|name| headers.contains_key(name))
    };
    is_page && !is_of_script() && !is_in_advance()
}

/// Whether a list of media types has one of HTML.
fn accepts_html(list: &HeaderValue) -> bool {
    let mut types = list.as_bytes().split(|byte| *byte == b',');
    types.any(|media_type| {
        let essence = media_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        essence.eq_ignore_ascii_case(b"text/html") || essence.eq_ignore_ascii_case(b"application/xhtml+xml")
    })
}
