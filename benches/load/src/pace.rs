//! The clock that says when requests are due, on a thread of its own, since the timers of tokio know milliseconds only.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Requests that are due and not yet sent.
pub(crate) struct Tickets {
    due: Mutex<VecDeque<(u64, Instant)>>,
    count: Semaphore,
}

impl Tickets {
    /// Issues `rate` tickets per second for this long, whether or not anybody takes them.
    pub(crate) fn issue(rate: u32, duration: Duration) -> Arc<Tickets> {
        let tickets = Arc::new(Tickets { due: Mutex::default(), count: Semaphore::new(0) });
        let issuer = Arc::clone(&tickets);
        thread::spawn(move || {
            let begin = Instant::now();
            let total = (f64::from(rate) * duration.as_secs_f64()) as u64;
            for number in 0..total {
                let due = begin + Duration::from_secs_f64(number as f64 / f64::from(rate));
                let now = Instant::now();
                if due > now {
                    #[expect(clippy::disallowed_methods, reason = "this thread does nothing but sleep")]
                    thread::sleep(due - now);
                }
                // Waking late is our own slowness and not the proxy's. Waiting for a connection is the proxy's.
                issuer.due.lock().push_back((number, Instant::now().max(due)));
                issuer.count.add_permits(1);
            }
            issuer.count.close();
        });
        tickets
    }

    /// The next request and when it was due. None when all were issued; whoever is late by then takes what is left.
    pub(crate) async fn take(&self) -> Option<(u64, Instant)> {
        if let Ok(permit) = self.count.acquire().await {
            permit.forget();
        }
        self.due.lock().pop_front()
    }
}
