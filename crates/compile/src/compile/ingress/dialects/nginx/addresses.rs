//! Lists of addresses: the clients that may send requests, and those that may not.

use super::config_map::NginxConfig;
use super::value_reader::ValueReader;
use crate::address_ranges::parse_network;
use crate::api::ingress_nginx;

/// The lists of an Ingress.
#[derive(Debug, Default)]
pub(super) struct AddressLists {
    pub denied: Vec<String>,
    /// If set, all other clients are denied.
    pub allowed: Option<Vec<String>>,
}

impl AddressLists {
    pub(super) fn read(reader: &mut ValueReader<'_>, config: &NginxConfig) -> Self {
        let denied = reader.text("denylist-source-range").or(config.denied.as_deref());
        let allowed = match reader.text("allowlist-source-range") {
            Some(list) => Some(list),
            None => reader.text("whitelist-source-range"),
        };
        AddressLists {
            denied: denied.map(networks).unwrap_or_default(),
            allowed: allowed.or(config.allowed.as_deref()).map(networks),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.denied.is_empty() && self.allowed.is_none()
    }
}

/// The networks of a list in the usual notation: the length of a prefix may begin with zeros in nginx. Entries that are
/// no networks have made the value bad.
pub(super) fn networks(list: &str) -> Vec<String> {
    let network = |entry: &str| match entry.split_once('/') {
        Some((address, bits)) => parse_network(&format!("{address}/{}", bits.parse::<u8>().ok()?)),
        None => parse_network(entry),
    };
    ingress_nginx::items(list).filter_map(network).map(|network| network.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::ingress_nginx::PREFIX;

    fn read(annotations: &[(&str, &str)]) -> (AddressLists, usize) {
        let annotations: serde_json::Map<_, _> =
            annotations.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).into())).collect();
        let meta = json!({"namespace": "a", "name": "b", "annotations": annotations});
        let meta = serde_json::from_value(meta).unwrap();
        let mut reader = ValueReader::new(&meta);
        let lists = AddressLists::read(&mut reader, &NginxConfig::default());
        (lists, reader.errors.len())
    }

    #[test]
    fn the_older_name_counts_if_the_other_one_is_empty() {
        let (lists, _) = read(&[("allowlist-source-range", ""), ("whitelist-source-range", "10.0.0.0/8, 2001:db8::1")]);
        assert_eq!(lists.allowed.unwrap(), ["10.0.0.0/8", "2001:db8::1/128"]);
        assert!(lists.denied.is_empty());
    }

    #[test]
    fn lengths_of_prefixes_may_begin_with_zeros() {
        let (lists, errors) = read(&[("denylist-source-range", "10.0.0.0/008,2001:db8::/0032")]);
        assert_eq!((&lists.denied[..], errors), (&["10.0.0.0/8".to_owned(), "2001:db8::/32".to_owned()][..], 0));
    }

    #[test]
    fn bad_lists_are_errors() {
        for (name, value) in [
            ("allowlist-source-range", "10.0.0.0/33"),
            ("whitelist-source-range", "office"),
            ("denylist-source-range", "10.0.0.1,x"),
        ] {
            assert_eq!(read(&[(name, value)]).1, 1, "{name}: {value}");
        }
    }
}
