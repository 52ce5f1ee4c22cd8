//! The load balancing of the requests of an Ingress: `load-balance` and `upstream-hash-by`.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::config_map::NginxConfig;
use super::value_reader::ValueReader;
use crate::compile::backend::route_balancing;
use crate::upstream::RouteBalancing;
use crate::upstream::settings::RequestHash;

/// The load balancing of the requests of an Ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OwnBalancing {
    /// `None`: that of the Service.
    pub algorithm: Option<RouteBalancing>,
    /// What is hashed of requests, if the algorithm is a hash.
    pub hash: Option<Arc<RequestHash>>,
}

/// Reads the annotations, which precede the ConfigMap.
pub(super) fn read(reader: &mut ValueReader<'_>, config: &NginxConfig) -> OwnBalancing {
    let algorithm = reader.text("load-balance").map(str::trim);
    let algorithm = algorithm.and_then(|name| {
        let found = of_name(name);
        if found.is_none() {
            let message = format!("{name} has no effect without the annotations of sessions or of upstream-hash-by");
            reader.warn("load-balance", message, "write round_robin or ewma");
        }
        found
    });
    match by_hash(reader) {
        Some((hash, subset_size)) => {
            OwnBalancing { algorithm: Some(RouteBalancing::Hash { subset_size }), hash: Some(Arc::new(hash)) }
        }
        None => OwnBalancing { algorithm: algorithm.or(config.load_balance), hash: None },
    }
}

/// The algorithm with this name; `None` for those that only make sense with other annotations.
pub(super) fn of_name(name: &str) -> Option<RouteBalancing> {
    match name {
        "round_robin" => Some(RouteBalancing::RoundRobin),
        "ewma" => Some(RouteBalancing::PeakEwma),
        _ => None,
    }
}

/// What is hashed, which precedes the algorithm, and how many endpoints a hash selects.
fn by_hash(reader: &mut ValueReader<'_>) -> Option<(RequestHash, Option<NonZeroU32>)> {
    let is_subset = reader.flag("upstream-hash-by-subset", false);
    let size = reader.number("upstream-hash-by-subset-size").and_then(|size| u32::try_from(size).ok());
    let size = size.and_then(NonZeroU32::new).unwrap_or(SUBSET_SIZE);
    let Some(text) = reader.text("upstream-hash-by") else {
        reader.note_without(&["upstream-hash-by-subset", "upstream-hash-by-subset-size"], "upstream-hash-by");
        return None;
    };
    if size > MAX_SUBSET_SIZE {
        let message = format!("{size} is too large for a subset, so it counts as {MAX_SUBSET_SIZE}");
        reader.warn("upstream-hash-by-subset-size", message, "write a smaller number");
    }
    let size = size.min(MAX_SUBSET_SIZE);
    if !text.contains('$') {
        let message = "it has no variable, so all requests go to the same endpoint".to_owned();
        reader.warn("upstream-hash-by", message, &remedy_of_constant(text.trim()));
    }
    match route_balancing::parse_hash(&text.replace(' ', "")) {
        Ok(hash) => Some((hash, is_subset.then_some(size))),
        Err(error) => {
            let message = format!("it {error}, so requests are balanced as without it");
            let remedy = "use variables such as $request_uri, $remote_addr or $http_x_user";
            reader.warn("upstream-hash-by", message, remedy);
            None
        }
    }
}

/// What to write in place of a value without a variable.
fn remedy_of_constant(text: &str) -> String {
    match route_balancing::parse_hash(&format!("${text}")) {
        Ok(_) => format!("did you mean ${text}? If not, remove it"),
        Err(_) => "use variables such as $request_uri, $remote_addr or $http_x_user".to_owned(),
    }
}

/// The annotations of a canary that apply to its own Service.
pub(super) const NAMES: [&str; 4] =
    ["load-balance", "upstream-hash-by", "upstream-hash-by-subset", "upstream-hash-by-subset-size"];

/// The endpoints of a subset are found one after the other.
const MAX_SUBSET_SIZE: NonZeroU32 = NonZeroU32::new(16).expect("it is not zero");

const SUBSET_SIZE: NonZeroU32 = NonZeroU32::new(3).expect("it is not zero");

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::ingress_nginx::PREFIX;

    #[test]
    fn a_hash_precedes_the_algorithm_and_this_that_of_the_config_map() {
        let hash = |size| RouteBalancing::Hash { subset_size: NonZeroU32::new(size) };
        for (annotations, expected, notes) in [
            (&[][..], RouteBalancing::PeakEwma, 0),
            (&[("load-balance", "round_robin")], RouteBalancing::RoundRobin, 0),
            (&[("load-balance", "chash")], RouteBalancing::PeakEwma, 1),
            (&[("load-balance", "ewma"), ("upstream-hash-by", "$request_uri")], hash(0), 0),
            (&[("upstream-hash-by", "$host"), ("upstream-hash-by-subset", "true")], hash(3), 0),
            (
                &[
                    ("upstream-hash-by", "${http_x_user} -$arg_a"),
                    ("upstream-hash-by-subset", "true"),
                    ("upstream-hash-by-subset-size", "5"),
                ],
                hash(5),
                0,
            ),
            (
                &[
                    ("upstream-hash-by", "$host"),
                    ("upstream-hash-by-subset", "true"),
                    ("upstream-hash-by-subset-size", "4294967295"),
                ],
                hash(16),
                1,
            ),
            (&[("upstream-hash-by", "$geoip2_asn")], RouteBalancing::PeakEwma, 1),
            (&[("upstream-hash-by", "request_uri")], hash(0), 1),
            (&[("upstream-hash-by-subset", "true")], RouteBalancing::PeakEwma, 1),
        ] {
            let annotations: serde_json::Map<_, _> =
                annotations.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).into())).collect();
            let meta =
                serde_json::from_value(json!({"namespace": "a", "name": "b", "annotations": annotations})).unwrap();
            let mut reader = ValueReader::new(&meta);
            let config = NginxConfig { load_balance: Some(RouteBalancing::PeakEwma), ..NginxConfig::default() };
            let found = read(&mut reader, &config);
            assert_eq!(found.algorithm, Some(expected), "{annotations:?}");
            let is_hash = matches!(expected, RouteBalancing::Hash { .. });
            assert_eq!(found.hash.is_some(), is_hash, "{annotations:?}");
            assert_eq!((reader.notes.len(), reader.errors.len()), (notes, 0), "{annotations:?}: {:?}", reader.notes);
        }
    }

    #[test]
    fn a_forgotten_dollar_sign_is_suggested() {
        for (text, expected) in [
            ("request_uri", "did you mean $request_uri? If not, remove it"),
            ("no-such-variable", "use variables such as $request_uri, $remote_addr or $http_x_user"),
        ] {
            assert_eq!(remedy_of_constant(text), expected, "{text}");
        }
    }
}
