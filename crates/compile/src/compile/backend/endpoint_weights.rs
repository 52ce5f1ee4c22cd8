//! The annotation on a Service with the weights of its endpoints: a list such as `192.0.2.1:80=10,one.example:80=20`.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::api::Meta;
use crate::api::names::ENDPOINT_WEIGHTS_ANNOTATION;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::Diagnostic;
use crate::upstream::EndpointAddress;

/// The weights, sorted by address. The weight of an endpoint that the annotation does not name is 1.
pub(in crate::compile) fn endpoint_weights(meta: &Meta) -> Result<Vec<(EndpointAddress, u32)>, Diagnostic> {
    let Some(text) = meta.annotations.get(ENDPOINT_WEIGHTS_ANNOTATION) else { return Ok(Vec::new()) };
    let problem = |message: String, remedy: &str| {
        let message = format!("{message}, so all endpoints have the same weight");
        Diagnostic::error(annotation_field(ENDPOINT_WEIGHTS_ANNOTATION), message, remedy)
    };
    let mut weights = Vec::new();
    for entry in text.split(',').map(str::trim) {
        let weight = parse_entry(entry).ok_or_else(|| {
            let message = format!("{entry:?} is not the address of an endpoint with its weight");
            problem(message, "write entries like 192.0.2.1:8080=10, with weights from 1 to 65535")
        })?;
        weights.push(weight);
    }
    weights.sort();
    if let Some(pair) = weights.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let address = &pair[0].0;
        return Err(problem(format!("{address} has several weights"), "keep one of them"));
    }
    Ok(weights)
}

fn parse_entry(entry: &str) -> Option<(EndpointAddress, u32)> {
    let (address, weight) = entry.rsplit_once('=')?;
    let weight = weight.parse().ok().filter(|weight| (1..=MAX_WEIGHT).contains(weight))?;
    if let Ok(address) = address.parse::<SocketAddr>() {
        return Some((EndpointAddress::Ip(address), weight));
    }
    let (host, port) = address.rsplit_once(':')?;
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_name = !host.is_empty() && host.bytes().all(is_host);
    let port = port.parse().ok().filter(|port| *port > 0)?;
    is_name.then(|| (EndpointAddress::Name { host: Arc::from(host.to_ascii_lowercase()), port }, weight))
}

/// That of targets in Kong.
const MAX_WEIGHT: u32 = 65_535;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ObjectKey;

    fn meta() -> Meta {
        Meta::new(ObjectKey::new("shop", "cart"))
    }

    fn weights(text: &str) -> Result<Vec<String>, String> {
        let mut meta = meta();
        meta.annotations.insert(ENDPOINT_WEIGHTS_ANNOTATION.into(), text.into());
        let found = endpoint_weights(&meta).map_err(|problem| problem.message.to_string())?;
        Ok(found.into_iter().map(|(address, weight)| format!("{address}={weight}")).collect())
    }

    #[test]
    fn weights_are_sorted_by_address() {
        assert_eq!(endpoint_weights(&meta()), Ok(Vec::new()));
        let found = weights("B.example:80=5, 192.0.2.2:80=65535,192.0.2.1:81=1,[2001:db8::1]:80=2");
        let expected = ["192.0.2.1:81=1", "192.0.2.2:80=65535", "[2001:db8::1]:80=2", "b.example:80=5"];
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn other_entries_are_refused() {
        for text in
            ["", "192.0.2.1:80", "192.0.2.1=1", "192.0.2.1:80=0", "192.0.2.1:80=65536", "a b:80=1", "a:0=1", "a:80=1,"]
        {
            assert!(weights(text).unwrap_err().contains("is not the address of an endpoint"), "{text}");
        }
        assert!(weights("a:80=1,A:80=2").unwrap_err().starts_with("a:80 has several weights"));
    }
}
