//! Masks fields and texts of JSON documents. What is not masked keeps its bytes, so numbers keep all digits.
//!
//! One pass over the document copies it up to each value that is masked. Names with escapes are decoded before they are
//! compared, and every member of a repeated name is masked.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::masked_path::{MaskedPath, MaskedStep};
use super::text_mask::TextMask;

/// Masks the values of fields, and parts of other strings, numbers and names.
#[derive(Clone, Debug)]
pub struct JsonMask {
    paths: Box<[MaskedPath]>,
    text: TextMask,
    /// The replacement as a JSON string.
    replacement: Box<[u8]>,
}

/// Why a document cannot be masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnmaskableJson {
    /// It is not JSON, or nested too deeply.
    Invalid,
    /// The masked document would be too large.
    TooLarge,
}

impl JsonMask {
    /// At most [`MAX_MASKED_PATHS`] paths have an effect.
    pub fn new(mut paths: Vec<MaskedPath>, text: TextMask) -> Self {
        paths.truncate(MAX_MASKED_PATHS);
        let replacement = serde_json::to_vec(text.replacement()).expect("a text always serializes").into();
        JsonMask { paths: paths.into(), text, replacement }
    }

    pub fn text(&self) -> &TextMask {
        &self.text
    }

    /// Masks a document, or several objects and lists that follow each other. `None` if nothing is masked.
    pub fn apply(&self, document: &[u8], max_bytes: usize) -> Result<Option<Vec<u8>>, UnmaskableJson> {
        let mut walk = Walk {
            mask: self,
            input: document,
            at: 0,
            copied: 0,
            output: Vec::new(),
            max_bytes,
            masks_text: !self.text.is_empty(),
        };
        let mut root = States::new();
        for (index, path) in self.paths.iter().enumerate() {
            add_state(&mut root, path, index, 0);
        }
        walk.skip_space();
        if walk.at == document.len() {
            return Err(UnmaskableJson::Invalid);
        }
        let begins_container = |at: usize| matches!(document[at], b'{' | b'[');
        let mut all_are_containers = begins_container(walk.at);
        walk.value(&root, 0)?;
        walk.skip_space();
        while walk.at < document.len() {
            // Numbers with spaces between them may be the groups of one, such as that of a card.
            all_are_containers &= begins_container(walk.at);
            if !all_are_containers {
                return Err(UnmaskableJson::Invalid);
            }
            walk.value(&root, 0)?;
            walk.skip_space();
        }
        if walk.copied == 0 && walk.output.is_empty() {
            return Ok(None);
        }
        walk.copy_to(document.len())?;
        Ok(Some(walk.output))
    }
}

/// How many paths a mask may have.
pub const MAX_MASKED_PATHS: usize = 64;

/// The paths that lead into a value: the path, and its next step.
type States = SmallVec<[(u8, u8); 8]>;

/// Adds the state of a path, and those that it reaches without a further name.
fn add_state(states: &mut States, path: &MaskedPath, index: usize, step: usize) {
    let (Ok(path_number), Ok(step_number)) = (u8::try_from(index), u8::try_from(step)) else { return };
    if states.contains(&(path_number, step_number)) {
        return;
    }
    states.push((path_number, step_number));
    if path.0.get(step) == Some(&MaskedStep::AnyDepth) {
        add_state(states, path, index, step + 1);
    }
}

/// The states of a member or an element, and whether it is masked.
struct Entered {
    states: States,
    is_masked: bool,
}

struct Walk<'d> {
    mask: &'d JsonMask,
    input: &'d [u8],
    at: usize,
    /// Up to where the input is in the output, or replaced there.
    copied: usize,
    output: Vec<u8>,
    max_bytes: usize,
    /// Not inside of a value that is replaced as a whole.
    masks_text: bool,
}

impl<'d> Walk<'d> {
    fn value(&mut self, states: &States, depth: usize) -> Result<(), UnmaskableJson> {
        let start = self.at;
        match self.input.get(self.at) {
            Some(b'{') => self.object(states, depth + 1),
            Some(b'[') => self.list(states, depth + 1),
            Some(b'"') => {
                self.skip_string()?;
                self.mask_string(start)
            }
            Some(_) => {
                self.skip_word()?;
                let text = &self.input[start..self.at];
                if text[0].is_ascii_digit() || text[0] == b'-' {
                    self.mask_number(start)?;
                }
                Ok(())
            }
            None => Err(UnmaskableJson::Invalid),
        }
    }

