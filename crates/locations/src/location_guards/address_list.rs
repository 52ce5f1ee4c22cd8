//! Lists of addresses in the configuration of a guard.

use serde::{Deserialize, Deserializer};

use crate::address_ranges::{AddressRanges, parse_network};
use serde::de::Error;

/// Reads a list of addresses and networks.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AddressRanges, D::Error> {
    let list = Vec::<String>::deserialize(deserializer)?;
    let networks = list.iter().map(|text| parse_network(text).ok_or_else(|| D::Error::custom("no network")));
    networks.collect()
}

/// Reads such a list, or that there is none.
pub(super) fn read_optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<AddressRanges>, D::Error> {
    read(deserializer).map(Some)
}
