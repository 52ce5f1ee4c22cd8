//! The report of a migration: what becomes of each object of another gateway, and of its settings.
//!
//! ```text
//!   verdict, rows ─▶ model: MigrationReport ─┬─▶ json  everything, for programs
//!                                            └─▶ text  tables for a terminal or as Markdown, shortened
//! ```

mod gateway_api;
mod json;
mod model;
mod rows;
mod text;
mod verdict;

pub use gateway_api::{GatewayApiReport, GatewayApiRow};
pub use json::json;
pub use model::{MigratedIngress, MigrationReport, MigrationSummary};
pub use rows::{ConfigRow, Difference, FlagRow, FoundAnnotation, FoundProblem, FoundSnippet};
pub use text::{markdown, summary_line, text};
pub use verdict::{MigrationVerdict, VerdictCounts};
