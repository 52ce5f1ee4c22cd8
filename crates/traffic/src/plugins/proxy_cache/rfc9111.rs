//! `mode: rfc9111`: a shared cache as RFC 9111 describes it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{CONTENT_LOCATION, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LOCATION, RANGE};
use http::{HeaderMap, Method, StatusCode, Uri};

use super::cache::{Admitted, CacheDecision, Fetch, Report, ResponseCache, Tags, has_unkeyed_body, is_authorized};
use super::key::TargetLocation;
use super::outcome::CacheOutcome;
use super::remote::{Epoch, RemoteFound};
use super::semantics::cache_control::CacheControl;
use super::semantics::conditional;
use super::semantics::reuse::Reuse;
use super::semantics::storing::{StoringRules, storable};
use super::semantics::vary::Vary;
use super::store::{CacheKey, Generation, StoredResponse};
use super::stored_reply;
use crate::plugin_api::context::BackgroundRequest;
use crate::plugin_api::{AfterForwardCx, BeforeForwardCx, Reply};

pub(super) fn decide(
    cache: &Arc<ResponseCache>,
    cx: &mut BeforeForwardCx<'_>,
    may_wait: bool,
    now: SystemTime,
    remote: Option<RemoteFound>,
) -> CacheDecision {
    let method = cx.head.method.clone();
    let key = cache.key(cx, &Method::GET, None);
    if ![Method::GET, Method::HEAD].contains(&method) {
        report_in_access(cache, cx, CacheOutcome::Bypass, "portico; fwd=method".to_owned());
        if [Method::OPTIONS, Method::TRACE].contains(&method) {
            return CacheDecision::Forward;
        }
        let (_, generation, epoch) = cache.look_up(remote, key, &cx.head.headers, now);
        let changes = Some(TargetLocation { scheme: cx.client.scheme, host: cx.client.received.host.into() });
        return CacheDecision::Fetch(Box::new(Fetch { changes, ..new_fetch(cx, key, now, generation, epoch) }));
    }
    if !may_be_stored(cx) {
        report_in_access(cache, cx, CacheOutcome::Bypass, "portico; fwd=bypass".to_owned());
        return CacheDecision::Forward;
    }
    let directives = CacheControl::of_request(&cx.head.headers);
    let (found, generation, epoch) = cache.look_up(remote, key, &cx.head.headers, now);
    let reuse = found.as_ref().map(|stored| stored.state(now).reuse(&directives));
    let mut flight = None;
    if let (Some(stored), Some(reuse)) = (&found, reuse) {
        let outcome = match reuse {
            Reuse::Fresh => Some(CacheOutcome::Hit),
            Reuse::AcceptedStale => Some(CacheOutcome::Stale),
            // One request validates the response, and all others get it meanwhile. It is one of the background unless
            // there are too many of these.
            Reuse::WhileRevalidating => match cache.partition.begin_flight(key) {
                Ok(guard) if cx.take_background_place() => {
                    let fetch = Fetch { flight: Some(guard), ..new_fetch(cx, key, now, generation, epoch.clone()) };
                    revalidate_in_background(cache, cx, fetch, Arc::clone(stored));
                    Some(CacheOutcome::Stale)
                }
                Ok(guard) => {
                    flight = Some(guard);
                    None
                }
                Err(_) => Some(CacheOutcome::Stale),
            },
            Reuse::Validate => None,
        };
        if let Some(outcome) = outcome {
            report_in_access(cache, cx, outcome, hit_status(stored, now));
            return CacheDecision::Reply(stored_reply::for_request(stored, &method, &cx.head.headers, now));
        }
    }
    if directives.only_if_cached {
        return CacheDecision::Reply(stored_reply::only_if_cached());
    }
    let is_part = stored_reply::asks_for_part(&cx.head.headers);
    if method == Method::HEAD || is_part && found.is_some() {
        let reason = if found.is_some() { "stale" } else { "uri-miss" };
        report_in_access(cache, cx, CacheOutcome::Bypass, format!("portico; fwd={reason}"));
        return CacheDecision::Forward;
    }
    // A part is rarely a response that others wait for.
    if flight.is_none() && !is_part {
        flight = match cache.fly(key, may_wait) {
            Ok(flight) => flight,
            Err(flight) => return CacheDecision::Wait(flight),
        };
    }
    let mut fetch = Fetch { flight, ..new_fetch(cx, key, now, generation, epoch) };
    // What takes the place of the backend responds to the client itself, which has not asked for a 304.
    if let Some(stored) = found.filter(|_| !cx.is_backend_replaced) {
        fetch.is_validation = conditional::validate(&mut cx.head.headers, &stored.fields.to_map());
        fetch.stale = Some(stored);
    }
    CacheDecision::Fetch(Box::new(fetch))
}

/// The key of a request for which a stored response is looked up.
pub(super) fn wanted_key(cache: &ResponseCache, cx: &BeforeForwardCx<'_>) -> Option<CacheKey> {
    let is_wanted = [Method::GET, Method::HEAD].contains(&cx.head.method) && may_be_stored(cx);
    is_wanted.then(|| cache.key(cx, &Method::GET, None))
}

