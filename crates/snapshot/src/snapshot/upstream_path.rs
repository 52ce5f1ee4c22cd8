//! The path that an endpoint gets, if a rule rewrites the path that was matched. Paths are joined as by Kong's
//! `path_handling` v0.

use std::borrow::Cow;

use super::uri_template::UriTemplate;

/// How the path for the endpoint is derived from the normalized path of the request. The default forwards the
/// normalized path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamPath {
    /// Whether the matched part of the path is removed before the request is forwarded.
    pub strip_matched: bool,
    /// The path of the service, prepended to the rest of the request's path. Starts with a slash; `/` adds nothing.
    pub prefix: Box<str>,
    /// Replaces the path that results from `strip_matched` and `prefix`.
    pub template: Option<UriTemplate>,
}

impl Default for UpstreamPath {
    fn default() -> Self {
        UpstreamPath { strip_matched: false, prefix: "/".into(), template: None }
    }
}

/// Appends the path of the request to the path of the service. With `strip_matched`, `stripped` is the number of bytes
/// that the route matched, which are removed from the start of `request`; `None` keeps the whole path.
///
/// `service` starts with a slash, and so does the result.
pub fn upstream_path<'p>(service: &str, request: &'p str, stripped: Option<usize>) -> Cow<'p, str> {
    // `None` if the path of the service does not end with a slash.
    let base = service.strip_suffix('/');
    // A route without a path has matched nothing that could be removed.
    let Some(stripped) = stripped.filter(|stripped| *stripped > 0) else {
        return match base {
            // The usual case: no service path.
            Some("") => Cow::Borrowed(request),
            Some(_) => Cow::Owned(format!("{service}{}", request.strip_prefix('/').unwrap_or(request))),
            None if request == "/" => Cow::Owned(service.to_owned()),
            None => Cow::Owned(format!("{service}{request}")),
        };
    };
    let rest = sanitize(request.get(stripped..).unwrap_or_default());
    Cow::Owned(match base {
        Some("") if rest.is_empty() => "/".to_owned(),
        Some(base) if rest.is_empty() => if request.ends_with('/') { service } else { base }.to_owned(),
        Some("") if rest.starts_with('/') => return Cow::Borrowed(rest),
        Some(base) if rest.starts_with('/') => format!("{base}{rest}"),
        Some(_) => format!("{service}{rest}"),
        None if rest.is_empty() && request.len() > 1 && request.ends_with('/') => format!("{service}/"),
        None if rest.is_empty() => service.to_owned(),
        None if rest.starts_with('/') => format!("{service}{rest}"),
        None => format!("{service}/{rest}"),
    })
}

/// Merges leading slashes, and removes a leading dot segment, which remains if the route matched a part of a segment:
/// `/a` removed from `/a../b` leaves `../b`.
fn sanitize(rest: &str) -> &str {
    let slashes = rest.len() - rest.trim_start_matches('/').len();
    let rest = &rest[slashes.saturating_sub(1)..];
    match rest {
        "." | ".." => "",
        _ => rest.strip_prefix("./").or(rest.strip_prefix("../")).unwrap_or(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // docs/kong-compatibility.md, 3.5
    // docs/kong-compatibility.md, 7.12
    #[test]
    fn path_handling_v0() {
        // (service path, route path, strip_path, request path, upstream path)
        let cases = [
            // Not stripped, the service path ends with a slash: joined with one slash.
            ("/", "/route", false, "/route", "/route"),
            ("/", "/route", false, "/route/", "/route/"),
            ("/", "/", false, "/", "/"),
            ("/service/", "/route", false, "/route", "/service/route"),
            ("/service/", "/route", false, "/routereq", "/service/routereq"),
            ("/service/", "/", false, "/", "/service/"),
            ("/service/", "/route", false, "/route/req", "/service/route/req"),
            // Not stripped, the service path does not end with a slash.
            ("/service", "/", false, "/", "/service"),
            ("/service", "/route", false, "/route", "/service/route"),
            ("/srv", "/rou", false, "/roureq", "/srv/roureq"),
            ("/service", "/", false, "/route/", "/service/route/"),
            // Stripped, the service path ends with a slash, nothing left.
            ("/", "/route", true, "/route", "/"),
            ("/", "/route/", true, "/route/", "/"),
            ("/service/", "/route", true, "/route", "/service"),
            ("/srv/", "/rou", true, "/rou", "/srv"),
            ("/service/", "/route/", true, "/route/", "/service/"),
            // The rest starts with a slash.
            ("/", "/route", true, "/route/req", "/req"),
            ("/service/", "/route", true, "/route/req", "/service/req"),
            ("/service/", "/route", true, "/route/", "/service/"),
            // The rest does not start with a slash.
            ("/", "/route", true, "/routereq", "/req"),
            ("/service/", "/route", true, "/routereq", "/service/req"),
            ("/service/", "/route/", true, "/route/req", "/service/req"),
            // Stripped, the service path does not end with a slash, nothing left.
            ("/service", "/route", true, "/route", "/service"),
            ("/service", "/route/", true, "/route/", "/service/"),
            ("/service", "/", true, "/", "/service"),
            // The rest starts with a slash.
            ("/service", "/route", true, "/route/req", "/service/req"),
            ("/service", "/route", true, "/route/", "/service/"),
            // The rest does not start with a slash.
            ("/service", "/route", true, "/routereq", "/service/req"),
            ("/service", "/route/", true, "/route/req", "/service/req"),
            ("/service", "/", true, "/route/", "/service/route/"),
            // The rest is sanitized to start with one slash.
            ("/service", "/route", true, "/route//req", "/service/req"),
            ("/", "/route", true, "/route///req", "/req"),
            ("/", "/route", true, "/route//", "/"),
            ("/service", "/route", true, "/route../req", "/service/req"),
            ("/service", "/route", true, "/route./req", "/service/req"),
            ("/service", "/route", true, "/route..", "/service"),
            ("/service/", "/route", true, "/route.", "/service"),
            ("/service", "/route", true, "/route..a", "/service/..a"),
            // The route has no path, so nothing is stripped.
            ("/", "", true, "/", "/"),
            ("/service", "", true, "/", "/service"),
            ("/service", "", true, "/route/", "/service/route/"),
            ("/service/", "", true, "/", "/service/"),
            ("/service/", "", true, "/route", "/service/route"),
        ];
        for (service, route, strip, request, expected) in cases {
            let stripped = strip.then_some(route.len());
            let path = upstream_path(service, request, stripped);
            assert_eq!(path, expected, "{service} + {route} strip {strip} {request}");
        }
    }

    proptest::proptest! {
        #[test]
        fn result_is_always_a_path(
            service in "(/a){0,2}/?",
            request in "(/(a|é|[.a]{3}|a[.]{0,2})){0,3}/?",
            stripped in 0..9_usize,
        ) {
            let (service, request) = (format!("/{}", service.trim_start_matches('/')), format!("/{request}"));
            for stripped in [None, Some(stripped)] {
                let path = upstream_path(&service, &request, stripped);
                proptest::prop_assert!(path.starts_with('/'));
                // A dot segment could refer to a path outside of the service path.
                proptest::prop_assert!(!path.split('/').any(|segment| segment == ".." || segment == "."), "{}", path);
            }
        }
    }
}
