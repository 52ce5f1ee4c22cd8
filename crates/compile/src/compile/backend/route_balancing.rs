//! The settings of an upstream whose load balancing is that of an object about routes.

use std::sync::Arc;

use crate::snapshot::location_snippet::{InvalidSnippetText, SnippetText, SnippetVariable};
use crate::upstream::RouteBalancing;
use crate::upstream::settings::{
    Balancing, BalancingAlgorithm, CombineKeys, HashKey, HashSource, HashTable, LatencyAverage, RequestHash,
};

/// The settings of a Service, with the load balancing of routes in place of its own.
pub(in crate::compile) fn apply(balancing: &RouteBalancing, of_service: Balancing) -> Balancing {
    let algorithm = match balancing {
        RouteBalancing::RoundRobin => BalancingAlgorithm::RoundRobin,
        RouteBalancing::PeakEwma => BalancingAlgorithm::PeakEwma(LatencyAverage::DEFAULT),
        RouteBalancing::Hash { .. } => BalancingAlgorithm::ConsistentHash(HashTable::RingHash { points: None }),
    };
    let hash = match *balancing {
        RouteBalancing::RoundRobin | RouteBalancing::PeakEwma => None,
        RouteBalancing::Hash { subset_size } => Some(RequestHash { subset_size, ..of_text(Box::default()) }),
    };
    Balancing { algorithm, hash: hash.map(Arc::new), ..of_service }
}

/// What a text with variables of nginx takes from requests.
pub(in crate::compile) fn parse_hash(text: &str) -> Result<RequestHash, String> {
    // As a key, the bytes of an address are as good as its text.
    let text = SnippetText::parse(&text.replace("binary_remote_addr", "remote_addr"));
    let text = text.map_err(|error: InvalidSnippetText| error.to_string())?;
    let keys = text.request_parts().map(|part| {
        let source = match part {
            Err(literal) => HashSource::Literal(literal.into()),
            Ok(variable) => source(variable).ok_or("has a variable that cannot choose an endpoint")?,
        };
        Ok(HashKey { source, regex: None })
    });
    keys.collect::<Result<_, String>>().map(of_text)
}

fn of_text(keys: Box<[HashKey]>) -> RequestHash {
    RequestHash { keys, combine: CombineKeys::Text, bounded_load_percent: None, subset_size: None }
}

fn source(variable: &SnippetVariable) -> Option<HashSource> {
    Some(match variable {
        SnippetVariable::Host => HashSource::Host,
        SnippetVariable::RequestField(name) => HashSource::Header(name.clone()),
        SnippetVariable::Parameter(name) => HashSource::Query(name.clone()),
        SnippetVariable::Cookie(name) => HashSource::CookieValue(name.clone()),
        SnippetVariable::Args => HashSource::QueryText,
        SnippetVariable::Uri => HashSource::Path,
        SnippetVariable::RequestUri => HashSource::Target,
        SnippetVariable::RemoteAddr => HashSource::ClientIp { ipv6_prefix: 128 },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn variables_of_requests_are_hashed() {
        let sources =
            |text| parse_hash(text).map(|hash| hash.keys.iter().map(|key| key.source.clone()).collect::<Vec<_>>());
        let header = HashSource::Header(http::HeaderName::from_static("x-user"));
        let address = HashSource::ClientIp { ipv6_prefix: 128 };
        for (text, expected) in [
            ("$request_uri", vec![HashSource::Target]),
            ("$binary_remote_addr", vec![address.clone()]),
            ("$remote_addr-$http_x_user", vec![address, HashSource::Literal("-".into()), header]),
            ("${host}$uri", vec![HashSource::Host, HashSource::Path]),
            ("$cookie_session$arg_id", vec![HashSource::CookieValue("session".into()), HashSource::Query("id".into())]),
            ("all", vec![HashSource::Literal("all".into())]),
        ] {
            assert_eq!(sources(text), Ok(expected), "{text}");
        }
        for (text, error) in [
            ("$request_id", "has a variable that cannot choose an endpoint"),
            ("$other", "reads `$other`, which is not a variable that is supported"),
            ("$", "has a dollar sign without the name of a variable"),
        ] {
            assert_eq!(sources(text), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn the_other_settings_are_those_of_the_service() {
        let of_service = Balancing { panic_threshold_percent: 7, ..Balancing::default() };
        let hash = RouteBalancing::Hash { subset_size: NonZeroU32::new(3) };
        let applied = apply(&hash, of_service.clone());
        assert_eq!((applied.panic_threshold_percent, applied.algorithm.name()), (7, "RingHash"));
        let hash = applied.hash.unwrap();
        assert!(hash.keys.is_empty() && hash.subset_size == NonZeroU32::new(3));
        let in_turn = apply(&RouteBalancing::RoundRobin, of_service.clone());
        assert_eq!(in_turn, of_service);
    }
}
