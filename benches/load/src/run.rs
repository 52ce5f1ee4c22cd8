//! Runs a plan: connections that take tickets, send, check and note.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::{Instant, timeout};

use crate::http1::{Answer, Connection};
use crate::pace::Tickets;
use crate::plan::{Plan, Sent, Shape};
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
    for place in 0..shared.plan.kept + shared.plan.fresh {
        let kept = place < shared.plan.kept;
        tasks.spawn_local(connection(Rc::clone(&shared), kept));
    }
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

async fn connection(shared: Rc<Shared>, kept: bool) {
    let plan = &shared.plan;
    let mut open: Option<Connection> = None;
    while let Some((number, due)) = shared.next().await {
        let number_of_shapes = plan.shapes.len() as u64;
        let shape = &plan.shapes[(number % number_of_shapes) as usize];
        // Of the connections for one request, half are closed by the proxy and half by us.
        let last = !kept && (number / number_of_shapes).is_multiple_of(2);
        let begin = Instant::now();
        let exchange = async {
            let mut connection = match open.take() {
                Some(connection) => connection,
                None => connect(plan).await?,
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
        let mut report = shared.report.borrow_mut();
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

async fn connect(plan: &Plan) -> Result<Connection> {
    let stream = TcpStream::connect(plan.target).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    Ok(Connection::new(Box::new(stream)))
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

const PATIENCE: Duration = Duration::from_secs(20);
