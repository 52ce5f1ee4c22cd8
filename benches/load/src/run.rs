//! Runs a plan: connections that take tickets, send, check and note.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::LocalSet;
use tokio::time::{Instant, timeout};

use crate::http1::{Answer, Connection, Stream};
use crate::http2;
use crate::pace::Tickets;
use crate::plan::{Plan, Protocol, Sent, Shape};
use crate::report::Report;

/// Sends what the plan says and reports how it went. Runs on the thread that calls it.
pub async fn run(plan: Plan) -> Report {
    let begin = Instant::now();
    let shared = Rc::new(Shared {
        tickets: plan.rate.map(|rate| Tickets::issue(rate, plan.duration)),
        end: begin + plan.duration,
        next: Cell::new(0),
        report: RefCell::default(),
        plan,
    });
    let tasks = LocalSet::new();
    let mut slot = Slot::default();
    for place in 0..shared.plan.kept + shared.plan.fresh {
        let kept = place < shared.plan.kept;
        if !kept || place % STREAMS == 0 {
            slot = Slot::default();
        }
        tasks.spawn_local(connection(Rc::clone(&shared), Rc::clone(&slot), kept));
    }
    // It would keep the last connection of HTTP/2 open.
    drop(slot);
    tasks.await;
    let mut report = shared.report.take();
    report.elapsed = begin.elapsed();
    report.finish();
    report
}

struct Shared {
    plan: Plan,
    tickets: Option<Arc<Tickets>>,
    end: Instant,
    next: Cell<u64>,
    report: RefCell<Report>,
}

impl Shared {
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

/// The connection of HTTP/2 that several places share.
type Slot = Rc<Mutex<Option<http2::Connection>>>;

async fn connection(all: Rc<Shared>, slot: Slot, kept: bool) {
    let plan = &all.plan;
    let mut open: Option<Connection> = None;
    while let Some((number, due)) = all.next().await {
        let number_of_shapes = plan.shapes.len() as u64;
        let shape = &plan.shapes[(number % number_of_shapes) as usize];
        // Of the connections for one request, half are closed by the proxy and half by us.
        let last = !kept && (number / number_of_shapes).is_multiple_of(2);
        let begin = Instant::now();
        let exchange = async {
            if plan.protocol == Protocol::Http2 {
                let mut shared = slot.lock().await;
                if !kept || !shared.as_ref().is_some_and(http2::Connection::is_open) {
                    let (stream, scheme) = connect(plan, &all.report).await?;
                    *shared = Some(http2::Connection::new(stream, scheme).await?);
                }
                let mut connection = shared.clone().context("a connection was just made")?;
                drop(shared);
                return connection.exchange(shape, number).await;
            }
            let mut connection = match open.take() {
                Some(connection) => connection,
                None => Connection::new(connect(plan, &all.report).await?.0),
            };
            let answer = connection.exchange(shape, number, last).await?;
            ensure!(last || !answer.last, "the proxy closes a connection that was to be kept");
            if kept {
                open = Some(connection);
            }
            anyhow::Ok(answer)
        };
        let outcome = timeout(PATIENCE, exchange).await.context("no answer in time").flatten();
        let end = Instant::now();
        let mut report = all.report.borrow_mut();
        match outcome {
            Err(error) => report.failed(format!("{} {}: {error:#}", shape.method, shape.path)),
            Ok(answer) => {
                let sent = Sent { shape, number, begin, end };
                let verdict = check(&sent, &answer)
                    .and_then(|()| plan.judge.as_ref().map_or(Ok(()), |judge| judge(&sent, &answer)));
                match verdict {
                    Ok(()) => report.good(end - due, answer.length),
                    Err(message) => report.wrong(format!("{} {}: {message}: {answer:?}", shape.method, shape.path)),
                }
            }
        }
    }
}

/// What goes over it, and the scheme that it is for.
pub(crate) async fn connect(plan: &Plan, report: &RefCell<Report>) -> Result<(Box<dyn Stream>, &'static str)> {
    let begin = Instant::now();
    let stream = TcpStream::connect(plan.target).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    let Some(tls) = &plan.tls else { return Ok((Box::new(stream), "http")) };
    let (stream, certificate, resumed) = tls.connect(stream).await?;
    report.borrow_mut().shook_hands(resumed);
    if let Some(inspect) = &plan.inspect {
        inspect(begin, Instant::now(), &certificate).map_err(|message| anyhow::anyhow!(message))?;
    }
    Ok((Box::new(stream), "https"))
}

/// What holds for every answer.
fn check(sent: &Sent<'_>, answer: &Answer) -> Result<(), String> {
    let Shape { body, answer: length, .. } = sent.shape;
    if answer.status != 200 {
        return Err(format!("status {}", answer.status));
    }
    if answer.number != Some(sent.number) {
        return Err(format!("this is the answer to request {:?}, not {}", answer.number, sent.number));
    }
    if answer.received != Some(body.unwrap_or_default()) {
        return Err("the backend got another body".to_owned());
    }
    if answer.length != *length || answer.differs {
        return Err("the body is another one".to_owned());
    }
    Ok(())
}

/// Requests that share a kept connection of HTTP/2 at a time.
const STREAMS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(20);
