//! Values of the subset of Lua in templates and functions, and the limit of work for computing them.

mod budget;
pub mod number;
mod value;

pub use budget::{Budget, EvaluationError};
pub use value::LuaValue;
