//! Diagnostics of the servers that plugins use in the background: a Redis server, or the receiver of a log.
//!
//! The plugin of a changed object may use two servers for a while: the new one, and the former one until its last work
//! is done. Each has its own diagnostic, so the end of the former one does not clear the diagnostic of the new one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::hidden_texts::HiddenTexts;
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::services::PluginServices;

/// The diagnostic of one server. It is cleared when this is dropped.
pub struct ServerDiagnostic {
    /// The key in the diagnostics of the object.
    id: u64,
    object: String,
    /// What was noted last.
    is_failing: AtomicBool,
    services: Arc<dyn PluginServices>,
    of_object: Arc<Mutex<ServerDiagnostics>>,
    hidden: Arc<HiddenTexts>,
}

/// The diagnostics of the servers of one object.
#[derive(Default)]
struct ServerDiagnostics {
    last_id: u64,
    by_id: BTreeMap<u64, Diagnostic>,
}

impl ServerDiagnostics {
    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

impl ServerDiagnostic {
    /// For a server that a plugin of this object uses.
    pub fn new(cx: &BuildCx<'_>) -> Self {
        let name = format!("{} server diagnostics", cx.object);
        let of_object = cx.state.get_or_create(&name, Mutex::<ServerDiagnostics>::default);
        let id = of_object.lock().next_id();
        let (object, services) = (cx.object.to_owned(), Arc::clone(cx.services));
        let hidden = HiddenTexts::of_object(cx.state, cx.object);
        ServerDiagnostic { id, object, is_failing: AtomicBool::new(false), services, of_object, hidden }
    }

    /// For another server that the same plugin uses, such as a node of a cluster.
    pub(crate) fn of_same_object(&self) -> Self {
        let id = self.of_object.lock().next_id();
        let (services, of_object) = (Arc::clone(&self.services), Arc::clone(&self.of_object));
        let (object, hidden) = (self.object.clone(), Arc::clone(&self.hidden));
        ServerDiagnostic { id, object, is_failing: AtomicBool::new(false), services, of_object, hidden }
    }

    /// Records whether the server fails now. Returns whether that is a change, which is to be reported.
    pub fn note_failing(&self, is_failing: bool) -> bool {
        // Nearly all calls change nothing, and reading alone does not move the value between processors.
        self.is_failing.load(Relaxed) != is_failing && self.is_failing.swap(is_failing, Relaxed) != is_failing
    }

    /// Whether the server was failing when that was last noted.
    pub fn is_failing(&self) -> bool {
        self.is_failing.load(Relaxed)
    }

    /// The object whose plugin uses the server.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// A message about the server, without values of Secrets and vaults.
    pub fn shown<'m>(&self, message: &'m str) -> Cow<'m, str> {
        self.hidden.hide(message)
    }

    /// Sets the problem of the server, or `None` if there is none. If several servers of the object have a problem, the
    /// one of the newest server is reported.
    pub fn set(&self, diagnostic: Option<Diagnostic>) {
        let mut diagnostics = self.of_object.lock();
        let before = diagnostics.by_id.values().next_back().cloned();
        match diagnostic {
            Some(mut diagnostic) => {
                diagnostic.message = self.shown(&diagnostic.message).into_owned();
                diagnostics.by_id.insert(self.id, diagnostic);
            }
            None => _ = diagnostics.by_id.remove(&self.id),
        }
        let now = diagnostics.by_id.values().next_back().cloned();
        if now != before {
            // While locked, so that reports stay in order.
            self.services.report(&self.object, now);
        }
    }
}

impl Drop for ServerDiagnostic {
    fn drop(&mut self) {
        self.set(None);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::plugin_api::kind::BuildNotes;
    use crate::plugin_api::state::PluginState;

    /// Records the message of the diagnostic that is in effect.
    #[derive(Default)]
    struct RecordReports(Mutex<Option<String>>);

    impl PluginServices for RecordReports {
        fn spawn(&self, task: BoxFuture<'static, ()>) {
            drop(task);
        }

        fn report(&self, object: &str, diagnostic: Option<Diagnostic>) {
            assert_eq!(object, "KongPlugin/a/limit");
            *self.0.lock() = diagnostic.map(|diagnostic| diagnostic.message);
        }
    }

    #[test]
    fn servers_of_one_object_do_not_clear_diagnostics_of_each_other() {
        let (state, notes, reports) = (PluginState::default(), BuildNotes::default(), Arc::<RecordReports>::default());
        let services: Arc<dyn PluginServices> = Arc::clone(&reports) as _;
        let cx = BuildCx { object: "KongPlugin/a/limit", state: &state, services: &services, node: "", notes: &notes };
        let reported = || reports.0.lock().clone();
        let is_down = |server: &str| Some(Diagnostic::in_config("host", format!("{server} is down"), ""));
        let former = ServerDiagnostic::new(&cx);
        former.set(is_down("the former"));
        let new = ServerDiagnostic::new(&cx);
        assert_eq!(reported().as_deref(), Some("the former is down"));
        new.set(is_down("the new"));
        assert_eq!(reported().as_deref(), Some("the new is down"));
        drop(former);
        assert_eq!(reported().as_deref(), Some("the new is down"));
        new.set(None);
        assert_eq!(reported(), None);
        new.set(is_down("the new"));
        drop(new);
        assert_eq!(reported(), None);
    }

    #[test]
    fn host_that_a_secret_contains_is_not_in_the_diagnostic() {
        let (state, notes, reports) = (PluginState::default(), BuildNotes::default(), Arc::<RecordReports>::default());
        let services: Arc<dyn PluginServices> = Arc::clone(&reports) as _;
        let cx = BuildCx { object: "KongPlugin/a/limit", state: &state, services: &services, node: "", notes: &notes };
        let hidden = HiddenTexts::of_object(&state, cx.object);
        hidden.add("key host of Secret redis", "db.internal");
        let server = ServerDiagnostic::new(&cx);
        drop(hidden);
        server.of_same_object().set(Some(Diagnostic::in_config("host", "cannot connect to db.internal:6379", "")));
        server.set(Some(Diagnostic::in_config("host", "cannot connect to db.internal:6379", "")));
        let shown = reports.0.lock().clone();
        assert_eq!(shown.as_deref(), Some("cannot connect to (key host of Secret redis):6379"));
    }
}
