//! Where the credentials of requests to AWS come from, and when temporary ones are replaced.
//!
//! ```text
//!   keys of a configuration ─────────────────────────────┐
//!   the Pod's identity: keys, web identity, container,   ├─▶ AssumeRole, if a role is configured ─▶ AwsKeys
//!   metadata service of the machine ─────────────────────┘
//! ```

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::io::AsyncReadExt;

use super::aws_signature::{SigningScope, sign};
use super::form_body::{FORM_MEDIA_TYPE, form_body};
use super::shared_fetch::SharedFetches;
use crate::plugin_api::aws_environment::{
    AwsEnvironment, AwsKeys, ContainerEndpoint, EndpointAuthorization, WebIdentity,
};
use crate::plugin_api::remote_request::{RemoteRequest, RemoteResponse, RemoteUrl, ResponseBodyUse};
use crate::plugin_api::services::PluginServices;

/// Credentials, fetched when a request first needs them and again before they expire. Requests at the same time wait
/// for one fetch.
pub struct AwsCredentials {
    source: CredentialSource,
    services: Arc<dyn PluginServices>,
    current: ArcSwapOption<IssuedKeys>,
    fetches: SharedFetches<Result<Arc<IssuedKeys>, String>>,
}

struct IssuedKeys {
    keys: AwsKeys,
    expires: SystemTime,
}

enum CredentialSource {
    Keys(Arc<IssuedKeys>),
    WebIdentity(WebIdentity, StsEndpoint),
    Container(ContainerEndpoint),
    Machine(MetadataVersion),
    Role { base: Arc<AwsCredentials>, role: String, session: String, sts: StsEndpoint },
}

/// The version of the protocol of the machine's metadata service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataVersion {
    V1,
    V2,
}

/// The server that issues temporary credentials of roles.
#[derive(Clone)]
pub struct StsEndpoint {
    pub url: RemoteUrl,
    pub region: String,
    /// That of the object, whose share of connections counts.
    pub namespace: Option<String>,
    pub verify: bool,
}

/// How long before they expire credentials are replaced.
const MARGIN: Duration = Duration::from_secs(300);
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum size in bytes of a response with credentials.
const MAX_RESPONSE: usize = 64 * 1024;
/// Maximum size in bytes of a file with a token.
const MAX_TOKEN: u64 = 64 * 1024;
const METADATA_URL: &str = "http://169.254.169.254";
const METADATA_PATH: &str = "/latest/meta-data/iam/security-credentials/";
const METADATA_TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
const METADATA_TOKEN_TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
/// Far enough to be later than every request.
const NEVER: Duration = Duration::from_secs(200 * 366 * 86400);

/// The name of the endpoint of STS in a region. China has a domain of its own.
pub fn amazon_host(service: &str, region: &str) -> String {
    let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
    format!("{service}.{region}.amazonaws.com{suffix}")
}

impl AwsCredentials {
    fn from_source(source: CredentialSource, services: &Arc<dyn PluginServices>) -> Arc<Self> {
        let (current, fetches) = (ArcSwapOption::empty(), SharedFetches::default());
        Arc::new(AwsCredentials { source, services: Arc::clone(services), current, fetches })
    }

    pub fn of_keys(keys: AwsKeys, services: &Arc<dyn PluginServices>) -> Arc<Self> {
        let keys = IssuedKeys { keys, expires: SystemTime::UNIX_EPOCH + NEVER };
        AwsCredentials::from_source(CredentialSource::Keys(Arc::new(keys)), services)
    }