    fn object(&mut self, states: &States, depth: usize) -> Result<(), UnmaskableJson> {
        self.enter(depth)?;
        if self.closes(b'}') {
            return Ok(());
        }
        loop {
            self.skip_space();
            let start = self.at;
            self.skip_string()?;
            let name = decode(&self.input[start..self.at])?;
            self.mask_string(start)?;
            self.skip_space();
            self.expect(b':')?;
            self.skip_space();
            let entered = self.entered(states, |step| match step {
                MaskedStep::Member(expected) => **expected == *name,
                MaskedStep::EachMember => true,
                MaskedStep::Element(_) | MaskedStep::EachElement | MaskedStep::AnyDepth => false,
            });
            self.masked_or_walked(&entered, depth)?;
            if self.ends(b'}')? {
                return Ok(());
            }
        }
    }

    fn list(&mut self, states: &States, depth: usize) -> Result<(), UnmaskableJson> {
        self.enter(depth)?;
        if self.closes(b']') {
            return Ok(());
        }
        for index in 0.. {
            self.skip_space();
            let entered = self.entered(states, |step| match step {
                MaskedStep::Element(expected) => *expected == index,
                MaskedStep::EachElement => true,
                MaskedStep::Member(_) | MaskedStep::EachMember | MaskedStep::AnyDepth => false,
            });
            self.masked_or_walked(&entered, depth)?;
            if self.ends(b']')? {
                break;
            }
        }
        Ok(())
    }

    /// The states after one step that these paths may take.
    fn entered(&self, states: &States, takes: impl Fn(&MaskedStep) -> bool) -> Entered {
        let mut entered = Entered { states: States::new(), is_masked: false };
        for (index, step) in states {
            let (index, step) = (usize::from(*index), usize::from(*step));
            let path = &self.mask.paths[index];
            match path.0.get(step) {
                Some(MaskedStep::AnyDepth) => add_state(&mut entered.states, path, index, step),
                Some(next) if takes(next) => {
                    entered.is_masked |= step + 1 == path.0.len();
                    add_state(&mut entered.states, path, index, step + 1);
                }
                Some(_) | None => {}
            }
        }
        entered
    }

    fn masked_or_walked(&mut self, entered: &Entered, depth: usize) -> Result<(), UnmaskableJson> {
        if !entered.is_masked {
            return self.value(&entered.states, depth);
        }
        let start = self.at;
        let masks_text = std::mem::replace(&mut self.masks_text, false);
        self.value(&States::new(), depth)?;
        self.masks_text = masks_text;
        if &self.input[start..self.at] == b"null" {
            return Ok(());
        }
        let replacement = &self.mask.replacement;
        self.replace(start, replacement)
    }

    /// Masks what matches a pattern in the string from `start` on.
    fn mask_string(&mut self, start: usize) -> Result<(), UnmaskableJson> {
        if !self.masks_text {
            return Ok(());
        }
        let text = decode(&self.input[start..self.at])?;
        let Some(masked) = self.mask.text.apply(&text) else { return Ok(()) };
        self.replace(start, &serde_json::to_vec(&masked).expect("a text always serializes"))
    }

    /// A number becomes a string if a pattern matches it.
    fn mask_number(&mut self, start: usize) -> Result<(), UnmaskableJson> {
        if !self.masks_text {
            return Ok(());
        }
        let Ok(text) = std::str::from_utf8(&self.input[start..self.at]) else { return Err(UnmaskableJson::Invalid) };
        let Some(masked) = self.mask.text.apply(text) else { return Ok(()) };
        self.replace(start, &serde_json::to_vec(&masked).expect("a text always serializes"))
    }

    fn replace(&mut self, start: usize, replacement: &[u8]) -> Result<(), UnmaskableJson> {
        self.copy_to(start)?;
        if self.output.len() + replacement.len() > self.max_bytes {
            return Err(UnmaskableJson::TooLarge);
        }
        self.output.extend_from_slice(replacement);
        self.copied = self.at;
        Ok(())
    }

    fn copy_to(&mut self, end: usize) -> Result<(), UnmaskableJson> {
        let part = &self.input[self.copied..end];
        if self.output.len() + part.len() > self.max_bytes {
            return Err(UnmaskableJson::TooLarge);
        }
        self.output.extend_from_slice(part);
        self.copied = end;
        Ok(())
    }

    fn enter(&mut self, depth: usize) -> Result<(), UnmaskableJson> {
        self.at += 1;
        if depth > MAX_DEPTH { Err(UnmaskableJson::Invalid) } else { Ok(()) }
    }

