//! Lists of addresses: those that are denied, before those that are allowed.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;

use super::check::{Check, Refused};
use crate::address_ranges::AddressRanges;
use crate::location_guards::address_list;
use crate::plugin_api::context::UNKNOWN_CLIENT;

/// The lists.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Addresses {
    /// Addresses and networks without access.
    #[serde(default, deserialize_with = "address_list::read")]
    #[schemars(with = "Vec<String>")]
    denied: AddressRanges,
    /// Addresses and networks with access, if others have none.
    #[serde(default, deserialize_with = "address_list::read_optional")]
    #[schemars(with = "Option<Vec<String>>")]
    allowed: Option<AddressRanges>,
}

impl Addresses {
    pub(super) fn check(&self, address: IpAddr) -> Check {
        let refused = || Check::Refused(Refused::forbidden("address_not_allowed"));
        if self.denied.is_empty() && self.allowed.is_none() {
            return Check::Undecided;
        }
        let address = address.to_canonical();
        if address == UNKNOWN_CLIENT || self.denied.contains(address) {
            return refused();
        }
        match &self.allowed {
            None => Check::Undecided,
            Some(allowed) if allowed.contains(address) => Check::Passed,
            Some(_) => refused(),
        }
    }
}
