//! Path templates and regular expressions of paths: the expanded target is a valid path below the literal beginning of
//! the template, and groups are parts of the path.

use http::uri::PathAndQuery;

use crate::snapshot::path_regex::PathRegex;
use crate::snapshot::regex::RegexLimit;
use crate::snapshot::uri_template::UriTemplate;

/// The lines are a template, a pattern and a request path.
pub(crate) fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.split('\n');
    let (template, pattern) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let path = lines.next().filter(|path| path.starts_with('/')).unwrap_or("/");
    let Ok(path) = PathAndQuery::try_from(path) else { return };
    let Ok(regex) = PathRegex::compile_within(pattern, RegexLimit { max_states: 2000 }) else { return };
    let captures = regex.captures(path.path());
    assert_eq!(
        regex.matched_length(path.path()),
        captures.group(0).map(str::len),
        "the expression matches from the first byte on"
    );
    for number in 0..=regex.group_count() {
        assert!(
            captures.group(number).is_none_or(|group| path.path().contains(group)),
            "group {number} is in the path"
        );
    }
    assert_eq!(captures.group(regex.group_count() + 1), None, "no further group");

    let Ok(template) = UriTemplate::parse(template) else { return };
    assert_eq!(
        UriTemplate::parse(&template.to_string()).as_ref(),
        Ok(&template),
        "the text of a template is a template"
    );
    let Some(target) = template.expand(&captures, path.query()) else { return };
    assert!(target.starts_with('/'), "{target}");
    let parsed = PathAndQuery::try_from(&*target).expect("an expanded target is valid");
    assert_eq!(parsed.as_str(), target, "the whole target is sent to the endpoint");
    let escaped = crate::request_target::path_encoding::decode_unreserved(parsed.path());
    assert!(!escaped.split('/').any(|segment| segment == "." || segment == ".."), "{target} has no dot segments");
    let text = template.to_string();
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(byte);
    let literal = &text[..text.bytes().take_while(is_plain).count()];
    assert!(target.starts_with(literal), "{target} is below {literal}");
}
