//! Secrets that a new process may list and may not fetch, such as the credentials of consumers.

use std::time::Duration;

use serde_json::json;

use crate::cluster::{create_objects, https_gateway, site_and_api, start_with_site_addresses};
use crate::fake_api_server::InjectedFailure;
use crate::harness::client::get;
use crate::harness::eventually;

/// A Pod whose role lacks the verb was ready, and replaced one that had the content.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_processes_wait_for_the_permission_to_fetch_secrets() {
    let (site, api) = site_and_api().await;
    create_objects(&site, &api);
    api.put("gateways", https_gateway(&site));
    let self_signed = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    api.put(
        "secrets",
        json!({
            "metadata": {"namespace": "default", "name": "tls"}, "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": self_signed.cert.pem(), "tls.key": self_signed.signing_key.serialize_pem()},
        }),
    );
    let refusal = || InjectedFailure::Status(403, "it is forbidden: User \"portico\" cannot get resource");
    api.fail("secrets/tls", vec![refusal(); 10_000]);
    let ready = || get(&site.address_of("status"), "/readyz");
    {
        // Long enough for the response 403 on a busy machine: it ends the wait for objects without a response.
        let timeout = Duration::from_secs(4);
        let program = start_with_site_addresses(&site, &["--startup-timeout", "4s"]);
        program.wait_stderr(|text| text.contains("Context fake").then_some(()));
        eventually("readiness names the permission", || {
            let expected = "the content of Secret default/tls (which Portico may not read: grant the verb get on \
                            secrets, or set --optional-kinds Secret to serve without it)\n";
            let ready = ready();
            (ready.status == 503 && ready.body.contains(expected)).then_some(())
        });
        // The timeout begins after the last list, and ends no wait for a permission.
        tokio::time::sleep(timeout).await; // Until it would have ended the wait.
        let before = api.requests("").len();
        api.wait_for_requests_of("secrets/tls", before, 1).await;
        assert_eq!(ready().status, 503);
        api.clear_failures("secrets/tls");
        eventually("it is granted", || (ready().status == 200).then_some(()));
    }
    api.fail("secrets/tls", vec![refusal(); 10_000]);
    let program = start_with_site_addresses(&site, &["--optional-kinds", "Secret"]);
    program.wait_stderr(|text| text.contains("Context fake").then_some(()));
    eventually("Secrets need not be readable", || (ready().status == 200).then_some(()));
}

/// An object of one namespace can name any Secret of it, also one that the roles of Portico leave out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_may_not_be_fetched_keeps_no_process_from_serving_the_others() {
    let (site, api) = site_and_api().await;
    create_objects(&site, &api);
    let mut gateway = https_gateway(&site);
    let listeners = gateway["spec"]["listeners"].as_array_mut().unwrap();
    let mut further = listeners[1].clone();
    further["name"] = json!("further");
    further["hostname"] = json!("b.example");
    further["tls"] = json!({"certificateRefs": [{"name": "left-out"}]});
    listeners.push(further);
    api.put("gateways", gateway);
    let self_signed = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    for name in ["tls", "left-out"] {
        api.put(
            "secrets",
            json!({
                "metadata": {"namespace": "default", "name": name}, "type": "kubernetes.io/tls",
                "stringData": {"tls.crt": self_signed.cert.pem(), "tls.key": self_signed.signing_key.serialize_pem()},
            }),
        );
    }
    let refusal = InjectedFailure::Status(403, "it is forbidden: User \"portico\" cannot get resource");
    api.fail("secrets/left-out", vec![refusal; 10_000]);
    let program = start_with_site_addresses(&site, &["--startup-timeout", "1s"]);
    program.wait_stderr(|text| text.contains("Context fake").then_some(()));
    eventually("the timeout ends the wait", || {
        (get(&site.address_of("status"), "/readyz").status == 200).then_some(())
    });
}
