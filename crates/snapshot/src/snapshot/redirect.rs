//! Redirect filters and the `Location` they produce (Gateway API `HTTPRequestRedirectFilter`).

use std::fmt::{self, Write as _};

use http::StatusCode;

use super::path_edit::PathEdit;
pub use crate::plugin_api::Scheme;

/// A redirect. An unset scheme, host or path is that of the request; [`RedirectAction::location`] selects the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectAction {
    pub scheme: Option<Scheme>,
    pub host: Option<Box<str>>,
    pub path: Option<PathEdit>,
    pub port: Option<u16>,
    pub status: StatusCode,
    pub style: RedirectStyle,
}

/// Which host and query the `Location` has if the redirect sets no host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedirectStyle {
    /// The host with the port that [`RedirectAction::location`] selects, and the query.
    #[default]
    SelectedPort,
    /// The host without port, in lower case, and the query if it is not empty, as nginx redirects to a path with a
    /// slash at its end.
    WithoutPort,
    /// The same with the port of the request, unless that is the default of its scheme.
    RequestPort,
    /// No host, and the query if it is not empty: the client is at the right one.
    PathOnly,
    /// The host as the client sent it, without the query, as ingress-nginx redirects to its `app-root`.
    HostAsSent,
}

/// What a location of ingress-nginx writes before a path that is the target of a redirect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedirectBase {
    /// The scheme and the host of the request.
    #[default]
    Host,
    /// Also the port, unless it is the default of the scheme.
    HostAndPort,
    Nothing,
}

impl RedirectBase {
    /// The style of a redirect to a path of the configuration.
    pub fn style(self) -> RedirectStyle {
        match self {
            RedirectBase::Host => RedirectStyle::WithoutPort,
            RedirectBase::HostAndPort => RedirectStyle::RequestPort,
            RedirectBase::Nothing => RedirectStyle::PathOnly,
        }
    }

    /// The text before the path. `host`: that of the request, without a port. `port`: the one that the client uses.
    pub fn prefix(self, scheme: &str, host: &str, port: &str) -> String {
        let is_default = matches!((scheme, port), ("http", "80") | ("https", "443"));
        match self {
            RedirectBase::Nothing => String::new(),
            RedirectBase::HostAndPort if !is_default => format!("{scheme}://{host}:{port}"),
            RedirectBase::Host | RedirectBase::HostAndPort => format!("{scheme}://{host}"),
        }
    }
}

impl RedirectAction {
    /// A redirect to the URL of the request.
    pub fn new(status: StatusCode) -> Self {
        let style = RedirectStyle::SelectedPort;
        RedirectAction { scheme: None, host: None, path: None, port: None, status, style }
    }

    /// The `Location` for a request. An unset port is the default of the filter's scheme, or `request_port` if the
    /// filter sets no scheme.
    ///
    /// `host` is the one that the client used, with or without port; for HTTP/1.0 without Host, the local address of
    /// the connection. `request_port` is the port that the client used: that of the listener, as clients see it, unless
    /// a trusted peer reports another one.
    pub fn location(&self, scheme: Scheme, host: &str, request_port: u16, path: &str, query: Option<&str>) -> String {
        let port = self.port.or(self.scheme.map(Scheme::port)).unwrap_or(request_port);
        let scheme = self.scheme.unwrap_or(scheme);
        let host = self.host.as_deref().unwrap_or(host);
        let edited_path = self.path.as_ref().map(|edit| edit.apply(path));
        let path = edited_path.as_deref().unwrap_or(path);

        if self.style == RedirectStyle::HostAsSent {
            return format!("{scheme}://{host}{path}");
        }
        let mut location = String::new();
        if self.style != RedirectStyle::PathOnly {
            write!(location, "{scheme}://{}", RedirectHost::parse(host)).expect("writing to a string cannot fail");
        }
        match self.style {
            RedirectStyle::SelectedPort if port != scheme.port() => {
                write!(location, ":{port}").expect("writing to a string cannot fail");
            }
            RedirectStyle::WithoutPort | RedirectStyle::RequestPort => {
                location.make_ascii_lowercase();
                location.truncate(location.trim_end_matches('.').len());
                if self.style == RedirectStyle::RequestPort && request_port != scheme.port() {
                    write!(location, ":{request_port}").expect("writing to a string cannot fail");
                }
            }
            RedirectStyle::SelectedPort | RedirectStyle::PathOnly | RedirectStyle::HostAsSent => {}
        }
        location.push_str(path);
        let is_left_out = |query: &&str| query.is_empty() && self.style != RedirectStyle::SelectedPort;
        if let Some(query) = query.filter(|query| !is_left_out(query)) {
            location.push('?');
            location.push_str(query);
        }
        location
    }
}

