//! One request and its answer as the books see them: counted and logged exactly once, however it ends.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};
use tokio::time::{Instant, Sleep, sleep_until};

use super::access_log::Record;
use super::activity::Phase;
use super::connection::Peer;
use super::fault::{CLIENT_GONE, CLIENT_GONE_STATUS, Fault};
use super::kong::Kong;
use super::passage::Through;
use super::refusal::Glimpse;
use super::request_id::X_REQUEST_ID;
use super::stats::Series;
use crate::snapshot::cors::Grant;

/// An open entry in the books. Dropping it closes it: a client that goes away takes its request with it.
pub(crate) struct Exchange {
    pub(crate) peer: Rc<Peer>,
    pub(crate) id: HeaderValue,
    pub(crate) series: Option<Arc<Series>>,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) fault: Option<&'static str>,
    /// None until there is an answer.
    pub(crate) status: Option<StatusCode>,
    pub(crate) bytes_out: u64,
    /// What the answer says to pages of other origins.
    pub(crate) grant: Option<Box<Grant>>,
    /// Of requests that met plugins.
    pub(crate) through: Option<Box<Through>>,
    /// Of requests that are treated as Kong would.
    pub(crate) kong: Option<Kong>,
    /// Boxed, since few requests have one.
    pub(crate) cut_off: Option<Box<CutOff>>,
    /// Only kept if there is a log.
    line: Option<Line>,
    closed: bool,
}

/// When the answer has to be complete.
pub(crate) struct CutOff {
    pub(crate) sleep: Pin<Box<Sleep>>,
    /// What it is called if it is not.
    pub(crate) fault: Fault,
}

impl CutOff {
    pub(crate) fn at(end: Instant, fault: Fault) -> Box<Self> {
        Box::new(CutOff { sleep: Box::pin(sleep_until(end)), fault })
    }
}

struct Line {
    method: Method,
    target: Uri,
    version: Version,
    host: Option<HeaderValue>,
    agent: Option<HeaderValue>,
}

impl Exchange {
    pub(crate) fn open<B>(peer: &Rc<Peer>, request: &Request<B>) -> Self {
        peer.activity.begin();
        let worker = &peer.worker;
        let given = if peer.client.trusted { request.headers().get(X_REQUEST_ID) } else { None };
        let id = given.filter(|id| !id.is_empty()).cloned().unwrap_or_else(|| worker.request_ids.next());
        let line = (!worker.log.is_off()).then(|| Line {
            method: request.method().clone(),
            target: request.uri().clone(),
            version: request.version(),
            host: host(request),
            agent: request.headers().get(USER_AGENT).cloned(),
        });
        Exchange {
            peer: Rc::clone(peer),
            id,
            series: None,
            address: None,
            fault: None,
            status: None,
            bytes_out: 0,
            grant: None,
            through: None,
            kong: Kong::always(peer),
            cut_off: None,
            line,
            closed: false,
        }
    }

    /// The answer is complete, or will never be.
    pub(crate) fn close(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let activity = &self.peer.activity;
        let worker = &self.peer.worker;
        if let Some(word) = self.fault {
            worker.fault(word);
        }
        let now = Instant::now();
        activity.enter(Phase::Idle, now);
        let duration = now - activity.started.get();
        let status = self.status.or(StatusCode::from_u16(CLIENT_GONE_STATUS).ok()).unwrap_or_default();
        let series = self.series.get_or_insert_with(|| worker.unrouted());
        series.add(status, duration, activity.bytes_in.get(), self.bytes_out);
        if let Some(through) = &self.through {
            let bytes = (activity.bytes_in.get(), self.bytes_out);
            through.log(&worker.ledger, status, duration, activity.sent.get(), bytes);
        }
        if let Some(line) = self.line.take() {
            worker.log.write(&Record {
                time: SystemTime::now() - duration,
                client: self.peer.address,
                tls: self.peer.session.as_ref().map(|session| session.version),
                server_name: self.peer.session.as_ref().and_then(|session| session.server_name.clone()),
                method: Some(line.method),
                version: Some(line.version),
                host: line.host,
                target: Some(line.target),
                status,
                bytes_in: activity.bytes_in.get(),
                bytes_out: self.bytes_out,
                duration,
                labels: Some(Arc::clone(&series.labels)),
                address: self.address,
                consumer: self.through.as_ref().and_then(|through| through.consumer()),
                id: Some(self.id.clone()),
                fault: self.fault,
                agent: line.agent,
            });
        }
    }
}

/// Books what came instead of a request. `id` is that of its answer, if there is one.
pub(crate) fn unreadable(
    peer: &Peer,
    mut glimpse: Glimpse,
    status: StatusCode,
    fault: &'static str,
    id: Option<HeaderValue>,
    bytes_out: u64,
) {
    let duration = peer.activity.head_since().map_or(Duration::ZERO, |since| since.elapsed());
    peer.worker.unrouted().add(status, duration, 0, bytes_out);
    peer.worker.fault(fault);
    peer.worker.log.write(&Record {
        time: SystemTime::now() - duration,
        client: peer.address,
        tls: peer.session.as_ref().map(|session| session.version),
        server_name: peer.session.as_ref().and_then(|session| session.server_name.clone()),
        method: glimpse.method,
        version: glimpse.version,
        host: glimpse.headers.remove(HOST),
        target: glimpse.target,
        status,
        bytes_in: 0,
        bytes_out,
        duration,
        labels: None,
        address: None,
        consumer: None,
        id,
        fault: Some(fault),
        agent: glimpse.headers.remove(USER_AGENT),
    });
}

fn host<B>(request: &Request<B>) -> Option<HeaderValue> {
    let authority = || HeaderValue::try_from(request.uri().authority()?.as_str()).ok();
    request.headers().get(HOST).cloned().or_else(authority)
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.closed {
            let late = self.cut_off.as_ref().filter(|cut_off| cut_off.sleep.deadline() <= Instant::now());
            let word = late.map_or(CLIENT_GONE, |cut_off| cut_off.fault.account().word);
            self.fault.get_or_insert(word);
            self.close();
        }
    }
}