    /// Whether an object or a list is empty, whose end is then passed.
    fn closes(&mut self, end: u8) -> bool {
        self.skip_space();
        let closes = self.input.get(self.at) == Some(&end);
        self.at += usize::from(closes);
        closes
    }

    /// Passes a comma, or the end of an object or a list. Returns whether it is the end.
    fn ends(&mut self, end: u8) -> Result<bool, UnmaskableJson> {
        self.skip_space();
        if self.closes(end) {
            return Ok(true);
        }
        self.expect(b',')?;
        Ok(false)
    }

    fn expect(&mut self, byte: u8) -> Result<(), UnmaskableJson> {
        if self.input.get(self.at) != Some(&byte) {
            return Err(UnmaskableJson::Invalid);
        }
        self.at += 1;
        Ok(())
    }

    fn skip_space(&mut self) {
        while matches!(self.input.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn skip_string(&mut self) -> Result<(), UnmaskableJson> {
        self.expect(b'"')?;
        loop {
            let rest = self.input.get(self.at..).ok_or(UnmaskableJson::Invalid)?;
            let end = memchr::memchr2(b'"', b'\\', rest).ok_or(UnmaskableJson::Invalid)?;
            self.at += end + if rest[end] == b'"' { 1 } else { 2 };
            if rest[end] == b'"' {
                return Ok(());
            }
        }
    }

    /// Skips a number or a literal.
    fn skip_word(&mut self) -> Result<(), UnmaskableJson> {
        let rest = &self.input[self.at..];
        let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)).count();
        let word = &rest[..length];
        let is_valid = matches!(word, b"true" | b"false" | b"null")
            || word.first().is_some_and(|first| first.is_ascii_digit() || *first == b'-')
                && serde_json::from_slice::<&serde_json::value::RawValue>(word).is_ok();
        self.at += length;
        if is_valid { Ok(()) } else { Err(UnmaskableJson::Invalid) }
    }
}

/// The text of a JSON string, whose quotes are included.
fn decode(string: &[u8]) -> Result<Cow<'_, str>, UnmaskableJson> {
    if memchr::memchr(b'\\', string).is_none() {
        let text = std::str::from_utf8(&string[1..string.len() - 1]).map_err(|_| UnmaskableJson::Invalid)?;
        return Ok(Cow::Borrowed(text));
    }
    match serde_json::from_slice::<String>(string) {
        Ok(text) => Ok(Cow::Owned(text)),
        // Half of a pair of surrogates, or a character that must be escaped: clients may accept it.
        Err(_) => Err(UnmaskableJson::Invalid),
    }
}

/// The depth of documents that serde_json parses.
const MAX_DEPTH: usize = 127;

#[cfg(test)]
mod tests {
    use super::super::text_mask::MaskedKind;
    use super::*;

    fn mask(paths: &[&str], kinds: &[MaskedKind]) -> JsonMask {
        let paths = paths.iter().map(|path| MaskedPath::parse(path).unwrap()).collect();
        JsonMask::new(paths, TextMask::new(kinds, Vec::new(), "*\"*"))
    }

    fn apply(mask: &JsonMask, document: &str) -> Result<Option<String>, UnmaskableJson> {
        let masked = mask.apply(document.as_bytes(), 10_000)?;
        Ok(masked.map(|masked| String::from_utf8(masked).unwrap()))
    }

