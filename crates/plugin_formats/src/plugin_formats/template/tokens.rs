//! The tokens of expressions.

use crate::plugin_api::lua_value::number;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum LuaToken<'t> {
    Name(&'t str),
    Number(f64),
    Text(Vec<u8>),
    Symbol(&'static str),
    End,
}

/// The longer symbols first, because `<=` begins with `<`.
const SYMBOLS: &[&str] = &[
    "...", "..", "==", "~=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "^", "#", "(", ")", "[", "]", "{", "}",
    ",", ".", ":", ";", "=",
];

/// The token at the start of the text after spaces, and the offset of its end.
pub(super) fn next_token(text: &str) -> Result<(LuaToken<'_>, usize), String> {
    let rest = text.trim_start_matches(|character: char| character.is_ascii_whitespace());
    let start = text.len() - rest.len();
    let Some(first) = rest.chars().next() else { return Ok((LuaToken::End, start)) };
    let is_number = first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit()));
    if is_number {
        let length = number_length(rest);
        let number = number::parse(&rest.as_bytes()[..length]);
        let number = number.ok_or_else(|| format!("{} is not a number", &rest[..length]))?;
        return Ok((LuaToken::Number(number), start + length));
    }
    if first.is_ascii_alphabetic() || first == '_' {
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        return Ok((LuaToken::Name(&rest[..length]), start + length));
    }
    if first == '"' || first == '\'' {
        let (value, length) = string(rest)?;
        return Ok((LuaToken::Text(value), start + length));
    }
    if rest.starts_with("--") {
        return Err("-- starts a comment, and comments are not supported".to_owned());
    }
    if rest.starts_with("[[") || rest.starts_with("[=") {
        return Err("a string is in long brackets, and only quotes are supported".to_owned());
    }
    match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
        Some(symbol) => Ok((LuaToken::Symbol(symbol), start + symbol.len())),
        None => Err(format!("the character {first:?} is not valid")),
    }
}

/// Length of the number at the start, including characters that make it invalid, as in `3x`.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let is_hexadecimal = text.starts_with("0x") || text.starts_with("0X");
    let mut length = 0;
    while let Some(byte) = bytes.get(length) {
        let follows_exponent = length > 0 && !is_hexadecimal && matches!(bytes[length - 1], b'e' | b'E');
        // `1..x` is a concatenation in this language, although Lua requires a space before the dots.
        let is_dot = *byte == b'.' && bytes.get(length + 1) != Some(&b'.');
        if !(byte.is_ascii_alphanumeric() || is_dot || (follows_exponent && matches!(byte, b'+' | b'-'))) {
            break;
        }
        length += 1;
    }
    length
}

/// The string in quotes at the start, unescaped, and its length with the quotes.
fn string(text: &str) -> Result<(Vec<u8>, usize), String> {
    let bytes = text.as_bytes();
    let quote = bytes[0];
    let mut value = Vec::new();
    let mut at = 1;
    loop {
        match bytes.get(at) {
            None | Some(b'\n' | b'\r') => return Err("a string has no closing quote".to_owned()),
            Some(byte) if *byte == quote => return Ok((value, at + 1)),
            Some(b'\\') => {
                let (byte, length) = escape(&bytes[at + 1..]).ok_or(
                    "a string has a backslash that is not followed by a known escape; write \\\\ for a backslash",
                )?;
                value.push(byte);
                at += 1 + length;
            }
            Some(byte) => {
                value.push(*byte);
                at += 1;
            }
        }
    }
}

/// The byte that an escape sequence after a backslash stands for, and the length of the sequence.
fn escape(sequence: &[u8]) -> Option<(u8, usize)> {
    let byte = match sequence.first()? {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        byte @ (b'\\' | b'"' | b'\'' | b'\n') => *byte,
        b'x' => {
            let digits = std::str::from_utf8(sequence.get(1..3)?).ok()?;
            let is_hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            return u8::from_str_radix(digits, 16).ok().filter(|_| is_hexadecimal).map(|byte| (byte, 3));
        }
        digit if digit.is_ascii_digit() => {
            let length = sequence.iter().take(3).take_while(|byte| byte.is_ascii_digit()).count();
            return std::str::from_utf8(&sequence[..length]).ok()?.parse().ok().map(|byte| (byte, length));
        }
        _ => return None,
    };
    Some((byte, 1))
}
