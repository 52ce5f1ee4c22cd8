//! What remains of the authorization of a request until its end.

use http::{HeaderName, Response};

use super::header_changes::HeaderChanges;
use crate::proxy::buffer_budget::BufferedBytes;

#[derive(Default)]
pub(in crate::proxy) struct AuthorizationRecord {
    changes: HeaderChanges,
    /// The bytes of a response that denies the request.
    _kept: Option<BufferedBytes>,
}

impl AuthorizationRecord {
    /// Keeps the bytes of the response that denies a request.
    pub(super) fn of_denial(kept: BufferedBytes) -> Self {
        AuthorizationRecord { changes: HeaderChanges::default(), _kept: Some(kept) }
    }

    /// Adds changes of the response to a request that was allowed.
    pub(super) fn extend(&mut self, changes: HeaderChanges) {
        self.changes.extend(changes);
    }

    /// Changes the response to a request that was allowed.
    pub(in crate::proxy) fn change_response<B>(&self, response: &mut Response<B>) {
        self.changes.apply(response.headers_mut());
    }

    /// The names of the headers of the response that may change.
    pub(in crate::proxy) fn changed_names(&self) -> impl Iterator<Item = &HeaderName> {
        self.changes.names()
    }
}
