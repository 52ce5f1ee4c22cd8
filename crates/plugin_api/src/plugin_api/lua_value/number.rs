//! Numbers as text: parsing, and the formats `%e`, `%f` and `%g` of C, which Lua uses.

/// A number as `tostring()` returns it: up to 14 digits.
pub fn to_text(number: f64) -> String {
    match to_integer(number) {
        Some(integer) if integer.unsigned_abs() < 100_000_000_000_000 => integer.to_string(),
        _ => general(number, 14),
    }
}

/// The number as an integer, if it is one that the type represents exactly.
pub fn to_integer(number: f64) -> Option<i64> {
    // 2^53: larger numbers have gaps between them.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    // Negative zero is not an integer, because `-0` has to keep its sign.
    let is_exact = number.trunc() == number && number.abs() <= EXACT && !(number == 0.0 && number.is_sign_negative());
    is_exact.then_some(number as i64)
}

/// The number that a string contains, with spaces around it: decimal, or hexadecimal with `0x`.
pub fn parse(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?.trim_matches(|character: char| character.is_ascii_whitespace());
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let number = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => parse_radix(digits, 16)?,
        // Rust also accepts `inf`, `nan` and a second sign.
        None if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') => digits.parse().ok()?,
        None => return None,
    };
    Some(if is_negative { -number } else { number })
}

/// An integer without a sign in another radix.
pub fn parse_radix(digits: &str, radix: u32) -> Option<f64> {
    if digits.is_empty() {
        return None;
    }
    digits
        .chars()
        .try_fold(0.0, |number: f64, digit| Some(number * f64::from(radix) + f64::from(digit.to_digit(radix)?)))
}

/// `%.{precision}g`.
pub fn general(number: f64, precision: usize) -> String {
    if let Some(name) = not_finite(number) {
        return name.to_owned();
    }
    let precision = precision.max(1);
    // The exponent after rounding: 9.99 with two digits is 1.0e1.
    let rounded = format!("{:.*e}", precision - 1, number);
    let exponent: i32 = rounded.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or_default();
    let (mut digits, suffix) = match usize::try_from(exponent) {
        Ok(exponent) if exponent < precision => (fixed(number, precision - 1 - exponent), String::new()),
        Err(_) if exponent >= -4 => {
            let decimals = precision - 1 + exponent.unsigned_abs() as usize;
            (fixed(number, decimals), String::new())
        }
        _ => {
            let text = exponential(number, precision - 1);
            let at = text.find('e').unwrap_or(text.len());
            (text[..at].to_owned(), text[at..].to_owned())
        }
    };
    if digits.contains('.') {
        digits.truncate(digits.trim_end_matches('0').trim_end_matches('.').len());
    }
    digits + &suffix
}

/// `%.{precision}f`.
pub fn fixed(number: f64, precision: usize) -> String {
    not_finite(number).map_or_else(|| format!("{number:.precision$}"), str::to_owned)
}

/// `%.{precision}e`, with an exponent of at least two digits.
pub fn exponential(number: f64, precision: usize) -> String {
    if let Some(name) = not_finite(number) {
        return name.to_owned();
    }
    let text = format!("{number:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

fn not_finite(number: f64) -> Option<&'static str> {
    match number {
        number if number.is_nan() => Some("nan"),
        f64::INFINITY => Some("inf"),
        f64::NEG_INFINITY => Some("-inf"),
        _ => None,
    }
}
