//! Regular expressions by their text, each compiled once: the same dozen stands at a hundred places.

use std::collections::HashMap;

use parking_lot::Mutex;
use regex::Regex;

static COMPILED: Mutex<Option<HashMap<String, Regex>>> = Mutex::new(None);

/// Texts come from our schemas alone, so their number is bounded; this guards against a rule that computes one.
const MOST: usize = 1024;

/// The regular expression of this text; a clone shares the automaton and its cache.
pub(super) fn compiled(text: &str) -> Result<Regex, regex::Error> {
    let mut compiled = COMPILED.lock();
    let compiled = compiled.get_or_insert_default();
    if let Some(regex) = compiled.get(text) {
        return Ok(regex.clone());
    }
    let regex = Regex::new(text)?;
    if compiled.len() < MOST {
        compiled.insert(text.to_owned(), regex.clone());
    }
    Ok(regex)
}
