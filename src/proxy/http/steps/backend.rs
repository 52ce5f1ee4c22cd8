//! The action of a rule: fails the request, or selects the backend, whose filters and usability the steps that follow
//! ask for.

use http::Request;

use super::cross_origin::apply_cors;
use super::early_exit::EarlyExit;
use super::plugins::may_stand_in_for_backend;
use super::request_context::RequestContext;
use crate::proxy::http::exchange::request_body::RequestBody;
use crate::proxy::http::record::request_error::RequestError;
use crate::snapshot::external_auth::ExternalAuthFilter;
use crate::snapshot::redirect::RedirectAction;
use crate::snapshot::rule::{Action, Backend, BackendTarget, Filters, RouteFailure, RouteRule, WeightedBackends};

/// What the rule does with a request, and the selected backend.
#[derive(Clone, Copy)]
pub(in crate::proxy) enum SelectedAction<'r> {
    Redirect(&'r RedirectAction),
    Forward(&'r WeightedBackends, &'r Backend),
    /// The rule has no backends, and a plugin may respond in their place. Otherwise, the request fails.
    StandIn(RouteFailure),
}

/// Selects the backend of a request that the rule forwards. Ends requests that the rule fails.
pub(in crate::proxy) fn select<'r>(
    cx: &mut RequestContext<'r>,
    rule: &'r RouteRule,
) -> Result<SelectedAction<'r>, RequestError> {
    match &rule.action {
        Action::Forward(backends) => {
            // A choice whose backend has no endpoints may have a fallback. The rule's backend gets the request then,
            // and no cache stores its response as that of the chosen one.
            let choice = cx.record.plugin_run.as_mut().map(|run| &mut run.state.chosen_backend);
            let chosen = choice.and_then(|choice| {
                let chosen = choice.and_then(|choice| backends.chosen(choice));
                if chosen.is_none() {
                    *choice = None;
                }
                chosen
            });
            let backend = chosen.unwrap_or_else(|| cx.view.pick_backend(backends));
            cx.backend = Some(backend);
            Ok(SelectedAction::Forward(backends, backend))
        }
        Action::Redirect(action) => Ok(SelectedAction::Redirect(action)),
        // A function, for example, needs no backend. The authorization server of the rule still decides before it.
        // Nothing responds in place of a Service that is missing, because its own plugins could have refused.
        Action::Fail(failure @ (RouteFailure::NoBackends | RouteFailure::WithoutService))
            if may_stand_in_for_backend(cx) =>
        {
            Ok(SelectedAction::StandIn(*failure))
        }
        Action::Fail(failure) => Err(RequestError::InvalidRule(*failure)),
    }
}

impl<'r> SelectedAction<'r> {
    fn backend_filters(self) -> Option<&'r Filters> {
        match self {
            SelectedAction::Redirect(_) | SelectedAction::StandIn(_) => None,
            SelectedAction::Forward(_, backend) => Some(&backend.filters),
        }
    }

    /// Ends CORS preflight requests, if the backend or the rule has a filter for them. Before checking whether the
    /// backend is usable, because browsers show errors only to pages that may read the response.
    pub(in crate::proxy) fn answer_preflight(
        self,
        cx: &mut RequestContext<'_>,
        rule: &RouteRule,
        request: &Request<RequestBody>,
    ) -> Result<(), EarlyExit> {
        let cors = self.backend_filters().and_then(|filters| filters.cors.as_ref()).or(rule.filters.cors.as_ref());
        cors.map_or(Ok(()), |cors| apply_cors(cors, request, cx.record))
    }

    /// The authorization filters of the rule and of the backend, in the order in which they apply.
    pub(in crate::proxy) fn authorization(self, rule: &'r RouteRule) -> [Option<&'r ExternalAuthFilter>; 2] {
        [Some(&rule.filters), self.backend_filters()].map(|filters| filters?.external_auth.as_deref())
    }

    /// Whether the request goes to a backend that can get it, or to a plugin in place of backends.
    pub(in crate::proxy) fn is_forwarded(self) -> bool {
        match self {
            SelectedAction::Redirect(_) => false,
            SelectedAction::Forward(_, backend) => matches!(backend.target, BackendTarget::Upstream(_)),
            SelectedAction::StandIn(_) => true,
        }
    }
}

/// Ends the dry run of an observed request: selects the backend, without filters and plugins.
pub(in crate::proxy) fn dry_run<'r>(cx: &mut RequestContext<'r>, rule: &'r RouteRule) -> EarlyExit {
    let failure = match &rule.action {
        Action::Forward(backends) => {
            let backend = cx.view.pick_backend(backends);
            cx.backend = Some(backend);
            match &backend.target {
                BackendTarget::Upstream(_) => None,
                BackendTarget::Fail(failure) => Some(*failure),
            }
        }
        Action::Redirect(_) => None,
        Action::Fail(failure) => Some(*failure),
    };
    failure.map_or(EarlyExit::DryRun, |failure| RequestError::InvalidRule(failure).into())
}
