//! Authentication, client certificates and lists of addresses.

use super::super::annotation::OnBadValue::{Default, Deny503, Reject};
use super::super::characters::CharacterSet;
use super::super::value::ValueKind;
use super::row::{COUNT, Row, SECONDS, host, path};

pub(super) const ACCESS: &[Row] = &[
    path("auth-type", AUTH_TYPES, "", Reject).says("Requires a login with HTTP Basic or Digest."),
    path("auth-secret", ValueKind::Reference, "", Deny503)
        .says("Names the Secret with the users and passwords of auth-type."),
    path("auth-secret-type", SECRET_TYPES, "auth-file", Reject)
        .says("Says whether the Secret has a file of users, or one key for each user."),
    path("auth-realm", ValueKind::Text(CharacterSet::BasicAndSpace), "", Reject).says("Sets the realm of the login."),
    path("auth-url", ValueKind::AbsoluteUrl, "", Reject)
        .wrong_form(Deny503)
        .says("Sends each request to this URL first, which permits or denies it."),
    path("auth-signin", ValueKind::SpacedText(CharacterSet::UrlAndVariables), "", Default)
        .says("Redirects clients that auth-url does not permit to this URL."),
    path("auth-signin-redirect-param", ValueKind::SpacedText(CharacterSet::Url), "rd", Default)
        .says("Names the query parameter with the original URL for auth-signin."),
    path("auth-method", METHODS, "GET", Deny503).says("Sets the method of requests to auth-url."),
    path("auth-response-headers", ValueKind::HeaderNames, "", Deny503)
        .says("Copies these headers from the response of auth-url to the backend."),
    path("auth-request-redirect", ValueKind::SpacedText(CharacterSet::Url), "", Deny503)
        .says("Sets the X-Auth-Request-Redirect header of requests to auth-url."),
    path("auth-cache-key", ValueKind::SpacedText(CharacterSet::Variables), "", Default)
        .says("Caches responses of auth-url under this key."),
    path("auth-cache-duration", ValueKind::CacheDurations, "200 202 401 5m", Deny503)
        .says("Sets how long responses of auth-url are cached."),
    path("auth-keepalive", COUNT, "0", Default).says("Sets the number of idle connections to auth-url."),
    path("auth-keepalive-share-vars", ValueKind::Flag, "false", Default)
        .says("Shares variables of nginx with the request to auth-url."),
    path("auth-keepalive-requests", COUNT, "1000", Default)
        .says("Sets the number of requests on one connection to auth-url."),
    path("auth-keepalive-timeout", SECONDS, "60", Default)
        .says("Sets how many seconds a connection to auth-url stays idle."),
    path("auth-proxy-set-headers", ValueKind::QualifiedReference, "", Default)
        .wrong_form(Deny503)
        .says("Names the ConfigMap with headers for requests to auth-url."),
    path("auth-always-set-cookie", ValueKind::Flag, "false", Deny503)
        .says("Passes cookies of auth-url to the client with any status."),
    path("auth-snippet", ValueKind::Any, "", Default).says("Adds configuration of nginx to the request to auth-url."),
    path("enable-global-auth", ValueKind::Flag, "true", Default)
        .says("Set to false, exempts the paths from the authentication in the ConfigMap."),
    path("satisfy", ANY_OR_ALL, "all", Default)
        .says("Says whether a request must pass all access checks, or any of them."),
    path("allowlist-source-range", ValueKind::AddressList, "", Deny503)
        .says("Permits only clients with these addresses."),
    path("whitelist-source-range", ValueKind::AddressList, "", Deny503)
        .says("Is the older name of allowlist-source-range."),
    path("denylist-source-range", ValueKind::AddressList, "", Deny503).says("Denies clients with these addresses."),
    host("auth-tls-secret", ValueKind::QualifiedReference, "", Reject)
        .wrong_form(Deny503)
        .says("Names the Secret with the authorities of client certificates, and asks for these."),
    host("auth-tls-verify-client", VERIFY_CLIENT, "on", Default).says("Says whether a client certificate is required."),
    host("auth-tls-verify-depth", COUNT, "1", Default).says("Sets the longest permitted chain of client certificates."),
    host("auth-tls-error-page", ValueKind::ErrorPage, "", Reject)
        .says("Sends clients without a valid certificate to this page."),
    host("auth-tls-pass-certificate-to-upstream", ValueKind::Flag, "false", Reject)
        .says("Sends the client certificate to the backend in a header."),
    host("auth-tls-match-cn", ValueKind::SubjectPattern, "", Reject)
        .says("Permits only client certificates whose subject matches this expression."),
];

const AUTH_TYPES: ValueKind = ValueKind::Containing(&["basic", "digest"]);
const SECRET_TYPES: ValueKind = ValueKind::OneOf(&["auth-file", "auth-map"]);
const METHODS: ValueKind =
    ValueKind::OneOf(&["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"]);
const ANY_OR_ALL: ValueKind = ValueKind::OneOf(&["any", "all"]);
const VERIFY_CLIENT: ValueKind = ValueKind::OneOf(&["on", "off", "optional", "optional_no_ca"]);
