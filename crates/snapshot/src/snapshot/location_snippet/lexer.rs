//! Splits the text of a snippet into words, semicolons and braces, as the parser of nginx does.

use super::refusal::DirectiveRefusal;

/// A piece of the text, with the line on which it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SnippetToken {
    pub(super) kind: SnippetTokenKind,
    pub(super) line: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SnippetTokenKind {
    /// Without its quotes and escapes.
    Word(String),
    Semicolon,
    OpeningBrace,
    ClosingBrace,
}

/// Reads one token after the other.
pub(super) struct SnippetLexer<'t> {
    rest: &'t str,
    line: usize,
}

impl<'t> SnippetLexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        SnippetLexer { rest: text, line: 1 }
    }

    /// The line of what is read next.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// `Ok(None)` at the end of the text.
    pub(super) fn next(&mut self) -> Result<Option<SnippetToken>, DirectiveRefusal> {
        while let Some(first) = self.rest.chars().next() {
            let line = self.line;
            let kind = match first {
                ' ' | '\t' | '\r' | '\n' => {
                    self.skip(1);
                    continue;
                }
                '#' => {
                    self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
                    continue;
                }
                ';' => self.single(SnippetTokenKind::Semicolon),
                '{' => self.single(SnippetTokenKind::OpeningBrace),
                '}' => self.single(SnippetTokenKind::ClosingBrace),
                '"' | '\'' => SnippetTokenKind::Word(self.quoted(first)?),
                _ => SnippetTokenKind::Word(self.unquoted()),
            };
            return Ok(Some(SnippetToken { kind, line }));
        }
        Ok(None)
    }

    fn single(&mut self, kind: SnippetTokenKind) -> SnippetTokenKind {
        self.skip(1);
        kind
    }

    /// Moves behind a number of bytes, which end at a character, and returns them.
    fn skip(&mut self, bytes: usize) -> &'t str {
        let (skipped, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.line += skipped.matches('\n').count();
        self.rest = rest;
        skipped
    }

    /// A word in quotes, from which an escaped quote is no end. A quote is one only at the start of a word.
    fn quoted(&mut self, quote: char) -> Result<String, DirectiveRefusal> {
        self.skip(1);
        let mut is_escaped = false;
        let end = self.rest.find(|character: char| {
            let is_end = character == quote && !is_escaped;
            is_escaped = character == '\\' && !is_escaped;
            is_end
        });
        let Some(end) = end else {
            return Err(DirectiveRefusal::invalid("has a quote without an end"));
        };
        let word = unescape(self.skip(end));
        self.skip(1);
        // Of an `if`, the parenthesis may follow without a space.
        match self.rest.chars().next() {
            None | Some(' ' | '\t' | '\r' | '\n' | ';' | '{' | ')') => Ok(word),
            Some(other) => {
                let message = format!("has {other:?} directly behind a closing quote");
                Err(DirectiveRefusal::invalid(message))
            }
        }
    }

    /// A word up to a space, a semicolon or a brace. The brace of `${name}` is a part of it.
    fn unquoted(&mut self) -> String {
        let (mut is_escaped, mut follows_dollar) = (false, false);
        let end = self.rest.find(|character: char| {
            if std::mem::take(&mut is_escaped) {
                return false;
            }
            let is_variable = std::mem::replace(&mut follows_dollar, character == '$');
            is_escaped = character == '\\';
            match character {
                '{' => !is_variable,
                ' ' | '\t' | '\r' | '\n' | ';' => true,
                _ => false,
            }
        });
        unescape(self.skip(end.unwrap_or(self.rest.len())))
    }
}

/// Resolves the escapes of nginx. Others, such as `\.` of an expression, keep their backslash.
fn unescape(text: &str) -> String {
    let mut word = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let escape = match characters.peek().filter(|_| character == '\\') {
            Some('"') => '"',
            Some('\'') => '\'',
            Some('\\') => '\\',
            Some('t') => '\t',
            Some('r') => '\r',
            Some('n') => '\n',
            Some(_) | None => {
                word.push(character);
                continue;
            }
        };
        word.push(escape);
        characters.next();
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Vec<String>, DirectiveRefusal> {
        let mut lexer = SnippetLexer::new(text);
        let mut tokens = Vec::new();
        while let Some(token) = lexer.next()? {
            tokens.push(match token.kind {
                SnippetTokenKind::Word(word) => format!("{}:{word}", token.line),
                SnippetTokenKind::Semicolon => ";".to_owned(),
                SnippetTokenKind::OpeningBrace => "{".to_owned(),
                SnippetTokenKind::ClosingBrace => "}".to_owned(),
            });
        }
        Ok(tokens)
    }

    #[test]
    fn words_are_split_as_in_nginx() {
        for (text, expected) in [
            ("a b;", &["1:a", "1:b", ";"][..]),
            ("# c ; {\na;#b\n", &["2:a", ";"]),
            ("a#b;", &["1:a#b", ";"]),
            ("a\n\tb\r\n;", &["1:a", "2:b", ";"]),
            (r#"a "b ; c" 'd "e"';"#, &["1:a", "1:b ; c", "1:d \"e\"", ";"]),
            (r#"a "b \"c\" \\ \. \n";"#, &["1:a", "1:b \"c\" \\ \\. \n", ";"]),
            (r"a \.b\;c d\\;", &["1:a", r"1:\.b\;c", r"1:d\", ";"]),
            (r#"a b"c d";"#, &["1:a", "1:b\"c", "1:d\"", ";"]),
            ("a ${b}c{", &["1:a", "1:${b}c", "{"]),
            ("a{b;}", &["1:a", "{", "1:b", ";", "}"]),
            ("a b}c;", &["1:a", "1:b}c", ";"]),
            (r#"if ($a = "b"){"#, &["1:if", "1:($a", "1:=", "1:b", "1:)", "{"]),
            ("a \"b\nc\" d;", &["1:a", "1:b\nc", "2:d", ";"]),
            ("", &[]),
            ("a \\", &["1:a", "1:\\"]),
        ] {
            assert_eq!(tokens(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn quotes_need_an_end() {
        for text in ["a \"b;", "a 'b\\';", "a \"b\"c;", "'"] {
            assert!(tokens(text).is_err(), "{text}");
        }
    }
}
