//! The limit of bodies in memory for plugins that collect responses in place of a backend.

use std::cell::Cell;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;

use crate::plugin_api::body_budget::BudgetExceeded;
use crate::plugin_api::{BodyBudget, KeptBytes};
use crate::proxy::buffer_budget::{BufferUse, BufferedBytes};
use crate::proxy::http::exchange::client_exchange::ClientExchange;

/// What the plugins of one request may take.
pub(super) struct ReplyBudget<'r> {
    exchange: &'r ClientExchange,
    /// That of the route.
    namespace: &'r str,
    is_exceeded: Rc<Cell<bool>>,
}

struct ReplyBytes {
    bytes: BufferedBytes,
    is_exceeded: Rc<Cell<bool>>,
}

impl<'r> ReplyBudget<'r> {
    pub(super) fn new(exchange: &'r ClientExchange, namespace: &'r str) -> Self {
        ReplyBudget { exchange, namespace, is_exceeded: Rc::default() }
    }

    /// Whether some body did not get its bytes.
    pub(super) fn is_exceeded(&self) -> bool {
        self.is_exceeded.get()
    }
}

impl BodyBudget for ReplyBudget<'_> {
    fn begin(&self) -> Box<dyn KeptBytes> {
        let bytes = self.exchange.buffered(BufferUse::Response, self.namespace);
        Box::new(ReplyBytes { bytes, is_exceeded: Rc::clone(&self.is_exceeded) })
    }
}

impl KeptBytes for ReplyBytes {
    fn grow(&mut self, bytes: usize) -> LocalBoxFuture<'_, Result<(), BudgetExceeded>> {
        Box::pin(async move {
            self.bytes.grow(bytes).await.map_err(|_| {
                self.is_exceeded.set(true);
                BudgetExceeded
            })
        })
    }

    fn bytes(&self) -> usize {
        self.bytes.bytes()
    }
}