    /// The identity of Portico's own Pod or machine. Tokens of it go to `sts`, which must be the endpoint of Amazon.
    pub fn of_environment(
        environment: &AwsEnvironment,
        metadata: MetadataVersion,
        sts: StsEndpoint,
        services: &Arc<dyn PluginServices>,
    ) -> Arc<Self> {
        let AwsEnvironment { keys, web_identity, container, .. } = environment.clone();
        if let Some(keys) = keys {
            return AwsCredentials::of_keys(keys, services);
        }
        let source = match (web_identity, container) {
            (Some(identity), _) => CredentialSource::WebIdentity(identity, sts),
            (None, Some(container)) => CredentialSource::Container(container),
            (None, None) => CredentialSource::Machine(metadata),
        };
        AwsCredentials::from_source(source, services)
    }

    /// The credentials of a role that these credentials may assume.
    pub fn assuming(self: &Arc<Self>, role: String, session: String, sts: StsEndpoint) -> Arc<Self> {
        let source = CredentialSource::Role { base: Arc::clone(self), role, session, sts };
        AwsCredentials::from_source(source, &self.services)
    }

    /// Credentials that are valid now. The error contains no secret.
    pub async fn with_keys<T>(
        self: &Arc<Self>,
        now: SystemTime,
        then: impl FnOnce(&AwsKeys) -> T,
    ) -> Result<T, String> {
        Ok(then(&self.issued(now).await?.keys))
    }

    fn issued(self: &Arc<Self>, now: SystemTime) -> BoxFuture<'static, Result<Arc<IssuedKeys>, String>> {
        let credentials = Arc::clone(self);
        async move {
            if let CredentialSource::Keys(keys) = &credentials.source {
                return Ok(Arc::clone(keys));
            }
            let current = credentials.current.load_full();
            if let Some(current) = current.as_ref().filter(|current| now + MARGIN < current.expires) {
                return Ok(Arc::clone(current));
            }
            let start = || {
                let credentials = Arc::clone(&credentials);
                async move { credentials.fetch(now).await }.boxed()
            };
            match credentials.fetches.get([0; 32], start).await {
                Ok(issued) => {
                    credentials.current.store(Some(Arc::clone(&issued)));
                    Ok(issued)
                }
                // Those that expire soon are still valid.
                Err(error) => current.filter(|current| now < current.expires).ok_or(error),
            }
        }
        .boxed()
    }

    async fn fetch(&self, now: SystemTime) -> Result<Arc<IssuedKeys>, String> {
        let issued = match &self.source {
            CredentialSource::Keys(keys) => return Ok(Arc::clone(keys)),
            CredentialSource::WebIdentity(identity, sts) => self.fetch_web_identity(identity, sts).await?,
            CredentialSource::Container(endpoint) => self.fetch_container(endpoint).await?,
            CredentialSource::Machine(version) => self.fetch_machine(*version).await?,
            CredentialSource::Role { base, role, session, sts } => {
                let fields = [
                    ("Action", "AssumeRole"),
                    ("Version", STS_VERSION),
                    ("RoleArn", role),
                    ("RoleSessionName", session),
                ];
                let mut request = sts.request(form_body(fields));
                let scope = SigningScope { region: &sts.region, service: "sts" };
                let base = base.issued(now).await?;
                sign(&mut request, &base.keys, scope, now).ok_or(UNUSABLE_KEYS)?;
                issued_by_sts(&self.services.send(request).await?)?
            }
        };
        Ok(Arc::new(issued))
    }

    async fn fetch_web_identity(&self, identity: &WebIdentity, sts: &StsEndpoint) -> Result<IssuedKeys, String> {
        let token = read_token(&identity.token_file).await?;
        let fields = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", STS_VERSION),
            ("RoleArn", &identity.role),
            ("RoleSessionName", identity.session.as_deref().unwrap_or("portico")),
            ("WebIdentityToken", token.trim()),
        ];
        issued_by_sts(&self.services.send(sts.request(form_body(fields))).await?)
    }

    async fn fetch_container(&self, endpoint: &ContainerEndpoint) -> Result<IssuedKeys, String> {
        let url = RemoteUrl::parse(&endpoint.url).map_err(|error| format!("the endpoint of the container: {error}"))?;
        let token = match &endpoint.authorization {
            EndpointAuthorization::Missing => None,
            EndpointAuthorization::Value(token) => Some(token.clone()),
            EndpointAuthorization::File(file) => Some(read_token(file).await?),
        };
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let value = HeaderValue::try_from(token.trim());
            let mut value = value.map_err(|_| "the token of the container is not a header value".to_owned())?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let is_secure = url.is_secure;
        let request = plain_request(&url, Method::GET, headers);
        // Plain HTTP is for addresses of the machine; all others must prove their name.
        let sending = if is_secure { self.services.send(request) } else { self.services.send_to_metadata(request) };
        issued_as_json(&sending.await?)
    }

    async fn fetch_machine(&self, version: MetadataVersion) -> Result<IssuedKeys, String> {
        let mut headers = HeaderMap::new();
        if version == MetadataVersion::V2 {
            let ttl = HeaderMap::from_iter([(METADATA_TOKEN_TTL, HeaderValue::from_static("60"))]);
            let response = self.ask_machine(Method::PUT, "/latest/api/token", ttl).await?;
            let token = HeaderValue::from_bytes(response.body.trim_ascii());
            headers.insert(METADATA_TOKEN, token.map_err(|_| "the token of the metadata service is not valid")?);
        }
        let roles = self.ask_machine(Method::GET, METADATA_PATH, headers.clone()).await?;
        let roles = String::from_utf8_lossy(&roles.body);
        let role = roles.lines().next().map(str::trim).filter(|role| !role.is_empty());
        let role = role.ok_or("the metadata service knows no role of the machine")?;
        issued_as_json(&self.ask_machine(Method::GET, &format!("{METADATA_PATH}{role}"), headers).await?)
    }

    async fn ask_machine(&self, method: Method, path: &str, headers: HeaderMap) -> Result<RemoteResponse, String> {
        let url = RemoteUrl::parse(&format!("{METADATA_URL}{path}"))?;
        let response = self.services.send_to_metadata(plain_request(&url, method, headers)).await?;
        expect_success(&response, "the metadata service")?;
        Ok(response)
    }
}

