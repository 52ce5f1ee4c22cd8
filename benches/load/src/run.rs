//! Runs a plan: connections that take tickets, send requests, verify responses and record results.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::LocalSet;
use tokio::time::{Instant, timeout};

use crate::http1::{Connection, LoadResponse, Stream};
use crate::http2;
use crate::pace::Tickets;
use crate::plan::{CompletedRequest, Plan, Protocol, RequestShape};
use crate::report::Report;

/// Runs the plan on the current thread and returns the results.
pub async fn run(plan: Plan) -> Report {
    let begin = Instant::now();
    let shared = Rc::new(RunState {
        tickets: plan.rate.map(|rate| Tickets::issue(rate, plan.duration)),
        end: begin + plan.duration,
        next: Cell::new(0),
        report: RefCell::default(),
        plan,
    });
    let tasks = LocalSet::new();
    let mut slot = Slot::default();
    for place in 0..shared.plan.keep_alive + shared.plan.single_use {
        let kept = place < shared.plan.keep_alive;
        if !kept || place % STREAMS == 0 {
            slot = Slot::default();
        }
        tasks.spawn_local(connection(Rc::clone(&shared), Rc::clone(&slot), kept));
    }
    // It would keep the last HTTP/2 connection open.
    drop(slot);
    tasks.await;
    let mut report = shared.report.take();
    report.elapsed = begin.elapsed();
    report.finish();
    report
}

struct RunState {
    plan: Plan,
    tickets: Option<Arc<Tickets>>,
    end: Instant,
    next: Cell<u64>,
    report: RefCell<Report>,
}

impl RunState {
    /// Waits until the next request is due.
    async fn next(&self) -> Option<(u64, Instant)> {
        if let Some(tickets) = &self.tickets {
            return tickets.take().await;
        }
        let now = Instant::now();
        let number = self.next.get();
        self.next.set(number + 1);
        (now < self.end).then_some((number, now))
    }
}

/// An HTTP/2 connection shared by several request slots.
type Slot = Rc<Mutex<Option<http2::Connection>>>;

async fn connection(all: Rc<RunState>, slot: Slot, kept: bool) {
    let plan = &all.plan;
    let mut open: Option<Connection> = None;
    while let Some((number, due)) = all.next().await {
        let number_of_shapes = plan.shapes.len() as u64;
        let shape = &plan.shapes[(number % number_of_shapes) as usize];
        // Half of the connections with one request are closed by the proxy, the other half by the client.
        let last = !kept && (number / number_of_shapes).is_multiple_of(2);
        let begin = Instant::now();
        let exchange = async {
            if plan.protocol == Protocol::Http2 {
                let mut shared = slot.lock().await;
                if !kept || !shared.as_ref().is_some_and(http2::Connection::is_open) {
                    let (stream, scheme) = connect(plan, &all.report).await?;
                    *shared = Some(http2::Connection::new(stream, scheme).await?);
                }
                let mut connection = shared.clone().context("the connection was just opened")?;
                drop(shared);
                return connection.exchange(shape, number).await;
            }
            let mut connection = match open.take() {
                Some(connection) => connection,
                None => Connection::new(connect(plan, &all.report).await?.0),
            };
            let answer = connection.exchange(shape, number, last).await?;
            ensure!(last || !answer.closes, "the proxy closed a keep-alive connection");
            if kept {
                open = Some(connection);
            }
            anyhow::Ok(answer)
        };
        let outcome = timeout(RESPONSE_TIMEOUT, exchange).await.context("response timeout").flatten();
        let end = Instant::now();
        let mut report = all.report.borrow_mut();
        match outcome {
            Err(error) => report.failed(format!("{} {}: {error:#}", shape.method, shape.path)),
            Ok(answer) => {
                let sent = CompletedRequest { shape, number, begin, end };
                let verdict = check(&sent, &answer)
                    .and_then(|()| plan.response_check.as_ref().map_or(Ok(()), |judge| judge(&sent, &answer)));
                match verdict {
                    Ok(()) => report.good(end - due, answer.length),
                    Err(message) => report.wrong(format!("{} {}: {message}: {answer:?}", shape.method, shape.path)),
                }
            }
        }
    }
}

/// Connects to the target. Returns the stream and the URL scheme.
pub(crate) async fn connect(plan: &Plan, report: &RefCell<Report>) -> Result<(Box<dyn Stream>, &'static str)> {
    let begin = Instant::now();
    let stream = TcpStream::connect(plan.target).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    let Some(tls) = &plan.tls else { return Ok((Box::new(stream), "http")) };
    let (stream, certificate, resumed) = tls.connect(stream).await?;
    report.borrow_mut().record_handshake(resumed);
    if let Some(inspect) = &plan.certificate_check {
        inspect(begin, Instant::now(), &certificate).map_err(|message| anyhow::anyhow!(message))?;
    }
    Ok((Box::new(stream), "https"))
}

/// Checks that apply to every response.
fn check(sent: &CompletedRequest<'_>, answer: &LoadResponse) -> Result<(), String> {
    let RequestShape { body, answer: length, .. } = sent.shape;
    if answer.status != 200 {
        return Err(format!("status {}", answer.status));
    }
    if answer.number != Some(sent.number) {
        return Err(format!("this is the response to request {:?}, not {}", answer.number, sent.number));
    }
    if answer.received != Some(body.unwrap_or_default()) {
        return Err("the backend received a different body".to_owned());
    }
    if answer.length != *length || answer.differs {
        return Err("the body differs from the expected one".to_owned());
    }
    Ok(())
}

/// Concurrent requests on a keep-alive HTTP/2 connection.
const STREAMS: usize = 8;
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);
