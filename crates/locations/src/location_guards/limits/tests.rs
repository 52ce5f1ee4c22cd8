//! Tests of the limits of clients.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::plugin_api::{PluginState, RegisteredKind};
use crate::plugin_chain::testing::{TestRequest, chain_with, noon};

const KIND: RegisteredKind<ClientLimits> = RegisteredKind::NEW;

fn config(fields: Value) -> Value {
    let mut config = json!({"burst_multiplier": 1, "rate_status": 503, "concurrent_status": 429});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    config
}

async fn statuses(fields: Value, state: &PluginState, address: &str, requests: u32) -> Vec<Option<u16>> {
    let services: Arc<dyn crate::plugin_api::PluginServices> = Arc::new(crate::plugin_api::services::OfflineServices);
    let chain = chain_with(&[(&KIND, config(fields))], state, &services);
    let mut statuses = Vec::new();
    for number in 0..requests {
        let mut request = TestRequest::get("/");
        request.address = address.parse().unwrap();
        request.now = noon() + Duration::from_millis(u64::from(number));
        statuses.push(request.run(&chain).await.reply_status().map(|status| status.as_u16()));
    }
    statuses
}

#[tokio::test]
async fn clients_have_limits_of_their_own_that_outlive_a_change() {
    let state = PluginState::default();
    let fields = || json!({"per_second": 2});
    // In the program, there is always one that has the counters.
    let services: Arc<dyn crate::plugin_api::PluginServices> = Arc::new(crate::plugin_api::services::OfflineServices);
    let _kept = chain_with(&[(&KIND, config(fields()))], &state, &services);
    assert_eq!(statuses(fields(), &state, "192.0.2.1", 4).await, [None, None, None, Some(503)]);
    assert_eq!(statuses(json!({"per_second": 1}), &state, "192.0.2.1", 1).await, [Some(503)], "after a change");
    assert_eq!(statuses(fields(), &state, "2001:db8::1", 1).await, [None]);
    assert_eq!(statuses(fields(), &state, "2001:db8::2", 1).await, [None], "each address counts, as in nginx");
}

#[tokio::test]
async fn exempt_addresses_have_no_limits() {
    let fields = json!({"per_minute": 1, "concurrent": 1, "exempt": ["192.0.2.0/24", "2001:db8::/32"]});
    let state = PluginState::default();
    for address in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"] {
        assert_eq!(statuses(fields.clone(), &state, address, 5).await, [None; 5], "{address}");
    }
    assert_eq!(statuses(fields, &state, "198.51.100.1", 3).await, [None, None, Some(503)]);
}

#[tokio::test]
async fn a_request_that_has_ended_is_not_concurrent() {
    let fields = json!({"concurrent": 1});
    assert_eq!(statuses(fields, &PluginState::default(), "192.0.2.1", 3).await, [None; 3]);
}
