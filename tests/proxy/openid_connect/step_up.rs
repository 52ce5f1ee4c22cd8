//! Step-up authentication on the wire: logins that are not strong or recent enough for a route, and tokens of them (RFC
//! 9470).

use serde_json::{Value, json};

use super::browser::Browser;
use super::provider::{Behavior, Provider, form, now};
use super::{SESSION_SECRET, Site};

fn issues(claims: Value) -> Behavior {
    Behavior { id_token_claims: claims, ..Behavior::default() }
}

#[tokio::test]
async fn browsers_log_in_again_for_routes_that_require_more() {
    let provider = Provider::with(issues(json!({"acr": "silver", "auth_time": now()}))).await;
    let shop = Site::start(&provider, json!({})).await;
    let level = json!({"acr_required": ["gold", "platinum"], "max_age": 300});
    let payments = Site::start(&provider, level).await;
    let mut browser = shop.logged_in(&provider).await;
    assert_eq!(shop.get(&mut browser, "/").await.status, 200);

    let location = payments.begin_login(&mut browser, "/pay?a=b").await;
    let query = form(location.split_once('?').unwrap().1);
    assert_eq!((&*query["acr_values"], &*query["max_age"]), ("gold platinum", "300"));
    provider.set(issues(json!({"acr": "gold", "auth_time": now()})));
    let response = payments.get(&mut browser, &provider.log_in(&location)).await;
    assert_eq!((response.status, response.header("location")), (302, Some("http://shop.example/pay?a=b")));
    assert_eq!(payments.get(&mut browser, "/pay?a=b").await.status, 200);
    assert_eq!(shop.get(&mut browser, "/").await.status, 200, "the session is one for both routes");

    // Requests that do not open a page learn what is missing.
    provider.set(issues(json!({"acr": "gold", "auth_time": now() - 301})));
    let mut browser = shop.logged_in(&provider).await;
    payments.begin_login(&mut browser, "/").await;
    let response = browser.send(payments.server.address, "POST /pay HTTP/1.1", "", "").await;
    let challenge = r#"Bearer error="insufficient_user_authentication", acr_values="gold platinum", max_age="300""#;
    assert_eq!((response.status, response.header("www-authenticate")), (401, Some(challenge)));
    assert_eq!(payments.endpoint.log.requests().len(), 1, "the endpoint got only the request after the login");
}

/// Otherwise, browsers would be sent to the provider forever.
#[tokio::test]
async fn providers_that_do_not_authenticate_as_required_end_the_login() {
    let provider = Provider::with(issues(json!({"acr": "silver", "amr": ["pwd"], "auth_time": now()}))).await;
    let shop = Site::start(&provider, json!({})).await;
    for level in [json!({"acr_required": ["gold"]}), json!({"amr_required": ["pwd otp"]})] {
        let payments = Site::start(&provider, level.clone()).await;
        let mut browser = shop.logged_in(&provider).await;
        let location = payments.begin_login(&mut browser, "/pay").await;
        // Whichever route has the path of the redirect URI.
        for site in [&payments, &shop] {
            let mut browser = Browser { cookies: browser.cookies.clone() };
            let response = site.get(&mut browser, &provider.log_in(&location)).await;
            assert_eq!((response.status, response.header("location")), (403, None), "{level}");
            assert_eq!(browser.names(), ["session"], "{level}: the login has ended");
            assert_eq!(shop.get(&mut browser, "/").await.status, 200, "{level}: the former session continues");
        }
        assert!(payments.endpoint.log.requests().is_empty());
    }
}

#[tokio::test]
async fn tokens_of_logins_that_are_not_sufficient_are_challenged() {
    let provider = Provider::start().await;
    let level = json!({
        "acr_required": ["gold"], "max_age": 300, "roles_required": ["staff"], "anonymous": "anna",
        "session_secret": SESSION_SECRET,
    });
    let site = Site::start(&provider, level).await;
    for (claims, status) in [
        (json!({"acr": "gold", "auth_time": now(), "roles": ["staff"]}), 200),
        (json!({"acr": "gold", "auth_time": now() - 301, "roles": ["staff"]}), 401),
        (json!({"acr": "gold", "roles": ["staff"]}), 401),
        (json!({"acr": "silver", "auth_time": now(), "roles": ["staff"]}), 401),
        // A stronger login would not help.
        (json!({"acr": "silver", "roles": []}), 403),
    ] {
        let token = provider.token(&claims);
        let response = site.send(&format!("authorization: Bearer {token}\r\n")).await;
        assert_eq!(response.status, status, "{claims}");
        let challenge = response.header("www-authenticate").unwrap_or_default();
        let expected = r#"Bearer error="insufficient_user_authentication", acr_values="gold", max_age="300""#;
        assert_eq!(challenge == expected, status == 401, "{claims}: {challenge}");
    }
    let introspected = site.send("authorization: Bearer opaque\r\n").await;
    assert_eq!(introspected.status, 403, "the introspection has no roles");
}