/// Whether the response to a GET or HEAD request may be one for the key, and the client is known.
fn may_be_stored(cx: &BeforeForwardCx<'_>) -> bool {
    !has_unkeyed_body(cx)
        && !cx.is_upgrade
        && !conditional::needs_backend(&cx.head.headers)
        && cx.identity.subjects.identify_the_client()
}

fn new_fetch(cx: &BeforeForwardCx<'_>, key: CacheKey, now: SystemTime, generation: Generation, epoch: Epoch) -> Fetch {
    Fetch {
        key,
        method: cx.head.method.clone(),
        request: cx.head.headers.clone(),
        sent: now,
        generation,
        epoch,
        flight: None,
        stale: None,
        is_validation: false,
        is_authorized: is_authorized(cx),
        changes: None,
    }
}

/// Lets the proxy ask the endpoint for the response while the client gets the stored one.
fn revalidate_in_background(
    cache: &Arc<ResponseCache>,
    cx: &mut BeforeForwardCx<'_>,
    fetch: Fetch,
    stored: Arc<StoredResponse>,
) {
    let mut head = cx.head.clone();
    head.method = Method::GET;
    // What the client asks for is a part of the response, or none if it has the response already.
    for name in [&RANGE, &IF_RANGE, &IF_NONE_MATCH, &IF_MODIFIED_SINCE] {
        head.headers.remove(name);
    }
    let request = head.headers.clone();
    let is_validation = conditional::validate(&mut head.headers, &stored.fields.to_map());
    let fetch = Fetch { method: Method::GET, request, stale: Some(stored), is_validation, ..fetch };
    let cache = Arc::clone(cache);
    let finish = Box::new(move |cx: &mut AfterForwardCx<'_>| drop(after_forward(&cache, fetch, cx)));
    cx.forward_in_background(BackgroundRequest { head, finish });
}

fn report_in_access(cache: &ResponseCache, cx: &mut BeforeForwardCx<'_>, outcome: CacheOutcome, status: String) {
    let report = Report { outcome, key: None, request: &cx.head.headers, cache_status: Some(status) };
    cache.report(cx.response_headers, report);
}

pub(super) fn after_forward(
    cache: &ResponseCache,
    mut fetch: Fetch,
    cx: &mut AfterForwardCx<'_>,
) -> Option<Box<Reply>> {
    if let Some(resource) = &fetch.changes {
        if cx.status.is_some_and(|status| status.is_success() || status.is_redirection()) {
            cache.invalidate(fetch.key);
            invalidate_named(cache, resource, cx.headers);
        }
        return None;
    }
    let is_failure = cx.status.is_none_or(|status| FAILURES.contains(&status.as_u16()));
    if let Some(stored) = &fetch.stale {
        let request = CacheControl::of_request(&fetch.request);
        if is_failure && stored.state(cx.now).serves_errors(&request) {
            let status = format!("{}; detail=stale-if-error", hit_status(stored, cx.now));
            report(cache, &fetch, cx, CacheOutcome::Stale, status);
            return Some(stored_reply::for_request(stored, &fetch.method, &fetch.request, cx.now));
        }
        if fetch.is_validation && cx.status == Some(StatusCode::NOT_MODIFIED) {
            let stored = Arc::clone(stored);
            return Some(revalidated(cache, fetch, &stored, cx));
        }
    }
    let is_refresh = fetch.stale.is_some();
    let reason = if is_refresh { "stale" } else { "uri-miss" };
    let code = cx.status.map_or_else(String::new, |status| format!("; fwd-status={}", status.as_u16()));
    let forwarded = format!("portico; fwd={reason}{code}");
    let Some(status) = cx.status else {
        let outcome = if is_refresh { CacheOutcome::Refresh } else { CacheOutcome::Miss };
        report(cache, &fetch, cx, outcome, forwarded);
        return None;
    };
    let admitted = admit(cache, &fetch, (status, cx.headers), cx.now);
    let request = fetch.request.clone();
    let key = fetch.key;
    let (outcome, text) = match admitted {
        Err(reason) => (CacheOutcome::Bypass, format!("{forwarded}; detail={reason}")),
        Ok((admitted, tags)) => {
            let outcome = if is_refresh { CacheOutcome::Refresh } else { CacheOutcome::Miss };
            if !is_for_waiting(&admitted) {
                fetch.flight = None;
            }
            match cache.collect(fetch, admitted, tags, cx) {
                true => (outcome, format!("{forwarded}; stored")),
                false => (CacheOutcome::Bypass, format!("{forwarded}; detail=size")),
            }
        }
    };
    let report = Report { outcome, key: Some(key), request: &request, cache_status: Some(text) };
    cache.report(cx.response_headers, report);
    None
}

/// The endpoint has confirmed the stored response, which gets the fields of the 304.
fn revalidated(
    cache: &ResponseCache,
    fetch: Fetch,
    stored: &StoredResponse,
    cx: &mut AfterForwardCx<'_>,
) -> Box<Reply> {
    report(cache, &fetch, cx, CacheOutcome::Revalidated, "portico; fwd=stale; fwd-status=304".to_owned());
    let fields = stored.fields.to_map();
    if !conditional::validates(cx.headers, &fields) {
        // It is about another response, so the next request gets a new one.
        cache.invalidate(fetch.key);
        return stored_reply::for_request(stored, &fetch.method, &fetch.request, cx.now);
    }
    let headers = conditional::freshen(&fields, cx.headers);
    let admitted = admit(cache, &fetch, (stored.status, &headers), cx.now);
    let updated = admitted.ok().and_then(|(admitted, tags)| {
        let mut updated = cache.new_response((stored.status, &headers), admitted, tags, cx.now)?;
        // The body counts already.
        updated.body = stored.body.clone();
        Some(Arc::new(updated))
    });
    match updated {
        Some(updated) => {
            let reply = stored_reply::for_request(&updated, &fetch.method, &fetch.request, cx.now);
            cache.insert(fetch, updated);
            reply
        }
        None => {
            cache.invalidate(fetch.key);
            stored_reply::for_request(stored, &fetch.method, &fetch.request, cx.now)
        }
    }
}

/// What a response is stored with, or why it is not.
fn admit(
    cache: &ResponseCache,
    fetch: &Fetch,
    (status, headers): (StatusCode, &HeaderMap),
    now: SystemTime,
) -> Result<(Admitted, Tags), &'static str> {
    let settings = &cache.settings;
    let rules = StoringRules {
        stores_authorized: settings.shares_authorized || !fetch.is_authorized,
        stores_cookies: settings.stores_cookies,
        max_heuristic: settings.ttl,
    };
    let (directives, freshness) = storable(&fetch.request, status, headers, rules, (fetch.sent, now))?;
    let vary = Vary::new(&fetch.request, headers).ok_or("vary")?;
    let tags = tags(headers).ok_or("tags")?;
    let fresh = freshness.lifetime.saturating_sub(freshness.initial_age);
    let keep = settings.storage_ttl.unwrap_or(fresh + STALE_STORAGE);
    Ok((Admitted { directives, freshness, vary, keep }, tags))
}

