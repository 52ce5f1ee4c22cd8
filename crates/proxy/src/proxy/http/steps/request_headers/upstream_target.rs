//! Rewrites the path and the Host for the endpoint, as the options of the rule say. Filters of the rule do so later.

use bytes::Bytes;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Uri};

use super::real_ip::set_forwarded_prefix;
use crate::proxy::http::fields::headers::X_FORWARDED_PREFIX;
use crate::proxy::http::record::request_error::RequestError;
use crate::proxy::http::steps::request_context::RoutedRequest;
use crate::request_target::RequestPath;
use crate::snapshot::location_path::{PathReplacement, ReplacedPath};
use crate::snapshot::rule::Action;
use crate::snapshot::rule_options::UpstreamHost;
use crate::snapshot::upstream_path::{UpstreamPath, upstream_path};

/// Rewrites path and host as the options of the rule demand: Kong's prefix that is stripped, its path of the service,
/// and the host of the endpoint. Runs before plugins, so that values a plugin writes take precedence.
pub(in crate::proxy) fn rewrite<B>(
    routed: &mut RoutedRequest<'_>,
    request: &mut Request<B>,
) -> Result<(), RequestError> {
    let options = routed.rule.options();
    let Action::Forward(_) = routed.rule.action else { return Ok(()) };
    // A filter that rewrites the path applies to the matched path, so no prefix may be stripped before.
    let is_rewritten = routed.rule.filters.rewrite.as_ref().is_some_and(|rewrite| rewrite.path.is_some());
    if let Some(replacement) = options.path_replacement.as_ref().filter(|_| !is_rewritten) {
        replace_path(replacement, routed, request)?;
    } else if let Some(upstream) = options.upstream_path.as_ref().filter(|_| !is_rewritten) {
        rewrite_path(upstream, routed, request)?;
    }
    if let UpstreamHost::Fixed(host) = &options.host {
        request.headers_mut().insert(HOST, host.clone());
    }
    Ok(())
}

/// Replaces the path if the expression of the location matches it. The query stays.
fn replace_path<B>(
    replacement: &PathReplacement,
    routed: &mut RoutedRequest<'_>,
    request: &mut Request<B>,
) -> Result<(), RequestError> {
    let path = &routed.path;
    let replaced = replacement.apply(path.raw_path()).map_err(|_| RequestError::InvalidRewrite)?;
    let Some(ReplacedPath { path: replaced, forwarded_prefix }) = replaced else { return Ok(()) };
    if let Some(prefix) = forwarded_prefix.and_then(|prefix| HeaderValue::from_str(&prefix).ok()) {
        request.headers_mut().insert(X_FORWARDED_PREFIX, prefix);
    }
    let target = join_target(&replaced, path.query().filter(|query| !query.is_empty()))?;
    set_target(target, routed, request)
}

/// Strips the matched prefix and adds the path of the service, or expands the template of the rule.
fn rewrite_path<B>(
    upstream: &UpstreamPath,
    routed: &mut RoutedRequest<'_>,
    request: &mut Request<B>,
) -> Result<(), RequestError> {
    let (matched, path) = (routed.matched, &routed.path);
    // As in Kong, a rule for any path removes the first slash, so that `/` adds none to the path of the service.
    let prefix_length = upstream.strip_matched.then(|| matched.length(path.path()).max(1));
    if let Some(prefix) = matched.forwarded_prefix(routed.rule, path.path()) {
        set_forwarded_prefix(request.headers_mut(), prefix);
    }
    let target = match &upstream.template {
        Some(template) => {
            let expanded = template.expand(&matched.captures(path.path()), path.query());
            parse_target(expanded.ok_or(RequestError::InvalidRewrite)?)?
        }
        None => {
            let path_for_endpoint = upstream_path(&upstream.prefix, path.path(), prefix_length);
            // The target as the client wrote it is what the endpoint expects.
            if *path_for_endpoint == *request.uri().path() && request.uri().authority().is_none() {
                return Ok(());
            }
            join_target(&path_for_endpoint, path.query())?
        }
    };
    set_target(target, routed, request)
}

fn set_target<B>(target: Uri, routed: &mut RoutedRequest<'_>, request: &mut Request<B>) -> Result<(), RequestError> {
    let replaced = RequestPath::parse(request.method(), &target).ok().flatten();
    routed.replaced_path = Some(replaced.ok_or(RequestError::InvalidRewrite)?);
    *request.uri_mut() = target;
    Ok(())
}

fn join_target(path: &str, query: Option<&str>) -> Result<Uri, RequestError> {
    let mut target = String::with_capacity(path.len() + query.map_or(0, |query| query.len() + 1));
    target.push_str(path);
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    parse_target(target)
}

fn parse_target(target: String) -> Result<Uri, RequestError> {
    let target = PathAndQuery::from_maybe_shared(Bytes::from(target)).map_err(|_| RequestError::InvalidRewrite)?;
    Ok(Uri::from(target))
}
