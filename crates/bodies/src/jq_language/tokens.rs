//! The tokens of programs.

/// Why a text is not a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError(pub(crate) String);

impl SyntaxError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        SyntaxError(message.into())
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A name of a function or a keyword, with `::` not allowed.
    Name(String),
    /// `.name`
    Field(String),
    /// `$name`
    Variable(String),
    /// `@name`
    Format(String),
    Number(f64),
    /// A string: literal parts, and the source of interpolated programs between them.
    Text(Vec<TextToken>),
    /// An operator or punctuation.
    Symbol(&'static str),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum TextToken {
    Literal(String),
    Program(Vec<Token>),
}

/// From the longest to the shortest, so that the first one that fits is right.
const SYMBOLS: &[&str] = &[
    "//=", "|=", "+=", "-=", "*=", "/=", "%=", "==", "!=", "<=", ">=", "//", "..", "|", ",", "=", "<", ">", "+", "-",
    "*", "/", "%", "(", ")", "[", "]", "{", "}", ":", ";", ".", "?",
];

const MAX_INTERPOLATION: usize = 8;

pub(super) fn tokens(source: &str) -> Result<Vec<Token>, SyntaxError> {
    let mut lexer = Lexer { rest: source };
    let tokens = lexer.tokens(0, false)?;
    Ok(tokens)
}

struct Lexer<'s> {
    rest: &'s str,
}

impl Lexer<'_> {
    /// The tokens up to the end of the source, or of an interpolated program, which a parenthesis closes.
    fn tokens(&mut self, depth: usize, is_interpolated: bool) -> Result<Vec<Token>, SyntaxError> {
        if depth > MAX_INTERPOLATION {
            return Err(SyntaxError::new("strings are interpolated too deeply"));
        }
        let (mut tokens, mut parentheses) = (Vec::new(), 0_usize);
        loop {
            self.skip_space();
            let Some(first) = self.rest.chars().next() else {
                return if is_interpolated { Err(SyntaxError::new("a string is not closed")) } else { Ok(tokens) };
            };
            if is_interpolated && first == ')' && parentheses == 0 {
                self.rest = &self.rest[1..];
                return Ok(tokens);
            }
            let token = self.token(first, depth)?;
            match token {
                Token::Symbol("(") => parentheses += 1,
                Token::Symbol(")") => parentheses = parentheses.saturating_sub(1),
                _ => {}
            }
            tokens.push(token);
        }
    }

    fn token(&mut self, first: char, depth: usize) -> Result<Token, SyntaxError> {
        match first {
            '"' => return self.text(depth),
            '0'..='9' => return self.number(),
            'a'..='z' | 'A'..='Z' | '_' => return Ok(Token::Name(self.name())),
            '$' | '@' => {
                self.rest = &self.rest[1..];
                let name = self.name();
                if name.is_empty() {
                    return Err(SyntaxError::new(format!("{first} has no name")));
                }
                return Ok(if first == '$' { Token::Variable(name) } else { Token::Format(name) });
            }
            '.' => {
                let next = self.rest[1..].chars().next();
                if next.is_some_and(|next| next.is_ascii_digit()) {
                    return self.number();
                }
                if next.is_some_and(|next| next.is_ascii_alphabetic() || next == '_') {
                    self.rest = &self.rest[1..];
                    return Ok(Token::Field(self.name()));
                }
            }
            _ => {}
        }
        let symbol = SYMBOLS.iter().find(|symbol| self.rest.starts_with(**symbol));
        let symbol = symbol.ok_or_else(|| SyntaxError::new(format!("{first:?} is not part of any term")))?;
        self.rest = &self.rest[symbol.len()..];
        Ok(Token::Symbol(symbol))
    }

    fn name(&mut self) -> String {
        let end = self.rest.find(|character: char| !character.is_ascii_alphanumeric() && character != '_');
        let (name, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        name.to_owned()
    }

    fn number(&mut self) -> Result<Token, SyntaxError> {
        let bytes = self.rest.as_bytes();
        let mut end = 0;
        while let Some(byte) = bytes.get(end) {
            let is_sign_of_exponent = matches!(byte, b'+' | b'-') && end > 0 && matches!(bytes[end - 1], b'e' | b'E');
            if !byte.is_ascii_digit() && !matches!(byte, b'.' | b'e' | b'E') && !is_sign_of_exponent {
                break;
            }
            end += 1;
        }
        let (number, rest) = self.rest.split_at(end);
        self.rest = rest;
        number.parse().map(Token::Number).map_err(|_| SyntaxError::new(format!("{number} is not a number")))
    }

    fn text(&mut self, depth: usize) -> Result<Token, SyntaxError> {
        let unclosed = || SyntaxError::new("a string is not closed");
        self.rest = &self.rest[1..];
        let (mut pieces, mut literal) = (Vec::new(), String::new());
        loop {
            let end = self.rest.find(['"', '\\']).ok_or_else(unclosed)?;
            literal.push_str(&self.rest[..end]);
            let is_end = self.rest.as_bytes()[end] == b'"';
            self.rest = &self.rest[end + 1..];
            if is_end {
                pieces.push(TextToken::Literal(literal));
                return Ok(Token::Text(pieces));
            }
            let escaped = self.rest.chars().next().ok_or_else(unclosed)?;
            self.rest = &self.rest[escaped.len_utf8()..];
            match escaped {
                '(' => {
                    pieces.push(TextToken::Literal(std::mem::take(&mut literal)));
                    pieces.push(TextToken::Program(self.tokens(depth + 1, true)?));
                }
                'n' => literal.push('\n'),
                't' => literal.push('\t'),
                'r' => literal.push('\r'),
                'b' => literal.push('\u{8}'),
                'f' => literal.push('\u{c}'),
                '"' | '\\' | '/' => literal.push(escaped),
                'u' => literal.push(self.unicode()?),
                _ => return Err(SyntaxError::new(format!("\\{escaped} is not an escape in a string"))),
            }
        }
    }

    /// The character of an escape, of which `\u` has been read.
    fn unicode(&mut self) -> Result<char, SyntaxError> {
        let mut unit = || {
            let (digits, rest) = self.rest.split_at_checked(4)?;
            self.rest = rest;
            u16::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))
        };
        let first = unit().ok_or_else(|| SyntaxError::new("\\u needs four hexadecimal digits"))?;
        let mut units = vec![first];
        if (0xd800..0xdc00).contains(&first) && self.rest.starts_with("\\u") {
            self.rest = &self.rest[2..];
            let (digits, rest) = self.rest.split_at_checked(4).unwrap_or((self.rest, ""));
            self.rest = rest;
            units.extend(u16::from_str_radix(digits, 16));
        }
        let decoded = char::decode_utf16(units).next();
        decoded.and_then(Result::ok).ok_or_else(|| SyntaxError::new("\\u is not a character"))
    }

    fn skip_space(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            let Some(comment) = self.rest.strip_prefix('#') else { return };
            self.rest = comment.find('\n').map_or("", |end| &comment[end..]);
        }
    }
}
