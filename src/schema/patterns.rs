//! A cache of compiled regular expressions by text, since schemas repeat the same few patterns many times.

use std::collections::HashMap;

use parking_lot::Mutex;
use regex::Regex;

static COMPILED: Mutex<Option<HashMap<String, Regex>>> = Mutex::new(None);

/// Patterns come only from Portico's schemas, so their number is bounded; this guards against rules that compute
/// patterns.
const MAX_PATTERNS: usize = 1024;

/// The compiled pattern; a clone shares the automaton and its cache.
pub(super) fn compiled(text: &str) -> Result<Regex, regex::Error> {
    let mut compiled = COMPILED.lock();
    let compiled = compiled.get_or_insert_default();
    if let Some(regex) = compiled.get(text) {
        return Ok(regex.clone());
    }
    let regex = Regex::new(text)?;
    if compiled.len() < MAX_PATTERNS {
        compiled.insert(text.to_owned(), regex.clone());
    }
    Ok(regex)
}
