//! The DNS server does not respond, responds late or fails. Names keep their last addresses.

use crate::chaos::disruption::{Disruption, Step};
use crate::chaos::dns_server::DnsBehavior;
use crate::chaos::site::ChaosSite;

pub(in crate::chaos) struct Dns {
    pub(in crate::chaos) name: &'static str,
    pub(in crate::chaos) behavior: DnsBehavior,
}

/// Queries for the two record types of one name by two replicas, and retries.
const QUERIES: usize = 6;

impl Disruption for Dns {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn begin<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            site.dns.set(self.behavior);
            site.dns.wait_for_queries(QUERIES).await
        })
    }

    fn end<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            site.dns.set(DnsBehavior::Respond);
            site.dns.wait_for_queries(QUERIES).await
        })
    }
}
