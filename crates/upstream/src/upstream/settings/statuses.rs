//! Which statuses of responses are failures of an endpoint.

/// Whether a gateway has responded in place of the endpoint: 502, 503 and 504.
pub fn is_gateway_error(status: u16) -> bool {
    (502..=504).contains(&status)
}

/// Whether an endpoint has failed: 500 to 599, except 501 and 505, which are about the request.
pub fn is_server_error(status: u16) -> bool {
    (500..=599).contains(&status) && !matches!(status, 501 | 505)
}

/// Whether the status is listed; server errors are, if the list is empty. `listed` is sorted.
pub(crate) fn is_listed_or_server_error(listed: &[u16], status: u16) -> bool {
    match listed {
        [] => is_server_error(status),
        listed => listed.binary_search(&status).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_gateway_errors_or_server_errors() {
        for (status, expected) in [
            (429, (false, false)),
            (499, (false, false)),
            (500, (false, true)),
            (501, (false, false)),
            (502, (true, true)),
            (503, (true, true)),
            (504, (true, true)),
            (505, (false, false)),
            (506, (false, true)),
            (599, (false, true)),
            (600, (false, false)),
        ] {
            assert_eq!((is_gateway_error(status), is_server_error(status)), expected, "{status}");
            assert_eq!(is_listed_or_server_error(&[], status), expected.1, "{status}");
            assert_eq!(is_listed_or_server_error(&[429, 505], status), matches!(status, 429 | 505), "{status}");
        }
    }
}
