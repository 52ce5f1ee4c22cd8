//! The path that the endpoint gets: `path_handling` v0, which is the only one that has an effect (`kong-compat.md` §3.5).

use std::borrow::Cow;

/// `service` is the path of the service, `request` the path that was matched, and `stripped` how many of its bytes are taken
/// away: those that the route matched, with `strip_path`. None if all of it stays.
///
/// `service` begins with a slash, and so does what comes of it.
pub fn upstream_path<'p>(service: &str, request: &'p str, stripped: Option<usize>) -> Cow<'p, str> {
    let base = service.strip_suffix('/');
    let Some(stripped) = stripped else {
        return match base {
            // Nearly always: there is nothing in front of it.
            Some("") => Cow::Borrowed(request),
            Some(_) => Cow::Owned(format!("{service}{}", request.strip_prefix('/').unwrap_or(request))),
            None if request == "/" => Cow::Owned(service.to_owned()),
            None => Cow::Owned(format!("{service}{request}")),
        };
    };
    let rest = sanitized(request.get(stripped..).unwrap_or_default());
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

/// What remains of a path begins neither with several slashes nor, since it may have been cut in the middle of a segment
/// (`/a` off `/a../b`), with one that points elsewhere.
fn sanitized(rest: &str) -> &str {
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

    // kong-compat §3.5
    // kong-compat §7.12
    #[test]
    fn every_row_of_v0() {
        // (path of the service, of the route, strip_path, of the request, what the endpoint gets)
        let cases = [
            // Not stripped, the service's path ends with a slash: both with one slash in between.
            ("/", "/route", false, "/route", "/route"),
            ("/", "/route", false, "/route/", "/route/"),
            ("/", "/", false, "/", "/"),
            ("/service/", "/route", false, "/route", "/service/route"),
            ("/service/", "/route", false, "/routereq", "/service/routereq"),
            ("/service/", "/", false, "/", "/service/"),
            ("/service/", "/route", false, "/route/req", "/service/route/req"),
            // It does not.
            ("/service", "/", false, "/", "/service"),
            ("/service", "/route", false, "/route", "/service/route"),
            ("/srv", "/rou", false, "/roureq", "/srv/roureq"),
            ("/service", "/", false, "/route/", "/service/route/"),
            // Stripped, a slash at the end, nothing left.
            ("/", "/route", true, "/route", "/"),
            ("/", "/route/", true, "/route/", "/"),
            ("/service/", "/route", true, "/route", "/service"),
            ("/srv/", "/rou", true, "/rou", "/srv"),
            ("/service/", "/route/", true, "/route/", "/service/"),
            // The rest begins with a slash.
            ("/", "/route", true, "/route/req", "/req"),
            ("/service/", "/route", true, "/route/req", "/service/req"),
            ("/service/", "/route", true, "/route/", "/service/"),
            // The rest does not.
            ("/", "/route", true, "/routereq", "/req"),
            ("/service/", "/route", true, "/routereq", "/service/req"),
            ("/service/", "/route/", true, "/route/req", "/service/req"),
            // Stripped, no slash at the end, nothing left.
            ("/service", "/route", true, "/route", "/service"),
            ("/service", "/route/", true, "/route/", "/service/"),
            ("/service", "/", true, "/", "/service"),
            // The rest begins with a slash.
            ("/service", "/route", true, "/route/req", "/service/req"),
            ("/service", "/route", true, "/route/", "/service/"),
            // The rest does not.
            ("/service", "/route", true, "/routereq", "/service/req"),
            ("/service", "/route/", true, "/route/req", "/service/req"),
            ("/service", "/", true, "/route/", "/service/route/"),
            // What remains is made to begin with one slash.
            ("/service", "/route", true, "/route//req", "/service/req"),
            ("/", "/route", true, "/route///req", "/req"),
            ("/", "/route", true, "/route//", "/"),
            ("/service", "/route", true, "/route../req", "/service/req"),
            ("/service", "/route", true, "/route./req", "/service/req"),
            ("/service", "/route", true, "/route..", "/service"),
            ("/service/", "/route", true, "/route.", "/service"),
            ("/service", "/route", true, "/route..a", "/service/..a"),
        ];
        for (service, route, strip, request, expected) in cases {
            let stripped = strip.then_some(route.len());
            let path = upstream_path(service, request, stripped);
            assert_eq!(path, expected, "{service} + {route} strip {strip} {request}");
        }
    }

    proptest::proptest! {
        #[test]
        fn it_is_a_path_whatever_is_stripped(
            service in "(/a){0,2}/?",
            request in "(/(a|é|[.a]{3}|a[.]{0,2})){0,3}/?",
            stripped in 0..9_usize,
        ) {
            let (service, request) = (format!("/{}", service.trim_start_matches('/')), format!("/{request}"));
            for stripped in [None, Some(stripped)] {
                let path = upstream_path(&service, &request, stripped);
                proptest::prop_assert!(path.starts_with('/'));
                // Not above what the service says.
                proptest::prop_assert!(!path.split('/').any(|segment| segment == ".." || segment == "."), "{}", path);
            }
        }
    }
}
