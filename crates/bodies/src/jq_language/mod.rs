//! The language jq, for values of JSON. It knows nothing of requests and plugins: a program is parsed once, and each
//! run gets a value and has a budget of steps, so that it ends soon whatever the program is.
//!
//! ```text
//!   source ─▶ tokens ─▶ parse, calls ─▶ JqProgram ─┐
//!                            ▲ library             ├─▶ run: evaluate, binding, control, regexes ─▶ values
//!   JSON ─▶ document ─▶ JqValue ───────────────────┘     └ StepBudget ◀─ builtins, operators, paths
//! ```

mod binding;
mod budget;
mod builtins;
mod calls;
mod control;
mod document;
mod evaluate;
mod format;
mod library;
mod operators;
mod parse;
mod paths;
mod program;
mod regexes;
mod run;
#[cfg(test)]
mod tests;
mod tokens;
mod value;

pub(crate) use self::budget::Stop;
pub(crate) use self::program::JqProgram;
pub(crate) use self::value::{JqValue, OutputStyle};
