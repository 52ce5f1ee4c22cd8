//! `mode: kong`: what Kong's plugin stores, and when it sends it again.

use std::time::{Duration, SystemTime};

use http::header::{AGE, COOKIE, SET_COOKIE, TRAILER};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::cache::{
    Admitted, CacheDecision, DEBUG_HEADER, Fetch, Report, ResponseCache, has_unkeyed_body, is_authorized,
};
use super::config::CacheSettings;
use super::outcome::CacheOutcome;
use super::remote::RemoteFound;
use super::semantics::cache_control::CacheControl;
use super::semantics::storing::{Freshness, expiry};
use super::semantics::vary::Vary;
use super::store::{CacheKey, StoredResponse};
use super::stored_reply;
use crate::plugin_api::consumers::Sha256Digest;
use crate::plugin_api::{AfterForwardCx, BeforeForwardCx, Reply};

pub(super) fn decide(
    cache: &ResponseCache,
    cx: &mut BeforeForwardCx<'_>,
    content: Option<&Sha256Digest>,
    may_wait: bool,
    now: SystemTime,
    remote: Option<RemoteFound>,
) -> CacheDecision {
    let settings = &cache.settings;
    let directives = request_directives(settings, cx);
    if !is_cacheable(settings, cx, content, &directives) {
        let report = Report { outcome: CacheOutcome::Bypass, key: None, request: &cx.head.headers, cache_status: None };
        cache.report(cx.response_headers, report);
        return CacheDecision::Forward;
    }
    let key = cache.key(cx, &cx.head.method, content);
    let (found, generation, epoch) = cache.look_up(remote, key, &cx.head.headers, now);
    if let Some(stored) = found.as_ref().filter(|stored| accepts(&directives, stored, now)) {
        let report =
            Report { outcome: CacheOutcome::Hit, key: Some(key), request: &cx.head.headers, cache_status: None };
        cache.report(cx.response_headers, report);
        if settings.response_fields.age || cx.head.headers.contains_key(DEBUG_HEADER) {
            cx.response_headers.insert(AGE, HeaderValue::from(stored.age(now).as_secs()));
        }
        return CacheDecision::Reply(stored_reply::whole(stored, &cx.head.method));
    }
    if directives.only_if_cached && found.is_none() {
        return CacheDecision::Reply(stored_reply::only_if_cached());
    }
    let flight = match cache.fly(key, may_wait) {
        Ok(flight) => flight,
        Err(flight) => return CacheDecision::Wait(flight),
    };
    CacheDecision::Fetch(Box::new(Fetch {
        key,
        method: cx.head.method.clone(),
        request: cx.head.headers.clone(),
        sent: now,
        generation,
        epoch,
        flight,
        stale: found,
        is_validation: false,
        is_authorized: is_authorized(cx),
        changes: None,
    }))
}

/// The key of a request for which a stored response is looked up.
pub(super) fn wanted_key(
    cache: &ResponseCache,
    cx: &BeforeForwardCx<'_>,
    content: Option<&Sha256Digest>,
) -> Option<CacheKey> {
    let directives = request_directives(&cache.settings, cx);
    is_cacheable(&cache.settings, cx, content, &directives).then(|| cache.key(cx, &cx.head.method, content))
}

fn request_directives(settings: &CacheSettings, cx: &BeforeForwardCx<'_>) -> CacheControl {
    if settings.cache_control { CacheControl::of_request(&cx.head.headers) } else { CacheControl::default() }
}

/// Whether a response to the request may be stored or sent from the store.
fn is_cacheable(
    settings: &CacheSettings,
    cx: &BeforeForwardCx<'_>,
    content: Option<&Sha256Digest>,
    directives: &CacheControl,
) -> bool {
    // The key has all subjects, so what is stored for a client is not sent to another one.
    let is_authenticated = cx.identity.is_authenticated();
    let may_store_authorized =
        !is_authorized(cx) || !settings.cache_control && (is_authenticated || settings.shares_authorized);
    settings.methods.contains(&cx.head.method)
        && (content.is_some() || settings.accepts_body.is_none() && !has_unkeyed_body(cx))
        // Sessions of GraphQL clients are in cookies, and what they get is usually about their users.
        && (content.is_none() || settings.fields.contains(&COOKIE) || !cx.head.headers.contains_key(COOKIE))
        && !cx.is_upgrade
        && !directives.no_store
        && !directives.no_cache
        && may_store_authorized
        && cx.identity.subjects.identify_the_client()
}

/// Whether the client accepts the stored response.
fn accepts(request: &CacheControl, stored: &StoredResponse, now: SystemTime) -> bool {
    let (age, lifetime) = (stored.age(now), stored.freshness.lifetime);
    if request.max_age.is_some_and(|limit| age > limit) {
        return false;
    }
    if request.min_fresh.is_some_and(|needed| lifetime.saturating_sub(age) < needed) {
        return false;
    }
    age <= lifetime || request.max_stale.is_some_and(|limit| age.saturating_sub(lifetime) <= limit)
}

pub(super) fn after_forward(cache: &ResponseCache, fetch: Fetch, cx: &mut AfterForwardCx<'_>) -> Option<Box<Reply>> {
    let before = if fetch.stale.is_some() { CacheOutcome::Refresh } else { CacheOutcome::Miss };
    let (key, request) = (Some(fetch.key), fetch.request.clone());
    let outcome = match cx.status.map(|status| admit(&cache.settings, &fetch, status, cx)) {
        None => before,
        Some(None) => CacheOutcome::Bypass,
        Some(Some(admitted)) => {
            if cache.collect(fetch, admitted, Box::default(), cx) {
                before
            } else {
                CacheOutcome::Bypass
            }
        }
    };
    cache.report(cx.response_headers, Report { outcome, key, request: &request, cache_status: None });
    None
}

/// What a response is stored with. `None` if it is not stored.
fn admit(settings: &CacheSettings, fetch: &Fetch, status: StatusCode, cx: &AfterForwardCx<'_>) -> Option<Admitted> {
    let headers: &HeaderMap = cx.headers;
    let is_listed = settings.statuses.contains(&status) && settings.types.contains(headers);
    let has_cookies = headers.contains_key(SET_COOKIE) && !settings.stores_cookies;
    if !is_listed || has_cookies || headers.contains_key(TRAILER) {
        return None;
    }
    let directives = CacheControl::of_response(headers);
    let ttl = if settings.cache_control {
        if directives.private || directives.no_store || directives.no_cache {
            return None;
        }
        directives.lifetime().or_else(|| expiry(headers, cx.now)).filter(|ttl| !ttl.is_zero())?
    } else {
        settings.ttl
    };
    let vary = Vary::new(&fetch.request, headers)?;
    let freshness = Freshness { lifetime: ttl, initial_age: Duration::ZERO };
    Some(Admitted { directives, freshness, vary, keep: settings.storage_ttl.unwrap_or(ttl) })
}
