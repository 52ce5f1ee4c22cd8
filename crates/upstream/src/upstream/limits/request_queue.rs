//! The requests that wait for a slot of an upstream, in order.
//!
//! A full queue takes the request of a client that has fewer waiting than another one: the newest request of the client
//! with the most gives way. So a client that sends many requests cannot keep the queue from others, and a client that
//! is alone can use all of it.

use std::collections::BTreeMap;

use tokio::sync::oneshot::Sender;

use super::request_slots::{QueueEnd, RequestSlot};
use crate::upstream::socket_budget::client_slots::{ClientSlot, SLOTS};

/// What a waiting request gets.
pub(super) type QueueResult = Result<RequestSlot, QueueEnd>;

/// Requests that wait, by client and number.
#[derive(Debug, Default)]
pub(super) struct RequestQueue {
    /// Empty until the first request waits. Ordered maps, so that a request that leaves is found at once.
    clients: Vec<BTreeMap<u64, Sender<QueueResult>>>,
    length: usize,
    next_number: u64,
}

/// The queue takes no further request of the client.
#[derive(Debug)]
pub(super) struct QueueFull;

impl RequestQueue {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Adds a request, with its number. Also returns the request that gives way to it.
    pub(super) fn push(
        &mut self,
        client: ClientSlot,
        sender: Sender<QueueResult>,
        max_length: usize,
    ) -> Result<(u64, Option<Sender<QueueResult>>), QueueFull> {
        if self.clients.is_empty() {
            self.clients.resize_with(SLOTS, BTreeMap::new);
        }
        let displaced = match self.length < max_length {
            true => None,
            false => Some(self.displace_for(client).ok_or(QueueFull)?),
        };
        let number = self.next_number;
        self.next_number += 1;
        self.clients[client.index()].insert(number, sender);
        self.length += 1;
        Ok((number, displaced))
    }

    /// The client whose request waits for longest, of those that `is_preferred` selects, or else of all.
    pub(super) fn next_client(&self, is_preferred: impl Fn(ClientSlot) -> bool) -> Option<ClientSlot> {
        let clients = (0..).map(ClientSlot::numbered).zip(&self.clients);
        let fronts = clients.filter_map(|(client, waiting)| Some((*waiting.first_key_value()?.0, client)));
        fronts.min_by_key(|(number, client)| (!is_preferred(*client), *number)).map(|(_, client)| client)
    }

    /// Takes the request of this client that waits for longest.
    pub(super) fn pop(&mut self, client: ClientSlot) -> Option<Sender<QueueResult>> {
        let (_, sender) = self.clients.get_mut(client.index())?.pop_first()?;
        self.length -= 1;
        Some(sender)
    }

    /// Removes a request that waits no longer. Whether it was still there.
    pub(super) fn remove(&mut self, client: ClientSlot, number: u64) -> bool {
        let waiting = self.clients.get_mut(client.index());
        let was_there = waiting.is_some_and(|waiting| waiting.remove(&number).is_some());
        self.length -= usize::from(was_there);
        was_there
    }

    /// Removes the newest request of the client with the most, if it has at least two more than this one.
    fn displace_for(&mut self, client: ClientSlot) -> Option<Sender<QueueResult>> {
        let own = self.clients[client.index()].len();
        let most = self.clients.iter_mut().max_by_key(|waiting| waiting.len())?;
        if most.len() < own + 2 {
            return None;
        }
        self.length -= 1;
        most.pop_last().map(|(_, sender)| sender)
    }
}