/// The host of a URL without its port. An IPv6 address is displayed in brackets.
enum RedirectHost<'a> {
    Plain(&'a str),
    UnbracketedIpv6(&'a str),
}

impl<'a> RedirectHost<'a> {
    fn parse(host: &'a str) -> Self {
        if host.starts_with('[') {
            return RedirectHost::Plain(host.find(']').map_or(host, |end| &host[..=end]));
        }
        match host.split_once(':') {
            Some((_, rest)) if rest.contains(':') => RedirectHost::UnbracketedIpv6(host),
            Some((name, _port)) => RedirectHost::Plain(name),
            None => RedirectHost::Plain(host),
        }
    }
}

impl fmt::Display for RedirectHost<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RedirectHost::Plain(host) => formatter.write_str(host),
            RedirectHost::UnbracketedIpv6(address) => write!(formatter, "[{address}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use Scheme::{Http, Https};

    use super::*;

    fn redirect(scheme: Option<Scheme>, host: Option<&str>, port: Option<u16>) -> RedirectAction {
        RedirectAction { scheme, host: host.map(Box::from), port, ..RedirectAction::new(StatusCode::FOUND) }
    }

    #[test]
    fn style_decides_about_port_and_query() {
        for (style, expected) in [
            (RedirectStyle::SelectedPort, "http://a.example:8080/new?b"),
            (RedirectStyle::WithoutPort, "http://a.example/new?b"),
            (RedirectStyle::RequestPort, "http://a.example:8080/new?b"),
            (RedirectStyle::PathOnly, "/new?b"),
            (RedirectStyle::HostAsSent, "http://a.example:81/new"),
        ] {
            let path = Some(PathEdit::full("/new"));
            let redirect = RedirectAction { style, path, ..RedirectAction::new(StatusCode::FOUND) };
            assert_eq!(redirect.location(Http, "a.example:81", 8080, "/", Some("b")), expected);
        }
    }

    #[test]
    fn base_has_no_default_port() {
        for (base, scheme, port, expected) in [
            (RedirectBase::Host, "http", "8080", "http://a"),
            (RedirectBase::HostAndPort, "http", "8080", "http://a:8080"),
            (RedirectBase::HostAndPort, "http", "443", "http://a:443"),
            (RedirectBase::HostAndPort, "https", "443", "https://a"),
            (RedirectBase::HostAndPort, "http", "80", "http://a"),
            (RedirectBase::Nothing, "http", "8080", ""),
        ] {
            assert_eq!(base.prefix(scheme, "a", port), expected, "{base:?}");
        }
    }

    #[test]
    fn location_has_scheme_host_and_port() {
        // (filter: scheme, host, port; request: scheme, host, listener's port; location)
        let cases = [
            // Nothing set: the listener's port, omitted if it is the scheme's default.
            ((None, None, None), (Http, "a.example", 80), "http://a.example/p"),
            ((None, None, None), (Http, "a.example", 8080), "http://a.example:8080/p"),
            ((None, None, None), (Https, "a.example", 443), "https://a.example/p"),
            ((None, None, None), (Https, "a.example", 8443), "https://a.example:8443/p"),
            ((None, None, None), (Http, "a.example", 443), "http://a.example:443/p"),
            // The listener's port is used, not the port in the request's Host.
            ((None, None, None), (Http, "a.example:9999", 8080), "http://a.example:8080/p"),
            // A scheme implies its well-known port, regardless of the listener's.
            ((Some(Https), None, None), (Http, "a.example", 80), "https://a.example/p"),
            ((Some(Https), None, None), (Http, "a.example", 8080), "https://a.example/p"),
            ((Some(Http), None, None), (Https, "a.example", 443), "http://a.example/p"),
            ((Some(Http), None, None), (Http, "a.example", 8080), "http://a.example/p"),
            // A port in the filter overrides the scheme's and the listener's.
            ((None, None, Some(80)), (Http, "a.example", 8080), "http://a.example/p"),
            ((None, None, Some(443)), (Http, "a.example", 80), "http://a.example:443/p"),
            ((None, None, Some(8083)), (Http, "a.example", 80), "http://a.example:8083/p"),
            ((Some(Https), None, Some(443)), (Http, "a.example", 80), "https://a.example/p"),
            ((Some(Https), None, Some(80)), (Http, "a.example", 80), "https://a.example:80/p"),
            ((Some(Http), None, Some(443)), (Http, "a.example", 80), "http://a.example:443/p"),
            ((Some(Https), None, Some(8443)), (Http, "a.example", 80), "https://a.example:8443/p"),
            // Hosts from the filter, and IPv6 addresses from the request.
            ((None, Some("b.example"), None), (Http, "a.example", 80), "http://b.example/p"),
            ((None, Some("b.example"), None), (Http, "a.example", 8080), "http://b.example:8080/p"),
            ((None, None, None), (Http, "[2001:db8::1]", 8080), "http://[2001:db8::1]:8080/p"),
            ((None, None, None), (Http, "[2001:db8::1]:9", 80), "http://[2001:db8::1]/p"),
            ((None, None, None), (Http, "2001:db8::1", 8080), "http://[2001:db8::1]:8080/p"),
        ];
        for ((scheme, host, port), (request_scheme, request_host, listener_port), expected) in cases {
            let redirect = redirect(scheme, host, port);
            let location = redirect.location(request_scheme, request_host, listener_port, "/p", None);
            assert_eq!(location, expected, "{redirect:?} from {request_scheme}://{request_host} on {listener_port}");
        }
    }

    #[test]
    fn location_has_path_and_query() {
        let cases = [
            (None, "/a/b", None, "http://a.example/a/b"),
            (None, "/a/b", Some("x=1&y=%20"), "http://a.example/a/b?x=1&y=%20"),
            (None, "/a", Some(""), "http://a.example/a?"),
            (Some(PathEdit::full("/new")), "/a/b", Some("x=1"), "http://a.example/new?x=1"),
            (Some(PathEdit::prefix("/a", "/z/")), "/a/b", Some("x=1"), "http://a.example/z/b?x=1"),
            (Some(PathEdit::prefix("/a", "")), "/a", None, "http://a.example/"),
        ];
        for (path_edit, path, query, expected) in cases {
            let redirect = RedirectAction { path: path_edit, ..redirect(None, None, None) };
            assert_eq!(redirect.location(Http, "a.example", 80, path, query), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_host_panics(host in "[a\\[\\]:.é]{1,20}") {
            proptest::prop_assert!(redirect(None, None, None).location(Http, &host, 1, "/", None).ends_with(":1/"));
        }
    }
}
