//! Where instances of plugins are attached, and which of several attachments takes precedence.

use std::sync::Arc;

/// Where an instance is attached, from the point of view of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachmentPoint {
    Base(BaseScope),
    /// For one consumer, by id.
    Consumer(Arc<str>, OverlayScope),
    /// For the members of one group, by name.
    Group(Arc<str>, OverlayScope),
}

/// What an instance without consumer and group is attached to. The more specific scope is the lesser one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BaseScope {
    Route,
    Service,
    Global,
}

/// What an overlay of a rule is restricted to in addition to a consumer or group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OverlayScope {
    Route,
    Service,
}

/// The scope of an instance of a rule for a consumer or group. The more specific overlay is the lesser one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Overlay {
    ConsumerAndRoute,
    ConsumerAndService,
    GroupAndRoute,
    GroupAndService,
}

impl Overlay {
    pub(super) fn for_consumer(scope: OverlayScope) -> Self {
        match scope {
            OverlayScope::Route => Overlay::ConsumerAndRoute,
            OverlayScope::Service => Overlay::ConsumerAndService,
        }
    }

    pub(super) fn for_group(scope: OverlayScope) -> Self {
        match scope {
            OverlayScope::Route => Overlay::GroupAndRoute,
            OverlayScope::Service => Overlay::GroupAndService,
        }
    }
}