impl StsEndpoint {
    fn request(&self, body: Bytes) -> RemoteRequest {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(FORM_MEDIA_TYPE));
        let mut request = plain_request(&self.url, Method::POST, headers);
        request.remote = self.url.remote(self.namespace.as_deref(), self.verify, TIMEOUT);
        request.body = body;
        request
    }
}

fn plain_request(url: &RemoteUrl, method: Method, mut headers: HeaderMap) -> RemoteRequest {
    headers.insert(HOST, url.authority.clone());
    RemoteRequest {
        remote: url.remote(None, true, TIMEOUT),
        method,
        target: url.target.clone(),
        headers,
        body: Bytes::new(),
        timeout: TIMEOUT,
        keep_alive: None,
        is_repeatable: false,
        response_body: ResponseBodyUse::Collect { max_bytes: MAX_RESPONSE },
    }
}

async fn read_token(file: &str) -> Result<String, String> {
    let read = async {
        let mut text = String::new();
        tokio::fs::File::open(file).await?.take(MAX_TOKEN).read_to_string(&mut text).await?;
        Ok(text)
    };
    read.await.map_err(|error: std::io::Error| format!("the token in {file} cannot be read: {error}"))
}

fn expect_success(response: &RemoteResponse, server: &str) -> Result<(), String> {
    match response.status.is_success() {
        true => Ok(()),
        false => Err(format!("{server} responded with status {}", response.status.as_u16())),
    }
}

/// The credentials of a container or a machine, as their endpoints write them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct JsonCredentials {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

