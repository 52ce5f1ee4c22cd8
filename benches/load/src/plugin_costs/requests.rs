//! The requests of the cases, and the consumer whose credentials they have.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body::Body as _;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use tokio::net::TcpStream;

use super::cases::{Case, Content, Credential};
use super::servers::ORDER;
use crate::http2::OutgoingBody;
use crate::server::objects::{API_KEY, consumer, plugins};
use crate::tokens;

/// A connection over HTTP/1.1.
pub(super) struct Client {
    sender: SendRequest<OutgoingBody>,
}

/// A request that can be sent repeatedly.
pub(super) struct RepeatedRequest {
    method: Method,
    path: &'static str,
    fields: HeaderMap,
    body: &'static str,
}

impl Client {
    /// Connects, and fails unless the host is routed.
    pub(super) async fn connect(address: SocketAddr, host: &str) -> Result<Client> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Errors are reported through the pending responses.
        tokio::spawn(async move { connection.await.ok() });
        let mut client = Client { sender };
        let fields = HeaderMap::from_iter([(HOST, HeaderValue::from_str(host)?)]);
        client.send(&RepeatedRequest { method: Method::GET, path: "/", fields, body: "" }, 200, 1).await?;
        Ok(client)
    }

    /// Sends a request so many times, and fails unless each response has the status.
    pub(super) async fn send(&mut self, request: &RepeatedRequest, status: u16, times: usize) -> Result<()> {
        for _ in 0..times {
            let mut sent = Request::new(OutgoingBody::whole(Bytes::from_static(request.body.as_bytes())));
            *sent.method_mut() = request.method.clone();
            *sent.uri_mut() = request.path.parse()?;
            *sent.headers_mut() = request.fields.clone();
            self.sender.ready().await.context("the connection was closed")?;
            let response = self.sender.send_request(sent).await.context("no response")?;
            let (head, mut body) = response.into_parts();
            let mut text = Vec::new();
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                text.extend_from_slice(frame?.data_ref().map_or(&[], |data| data));
            }
            let (found, text) = (head.status, String::from_utf8_lossy(&text));
            ensure!(found == status, "the status is {found} instead of {status}: {text}");
        }
        Ok(())
    }
}

/// What the consumer of all cases has.
pub(super) struct Credentials {
    signer: KeyPair,
}

impl Credentials {
    pub(super) fn new() -> Result<Credentials> {
        Ok(Credentials { signer: KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)? })
    }

    /// The consumer, its Secrets, and a `key-auth` for cases about consumers.
    pub(super) fn objects(&self) -> String {
        let secret = |name: &str, kind: &str, data: &str| {
            format!(
                "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, labels: {{konghq.com/credential: \
                 {kind}}}}}\nstringData: {{{data}}}\n"
            )
        };
        [
            consumer(&["bench-key", "bench-token", "password", "shared-secret", "group"]),
            tokens::secret(&self.signer),
            secret("password", "basic-auth", &format!("username: bench, password: {API_KEY}")),
            secret("shared-secret", "hmac-auth", &format!("username: bench, secret: {API_KEY}")),
            secret("group", "acl", "group: staff"),
            plugins(&["key-auth"]),
        ]
        .concat()
    }

    pub(super) fn request(&self, case: &Case, host: &str) -> Result<RepeatedRequest> {
        let mut fields = HeaderMap::from_iter([(HOST, HeaderValue::from_str(host)?)]);
        let mut add = |name: HeaderName, value: String| -> Result<()> {
            fields.insert(name, HeaderValue::try_from(value)?);
            Ok(())
        };
        match case.credential {
            Credential::Nothing => {}
            Credential::Key => add(HeaderName::from_static("apikey"), API_KEY.to_owned())?,
            Credential::Password => {
                add(AUTHORIZATION, format!("Basic {}", BASE64_STANDARD.encode(format!("bench:{API_KEY}"))))?;
            }
            Credential::Token => add(AUTHORIZATION, format!("Bearer {}", tokens::token(&self.signer, 1)?))?,
            Credential::Opaque => add(AUTHORIZATION, "Bearer b3a1c6f2d94e4f0f8a7b5c3d2e1f0a9b".to_owned())?,
            Credential::Signature => {
                let date = httpdate::fmt_http_date(SystemTime::now());
                let key = hmac::Key::new(hmac::HMAC_SHA256, API_KEY.as_bytes());
                let signature = BASE64_STANDARD.encode(hmac::sign(&key, format!("date: {date}").as_bytes()));
                add(DATE, date)?;
                let value = format!(
                    r#"hmac username="bench", algorithm="hmac-sha256", headers="date", signature="{signature}""#
                );
                add(AUTHORIZATION, value)?;
            }
        }
        for (name, value) in case.fields {
            add(HeaderName::from_static(name), (*value).to_owned())?;
        }
        let (method, body) = match case.content {
            Content::None => (Method::GET, ""),
            Content::Json => {
                add(CONTENT_TYPE, "application/json".to_owned())?;
                (Method::POST, ORDER)
            }
            Content::Xml => {
                add(CONTENT_TYPE, "application/xml".to_owned())?;
                (Method::POST, XML)
            }
            Content::Graphql => {
                add(CONTENT_TYPE, "application/json".to_owned())?;
                (Method::POST, QUERY)
            }
        };
        Ok(RepeatedRequest { method, path: case.path, fields, body })
    }
}

const XML: &str = "<order><id>7</id><state>paid</state><item><sku>A-1001</sku><price>39.5</price></item></order>";

const QUERY: &str = r#"{"query":"query ($id: ID!) { order(id: $id) { id state total } }","variables":{"id":"7"}}"#;
