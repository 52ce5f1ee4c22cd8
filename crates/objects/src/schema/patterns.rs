//! A cache of compiled regular expressions by text, since schemas repeat the same few patterns many times.

use std::collections::HashMap;

use parking_lot::Mutex;
use regex::Regex;

static COMPILED: Mutex<Option<HashMap<String, Regex>>> = Mutex::new(None);

/// The maximum number of cached patterns. Schemas have fewer, but CEL rules could compute patterns.
const MAX_PATTERNS: usize = 1024;

/// The compiled pattern; a clone shares the automaton and its cache.
pub(super) fn compiled(text: &str) -> Result<Regex, regex::Error> {
    let mut cache = COMPILED.lock();
    let cache = cache.get_or_insert_default();
    if let Some(regex) = cache.get(text) {
        return Ok(regex.clone());
    }
    let regex = Regex::new(text)?;
    if cache.len() < MAX_PATTERNS {
        cache.insert(text.to_owned(), regex.clone());
    }
    Ok(regex)
}
