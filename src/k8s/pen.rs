//! Who writes in the leader's name holds the pen, so that the Lease is given back only when nobody does any more.

use std::sync::Arc;

use tokio::sync::{OwnedRwLockReadGuard, RwLock};

/// Clones are the same pen. Several may hold it at a time.
#[derive(Clone, Debug, Default)]
pub struct Pen(Arc<RwLock<()>>);

/// Held for as long as something may be on its way to the API server.
#[derive(Debug)]
pub struct Held {
    _guard: OwnedRwLockReadGuard<()>,
}

impl Pen {
    pub async fn hold(&self) -> Held {
        Held { _guard: self.0.clone().read_owned().await }
    }

    /// Waits until nobody holds it.
    pub(super) async fn put_down(&self) {
        drop(self.0.write().await);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_put_down_when_the_last_has_let_go() {
        let pen = Pen::default();
        let (one, two) = (pen.hold().await, pen.clone().hold().await);
        drop(one);
        assert!(timeout(Duration::from_secs(9), pen.put_down()).await.is_err(), "the other still writes");
        drop(two);
        pen.put_down().await;
        pen.put_down().await;
    }
}
