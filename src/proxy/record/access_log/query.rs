//! Queries in lines: names of parameters, and values only of those that the operator has chosen.

/// Replaces the values of a query: `page=*&key=*`. A parameter without a recognizable name is replaced completely: one
/// without `=`, one that ends in `=` (it may be padded base64), and one whose name is long or has unusual characters.
/// `is_shown`: whether the value of a parameter is written.
pub(super) fn redact_values(query: &str, is_shown: impl Fn(&str) -> bool) -> String {
    let mut redacted = String::with_capacity(query.len());
    for (index, parameter) in query.split('&').enumerate() {
        if index > 0 {
            redacted.push('&');
        }
        if let Some((name, value)) = parameter.split_once('=')
            && !value.trim_start_matches('=').is_empty()
            && is_plausible_name(name)
        {
            redacted.push_str(name);
            redacted.push('=');
            if is_shown(name) {
                redacted.push_str(value);
                continue;
            }
        }
        if !parameter.is_empty() {
            redacted.push('*');
        }
    }
    redacted
}

/// A value that may contain a URL, such as that of `Referer`: what follows its first question mark is a query.
pub(super) fn redact_url(value: &str, is_shown: impl Fn(&str) -> bool) -> Option<String> {
    let (before, query) = value.split_once('?')?;
    Some(format!("{before}?{}", redact_values(query, is_shown)))
}

fn is_plausible_name(name: &str) -> bool {
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.[]".contains(&byte);
    name.len() <= MAX_NAME_LENGTH && name.bytes().all(is_usual)
}

/// Shorter than common API keys and tokens.
const MAX_NAME_LENGTH: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_chosen_values_are_shown() {
        let shown = |name: &str| name == "page";
        assert_eq!(redact_values("page=2&key=secret&page&page=", shown), "page=2&key=*&*&*");
        assert_eq!(redact_values("", shown), "");
        assert_eq!(redact_url("https://a.example/?page=2&t=secret#x", shown).unwrap(), "https://a.example/?page=2&t=*");
        assert_eq!(redact_url("curl/8", shown), None);
    }
}
