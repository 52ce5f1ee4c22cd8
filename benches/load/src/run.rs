//! Runs a plan: connections that take tickets, send requests, verify responses and record results.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;
use tokio::sync::{Barrier, Mutex};
use tokio::task::LocalSet;
use tokio::time::{Instant, timeout};

use crate::http1::{Connection, LoadResponse, Stream};
use crate::pace::Tickets;
use crate::plan::{CompletedRequest, Plan, Protocol, RequestShape};
use crate::report::Report;
use crate::server::CACHE_HOST;
use crate::websocket;
use crate::{grpc_stream, http2};

/// Runs the plan on the current thread and returns the results.
pub async fn run(plan: Plan) -> Report {
    run_open(plan, false, || ()).await
}

/// Like [`run`], but first opens all connections that stay open, each with a request that does not count, and calls
/// `opened` then. What is measured from that moment on has no handshakes.
pub(crate) async fn run_after_opening(plan: Plan, opened: impl FnOnce()) -> Report {
    run_open(plan, true, opened).await
}

async fn run_open(plan: Plan, open_first: bool, opened: impl FnOnce()) -> Report {
    let kept = plan.keep_alive;
    let clients = kept + plan.single_use;
    let state = Rc::new(RunState {
        open_first,
        barrier: Barrier::new(clients + 1),
        schedule: OnceCell::new(),
        report: RefCell::default(),
        plan,
    });
    let tasks = LocalSet::new();
    let mut slot = Slot::default();
    for index in 0..clients {
        let is_kept = index < kept;
        if !is_kept || index % state.plan.streams == 0 {
            slot = Slot::default();
        }
        let (state, slot) = (Rc::clone(&state), Rc::clone(&slot));
        let client = Client { state, slot, is_kept, connection: None, websocket: None, call: None };
        tasks.spawn_local(client.run());
    }
    // This reference would keep the last HTTP/2 connection open.
    drop(slot);
    // First all clients are ready, then there is a schedule for them.
    tasks.run_until(state.barrier.wait()).await;
    opened();
    let begin = Instant::now();
    state.schedule.set(Schedule::starting_now(&state.plan)).ok();
    tasks.run_until(state.barrier.wait()).await;
    tasks.await;
    let mut report = state.report.take();
    report.elapsed = begin.elapsed();
    report.finish();
    report
}

struct RunState {
    plan: Plan,
    /// Whether connections that stay open are opened before the run starts.
    open_first: bool,
    /// Reached twice by all clients and the run: when connections are open, and when the schedule is set.
    barrier: Barrier,
    schedule: OnceCell<Schedule>,
    report: RefCell<Report>,
}

/// When requests are due.
struct Schedule {
    tickets: Option<Arc<Tickets>>,
    end: Instant,
    /// The number of the next request of a run without tickets.
    next_number: Cell<u64>,
}

impl Schedule {
    fn starting_now(plan: &Plan) -> Schedule {
        Schedule {
            tickets: plan.rate.map(|rate| Tickets::issue(rate, plan.duration)),
            end: Instant::now() + plan.duration,
            next_number: Cell::new(0),
        }
    }

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

/// An HTTP/2 connection shared by several clients.
type Slot = Rc<Mutex<Option<http2::Connection>>>;

/// Sends requests, one after another, until the run ends.
struct Client {
    state: Rc<RunState>,
    slot: Slot,
    /// Whether connections stay open after a request.
    is_kept: bool,
    /// The open HTTP/1.1 connection.
    connection: Option<Connection>,
    websocket: Option<websocket::Connection>,
    call: Option<grpc_stream::Call>,
}

impl Client {
    async fn run(mut self) {
        let state = Rc::clone(&self.state);
        let plan = &state.plan;
        if let Some(shape) = plan.shapes.first().filter(|_| state.open_first && self.is_kept) {
            // An error here is reported by the first request that counts, which opens another connection.
            timeout(RESPONSE_TIMEOUT, self.exchange(shape, 0, false)).await.ok();
        }
        state.barrier.wait().await;
        state.barrier.wait().await;
        let Some(schedule) = state.schedule.get() else { return };
        while let Some((number, due)) = schedule.next().await {
            let number_of_shapes = plan.shapes.len() as u64;
            let shape = &plan.shapes[(number % number_of_shapes) as usize];
            // Half of the connections with one request are closed by the proxy, the other half by the client.
            let last_on_connection = !self.is_kept && (number / number_of_shapes).is_multiple_of(2);
            let begin = Instant::now();
            let exchange = self.exchange(shape, number, last_on_connection);
            let outcome = timeout(RESPONSE_TIMEOUT, exchange).await.context("response timeout").flatten();
            let end = Instant::now();
            let mut report = state.report.borrow_mut();
            match outcome {
                Err(error) => report.record_failed(format!("{} {}: {error:#}", shape.method, shape.path)),
                Ok(response) => {
                    let completed = CompletedRequest { shape, number, begin, end };
                    let checked = check_response(&completed, &response).and_then(|()| {
                        plan.response_check.as_ref().map_or(Ok(()), |check| check(&completed, &response))
                    });
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

    /// Sends a request on the open connection, or on a new one, and reads the response.
    async fn exchange(&mut self, shape: &RequestShape, number: u64, last_on_connection: bool) -> Result<LoadResponse> {
        let plan = &self.state.plan;
        if plan.protocol == Protocol::Http2 {
            return self.http2_connection().await?.exchange(shape, number).await;
        }
        if plan.protocol == Protocol::GrpcStream {
            let (mut call, response);
            if let Some(open) = self.call.take() {
                call = open;
                response = call.exchange(number).await?;
            } else {
                call = grpc_stream::Call::open(self.http2_connection().await?, shape, number).await?;
                response = call.read_echo(number).await?;
            }
            self.call = self.is_kept.then_some(call);
            return Ok(response);
        }
        if plan.protocol == Protocol::WebSocket {
            let mut websocket = match self.websocket.take() {
                Some(websocket) => websocket,
                None => websocket::Connection::open(connect(plan, &self.state.report).await?.0, shape).await?,
            };
            let response = websocket.exchange(number).await?;
            self.websocket = self.is_kept.then_some(websocket);
            return Ok(response);
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::new(connect(plan, &self.state.report).await?.0),
        };
        let response = connection.exchange(shape, number, last_on_connection).await?;
        ensure!(last_on_connection || !response.closes, "the proxy closed a keep-alive connection");
        if self.is_kept {
            self.connection = Some(connection);
        }
        Ok(response)
    }

    /// The HTTP/2 connection that this client shares, which is opened if there is none; a new one if it is not kept.
    async fn http2_connection(&self) -> Result<http2::Connection> {
        let mut shared_connection = self.slot.lock().await;
        if !self.is_kept || !shared_connection.as_ref().is_some_and(http2::Connection::is_open) {
            let (stream, scheme) = connect(&self.state.plan, &self.state.report).await?;
            *shared_connection = Some(http2::Connection::new(stream, scheme).await?);
        }
        shared_connection.clone().context("the connection was just opened")
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
    // A cache responds with what it has stored for another request.
    if response.number != Some(completed.number) && completed.shape.host != CACHE_HOST {
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

const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);