fn issued_as_json(response: &RemoteResponse) -> Result<IssuedKeys, String> {
    const SERVER: &str = "the endpoint with credentials";
    expect_success(response, SERVER)?;
    let parsed = serde_json::from_slice(&response.body);
    let parsed: JsonCredentials = parsed.map_err(|_| format!("{SERVER} responded without credentials"))?;
    let expires = match parsed.expiration.as_deref() {
        Some(text) => expiration(text).ok_or_else(|| format!("{SERVER} responded with an invalid expiration"))?,
        None => SystemTime::UNIX_EPOCH + NEVER,
    };
    let JsonCredentials { access_key_id: access_key, secret_access_key: secret_key, token: session_token, .. } = parsed;
    Ok(IssuedKeys { keys: AwsKeys { access_key, secret_key, session_token }, expires })
}

fn issued_by_sts(response: &RemoteResponse) -> Result<IssuedKeys, String> {
    let text = std::str::from_utf8(&response.body).unwrap_or_default();
    if !response.status.is_success() {
        // Such as AccessDenied. The message may name objects of the account.
        let code = element(text, "Code").filter(|code| code.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let code = code.map(|code| format!(": {code}")).unwrap_or_default();
        return Err(format!("STS responded with status {}{code}", response.status.as_u16()));
    }
    let parsed = || {
        let keys = AwsKeys {
            access_key: element(text, "AccessKeyId")?.to_owned(),
            secret_key: element(text, "SecretAccessKey")?.to_owned(),
            session_token: Some(element(text, "SessionToken")?.to_owned()),
        };
        Some(IssuedKeys { keys, expires: expiration(element(text, "Expiration")?)? })
    };
    parsed().ok_or_else(|| "STS responded without credentials".to_owned())
}

/// The text of the first element of this name, none of whose values contain markup or references.
fn element<'t>(document: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once('<')?;
    Some(text.trim()).filter(|text| !text.is_empty() && !text.contains('&'))
}

fn expiration(text: &str) -> Option<SystemTime> {
    text.parse::<Timestamp>().ok().map(SystemTime::from)
}

