//! The cookies of requests.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

/// Removes the `unwanted` cookies. The others stay as the client sent them.
pub fn remove_cookies(headers: &mut HeaderMap, unwanted: impl Fn(&[u8]) -> bool) {
    let is_unwanted = |pair: &[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        unwanted(name)
    };
    let pairs = |line: &HeaderValue| -> Vec<Vec<u8>> {
        line.as_bytes().split(|byte| *byte == b';').map(|pair| pair.trim_ascii().to_vec()).collect()
    };
    let has_unwanted = |line: &HeaderValue| line.as_bytes().split(|byte| *byte == b';').any(is_unwanted);
    if !headers.get_all(COOKIE).iter().any(has_unwanted) {
        return;
    }
    let lines: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
    headers.remove(COOKIE);
    for line in lines {
        let kept: Vec<_> = pairs(&line).into_iter().filter(|pair| !pair.is_empty() && !is_unwanted(pair)).collect();
        if let Ok(value) = HeaderValue::from_bytes(&kept.join(&b"; "[..]))
            && !kept.is_empty()
        {
            headers.append(COOKIE, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_cookies_stay() {
        for (lines, expected) in [
            (&["a=1; session=2; b=3"][..], &["a=1; b=3"][..]),
            (&["session=1", "a=2;session=3"], &["a=2"]),
            (&["a=session"], &["a=session"]),
            (&["a=1;b=2"], &["a=1;b=2"]),
            (&["session"], &[]),
            (&[" session = 1 ;x"], &["x"]),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(COOKIE, HeaderValue::from_static(line));
            }
            remove_cookies(&mut headers, |name| name == b"session");
            let found: Vec<_> = headers.get_all(COOKIE).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(found, expected, "{lines:?}");
        }
    }
}
