//! `string.format`: the conversions of C, with widths of at most two digits.

use super::MAX_VALUE_BYTES;
use super::functions::LuaArguments;
use crate::plugin_api::lua_value::number;
use crate::plugin_api::lua_value::{Budget, EvaluationError};

/// One conversion, for example `%-5.2f`.
#[derive(Clone, Copy, Debug, Default)]
struct Directive {
    is_left: bool,
    has_plus: bool,
    has_space: bool,
    is_zero_padded: bool,
    width: usize,
    precision: Option<usize>,
    conversion: u8,
}

/// Checks a format and the number of its arguments.
pub(super) fn check(format: &[u8], arguments: usize) -> Result<(), String> {
    let mut needed = 0;
    let mut rest = format;
    while let Some(percent) = memchr::memchr(b'%', rest) {
        let (directive, length) = Directive::parse(&rest[percent + 1..])?;
        needed += usize::from(directive.conversion != b'%');
        rest = &rest[percent + 1 + length..];
    }
    if needed > arguments {
        return Err(format!("the format needs {needed} values, and string.format gets {arguments}"));
    }
    Ok(())
}

/// The formatted text. The first argument is the format.
pub(super) fn format(arguments: &LuaArguments<'_>, budget: &mut Budget) -> Result<Vec<u8>, EvaluationError> {
    let format = arguments.string(0)?;
    let mut rest: &[u8] = &format;
    let mut text = Vec::new();
    let mut next_argument = 1;
    loop {
        let percent = memchr::memchr(b'%', rest).unwrap_or(rest.len());
        text.extend_from_slice(&rest[..percent]);
        if percent < rest.len() {
            let (directive, length) = Directive::parse(&rest[percent + 1..]).map_err(EvaluationError::Format)?;
            rest = &rest[percent + 1 + length..];
            if directive.conversion == b'%' {
                text.push(b'%');
            } else {
                let converted = directive.convert(arguments, next_argument)?;
                next_argument += 1;
                directive.pad(&converted, &mut text);
            }
        } else {
            rest = &[];
        }
        if text.len() > MAX_VALUE_BYTES {
            return Err(EvaluationError::TooLong);
        }
        if rest.is_empty() {
            budget.spend(format.len() + text.len())?;
            return Ok(text);
        }
    }
}

impl Directive {
    /// Parses the text after `%`. Returns the directive and its length.
    fn parse(text: &[u8]) -> Result<(Directive, usize), &'static str> {
        let mut directive = Directive::default();
        let mut at = 0;
        while let Some(flag) = text.get(at) {
            match flag {
                b'-' => directive.is_left = true,
                b'+' => directive.has_plus = true,
                b' ' => directive.has_space = true,
                b'0' => directive.is_zero_padded = true,
                _ => break,
            }
            at += 1;
        }
        let (width, length) = two_digits(&text[at..])?;
        directive.width = width;
        at += length;
        if text.get(at) == Some(&b'.') {
            let (precision, length) = two_digits(&text[at + 1..])?;
            directive.precision = Some(precision);
            at += 1 + length;
        }
        directive.conversion =
            *text.get(at).ok_or("a percent sign in the format has no conversion; write %% for it")?;
        if !b"cdeEfgGiosuxX%".contains(&directive.conversion) {
            return Err("the format has a conversion other than %c, %d, %e, %f, %g, %i, %o, %s, %u, %x and %%");
        }
        Ok((directive, at + 1))
    }

    fn convert(&self, arguments: &LuaArguments<'_>, index: usize) -> Result<Vec<u8>, EvaluationError> {
        if self.conversion == b's' {
            let value = arguments.values.get(index).cloned();
            let text = match value {
                Some(value) => value.into_text().into_owned(),
                None => arguments.string(index)?.into_owned(),
            };
            let length = self.precision.unwrap_or(text.len()).min(text.len());
            return Ok(text[..length].to_vec());
        }
        let number = arguments.number(index)?;
        let text = match self.conversion {
            b'c' => return Ok(vec![number as u8]),
            b'd' | b'i' => self.with_sign(number < 0.0, self.digits(format!("{}", (number as i64).unsigned_abs()))),
            b'u' => self.digits(format!("{}", number as i64 as u64)),
            b'o' => self.digits(format!("{:o}", number as i64 as u64)),
            b'x' => self.digits(format!("{:x}", number as i64 as u64)),
            b'X' => self.digits(format!("{:X}", number as i64 as u64)),
            conversion => {
                let precision = self.precision.unwrap_or(6);
                let absolute = number.abs();
                let digits = match conversion {
                    b'e' | b'E' => number::exponential(absolute, precision),
                    b'f' => number::fixed(absolute, precision),
                    _ => number::general(absolute, precision),
                };
                let digits = if conversion.is_ascii_uppercase() { digits.to_ascii_uppercase() } else { digits };
                self.with_sign(number.is_sign_negative() && !number.is_nan(), digits)
            }
        };
        Ok(text.into_bytes())
    }

    /// The digits of an integer, of which there are at least as many as the precision.
    fn digits(&self, digits: String) -> String {
        let width = self.precision.unwrap_or(0);
        format!("{digits:0>width$}")
    }

    fn with_sign(&self, is_negative: bool, digits: String) -> String {
        match (is_negative, self.has_plus, self.has_space) {
            (true, ..) => format!("-{digits}"),
            (false, true, _) => format!("+{digits}"),
            (false, false, true) => format!(" {digits}"),
            _ => digits,
        }
    }

    /// Appends the converted value, padded to the width.
    fn pad(&self, converted: &[u8], text: &mut Vec<u8>) {
        let missing = self.width.saturating_sub(converted.len());
        let is_text = matches!(self.conversion, b's' | b'c');
        if self.is_left {
            text.extend_from_slice(converted);
            text.resize(text.len() + missing, b' ');
        } else if self.is_zero_padded && !is_text {
            let sign = converted.iter().take_while(|byte| matches!(byte, b'-' | b'+' | b' ')).count();
            text.extend_from_slice(&converted[..sign]);
            text.resize(text.len() + missing, b'0');
            text.extend_from_slice(&converted[sign..]);
        } else {
            text.resize(text.len() + missing, b' ');
            text.extend_from_slice(converted);
        }
    }
}

/// A number of up to two digits, 0 if there is none, and its length.
fn two_digits(text: &[u8]) -> Result<(usize, usize), &'static str> {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if length > 2 {
        return Err("a width or precision of the format has more than two digits");
    }
    Ok((text[..length].iter().fold(0, |number, digit| number * 10 + usize::from(digit - b'0')), length))
}
