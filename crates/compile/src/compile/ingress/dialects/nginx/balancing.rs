//! The load balancing of the requests of an Ingress: `load-balance` and `upstream-hash-by`.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::config_map::NginxConfig;
use super::value_reader::ValueReader;
use crate::compile::backend::route_balancing;
use crate::upstream::RouteBalancing;

/// The load balancing that annotations or the ConfigMap set. `None`: that of the Service.
pub(super) fn read(reader: &mut ValueReader<'_>, config: &NginxConfig) -> Option<Arc<RouteBalancing>> {
    let algorithm = reader.text("load-balance").map(str::trim);
    let algorithm = algorithm.and_then(|name| {
        let found = of_name(name);
        if found.is_none() {
            let message = format!("{name} has no effect without the annotations of sessions or of upstream-hash-by");
            reader.warn("load-balance", message, "write round_robin or ewma");
        }
        found
    });
    let algorithm = algorithm.or_else(|| config.load_balance.clone());
    by_hash(reader).or(algorithm).map(Arc::new)
}

/// The algorithm with this name; `None` for those that only make sense with other annotations.
pub(super) fn of_name(name: &str) -> Option<RouteBalancing> {
    match name {
        "round_robin" => Some(RouteBalancing::RoundRobin),
        "ewma" => Some(RouteBalancing::PeakEwma),
        _ => None,
    }
}

/// A hash precedes the algorithm.
fn by_hash(reader: &mut ValueReader<'_>) -> Option<RouteBalancing> {
    let is_subset = reader.flag("upstream-hash-by-subset", false);
    let size = reader.number("upstream-hash-by-subset-size").and_then(|size| u32::try_from(size).ok());
    let size = size.and_then(NonZeroU32::new).unwrap_or(SUBSET_SIZE);
    let Some(text) = reader.text("upstream-hash-by") else {
        reader.note_without(&["upstream-hash-by-subset", "upstream-hash-by-subset-size"], "upstream-hash-by");
        return None;
    };
    let text = text.replace(' ', "");
    if let Err(error) = route_balancing::parse_hash(&text) {
        let message = format!("it {error}, so requests are balanced as without it");
        reader.warn("upstream-hash-by", message, "use variables such as $request_uri, $remote_addr or $http_x_user");
        return None;
    }
    Some(RouteBalancing::Hash { text: text.into(), subset_size: is_subset.then_some(size) })
}

/// The annotations of a canary that apply to its own Service.
pub(super) const NAMES: [&str; 4] =
    ["load-balance", "upstream-hash-by", "upstream-hash-by-subset", "upstream-hash-by-subset-size"];

const SUBSET_SIZE: NonZeroU32 = NonZeroU32::new(3).expect("it is not zero");

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::ingress_nginx::PREFIX;

    #[test]
    fn a_hash_precedes_the_algorithm_and_this_that_of_the_config_map() {
        let hash = |text: &str, size| RouteBalancing::Hash { text: text.into(), subset_size: NonZeroU32::new(size) };
        for (annotations, expected, notes) in [
            (&[][..], Some(RouteBalancing::PeakEwma), 0),
            (&[("load-balance", "round_robin")], Some(RouteBalancing::RoundRobin), 0),
            (&[("load-balance", "chash")], Some(RouteBalancing::PeakEwma), 1),
            (&[("load-balance", "ewma"), ("upstream-hash-by", "$request_uri")], Some(hash("$request_uri", 0)), 0),
            (
                &[("upstream-hash-by", "$binary_remote_addr"), ("upstream-hash-by-subset", "true")],
                Some(hash("$binary_remote_addr", 3)),
                0,
            ),
            (
                &[
                    ("upstream-hash-by", "${http_x_user} -$arg_a"),
                    ("upstream-hash-by-subset", "true"),
                    ("upstream-hash-by-subset-size", "5"),
                ],
                Some(hash("${http_x_user}-$arg_a", 5)),
                0,
            ),
            (&[("upstream-hash-by", "$geoip2_asn")], Some(RouteBalancing::PeakEwma), 1),
            (&[("upstream-hash-by-subset", "true")], Some(RouteBalancing::PeakEwma), 1),
        ] {
            let annotations: serde_json::Map<_, _> =
                annotations.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).into())).collect();
            let meta =
                serde_json::from_value(json!({"namespace": "a", "name": "b", "annotations": annotations})).unwrap();
            let mut reader = ValueReader::new(&meta);
            let config = NginxConfig { load_balance: Some(RouteBalancing::PeakEwma), ..NginxConfig::default() };
            assert_eq!(read(&mut reader, &config).as_deref(), expected.as_ref(), "{annotations:?}");
            assert_eq!((reader.notes.len(), reader.errors.len()), (notes, 0), "{annotations:?}: {:?}", reader.notes);
        }
    }
}
