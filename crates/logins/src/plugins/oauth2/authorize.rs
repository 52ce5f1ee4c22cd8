//! The authorization endpoint: codes, and tokens of the implicit grant. The application that has logged the user in
//! calls it, and sends the browser to the URI in the response.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::StatusCode;
use serde::Serialize;

use super::OAuth2;
use super::client_authentication::find_client;
use super::config::PkceRequirement;
use super::grant::{Expiry, Grant, GrantName, HeaderText, IssuedCode, Stage, TokenKind};
use super::parameters::Parameters;
use super::refusal::{IssueError, Refusal, error_reply, json_body, with_json_headers};
use super::token_endpoint::CODE_LIFETIME;
use crate::plugin_api::consumers::{OAuthClient, Sha256Digest, sha256};
use crate::plugin_api::{Reply, RequestCx};
use crate::plugin_kit::form_body::form_body;

#[derive(Serialize)]
struct RedirectBody<'b> {
    redirect_uri: &'b str,
}

/// What the endpoint issues.
enum Issued {
    Code(String),
    Token { access_token: String, expires_in: Option<u64> },
}

impl OAuth2 {
    pub(super) async fn authorize(&self, cx: &RequestCx<'_>, parameters: Result<Parameters, Refusal>) -> Box<Reply> {
        let (parameters, problem) = match parameters {
            Ok(parameters) => (parameters, None),
            Err(refusal) => (Parameters::default(), Some(refusal)),
        };
        let problem = problem.or_else(|| self.check_caller(cx, &parameters).err());
        let state = parameters.state.as_deref();
        if let Some(refusal) = problem {
            return error_reply(&refusal.into(), state, &self.settings.challenges.client);
        }
        let client = find_client(cx.consumers, parameters.client_id.as_deref(), false);
        let client = client.and_then(|client| {
            let has_uri = !client.redirect_uris.is_empty();
            if has_uri { Ok(client) } else { Err(Refusal::Client { by_header: false }.into()) }
        });
        let client = match client {
            Ok(client) => client,
            Err(error) => return error_reply(&error, state, &self.settings.challenges.client),
        };
        let (redirect_uri, is_registered) = redirect_uri(client, parameters.redirect_uri.as_deref());
        let issued = if is_registered {
            self.issue_to(cx, &parameters, client, redirect_uri).await
        } else {
            // PKCE comes first, as in Kong.
            Err(self.challenge(client, &parameters).err().unwrap_or(Refusal::RedirectUri).into())
        };
        match issued {
            Ok(issued) => {
                let uri = issued.location(redirect_uri, state);
                let body = json_body(&RedirectBody { redirect_uri: &uri });
                with_json_headers(Reply::new(StatusCode::OK, body, "authorized"))
            }
            Err(IssueError::Refused(refusal)) => {
                let (error, description) = refusal.texts();
                let mut fields = vec![("error", error), ("error_description", &*description)];
                fields.extend(state.map(|state| ("state", state)));
                let uri = with_query(redirect_uri, &fields);
                let body = json_body(&RedirectBody { redirect_uri: &uri });
                with_json_headers(Reply::new(StatusCode::BAD_REQUEST, body, "token_refused"))
            }
            Err(error) => error_reply(&error, state, &self.settings.challenges.client),
        }
    }

    /// Whether the caller is the application that logs users in.
    fn check_caller(&self, cx: &RequestCx<'_>, parameters: &Parameters) -> Result<(), Refusal> {
        self.check_https(cx)?;
        self.check_provision_key(parameters)?;
        self.user(parameters)?.map(drop).ok_or(Refusal::NoUser)
    }

    async fn issue_to(
        &self,
        cx: &RequestCx<'_>,
        parameters: &Parameters,
        client: &Arc<OAuthClient>,
        redirect_uri: &str,
    ) -> Result<Issued, IssueError> {
        let challenge = self.challenge(client, parameters)?;
        let scope = self.scope(parameters)?;
        let grants = self.settings.grants;
        let (name, user) = (GrantName::random(), self.user(parameters)?);
        match parameters.response_type.as_deref() {
            Some("code") if grants.authorization_code => {
                let (code, digest) = name.issue(TokenKind::Code);
                let stage = Stage::Code(IssuedCode {
                    code: digest,
                    expires: Expiry::after(cx.now, Some(CODE_LIFETIME)),
                    redirect_uri: redirect_uri.into(),
                    challenge,
                });
                self.begin(cx, &name, client, user, scope, stage).await?;
                Ok(Issued::Code(code))
            }
            Some("token") if grants.implicit => {
                let (tokens, reply) = self.issue(cx.now, &name, scope.clone(), None);
                self.begin(cx, &name, client, user, scope, Stage::Tokens(tokens)).await?;
                Ok(Issued::Token { access_token: reply.access_token, expires_in: reply.expires_in })
            }
            _ => Err(Refusal::ResponseType.into()),
        }
    }

    /// Stores a new grant.
    pub(super) async fn begin(
        &self,
        cx: &RequestCx<'_>,
        name: &GrantName,
        client: &OAuthClient,
        user: Option<HeaderText>,
        scope: Option<HeaderText>,
        stage: Stage,
    ) -> Result<(), IssueError> {
        let grant = Grant {
            client_id: (**client.client_id.text()).into(),
            credential: (*client.id).into(),
            user,
            scope,
            place: self.place(cx),
            stage,
        };
        Ok(self.settings.store.insert(name.key(), grant, cx.now).await?)
    }

