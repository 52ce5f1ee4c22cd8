//! The heads of one exchange through a proxy, observed as client and as backend ("endpoint"), and the comparison of
//! their bytes.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use crate::backend::ECHO_HEAD_PATH;
use crate::plan::RequestShape;
use crate::raw_exchange::{exchange, fields};
use crate::server::added_fields::AddedFields;

/// The heads that a proxy sends.
#[derive(Clone, Debug)]
pub(crate) struct Heads {
    /// The head of the request, as received by the endpoint.
    pub(crate) request: String,
    /// The head of the response, as received by the client.
    pub(crate) response: String,
}

impl Heads {
    /// Sends this request through the proxy.
    pub(crate) async fn observe(proxy: SocketAddr, shape: &RequestShape) -> Result<Heads> {
        let (_, response) = exchange(proxy, shape).await?;
        let (_, echo) = exchange(proxy, &RequestShape { path: ECHO_HEAD_PATH.to_owned(), ..shape.clone() }).await?;
        // The path is in the request line, and perhaps in `X-Forwarded-Path`.
        let request = echo.body.replace(ECHO_HEAD_PATH, &shape.path);
        Ok(Heads { request, response: response.head })
    }

    /// What a proxy adds that sends these heads, in comparison with one that sends the `plain` ones.
    pub(crate) fn added_to(&self, plain: &Heads) -> AddedFields {
        AddedFields { request: added(&plain.request, &self.request), response: added(&plain.response, &self.response) }
    }

    /// The bytes that `plain` lacks in the fields of requests that both have. For a chain of plugins, these are the
    /// product token in `Via`.
    pub(crate) fn longer_values_than(&self, plain: &Heads) -> usize {
        let longer = fields(&self.request).filter_map(|(name, value)| {
            let (_, known) = fields(&plain.request).find(|(known, _)| known.eq_ignore_ascii_case(name))?;
            Some(value.len().saturating_sub(known.len()))
        });
        longer.sum()
    }

    /// Fails unless these heads have about as many bytes as those of the chain of plugins that they imitate.
    pub(crate) fn ensure_same_bytes(&self, name: &str, chain: &Heads) -> Result<()> {
        let lengths = [(&self.request, &chain.request), (&self.response, &chain.response)]
            .map(|(head, imitated)| (head.len(), imitated.len()));
        let [(request, imitated_request), (response, imitated_response)] = lengths;
        ensure!(
            lengths.iter().all(|(length, imitated)| length.abs_diff(*imitated) <= TOLERANCE),
            "{name}: {request} and {response} bytes instead of {imitated_request} and {imitated_response}\n\
             {}{}instead of\n{}{}",
            self.request,
            self.response,
            chain.request,
            chain.response
        );
        Ok(())
    }

    /// Fails unless these heads have the fields of the chain of plugins that they imitate, in any order.
    pub(crate) fn ensure_same_fields(&self, name: &str, chain: &Heads) -> Result<()> {
        for (head, imitated) in [(&self.request, &chain.request), (&self.response, &chain.response)] {
            ensure!(
                names(head) == names(imitated),
                "{name} does not send the same fields:\n{head}instead of\n{imitated}"
            );
        }
        Ok(())
    }
}

/// The fields of a head whose names are missing in the head of the plain route.
fn added(plain: &str, head: &str) -> Vec<(String, String)> {
    let is_new = |name: &str| !fields(plain).any(|(known, _)| known.eq_ignore_ascii_case(name));
    let added = fields(head).filter(|(name, _)| is_new(name));
    added.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn names(head: &str) -> Vec<String> {
    let mut names: Vec<_> = fields(head).map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort();
    names
}

/// Bytes by which heads may differ, because counters in ids, latencies and numbers of remaining requests have fewer or
/// more digits.
const TOLERANCE: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(request: &str, response: &str) -> Heads {
        let head = |line: &str, fields: &str| format!("{line}\r\n{}\r\n", fields.replace('\n', "\r\n"));
        Heads { request: head("GET / HTTP/1.1", request), response: head("HTTP/1.1 200 OK", response) }
    }

    #[test]
    fn added_fields_and_longer_values_are_those_that_the_plain_route_lacks() {
        let plain = heads("host: a\nvia: 1.1 portico\n", "x: 1\n");
        let chain = heads("host: a\nVia: 1.1 portico/0.1.0\nX-Real-IP: ::1\n", "X: 1\ny: 22\n");
        let added = chain.added_to(&plain);
        assert_eq!(added.request, [("X-Real-IP".to_owned(), "::1".to_owned())]);
        assert_eq!(added.response, [("y".to_owned(), "22".to_owned())]);
        assert_eq!((chain.longer_values_than(&plain), plain.longer_values_than(&plain)), (6, 0));
    }

    #[test]
    fn heads_without_the_fields_of_the_chain_are_rejected() {
        let chain = heads("x-consumer-username: bench\nremaining: 9\n", "vary: Origin\n");
        let alike = heads("remaining: 100\nX-Consumer-Username: other\n", "Vary: Origin\n");
        assert!(alike.ensure_same_bytes("a", &chain).is_ok() && alike.ensure_same_fields("a", &chain).is_ok());
        for other in [
            heads("x-consumer-username: bench\n", "vary: Origin\n"),
            heads("x-consumer-username: bench\nremaining: 9\n", ""),
        ] {
            let rejected = other.ensure_same_bytes("a", &chain).and(other.ensure_same_fields("a", &chain));
            assert!(rejected.is_err(), "{other:?}");
            assert!(other.ensure_same_bytes("a", &chain).is_err(), "{other:?}");
            assert!(other.ensure_same_fields("a", &chain).is_err(), "{other:?}");
        }
    }
}
