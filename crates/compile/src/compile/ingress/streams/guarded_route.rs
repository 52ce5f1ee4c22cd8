//! A route for connections or datagrams behind the plugins of its object and Services, in any dialect.

use std::sync::Arc;

use crate::compile::CompileContext;
use crate::compile::kong::plugins::{Plugins, StreamPluginSite, StreamPlugins};
use crate::diagnostic::Diagnostic;
use crate::snapshot::rule::{RouteFailure, RuleId};
use crate::snapshot::stream::{StreamAction, StreamOptions, StreamRoute};

/// What a route does if its plugins permit it.
#[derive(Debug)]
pub(in crate::compile::ingress) struct UnguardedStream {
    pub id: RuleId,
    pub action: StreamAction,
    pub options: Option<Arc<StreamOptions>>,
}

/// A route, with the diagnostics about its plugins.
#[derive(Debug)]
pub(in crate::compile::ingress) struct GuardedRoute {
    pub route: Arc<StreamRoute>,
    /// Of plugins that restrict connections and cannot be used, because of which the route resets all of them.
    pub errors: Vec<Diagnostic>,
    pub notes: Vec<Diagnostic>,
}

impl UnguardedStream {
    /// `site`: where the plugins are named; it gets the backends of the action.
    pub(in crate::compile::ingress) fn guarded(
        self,
        cx: CompileContext<'_>,
        plugins: &Plugins,
        site: StreamPluginSite<'_>,
    ) -> GuardedRoute {
        let UnguardedStream { id, action, options } = self;
        let backends = match &action {
            StreamAction::Forward(split) => split.backends(),
            StreamAction::Reset(_) => &[],
        };
        let found = plugins.stream_chain(cx, &StreamPluginSite { backends, ..site });
        let StreamPlugins { chain, missing_guards: errors, diagnostics: notes } = found;
        let action = if errors.is_empty() { action } else { StreamAction::Reset(RouteFailure::Unsupported) };
        GuardedRoute { route: Arc::new(StreamRoute { id, plugins: chain, action, options }), errors, notes }
    }
}
