//! The lexical grammar: punctuators, names, numbers, strings and block strings.

use std::borrow::Cow;

use super::DocumentError;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum GraphqlToken<'t> {
    /// One of `!$&():=@[]{|}`.
    Punctuator(u8),
    /// `...`
    Spread,
    Name(&'t str),
    Int(&'t str),
    Float(&'t str),
    Text(Cow<'t, str>),
    End,
}

/// Reads tokens one after the other.
#[derive(Clone, Debug)]
pub(super) struct GraphqlLexer<'t> {
    text: &'t str,
    position: usize,
    /// Where the last token begins.
    start: usize,
    tokens_left: usize,
}

impl<'t> GraphqlLexer<'t> {
    pub(super) fn new(text: &'t str, max_tokens: usize) -> Self {
        GraphqlLexer { text, position: 0, start: 0, tokens_left: max_tokens }
    }

    /// The text of the last token.
    pub(super) fn last_text(&self) -> &'t str {
        &self.text[self.start..self.position]
    }

    /// An error about the last token, with its line.
    pub(super) fn error(&self, problem: &str) -> DocumentError {
        let line = 1 + memchr::memchr_iter(b'\n', &self.text.as_bytes()[..self.start]).count();
        DocumentError::new(format!("line {line}: {problem}"))
    }

    pub(super) fn next(&mut self) -> Result<GraphqlToken<'t>, DocumentError> {
        self.skip_ignored();
        self.start = self.position;
        let Some(first) = self.peek() else { return Ok(GraphqlToken::End) };
        if self.tokens_left == 0 {
            return Err(self.error("the document has too many tokens"));
        }
        self.tokens_left -= 1;
        match first {
            b'!' | b'$' | b'&' | b'(' | b')' | b':' | b'=' | b'@' | b'[' | b']' | b'{' | b'|' | b'}' => {
                self.position += 1;
                Ok(GraphqlToken::Punctuator(first))
            }
            b'.' if self.rest().starts_with(b"...") => {
                self.position += 3;
                Ok(GraphqlToken::Spread)
            }
            b'"' if self.rest().starts_with(b"\"\"\"") => self.block_string(),
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            _ if is_name_start(first) => {
                while self.peek().is_some_and(|byte| is_name_start(byte) || byte.is_ascii_digit()) {
                    self.position += 1;
                }
                Ok(GraphqlToken::Name(self.last_text()))
            }
            _ => Err(self.error("this character is not part of the language")),
        }
    }

    fn rest(&self) -> &'t [u8] {
        &self.text.as_bytes()[self.position..]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.position).copied()
    }

    /// White space, commas, comments and byte order marks.
    fn skip_ignored(&mut self) {
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\n' | b'\r' | b',') => self.position += 1,
                Some(b'#') => {
                    let length = memchr::memchr2(b'\n', b'\r', self.rest()).unwrap_or(self.rest().len());
                    self.position += length;
                }
                Some(_) if self.text[self.position..].starts_with('\u{feff}') => self.position += '\u{feff}'.len_utf8(),
                _ => return,
            }
        }
    }

    fn number(&mut self) -> Result<GraphqlToken<'t>, DocumentError> {
        if self.peek() == Some(b'-') {
            self.position += 1;
        }
        let integer = self.digits()?;
        if integer > 1 && self.text.as_bytes()[self.position - integer] == b'0' {
            return Err(self.error("a number begins with 0"));
        }
        let mut is_float = false;
        if self.peek() == Some(b'.') {
            is_float = true;
            self.position += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            is_float = true;
            self.position += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.position += 1;
            }
            self.digits()?;
        }
        // A name must not follow directly, so that `0xF` is not `0` and `xF`.
        if self.peek().is_some_and(|byte| byte == b'.' || is_name_start(byte)) {
            return Err(self.error("a number ends with a character that is not a digit"));
        }
        Ok(if is_float { GraphqlToken::Float(self.last_text()) } else { GraphqlToken::Int(self.last_text()) })
    }

    /// At least one digit. Returns how many.
    fn digits(&mut self) -> Result<usize, DocumentError> {
        let count = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.position += count;
        if count == 0 { Err(self.error("a number lacks a digit")) } else { Ok(count) }
    }

    fn string(&mut self) -> Result<GraphqlToken<'t>, DocumentError> {
        self.position += 1;
        let content = self.position;
        let mut unescaped: Option<String> = None;
        loop {
            match self.peek() {
                None | Some(b'\n' | b'\r') => return Err(self.error("a string does not end in its line")),
                Some(b'"') => {
                    let text = &self.text[content..self.position];
                    self.position += 1;
                    return Ok(GraphqlToken::Text(unescaped.map_or(Cow::Borrowed(text), Cow::Owned)));
                }
                Some(b'\\') => {
                    let before = &self.text[content..self.position];
                    self.position += 1;
                    let character = self.escape()?;
                    unescaped.get_or_insert_with(|| before.to_owned()).push(character);
                }
                Some(_) => {
                    let character = self.character()?;
                    if let Some(unescaped) = &mut unescaped {
                        unescaped.push(character);
                    }
                }
            }
        }
    }

    /// A character of a string.
    fn character(&mut self) -> Result<char, DocumentError> {
        let character = self.text[self.position..].chars().next().unwrap_or_default();
        if character < ' ' && character != '\t' {
            return Err(self.error("a string contains a control character"));
        }
        self.position += character.len_utf8();
        Ok(character)
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<char, DocumentError> {
        let byte = self.peek().unwrap_or_default();
        self.position += usize::from(byte.is_ascii());
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            _ => return Err(self.error("a string has an unknown escape")),
        })
    }

    fn unicode_escape(&mut self) -> Result<char, DocumentError> {
        let invalid = "a string has an escape that is not a character";
        if self.peek() == Some(b'{') {
            let length = memchr::memchr(b'}', self.rest()).filter(|length| (2..=MAX_BRACED).contains(length));
            let length = length.ok_or_else(|| self.error(invalid))?;
            let digits = self.rest().get(1..length).unwrap_or_default();
            let code = hexadecimal(digits).ok_or_else(|| self.error(invalid))?;
            self.position += length + 1;
            return char::from_u32(code).ok_or_else(|| self.error(invalid));
        }
        let first = self.four_digits().ok_or_else(|| self.error(invalid))?;
        if let Some(character) = char::from_u32(first) {
            return Ok(character);
        }
        // A pair of surrogates is one character.
        let second = self.rest().starts_with(b"\\u").then(|| {
            self.position += 2;
            self.four_digits()
        });
        let pair = second.flatten().and_then(|second| {
            let units = [u16::try_from(first).ok()?, u16::try_from(second).ok()?];
            char::decode_utf16(units).next()?.ok()
        });
        pair.ok_or_else(|| self.error(invalid))
    }

    fn four_digits(&mut self) -> Option<u32> {
        let code = hexadecimal(self.rest().get(..4)?)?;
        self.position += 4;
        Some(code)
    }

    fn block_string(&mut self) -> Result<GraphqlToken<'t>, DocumentError> {
        self.position += 3;
        let mut content = String::new();
        loop {
            let rest = self.rest();
            if rest.starts_with(b"\"\"\"") {
                self.position += 3;
                return Ok(GraphqlToken::Text(Cow::Owned(without_indentation(&content))));
            }
            if rest.starts_with(b"\\\"\"\"") {
                self.position += 4;
                content.push_str("\"\"\"");
                continue;
            }
            match rest.first() {
                None => return Err(self.error("a block string does not end")),
                Some(b'\n' | b'\r') => {
                    content.push('\n');
                    self.position += if rest.starts_with(b"\r\n") { 2 } else { 1 };
                }
                Some(_) => content.push(self.character()?),
            }
        }
    }
}