    #[test]
    fn fields_are_masked_and_the_rest_keeps_its_bytes() {
        for (paths, document, expected) in [
            (&["a"][..], r#"{ "a" : 1.0e400, "b": 1.0e400 }"#, Some(r#"{ "a" : "*\"*", "b": 1.0e400 }"#)),
            (&["a"], r#"{"\u0061": "x", "a": {"b": [1]}}"#, Some(r#"{"\u0061": "*\"*", "a": "*\"*"}"#)),
            (&["a.b"], r#"{"a":{"b":1,"c":2},"b":3}"#, Some(r#"{"a":{"b":"*\"*","c":2},"b":3}"#)),
            (&["[*].b"], r#"[{"b":1},{"b":null},2]"#, Some(r#"[{"b":"*\"*"},{"b":null},2]"#)),
            (&["a[2]"], r#"{"a":[1,2,3]}"#, Some(r#"{"a":[1,"*\"*",3]}"#)),
            (
                &["**.e"],
                r#"{"e":1,"a":[{"b":{"e":2}}],"c":{"f":3}}"#,
                Some(r#"{"e":"*\"*","a":[{"b":{"e":"*\"*"}}],"c":{"f":3}}"#),
            ),
            (&["a.*.c"], r#"{"a":{"x":{"c":1},"y":{"d":2}}}"#, Some(r#"{"a":{"x":{"c":"*\"*"},"y":{"d":2}}}"#)),
            (&["a", "a.b"], r#"{"a":{"b":1}}"#, Some(r#"{"a":"*\"*"}"#)),
            (&["a"], "{\"a\":1}\n{\"a\":2}\n", Some("{\"a\":\"*\\\"*\"}\n{\"a\":\"*\\\"*\"}\n")),
            (&["a"], r#"{"b":[{}, [], "", true, false, null, -0.5]}"#, None),
            (&["a"], r#""text""#, None),
        ] {
            assert_eq!(apply(&mask(paths, &[]), document), Ok(expected.map(str::to_owned)), "{paths:?} {document}");
        }
    }

    #[test]
    fn texts_names_and_numbers_are_masked_by_pattern() {
        let mask = mask(&["x"], &[MaskedKind::Email, MaskedKind::PaymentCard]);
        for (document, expected) in [
            (r#"{"a":"to jane@b.example"}"#, Some(r#"{"a":"to *\"*"}"#)),
            (r#"{"a":"jane\u0040b.example","c":"\n"}"#, Some(r#"{"a":"*\"*","c":"\n"}"#)),
            (r#"{"jane@b.example":1}"#, Some(r#"{"*\"*":1}"#)),
            (r#"[4111111111111111, 5]"#, Some(r#"["*\"*", 5]"#)),
            (r#"{"x":["jane@b.example"],"y":"jane@b.example"}"#, Some(r#"{"x":"*\"*","y":"*\"*"}"#)),
            (r#"{"a":"b"}"#, None),
        ] {
            assert_eq!(apply(&mask, document), Ok(expected.map(str::to_owned)), "{document}");
        }
    }

    #[test]
    fn documents_that_are_not_json_are_errors() {
        let mask = mask(&["a"], &[MaskedKind::Email]);
        let deep = "[".repeat(128) + &"]".repeat(128);
        for document in [
            "",
            " ",
            "{",
            "[",
            "[1",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":}",
            "{\"a\" 1}",
            "{a:1}",
            "[1,]",
            "{\"a\":1,}",
            "[1 2]",
            "01",
            "1.",
            "nul",
            "+1",
            "\"",
            "\"\\",
            "\"\\x\"",
            "\"\\ud800\"",
            "<a/>",
            "{\"a\":1}x",
            &deep,
        ] {
            assert_eq!(apply(&mask, document), Err(UnmaskableJson::Invalid), "{document}");
        }
        assert_eq!(mask.apply(b"[\"\xff\"]", 100), Err(UnmaskableJson::Invalid));
        let nested = "[".repeat(127) + &"]".repeat(127);
        assert_eq!(apply(&mask, &nested), Ok(None));
        assert_eq!(mask.apply(br#"{"a":1,"b":"0123456789"}"#, 12), Err(UnmaskableJson::TooLarge));
    }

    #[test]
    fn every_field_at_any_depth_is_masked_in_random_documents() {
        fastrand::seed(7);
        fn document(depth: usize, secrets: &mut usize) -> serde_json::Value {
            match fastrand::usize(..if depth > 4 { 3 } else { 6 }) {
                0 => serde_json::json!(fastrand::i64(..)),
                1 => serde_json::json!("text \"é\u{1}"),
                2 => serde_json::Value::Null,
                3 => (0..fastrand::usize(..4)).map(|_| document(depth + 1, secrets)).collect(),
                _ => {
                    let mut object = serde_json::Map::new();
                    for name in ["a", "b\"", "secret"].into_iter().take(fastrand::usize(..4)) {
                        let value = if name == "secret" {
                            *secrets += 1;
                            serde_json::json!({"deep": ["hidden", 1]})
                        } else {
                            document(depth + 1, secrets)
                        };
                        object.insert(name.to_owned(), value);
                    }
                    object.into()
                }
            }
        }
        let mask = mask(&["**.secret"], &[]);
        for _ in 0..500 {
            let mut secrets = 0;
            let text = document(0, &mut secrets).to_string();
            let masked = apply(&mask, &text).unwrap().unwrap_or_else(|| text.clone());
            assert!(!masked.contains("hidden"), "{text} {masked}");
            assert_eq!(masked.matches("*\\\"*").count(), secrets, "{text} {masked}");
            let _: serde_json::Value = serde_json::from_str(&masked).unwrap();
        }
    }
}
