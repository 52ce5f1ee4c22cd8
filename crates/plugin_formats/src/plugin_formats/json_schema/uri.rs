//! Resolution of URI references (RFC 3986, section 5.2), for `$id` and `$ref`.

/// Resolves a reference against a base URI. Neither is validated; a fragment of the base is dropped.
pub(super) fn resolve(base: &str, reference: &str) -> String {
    let base = base.split('#').next().unwrap_or_default();
    if scheme(reference).is_some() {
        return reference.to_owned();
    }
    if reference.is_empty() || reference.starts_with('#') {
        return format!("{base}{reference}");
    }
    let (base_scheme, base_rest) = match scheme(base) {
        Some(length) => (&base[..=length], &base[length + 1..]),
        None => ("", base),
    };
    if reference.starts_with("//") {
        return format!("{base_scheme}{reference}");
    }
    let (authority, base_path) = match base_rest.strip_prefix("//") {
        Some(rest) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            (&base_rest[..end + 2], &rest[end..])
        }
        None => ("", base_rest),
    };
    let base_path = base_path.split('?').next().unwrap_or_default();
    let end = reference.find(['?', '#']).unwrap_or(reference.len());
    let (path, suffix) = reference.split_at(end);
    let merged = match path {
        "" => base_path.to_owned(),
        path if path.starts_with('/') => remove_dots(path),
        path => {
            let folder = base_path.rfind('/').map_or("", |slash| &base_path[..=slash]);
            let folder = if folder.is_empty() && !authority.is_empty() { "/" } else { folder };
            remove_dots(&format!("{folder}{path}"))
        }
    };
    format!("{base_scheme}{authority}{merged}{suffix}")
}

/// The length of the scheme of an absolute URI.
fn scheme(uri: &str) -> Option<usize> {
    let colon = uri.find(':')?;
    let scheme = &uri.as_bytes()[..colon];
    let is_valid = scheme.first()?.is_ascii_alphabetic()
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    is_valid.then_some(colon)
}

fn remove_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').collect();
    for (index, segment) in segments.iter().enumerate() {
        let is_last = index + 1 == segments.len();
        match *segment {
            "." if is_last => kept.push(""),
            "." => {}
            ".." => {
                if kept.len() > 1 {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    kept.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3986, section 5.4, as far as references in schemas have such forms.
    #[test]
    fn references_are_resolved() {
        for (reference, expected) in [
            ("g:h", "g:h"),
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q#s"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../../g", "http://a/g"),
            ("../../../g", "http://a/g"),
        ] {
            assert_eq!(resolve("http://a/b/c/d;p?q", reference), expected, "{reference}");
        }
        assert_eq!(resolve("urn:uuid:deadbeef", "#/a"), "urn:uuid:deadbeef#/a");
        assert_eq!(resolve("http://a", "b"), "http://a/b");
    }
}
