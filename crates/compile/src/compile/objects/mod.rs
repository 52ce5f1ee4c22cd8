//! What objects of several kinds have in common: annotations, references, selectors, host names, and the two kinds of
//! routes for requests.

pub(super) mod annotation_reader;
pub(super) mod duration;
pub(super) mod hostname;
pub(super) mod label_selector;
pub(super) mod missing_object;
pub(super) mod reference_grants;
pub(super) mod request_route;
pub(super) mod route_kind;
pub(super) mod rule_content;
