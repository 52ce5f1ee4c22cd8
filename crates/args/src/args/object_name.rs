//! Parses names of objects in flags.

/// Parses the name of a Namespace or of a class.
pub(super) fn parse_short_name(text: &str) -> Result<String, &'static str> {
    parse(text, 63)
}

/// Parses the name of an object of which nothing else is derived.
pub(super) fn parse_object_name(text: &str) -> Result<String, &'static str> {
    parse(text, 253)
}

fn parse(text: &str, max_bytes: usize) -> Result<String, &'static str> {
    let is_label = |label: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(is_allowed) && !label.starts_with('-') && !label.ends_with('-')
    };
    if text.len() <= max_bytes && text.split('.').all(is_label) {
        Ok(text.to_owned())
    } else {
        Err("must be lower-case letters, digits and hyphens")
    }
}
