//! Splits Rust source into tokens, as far as the check of paths needs them, and into its comments and string literals.

/// A word, `::`, or any other single character that is no white space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// A comment without its slashes, or a string literal without its quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) line: usize,
    pub(crate) is_comment: bool,
}

pub(crate) fn tokens(source: &str) -> Vec<Token> {
    Scanner::scan(source).tokens
}

pub(crate) fn pieces(source: &str) -> Vec<Piece> {
    Scanner::scan(source).pieces
}

struct Scanner<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
    pieces: Vec<Piece>,
}

impl<'a> Scanner<'a> {
    fn scan(source: &'a str) -> Scanner<'a> {
        let mut scanner = Scanner { rest: source, line: 1, tokens: Vec::new(), pieces: Vec::new() };
        while scanner.step() {}
        scanner
    }

    fn step(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else { return false };
        if self.rest.starts_with("//") {
            self.push_piece(self.rest.find('\n').unwrap_or(self.rest.len()), true);
        } else if self.rest.starts_with("/*") {
            self.push_piece(block_comment(self.rest), true);
        } else if let Some(length) = raw_string(self.rest) {
            self.push_piece(length, false);
        } else if first == '"' {
            self.push_piece(1 + closing_quote(&self.rest[1..]), false);
        } else if first == '\'' {
            self.skip(character_or_lifetime(self.rest));
        } else if first.is_alphanumeric() || first == '_' {
            let word = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
            // The prefix of b"…" and c"…" belongs to the literal.
            if self.rest[word..].starts_with('"') && ["b", "c"].contains(&&self.rest[..word]) {
                self.skip(word);
            } else {
                self.push_token(word);
            }
        } else if self.rest.starts_with("::") {
            self.push_token(2);
        } else if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else {
            self.push_token(first.len_utf8());
        }
        true
    }

    fn push_piece(&mut self, length: usize, is_comment: bool) {
        let source = &self.rest[..length];
        let text = match (is_comment, source.find('"'), source.rfind('"')) {
            (false, Some(open), Some(close)) if open < close => &source[open + 1..close],
            _ => source.trim_matches('/'),
        };
        self.pieces.push(Piece { text: text.to_owned(), line: self.line, is_comment });
        self.skip(length);
    }

    fn push_token(&mut self, length: usize) {
        self.tokens.push(Token { text: self.rest[..length].to_owned(), line: self.line });
        self.skip(length);
    }

    fn skip(&mut self, length: usize) {
        self.line += self.rest[..length].matches('\n').count();
        self.rest = &self.rest[length..];
    }
}

/// Length of a block comment, which may contain other block comments.
fn block_comment(source: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < source.len() {
        if source[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if source[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += source[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    source.len()
}

/// Length of `r"…"`, `r#"…"#`, `br"…"` and so on, if the source starts with one.
fn raw_string(source: &str) -> Option<usize> {
    let after = ["br", "cr", "r"].iter().find_map(|prefix| source.strip_prefix(prefix))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = source.len() - body.len();
    Some(body.find(&end).map_or(source.len(), |at| start + at + end.len()))
}

/// Length of the rest of a string after its opening quote, including the closing quote.
fn closing_quote(source: &str) -> usize {
    let mut escaped = false;
    for (at, c) in source.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    source.len()
}

/// Length of a character literal such as `'\n'`, or of the apostrophe of a lifetime.
fn character_or_lifetime(source: &str) -> usize {
    let mut chars = source.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => source[3..].find('\'').map_or(source.len(), |at| at + 4),
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_string_literals_are_pieces() {
        let found = pieces("//! a\nb(\"c \\\" d\") // e\nr#\"f\"#");
        let found: Vec<_> = found.iter().map(|piece| (piece.text.trim(), piece.line, piece.is_comment)).collect();
        assert_eq!(found, [("! a", 1, true), ("c \\\" d", 2, false), ("e", 2, true), ("f", 3, false)]);
    }

    #[test]
    fn comments_and_literals_are_left_out_and_lines_are_right() {
        let cases: &[(&str, &[(&str, usize)])] = &[
            ("use a::b;", &[("use", 1), ("a", 1), ("::", 1), ("b", 1), (";", 1)]),
            ("// crate::x\n/* crate::y /* crate::z */\n*/ a", &[("a", 3)]),
            ("\"crate::x \\\" crate::y\" a", &[("a", 1)]),
            ("r#\"crate::x \" \n crate::y\"# a", &[("a", 2)]),
            ("b\"x\" br\"y\" c\"z\" a", &[("a", 1)]),
            ("'\"' a", &[("a", 1)]),
            ("'\\'' a '\\u{41}' b '\\\\' c", &[("a", 1), ("b", 1), ("c", 1)]),
            ("&'static a", &[("&", 1), ("static", 1), ("a", 1)]),
            ("\"unfinished", &[]),
        ];
        for (source, expected) in cases {
            let found = tokens(source);
            let found: Vec<(&str, usize)> = found.iter().map(|token| (token.text.as_str(), token.line)).collect();
            assert_eq!(found, *expected, "{source}");
        }
    }
}