const STS_VERSION: &str = "2011-06-15";
const UNUSABLE_KEYS: &str = "the credentials cannot be sent in a header";

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;
    use crate::plugin_api::scripted_server::{ScriptedServer, response};

    fn keys() -> AwsKeys {
        AwsKeys { access_key: "AKID".to_owned(), secret_key: "secret".to_owned(), session_token: None }
    }

    fn sts() -> StsEndpoint {
        let url = RemoteUrl::parse("https://sts.eu-west-1.amazonaws.com/").unwrap();
        StsEndpoint { url, region: "eu-west-1".to_owned(), namespace: Some("shop".to_owned()), verify: true }
    }

    fn sts_response(key: &str, expires: &str) -> RemoteResponse {
        let body = format!(
            "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>{key}</AccessKeyId>\
             <SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>{expires}</Expiration>\
             </Credentials></AssumeRoleResult></AssumeRoleResponse>"
        );
        response(200, "content-type: text/xml", &body)
    }

    fn at(text: &str) -> SystemTime {
        expiration(text).unwrap()
    }

    async fn key_at(credentials: &Arc<AwsCredentials>, now: &str) -> Result<String, String> {
        credentials.with_keys(at(now), |keys| keys.access_key.clone()).await
    }

    #[tokio::test]
    async fn a_role_is_assumed_once_until_its_credentials_expire() {
        let count = AtomicUsize::new(0);
        let server = ScriptedServer::new(move |_| match count.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(sts_response("one", "2026-01-01T13:00:00Z")),
            1 => Err("refused".to_owned()),
            2 => Ok(response(403, "", "<Error><Code>AccessDenied</Code></Error>")),
            _ => Ok(sts_response("two", "2026-01-01T15:00:00Z")),
        });
        let base = AwsCredentials::of_keys(keys(), &server.services());
        let role = base.assuming("arn:aws:iam::1:role/a".to_owned(), "kong".to_owned(), sts());
        for key in join_all((0..4).map(|_| key_at(&role, "2026-01-01T12:00:00Z"))).await {
            assert_eq!(key.as_deref(), Ok("one"));
        }
        assert_eq!(key_at(&role, "2026-01-01T12:54:59Z").await.as_deref(), Ok("one"));
        assert_eq!(server.request_count(), 1);
        let sent = server.last_request();
        let body = std::str::from_utf8(&sent.body).unwrap();
        assert_eq!(
            body,
            "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fa&RoleSessionName=kong"
        );
        let authorization = sent.headers["authorization"].to_str().unwrap();
        assert!(authorization.contains("Credential=AKID/20260101/eu-west-1/sts/aws4_request"), "{authorization}");
        assert_eq!(sent.remote.namespace.as_deref(), Some("shop"));
        // A failure does not end those that are still valid.
        assert_eq!(key_at(&role, "2026-01-01T12:59:00Z").await.as_deref(), Ok("one"));
        assert_eq!(
            key_at(&role, "2026-01-01T13:00:00Z").await,
            Err("STS responded with status 403: AccessDenied".to_owned())
        );
        assert_eq!(key_at(&role, "2026-01-01T13:00:00Z").await.as_deref(), Ok("two"));
        assert_eq!(server.request_count(), 4);
    }

    #[tokio::test]
    async fn the_environment_has_four_kinds_of_identities() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "token-of-the-pod\n").unwrap();
        let file = file.path().to_str().unwrap().to_owned();
        let json =
            r#"{"AccessKeyId": "K", "SecretAccessKey": "s", "Token": "t", "Expiration": "2027-01-01T00:00:00Z"}"#;
        let server = ScriptedServer::new(move |request| {
            Ok(match (request.method.as_str(), request.target.as_str()) {
                ("POST", _) => sts_response("K", "2027-01-01T00:00:00Z"),
                ("PUT", "/latest/api/token") => response(200, "", "metadata-token"),
                ("GET", METADATA_PATH) => response(200, "", "role-of-node\n"),
                ("GET", _) => response(200, "", json),
                _ => response(404, "", ""),
            })
        });
        let container =
            |authorization| ContainerEndpoint { url: "http://169.254.170.23/v1/credentials".to_owned(), authorization };
        let identity = WebIdentity { role: "r".to_owned(), token_file: file.clone(), session: None };
        let none = AwsEnvironment::default();
        let cases = [
            (AwsEnvironment { web_identity: Some(identity), ..none.clone() }, MetadataVersion::V1),
            (
                AwsEnvironment { container: Some(container(EndpointAuthorization::File(file))), ..none.clone() },
                MetadataVersion::V1,
            ),
            (none.clone(), MetadataVersion::V1),
            (none, MetadataVersion::V2),
        ];
        let mut sent = Vec::new();
        for (environment, version) in cases {
            let credentials = AwsCredentials::of_environment(&environment, version, sts(), &server.services());
            assert_eq!(key_at(&credentials, "2026-01-01T00:00:00Z").await.as_deref(), Ok("K"));
            sent.push(server.last_request());
        }
        let body = String::from_utf8_lossy(&sent[0].body).into_owned();
        assert!(body.ends_with("&RoleSessionName=portico&WebIdentityToken=token-of-the-pod"), "{body}");
        assert!(!sent[0].headers.contains_key("authorization"), "the token is the proof");
        assert_eq!(sent[1].headers["authorization"], "token-of-the-pod");
        assert_eq!(sent[2].target.as_str(), "/latest/meta-data/iam/security-credentials/role-of-node");
        assert!(!sent[2].headers.contains_key(METADATA_TOKEN));
        assert_eq!(sent[3].headers[METADATA_TOKEN], "metadata-token");
    }

    #[test]
    fn names_of_hosts_contain_the_region() {
        assert_eq!(amazon_host("sts", "cn-north-1"), "sts.cn-north-1.amazonaws.com.cn");
        assert_eq!(amazon_host("lambda", "eu-west-1"), "lambda.eu-west-1.amazonaws.com");
    }
}
