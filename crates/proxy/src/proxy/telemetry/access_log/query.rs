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
/// Fragments and credentials are replaced: `https://*@a.example/?page=*#*`. `None` if nothing is.
pub(super) fn redact_url(value: &str, is_shown: impl Fn(&str) -> bool) -> Option<String> {
    let (before, fragment) = value.split_once('#').map_or((value, None), |(before, after)| (before, Some(after)));
    let (before, query) = before.split_once('?').map_or((before, None), |(before, after)| (before, Some(after)));
    let authority =
        before.split_once("://").map(|(scheme, rest)| (scheme, rest.split_at(rest.find('/').unwrap_or(rest.len()))));
    let credentials =
        authority.and_then(|(scheme, (authority, path))| Some((scheme, authority.rsplit_once('@')?.1, path)));
    if query.is_none() && fragment.is_none() && credentials.is_none() {
        return None;
    }
    let mut redacted = match credentials {
        Some((scheme, host, path)) => format!("{scheme}://*@{host}{path}"),
        None => before.to_owned(),
    };
    if let Some(query) = query {
        redacted.push('?');
        redacted += &redact_values(query, is_shown);
    }
    if fragment.is_some() {
        redacted.push_str("#*");
    }
    Some(redacted)
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
        for (url, expected) in [
            ("https://a.example/?page=2&t=secret#x", Some("https://a.example/?page=2&t=*#*")),
            ("https://a.example/cb#access_token=secret", Some("https://a.example/cb#*")),
            ("/?page=2#t=secret", Some("/?page=2#*")),
            ("https://user:secret@a.example/b@c", Some("https://*@a.example/b@c")),
            ("https://a.example/b@c", None),
        ] {
            assert_eq!(redact_url(url, shown).as_deref(), expected, "{url}");
        }
        assert_eq!(redact_url("curl/8", shown), None);
    }
}
