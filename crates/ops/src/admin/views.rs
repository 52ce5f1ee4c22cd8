//! The views of the admin listener: their names, what a request selects of them, and their formats.

use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::renderings::Rendering;
use super::response::{AdminResponse, JSON, text};

/// Builds the value of a view. The value may be large, so the function is called on a blocking thread.
pub type ViewContent = Box<dyn FnOnce() -> Value + Send>;

/// The available views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminView {
    Circuits,
    Hash,
    Policies,
    Snapshot,
    Store,
    Upstreams,
    Usage,
    Verdicts,
}

/// A view, or the part of it that is about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewRequest {
    pub view: AdminView,
    /// What the view is limited to. `None`: everything.
    pub selector: Option<Box<str>>,
}

impl AdminView {
    pub const ALL: [AdminView; 8] = [
        AdminView::Circuits,
        AdminView::Hash,
        AdminView::Policies,
        AdminView::Snapshot,
        AdminView::Store,
        AdminView::Upstreams,
        AdminView::Usage,
        AdminView::Verdicts,
    ];

    pub fn name(self) -> &'static str {
        match self {
            AdminView::Circuits => "circuits",
            AdminView::Hash => "hash",
            AdminView::Policies => "policies",
            AdminView::Snapshot => "snapshot",
            AdminView::Store => "store",
            AdminView::Upstreams => "upstreams",
            AdminView::Usage => "usage",
            AdminView::Verdicts => "verdicts",
        }
    }

    pub(super) fn description(self) -> &'static str {
        match self {
            AdminView::Circuits => "circuit breakers and limits of Services, and their state",
            AdminView::Hash => "the hash of the snapshot, the same in all replicas with the same configuration",
            AdminView::Policies => "the settings of Services, and the objects that configure them",
            AdminView::Snapshot => "the routing configuration: listeners, hosts, rules, backends",
            AdminView::Store => "the objects that the snapshot was compiled from",
            AdminView::Upstreams => "the health of endpoints",
            AdminView::Usage => "what clients with usage plans have used, by client and route",
            AdminView::Verdicts => "the conditions of each object",
        }
    }

    /// The query parameter that limits the view to one object, and what its value is.
    fn selector(self) -> Option<(&'static str, &'static str)> {
        match self {
            AdminView::Circuits | AdminView::Upstreams => Some(("name", "UPSTREAM")),
            AdminView::Policies => Some(("target", "SERVICE")),
            AdminView::Hash | AdminView::Snapshot | AdminView::Store | AdminView::Usage | AdminView::Verdicts => None,
        }
    }
}

impl ViewRequest {
    /// Reads a query, such as `name=shop/cart:80&o=yaml`. The error is a message for the client.
    pub(super) fn parse(view: AdminView, query: &str) -> Result<(ViewRequest, ViewFormat), String> {
        let (mut selector, mut format) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let is_selector = view.selector().is_some_and(|(known, _)| known == name);
            match (name, value) {
                ("o", "json") if format.is_none() => format = Some(ViewFormat::Json),
                ("o", "yaml") if format.is_none() => format = Some(ViewFormat::Yaml),
                (_, value) if is_selector && selector.is_none() && (1..=MAX_SELECTOR).contains(&value.len()) => {
                    let decoded = percent_decode_str(value).decode_utf8().map_err(|_| view.unknown_query(pair))?;
                    selector = Some(decoded.into());
                }
                _ => return Err(view.unknown_query(pair)),
            }
        }
        Ok((ViewRequest { view, selector }, format.unwrap_or(ViewFormat::Json)))
    }
}

impl AdminView {
    fn unknown_query(self, pair: &str) -> String {
        let selector = self.selector().map(|(name, value)| format!(", and {name}={value}")).unwrap_or_default();
        let shown = &pair[..pair.floor_char_boundary(40)];
        format!("unknown query {shown:?}; use o=json or o=yaml{selector}")
    }
}

/// The longest name of an upstream has two names of Kubernetes, and that of a facade.
const MAX_SELECTOR: usize = 900;

/// How a view is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ViewFormat {
    Json,
    Yaml,
}

impl ViewFormat {
    pub(super) fn render(self, value: &Value) -> Result<Rendering, Box<AdminResponse>> {
        match self {
            ViewFormat::Json => Ok(Rendering { content_type: JSON, text: format!("{value:#}\n") }),
            ViewFormat::Yaml => match serde_saphyr::to_string(value) {
                Ok(text) => Ok(Rendering { content_type: "application/yaml", text }),
                Err(error) => {
                    let message = format!("the view could not be written as YAML: {error}");
                    Err(Box::new(text(StatusCode::INTERNAL_SERVER_ERROR, &message)))
                }
            },
        }
    }
}
