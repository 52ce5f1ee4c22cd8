//! A server for tests of plugins: responds as a function says, and records the requests.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::StatusCode;
use parking_lot::Mutex;

use super::aws_environment::AwsEnvironment;
use super::remote_request::{ClientRequestFailure, RemoteRequest, RemoteResponse};
use super::services::PluginServices;
use crate::diagnostic::Diagnostic;
use crate::ssrf_guard::AddressPolicy;

/// How often a response suspends before it is there.
const SUSPENSIONS: usize = 32;

type Script = dyn Fn(&RemoteRequest) -> Result<RemoteResponse, String> + Send + Sync;

pub struct ScriptedServer {
    script: Box<Script>,
    pub requests: Mutex<Vec<RemoteRequest>>,
    /// The paths of those requests that count for a client, with its address.
    pub of_clients: Mutex<Vec<(String, IpAddr)>>,
    /// The last report about each object.
    pub reports: Mutex<Vec<Option<Diagnostic>>>,
    aws_environment: Option<Arc<AwsEnvironment>>,
}

impl ScriptedServer {
    pub fn new(script: impl Fn(&RemoteRequest) -> Result<RemoteResponse, String> + Send + Sync + 'static) -> Arc<Self> {
        ScriptedServer::in_aws(None, script)
    }

    /// A server whose plugins may have an identity at AWS.
    pub fn in_aws(
        aws_environment: Option<AwsEnvironment>,
        script: impl Fn(&RemoteRequest) -> Result<RemoteResponse, String> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(ScriptedServer {
            script: Box::new(script),
            requests: Mutex::default(),
            of_clients: Mutex::default(),
            reports: Mutex::default(),
            aws_environment: aws_environment.map(Arc::new),
        })
    }

    pub fn request_count(&self) -> usize {
        self.requests.lock().len()
    }

    pub fn last_request(&self) -> RemoteRequest {
        self.requests.lock().last().cloned().expect("the server has got a request")
    }

    pub fn services(self: &Arc<Self>) -> Arc<dyn PluginServices> {
        Arc::clone(self) as _
    }
}

/// A response with these headers, one a line.
pub fn response(status: u16, headers: &str, body: &str) -> RemoteResponse {
    let headers = headers.lines().filter_map(|line| line.trim().split_once(": "));
    RemoteResponse {
        status: StatusCode::from_u16(status).unwrap(),
        headers: headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).fold(
            http::HeaderMap::new(),
            |mut map, (name, value): (http::HeaderName, _)| {
                map.append(name, value);
                map
            },
        ),
        body: body.to_owned().into(),
    }
}

impl PluginServices for ScriptedServer {
    fn address_policy(&self) -> AddressPolicy {
        AddressPolicy::default()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn send(&self, request: RemoteRequest) -> BoxFuture<'static, Result<RemoteResponse, String>> {
        let response = (self.script)(&request);
        self.requests.lock().push(request);
        // Suspends, as a server does: also if several requests that wait for it are polled in turn.
        async move {
            for _ in 0..SUSPENSIONS {
                tokio::task::yield_now().await;
            }
            response
        }
        .boxed()
    }

    fn send_for_client(
        &self,
        address: IpAddr,
        request: RemoteRequest,
    ) -> BoxFuture<'static, Result<RemoteResponse, ClientRequestFailure>> {
        self.of_clients.lock().push((request.target.path().to_owned(), address));
        let sending = self.send(request);
        async move { sending.await.map_err(ClientRequestFailure::Failed) }.boxed()
    }

    fn aws_environment(&self) -> Option<Arc<AwsEnvironment>> {
        self.aws_environment.clone()
    }

    fn send_to_metadata(&self, request: RemoteRequest) -> BoxFuture<'static, Result<RemoteResponse, String>> {
        self.send(request)
    }

    fn report(&self, _object: &str, diagnostic: Option<Diagnostic>) {
        self.reports.lock().push(diagnostic);
    }
}
