//! Texts of Secrets and vaults in the configuration of an object. Messages about the servers of its plugin, which name
//! hosts and paths, have the name of the reference in their place.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::state::PluginState;

/// The hidden texts of one object. Not used during requests.
#[derive(Default)]
pub struct HiddenTexts {
    texts: Mutex<TextsByLength>,
}

#[derive(Default)]
struct TextsByLength {
    /// The longest first.
    texts: Vec<HiddenText>,
    /// How often a text was added.
    additions: u64,
}

struct HiddenText {
    /// In lower case.
    text: Box<str>,
    /// The name of its reference.
    name: Arc<str>,
    /// The number of the last addition: values that are still in use were added again after former ones.
    addition: u64,
}

impl HiddenTexts {
    /// Those of an object such as `KongPlugin/default/limit`.
    pub fn of_object(state: &PluginState, object: &str) -> Arc<Self> {
        state.get_or_create(&format!("{object} hidden texts"), HiddenTexts::default)
    }

    /// Adds a text to which a reference leads. Its parts count, too: a message has the host of a URL without the rest.
    /// Those of former values stay, because their servers may be in use for a while. The oldest ones make room for new
    /// ones.
    pub fn add(&self, name: &str, text: &str) {
        let name: Arc<str> = format!("({name})").into();
        let is_inner = |char: char| char.is_alphanumeric() || matches!(char, '.' | '-' | '_');
        let parts = text.split(|char| !is_inner(char)).filter(|part| part.len() >= MIN_BYTES && !COMMON.contains(part));
        let mut texts = self.texts.lock();
        for part in parts.take(MAX_PARTS).chain((text.len() >= MIN_BYTES).then_some(text)) {
            texts.add(part.to_ascii_lowercase(), &name);
        }
        texts.texts.sort_by_key(|hidden| std::cmp::Reverse(hidden.text.len()));
    }

    /// The message with names in place of the texts.
    pub fn hide<'m>(&self, message: &'m str) -> Cow<'m, str> {
        let mut shown = Cow::Borrowed(message);
        for HiddenText { text, name, .. } in &self.texts.lock().texts {
            let lower = shown.to_ascii_lowercase();
            if !lower.contains(&**text) {
                continue;
            }
            let mut replaced = String::with_capacity(shown.len());
            let mut rest = 0;
            for (start, _) in lower.match_indices(&**text) {
                replaced.push_str(&shown[rest..start]);
                replaced.push_str(name);
                rest = start + text.len();
            }
            replaced.push_str(&shown[rest..]);
            shown = Cow::Owned(replaced);
        }
        shown
    }
}

impl TextsByLength {
    /// Adds a text, or makes it the newest one.
    fn add(&mut self, text: String, name: &Arc<str>) {
        self.additions += 1;
        let addition = self.additions;
        if let Some(known) = self.texts.iter_mut().find(|known| *known.text == *text) {
            known.addition = addition;
            return;
        }
        if self.texts.len() >= MAX_TEXTS
            && let Some(oldest) = (0..self.texts.len()).min_by_key(|index| self.texts[*index].addition)
        {
            self.texts.swap_remove(oldest);
        }
        self.texts.push(HiddenText { text: text.into(), name: Arc::clone(name), addition });
    }
}

impl fmt::Debug for HiddenTexts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HiddenTexts").finish_non_exhaustive()
    }
}

/// Shorter texts are parts of other words, so that messages could not be read.
const MIN_BYTES: usize = 5;
const MAX_TEXTS: usize = 1000;
/// Of one text, so that a certificate does not make room for itself by what belongs to other references.
const MAX_PARTS: usize = 50;
/// Parts of URLs that say nothing.
const COMMON: [&str; 2] = ["http", "https"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_their_parts_are_replaced_by_the_reference() {
        let hidden = HiddenTexts::default();
        hidden.add("key url of Secret s", "https://Db.internal:6379/queue?pass=hunter2");
        hidden.add("key port of Secret s", "80");
        for (message, expected) in [
            ("cannot connect to db.internal:6379: refused", "cannot connect to (key url of Secret s):6379: refused"),
            ("HTTP status 500 of https://other", "HTTP status 500 of https://other"),
            ("80 of 80", "80 of 80"),
            ("é HUNTER2é", "é (key url of Secret s)é"),
        ] {
            assert_eq!(hidden.hide(message), expected);
        }
        assert!(!format!("{hidden:?}").contains("hunter2"));
    }

    #[test]
    fn new_texts_replace_the_oldest_ones() {
        let hidden = HiddenTexts::default();
        let is_hidden = |text: &str| hidden.hide(text) == "(key a of Secret s)";
        let value = |number: usize| format!("value{number:05}");
        for number in 0..1000 {
            hidden.add("key a of Secret s", &value(number));
        }
        // A rebuilt plugin still has it.
        hidden.add("key a of Secret s", &value(0));
        for number in 1000..1500 {
            hidden.add("key a of Secret s", &value(number));
        }
        for (number, expected) in [(0, true), (1, false), (500, false), (501, true), (1000, true), (1499, true)] {
            assert_eq!(is_hidden(&value(number)), expected, "{number}");
        }
        assert_eq!(hidden.texts.lock().texts.len(), 1000);
    }
}
