//! Renders verdicts and manifest diagnostics: text with carets, tables, and JSON.
//!
//! ```text
//!   ManifestDiagnostic ─┐                        ┌─▶ terminal   like a compiler: position, line, caret, help
//!                       ├─▶ ReportedDiagnostic ──┼─▶ json       a list for programs
//!   Verdict (compile) ──┤                        └─▶ summary    totals
//!                       └─▶ verdicts (a table of all objects), changes (what a reload changed)
//!   RouteRow ─────────────▶ routes (a table of all matches)
//!   ReportedDiagnostic ───▶ findings (a table of what a conversion leaves out)
//!   MigrationReport ──────▶ migration (verdicts on the objects of another gateway)
//! ```
//!
//! The renderers are pure and return a `String`; the caller decides about color and output.

mod changes;
mod diagnostic;
mod json;
pub mod migration;
mod plain;
mod summary;
mod table;
mod terminal;

pub use changes::changes;
pub use diagnostic::{
    ReportedDiagnostic, add_positions, from_manifest, from_verdict, is_about_later_object, is_rejected, no_objects,
    sort,
};
pub use json::json;
pub use plain::escape_controls;
pub use summary::{InputCounts, count, ignored_kinds, left_out_objects, summary};
pub(crate) use table::table;
pub use table::{RouteRow, findings, routes, verdicts};
pub use terminal::terminal;
