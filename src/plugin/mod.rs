//! What a plugin is: the contract between the proxy, which runs chains of them, and the files in `plugins/`.
//!
//! ```text
//!   config ──Kind::build──▶ Plugin ─┐
//!                                   ├─▶ Slot ─▶ Chain of a rule ──access──▶ request goes on, or a Reply
//!   which consumers, which route ───┘                          ──answer──▶ head of every answer
//!                                                              ──log─────▶ what became of it
//! ```
//!
//! A built plugin is immutable and shared by all requests. What has to outlive a change of the configuration (counters,
//! caches, fetched keys) is asked for by name from [`State`].

pub mod authentication;
pub mod chain;
pub mod consumers;
pub mod cx;
pub mod fields;
pub mod jwk;
pub mod kind;
pub mod lookalikes;
pub mod multipart;
pub mod number;
pub mod redis;
pub mod reply;
pub mod scheme;
pub mod services;
pub mod signature;
pub mod state;
pub mod testing;
pub mod times;
pub mod workshop;

use futures_util::future::LocalBoxFuture;

pub use chain::Chain;
pub use consumers::{Consumer, Directory};
pub use cx::{AnswerCx, AnswerHeaders, Client, Ended, Framing, Identity, LogCx, Names, RequestCx, Source};
pub use kind::{AnyKind, BuildCx, Entry, Invalid, Kind, Notes, Phases, Registry, Scopes, record, said_of_expression};
pub use reply::{Reply, ReplyBody};
pub use scheme::Scheme;
pub use services::{Fetched, Remote, RemoteTls, Services, Stream};
pub use state::State;
pub use workshop::Workshop;

/// A plugin with its configuration, everything parsed.
///
/// A phase has an effect only if [`Kind::PHASES`] names it.
pub trait Plugin: Send + Sync + 'static {
    /// Before the request goes on. Plugins are asked in the order of their priorities; the first reply ends that.
    ///
    /// The request has been stripped of what was meant for this hop, so what a client says in `Connection` cannot remove
    /// what a plugin writes.
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> Outcome<'a> {
        let _ = cx;
        Outcome::Next
    }

    /// On the head of every answer to a request that reached the chain, whoever wrote it: endpoint, plugin or proxy. Runs
    /// also if another plugin replied before this one had its turn.
    fn answer(&self, cx: &mut AnswerCx<'_>) {
        let _ = cx;
    }

    /// When the answer is complete, or will never be.
    fn log(&self, cx: &LogCx<'_>) {
        let _ = cx;
    }

    /// How much of a request's body must be there before `access`, in bytes; larger ones are answered 413. None if bodies
    /// may stream, as nearly always.
    fn reads_body(&self) -> Option<usize> {
        None
    }
}

/// What a plugin says to a request. Most decide at once and allocate nothing.
pub enum Outcome<'a> {
    Next,
    Reply(Box<Reply>),
    /// Something has to be waited for: another server, or a thread that hashes a password.
    Wait(LocalBoxFuture<'a, Option<Box<Reply>>>),
}
