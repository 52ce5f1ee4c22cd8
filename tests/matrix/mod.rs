//! Tests over all combinations of two features, where each of them works alone.

mod broken_guards;