/// The value of a block string (section 2.9.4, `BlockStringValue`).
fn without_indentation(content: &str) -> String {
    let blank = |line: &&str| line.bytes().all(|byte| matches!(byte, b' ' | b'\t'));
    let indentation = |line: &str| line.bytes().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let lines: Vec<&str> = content.split('\n').collect();
    let common = lines.iter().skip(1).filter(|line| !blank(line)).map(|line| indentation(line)).min().unwrap_or(0);
    let lines: Vec<&str> = lines
        .iter()
        .enumerate()
        .map(|(index, line)| if index == 0 { line } else { line.get(common..).unwrap_or_default() })
        .collect();
    let first = lines.iter().position(|line| !blank(line)).unwrap_or(lines.len());
    let last = lines.iter().rposition(|line| !blank(line)).map_or(first, |last| last + 1);
    lines[first..last].join("\n")
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    let is_valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    is_valid.then(|| std::str::from_utf8(digits).ok()).flatten().and_then(|text| u32::from_str_radix(text, 16).ok())
}

/// Whether a text is a name.
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(is_name_start) && bytes.all(|byte| is_name_start(byte) || byte.is_ascii_digit())
}

fn is_name_start(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphabetic()
}

/// `{` and up to eight digits.
const MAX_BRACED: usize = 9;
