//! Clock for due requests, in a separate thread because timers of tokio have a resolution of milliseconds.

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
    /// Issues `rate` tickets per second for `duration`, independent of their use.
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
                // A late wake-up is a delay of this program and not counted; waiting for a connection is counted.
                issuer.due.lock().push_back((number, Instant::now().max(due)));
                issuer.count.add_permits(1);
            }
            issuer.count.close();
        });
        tickets
    }

    /// The next request and its due time. `None` after all tickets were issued and taken.
    pub(crate) async fn take(&self) -> Option<(u64, Instant)> {
        if let Ok(permit) = self.count.acquire().await {
            permit.forget();
        }
        self.due.lock().pop_front()
    }
}