/// Whether requests that wait for the response may get it. If they have to validate it, they need not wait for a client
/// that reads its body slowly.
fn is_for_waiting(admitted: &Admitted) -> bool {
    let Admitted { directives, freshness, .. } = admitted;
    let is_fresh = freshness.lifetime > freshness.initial_age && !directives.no_cache;
    is_fresh || directives.stale_while_revalidate.is_some()
}

fn report(cache: &ResponseCache, fetch: &Fetch, cx: &mut AfterForwardCx<'_>, outcome: CacheOutcome, status: String) {
    let report = Report { outcome, key: Some(fetch.key), request: &fetch.request, cache_status: Some(status) };
    cache.report(cx.response_headers, report);
}

/// Removes what is stored for the targets that the response to an unsafe request names, if they are on the same host
/// (RFC 9111, section 4.4).
fn invalidate_named(cache: &ResponseCache, resource: &TargetLocation<Box<str>>, headers: &HeaderMap) {
    for value in [LOCATION, CONTENT_LOCATION].iter().filter_map(|name| headers.get(name)?.to_str().ok()) {
        let Ok(uri) = value.parse::<Uri>() else { continue };
        let is_same_host = match (uri.scheme_str(), uri.authority()) {
            (Some(scheme), Some(host)) => resource.contains(scheme, host.as_str()),
            _ => uri.path().starts_with('/'),
        };
        if is_same_host {
            cache.invalidate(resource.key(&uri, &cache.settings));
        }
    }
}

/// The names in `Surrogate-Key` and `Cache-Tag`. `None` if there are too many, so that a purge by name never misses a
/// response.
fn tags(headers: &HeaderMap) -> Option<Tags> {
    let mut tags: Vec<Box<[u8]>> = Vec::new();
    for (name, is_separator) in [(&SURROGATE_KEY, b' '), (&CACHE_TAG, b',')] {
        for value in headers.get_all(name) {
            let names = value.as_bytes().split(|byte| *byte == is_separator).map(<[u8]>::trim_ascii);
            tags.extend(names.filter(|name| !name.is_empty()).map(Box::from));
        }
    }
    (tags.len() <= MAX_TAGS && tags.iter().all(|tag| tag.len() <= MAX_TAG)).then(|| tags.into())
}

/// `ttl` is negative for a stale response (RFC 9211, section 2.4).
fn hit_status(stored: &StoredResponse, now: SystemTime) -> String {
    let (lifetime, age) = (stored.freshness.lifetime.as_secs(), stored.age(now).as_secs());
    let sign = if age > lifetime { "-" } else { "" };
    format!("portico; hit; ttl={sign}{}", lifetime.abs_diff(age))
}

static SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
static CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
/// The statuses of RFC 5861, section 4.
const FAILURES: [u16; 4] = [500, 502, 503, 504];
const MAX_TAGS: usize = 64;
const MAX_TAG: usize = 256;
/// How long a response is kept after it is fresh, so that it can be validated or stand in for errors.
const STALE_STORAGE: Duration = Duration::from_secs(24 * 60 * 60);
