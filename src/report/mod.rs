//! Verdicts for people: diagnostics with carets, tables, and JSON for programs.
//!
//! ```text
//!   Refusal (a file) ─┐                    ┌─▶ terminal   like a compiler: place, line, caret, help
//!                     ├─▶ Diagnostic ──────┤
//!   Verdict (compile)─┘                    └─▶ json       a list for programs
//!          └────────────▶ tables, changes, summary        who is served, what flipped, how many
//! ```
//!
//! Everything here is a pure function to a `String`; who prints it decides about color and where it goes.

mod changes;
mod diagnostic;
mod json;
mod plain;
mod summary;
mod table;
mod terminal;

pub use changes::changes;
pub use diagnostic::{Diagnostic, explain_missing, locate, of_refusal, of_verdict, sort};
pub use json::json;
pub use summary::{Counts, count, not_read, summary};
pub use table::{RouteRow, routes, verdicts};
pub use terminal::terminal;
