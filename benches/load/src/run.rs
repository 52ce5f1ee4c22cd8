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
    let state = Rc::new(RunState {
        tickets: plan.rate.map(|rate| Tickets::issue(rate, plan.duration)),
        end: begin + plan.duration,
        next_number: Cell::new(0),
        report: RefCell::default(),
        plan,
    });
    let tasks = LocalSet::new();
    let mut slot = Slot::default();
    for index in 0..state.plan.keep_alive + state.plan.single_use {
        let kept = index < state.plan.keep_alive;
        if !kept || index % STREAMS_PER_CONNECTION == 0 {
            slot = Slot::default();
        }
        tasks.spawn_local(send_requests(Rc::clone(&state), Rc::clone(&slot), kept));
    }
    // This reference would keep the last HTTP/2 connection open.
    drop(slot);
    tasks.await;
    let mut report = state.report.take();
    report.elapsed = begin.elapsed();
    report.finish();
    report
}

struct RunState {
    plan: Plan,
    tickets: Option<Arc<Tickets>>,
    end: Instant,
    /// The number of the next request of a run without tickets.
    next_number: Cell<u64>,
    report: RefCell<Report>,
}

impl RunState {
    /// Waits until the next request is due, and returns its number and due time; `None` at the end of the run.
    async fn next(&self) -> Option<(u64, Instant)> {
        if let Some(tickets) = &self.tickets {
            return tickets.take().await;
        }
        let now = Instant::now();
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        (now < self.end).then_some((number, now))
    }
}

/// An HTTP/2 connection shared by several request slots.
type Slot = Rc<Mutex<Option<http2::Connection>>>;

/// Sends requests, one after another, until the run ends.
async fn send_requests(state: Rc<RunState>, slot: Slot, kept: bool) {
    let plan = &state.plan;
    let mut open_connection: Option<Connection> = None;
    while let Some((number, due)) = state.next().await {
        let number_of_shapes = plan.shapes.len() as u64;
        let shape = &plan.shapes[(number % number_of_shapes) as usize];
        // Half of the connections with one request are closed by the proxy, the other half by the client.
        let last_on_connection = !kept && (number / number_of_shapes).is_multiple_of(2);
        let begin = Instant::now();
        let exchange = async {
            if plan.protocol == Protocol::Http2 {
                let mut shared_connection = slot.lock().await;
                if !kept || !shared_connection.as_ref().is_some_and(http2::Connection::is_open) {
                    let (stream, scheme) = connect(plan, &state.report).await?;
                    *shared_connection = Some(http2::Connection::new(stream, scheme).await?);
                }
                let mut connection = shared_connection.clone().context("the connection was just opened")?;
                drop(shared_connection);
                return connection.exchange(shape, number).await;
            }
            let mut connection = match open_connection.take() {
                Some(connection) => connection,
                None => Connection::new(connect(plan, &state.report).await?.0),
            };
            let response = connection.exchange(shape, number, last_on_connection).await?;
            ensure!(last_on_connection || !response.closes, "the proxy closed a keep-alive connection");
            if kept {
                open_connection = Some(connection);
            }
            anyhow::Ok(response)
        };
        let outcome = timeout(RESPONSE_TIMEOUT, exchange).await.context("response timeout").flatten();
        let end = Instant::now();
        let mut report = state.report.borrow_mut();
        match outcome {
            Err(error) => report.record_failed(format!("{} {}: {error:#}", shape.method, shape.path)),
            Ok(response) => {
                let completed = CompletedRequest { shape, number, begin, end };
                let checked = check_response(&completed, &response)
                    .and_then(|()| plan.response_check.as_ref().map_or(Ok(()), |check| check(&completed, &response)));
                match checked {
                    Ok(()) => report.record_good(end - due, response.length),
                    Err(message) => {
                        report.record_wrong(format!("{} {}: {message}: {response:?}", shape.method, shape.path))
                    }
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
    if let Some(check_certificate) = &plan.certificate_check {
        check_certificate(begin, Instant::now(), &certificate).map_err(|message| anyhow::anyhow!(message))?;
    }
    Ok((Box::new(stream), "https"))
}

/// Checks that apply to every response.
fn check_response(completed: &CompletedRequest<'_>, response: &LoadResponse) -> Result<(), String> {
    let RequestShape { body, response_length: length, .. } = completed.shape;
    if response.status != 200 {
        return Err(format!("status {}", response.status));
    }
    if response.number != Some(completed.number) {
        return Err(format!("this is the response to request {:?}, not {}", response.number, completed.number));
    }
    if response.received != Some(body.unwrap_or_default()) {
        return Err("the backend received a different body".to_owned());
    }
    if response.length != *length || response.differs {
        return Err("the body differs from the expected one".to_owned());
    }
    Ok(())
}

/// Concurrent requests on a keep-alive HTTP/2 connection.
const STREAMS_PER_CONNECTION: usize = 8;
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);