    /// The challenge of PKCE, which only the client can meet that has made the request.
    fn challenge(&self, client: &OAuthClient, parameters: &Parameters) -> Result<Option<Sha256Digest>, Refusal> {
        let Parameters { code_challenge, code_challenge_method, .. } = parameters;
        match (code_challenge, code_challenge_method.as_deref()) {
            (None, Some(_)) => Err(Refusal::MethodWithoutChallenge),
            (None, None) if self.requires_pkce(client) => {
                Err(Refusal::NoChallenge { is_public: client.secret.is_none() })
            }
            (None, None) => Ok(None),
            (Some(challenge), None | Some("S256" | "s256")) => {
                let digest = BASE64URL.decode(challenge).ok().and_then(|digest| digest.try_into().ok());
                digest.map(Some).ok_or(Refusal::Challenge)
            }
            (Some(_), Some(_)) => Err(Refusal::ChallengeMethod),
        }
    }

    pub(super) fn requires_pkce(&self, client: &OAuthClient) -> bool {
        match self.settings.pkce {
            PkceRequirement::None => false,
            PkceRequirement::Lax => client.secret.is_none(),
            PkceRequirement::Strict => true,
        }
    }

    pub(super) fn check_provision_key(&self, parameters: &Parameters) -> Result<(), Refusal> {
        let sent = sha256(parameters.provision_key.as_deref().unwrap_or_default().as_bytes());
        let expected = self.settings.provision_key.as_ref().ok_or(Refusal::ProvisionKey)?;
        verify_slices_are_equal(expected, &sent).map_err(|_| Refusal::ProvisionKey)
    }

    /// The user for whom the application requests a code or a token.
    pub(super) fn user(&self, parameters: &Parameters) -> Result<Option<HeaderText>, Refusal> {
        let Some(user) = parameters.authenticated_userid.as_deref() else { return Ok(None) };
        if user.trim().is_empty() {
            return Err(Refusal::NoUser);
        }
        let user = HeaderText::parse(user).filter(|_| user.len() <= MAX_USER);
        user.map(Some).ok_or(Refusal::User)
    }

    /// The scope that the parameters request, of those that the plugin has.
    pub(super) fn scope(&self, parameters: &Parameters) -> Result<Option<HeaderText>, Refusal> {
        let requested = parameters.scope.as_deref().filter(|scope| !scope.trim().is_empty());
        if self.settings.scopes.is_empty() {
            return Ok(None);
        }
        let Some(requested) = requested else {
            return if self.settings.mandatory_scope { Err(Refusal::NoScope) } else { Ok(None) };
        };
        let mut scopes: Vec<&str> = Vec::new();
        for scope in requested.split_whitespace() {
            if !self.settings.scopes.iter().any(|known| **known == *scope) {
                return Err(Refusal::UnknownScope(scope.to_owned()));
            }
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        Ok(HeaderText::parse(&scopes.join(" ")))
    }
}

impl Issued {
    fn location(&self, redirect_uri: &str, state: Option<&str>) -> String {
        let state = state.map(|state| ("state", state));
        match self {
            Issued::Code(code) => {
                with_query(redirect_uri, &[Some(("code", &**code)), state].into_iter().flatten().collect::<Vec<_>>())
            }
            Issued::Token { access_token, expires_in } => {
                let expires_in = expires_in.map(|seconds| seconds.to_string());
                // By name, as in Kong.
                let fields = [
                    Some(("access_token", &**access_token)),
                    expires_in.as_deref().map(|seconds| ("expires_in", seconds)),
                    state,
                    Some(("token_type", "bearer")),
                ];
                format!("{redirect_uri}#{}", form_text(fields.into_iter().flatten()))
            }
        }
    }
}

/// The URI to which the browser is sent, and whether it is the one that was requested: otherwise it is the first one of
/// the client, which gets the error. Never one that the client does not have.
pub(super) fn redirect_uri<'c>(client: &'c OAuthClient, requested: Option<&str>) -> (&'c str, bool) {
    let first = client.redirect_uris.first().map_or("", |uri| uri);
    let Some(requested) = requested else { return (first, true) };
    let registered = client.redirect_uris.iter().find(|uri| ***uri == *requested);
    registered.map_or((first, false), |uri| (uri, true))
}

/// Adds fields to the query, whose fields are then ordered by name, as in Kong. A redirect URI has no fragment.
pub(super) fn with_query(uri: &str, fields: &[(&str, &str)]) -> String {
    let (base, query) = uri.split_once('?').unwrap_or((uri, ""));
    let added = form_text(fields.iter().copied());
    let mut pairs: Vec<&str> = query.split('&').chain(added.split('&')).filter(|pair| !pair.is_empty()).collect();
    pairs.sort_by_key(|pair| pair.split('=').next());
    format!("{base}?{}", pairs.join("&"))
}

fn form_text<'f>(fields: impl Iterator<Item = (&'f str, &'f str)>) -> String {
    String::from_utf8_lossy(&form_body(fields)).into_owned()
}

/// Some clients send the padding.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// The longest `authenticated_userid` in bytes.
const MAX_USER: usize = 256;
