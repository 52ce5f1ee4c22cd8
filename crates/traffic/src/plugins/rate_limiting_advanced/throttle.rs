//! Requests that are held instead of rejected, and their limit.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::plugin_api::BuildCx;

/// Holds requests of one plugin object.
pub(super) struct Throttle {
    settings: ThrottleSettings,
    /// The requests that are held now.
    held: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ThrottleSettings {
    pub(super) interval: Duration,
    pub(super) queue_limit: usize,
    pub(super) retries: u32,
}

/// The place of a request that is held.
pub(super) struct HeldPlace<'t>(&'t AtomicUsize);

impl Throttle {
    pub(super) fn build(settings: ThrottleSettings, cx: &BuildCx<'_>) -> Throttle {
        let held = cx.state.get_or_create(&format!("{} held requests", cx.object), || AtomicUsize::new(0));
        Throttle { settings, held }
    }

    /// A place in the queue, if it is not full.
    pub(super) fn enter(&self) -> Option<HeldPlace<'_>> {
        let has_room = |held: usize| (held < self.settings.queue_limit).then_some(held + 1);
        self.held.fetch_update(Relaxed, Relaxed, has_room).ok().map(|_| HeldPlace(&self.held))
    }

    pub(super) fn interval(&self) -> Duration {
        self.settings.interval
    }

    pub(super) fn retries(&self) -> u32 {
        self.settings.retries
    }
}

impl Drop for HeldPlace<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
