//! The types of a server: read once for all requests, and again from time to time while the old ones are in use.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::json;
use tokio::sync::oneshot;
use tracing::warn;

use super::schema::{FieldCost, PricedSchema, QUERY};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::consumers::{Sha256Digest, hex, sha256};
use crate::plugin_api::{BuildCx, PluginServices};
use crate::plugin_kit::counting::unix_second;
use crate::plugin_kit::remote_server::{RemoteServer, RemoteServerConfig, RemoteServerFailed};
use crate::plugin_kit::sent_headers::{SET_BY_PLUGIN, parse_sent_headers};
use crate::plugin_kit::shared_fetch::SharedFetches;

/// The server, as the configuration describes it.
pub(super) struct SchemaServer<'c> {
    pub(super) url: &'c str,
    pub(super) headers: &'c BTreeMap<String, String>,
    pub(super) timeout: u32,
    pub(super) verify: bool,
}

pub(super) struct SchemaSource {
    server: RemoteServer,
    services: Arc<dyn PluginServices>,
    object: Box<str>,
    headers: HeaderMap,
    costs: Vec<FieldCost>,
    current: ArcSwapOption<FetchedSchema>,
    /// The second since 1970 before which no further request is sent.
    next_attempt: AtomicU64,
    /// There is at most one fetch at a time, under one key.
    fetches: SharedFetches<Result<Arc<PricedSchema>, RemoteServerFailed>>,
}

struct FetchedSchema {
    schema: Arc<PricedSchema>,
    /// When it is read again.
    outdated: SystemTime,
}

impl SchemaSource {
    /// The source of this configuration. A plugin that is rebuilt with the same configuration keeps the types.
    pub(super) fn for_config(
        config: &SchemaServer<'_>,
        costs: &[FieldCost],
        cx: &BuildCx<'_>,
    ) -> Result<Arc<Self>, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let headers = read_headers(config.headers, &mut invalid);
        let server = RemoteServerConfig {
            field: "introspection_url",
            url: config.url,
            timeout_field: "introspection_timeout",
            timeout: config.timeout,
            keep_alive: 0,
            verify: config.verify,
            max_response: MAX_RESPONSE,
        };
        let server = RemoteServer::new(server, cx).map_err(|errors| invalid.extend(errors));
        let (Ok(server), []) = (server, &invalid[..]) else { return Err(invalid) };
        let SchemaServer { url, headers: configured, timeout, verify } = config;
        let fingerprint = hex(&sha256(format!("{url} {configured:?} {timeout} {verify} {costs:?}").as_bytes()));
        Ok(cx.state.get_or_create(&format!("{} graphql schema {fingerprint}", cx.object), || SchemaSource {
            server,
            services: Arc::clone(cx.services),
            object: cx.object.into(),
            headers,
            costs: costs.to_vec(),
            current: ArcSwapOption::empty(),
            next_attempt: AtomicU64::new(0),
            fetches: SharedFetches::default(),
        }))
    }

    /// The types. Requests wait for them only if there are none.
    pub(super) async fn schema(self: &Arc<Self>, now: SystemTime) -> Result<Arc<PricedSchema>, RemoteServerFailed> {
        if let Some(current) = &*self.current.load() {
            if current.outdated <= now && self.may_attempt(now) {
                drop(self.start(now));
            }
            return Ok(Arc::clone(&current.schema));
        }
        if self.fetches.is_empty() && !self.may_attempt(now) {
            return Err(RemoteServerFailed);
        }
        self.fetches.get(FETCH_KEY, || self.start(now)).await
    }

    /// Starts a fetch. It runs on the threads of the control plane, because a large schema takes long to read.
    fn start(self: &Arc<Self>, now: SystemTime) -> BoxFuture<'static, Result<Arc<PricedSchema>, RemoteServerFailed>> {
        let (sender, receiver) = oneshot::channel();
        let source = Arc::clone(self);
        self.services.spawn(async move { drop(sender.send(source.fetch(now).await)) }.boxed());
        async move { receiver.await.unwrap_or(Err(RemoteServerFailed)) }.boxed()
    }

    /// Whether a request may be sent now. Then, none may for a while.
    fn may_attempt(&self, now: SystemTime) -> bool {
        let second = unix_second(now);
        let next = |next: u64| (next <= second).then_some(second + RETRY_SECONDS);
        self.next_attempt.fetch_update(Relaxed, Relaxed, next).is_ok()
    }

    async fn fetch(&self, now: SystemTime) -> Result<Arc<PricedSchema>, RemoteServerFailed> {
        let sending = self.server.send(
            |request| {
                request.method = Method::POST;
                request.headers.extend(self.headers.clone());
                request.body = Bytes::from(json!({"query": QUERY}).to_string());
            },
            |status| status == StatusCode::OK,
        );
        let response = sending.await?;
        let schema = PricedSchema::parse(&response.body, &self.costs);
        let schema = Arc::new(schema.map_err(|error| self.server.failed(&error))?);
        for cost in schema.missing(&self.costs) {
            let (object, field) = (&self.object, format!("{}.{}", cost.kind, cost.field));
            warn!(%object, field, "The GraphQL server does not have a field of `costs`");
        }
        let fetched = FetchedSchema { schema: Arc::clone(&schema), outdated: now + LIFETIME };
        self.current.store(Some(Arc::new(fetched)));
        Ok(schema)
    }
}

fn read_headers(configured: &BTreeMap<String, String>, invalid: &mut Vec<Diagnostic>) -> HeaderMap {
    let set_here = [HOST, CONTENT_LENGTH, CONTENT_TYPE].map(|name| (name, SET_BY_PLUGIN));
    let mut headers = parse_sent_headers("introspection_headers", configured, &set_here, invalid);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
    headers
}

impl fmt::Debug for SchemaSource {
    /// Omits the headers.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SchemaSource").field("server", &self.server).finish_non_exhaustive()
    }
}

const FETCH_KEY: Sha256Digest = [0; 32];
/// More than the names of large public schemas have.
const MAX_RESPONSE: usize = 4 << 20;
const LIFETIME: Duration = Duration::from_secs(300);
/// How long no request follows one that may have failed.
const RETRY_SECONDS: u64 = 5;
