//! The order of the steps of a request, which is a security property: no step may respond with what a backend would
//! send before all steps that guard it have run.
//!
//! `request.rs` runs the steps in this order. A step is entered where it begins: a build with debug assertions, such as
//! that of the tests, panics for a request that enters its steps in another order.

/// A step of a request. The declaration is the order; each step says why it has its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::proxy) enum RequestStep {
    /// Host, path and upgrade, normalized. First, because everything after it decides on them.
    Target,
    /// The listener and the rule. Forwarding headers of untrusted clients are not compared, but those that the endpoint
    /// gets.
    Route,
    /// Whether the rule accepts the protocol of the request. Before anything else of the rule, because a request in
    /// plain text must not give its credentials to a plugin.
    Protocols,
    /// Removes what concerns the connection, what untrusted clients may not say, and what authorization servers decide,
    /// and sets the forwarding headers, as the rule says. Before plugins and authorization servers, which read these
    /// headers.
    RequestHeaders,
    /// Plugins authenticate, limit and edit the request. Their responses have nothing of a backend: a rejection, a
    /// login, a redirect, a preflight.
    AccessPlugins,
    /// Selects the backend by weight. Rules that protect requests in a way that is not supported fail here.
    Backend,
    /// Responds to CORS preflight requests. Before authorization, because they have no credentials.
    Preflight,
    /// Authorization servers of the rule and of the backend, with the identity that plugins have established.
    Authorization,
    /// Plugins respond with what a backend has sent before, such as caches. After everything that may deny the request,
    /// and before the filters, which belong to the backend: a cache knows requests as their clients have sent them.
    BeforeForward,
    /// Redirects, or rewrites the request for the backend and copies it to mirrors. After authorization: neither a
    /// mirror nor a redirect shows anything to a client that is denied.
    RequestFilters,
    /// A plugin takes the place of the backend, such as a function, a queue or a mock. After the filters, whose changes
    /// the backend would see.
    BackendReplacement,
    /// Sends the request to the backend.
    Forwarding,
    /// Filters of the backend and of the rule edit the head of the response.
    ResponseFilters,
    /// An error backend gets a description of a request that has failed, and responds in place of the error. After all
    /// steps that may deny the request, which the description does not let pass, and before the plugins, whose changes
    /// its response has like any other.
    ErrorBackend,
    /// Plugins edit or replace the head of the response, wherever it comes from. After the filters, as their changes of
    /// the request came before.
    ResponsePlugins,
    /// Filters of plugins change the body. Last of the plugins, because a plugin may still have replaced the response.
    BodyFilters,
    /// Framing, product headers and fields of the connection, which describe the response as it is sent. The log phase
    /// of the plugins follows when the response has ended.
    ResponseHead,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a step may send to the client.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Sends {
        Nothing,
        /// Errors, redirects, rejections, and responses to preflight requests: nothing that a backend has sent or would
        /// send.
        NotOfBackend,
        /// What the backend sends, or what stands in for it.
        OfBackend,
    }

    /// All steps: what they may send, and whether they may deny the request.
    const STEPS: [(RequestStep, Sends, bool); 17] = [
        (RequestStep::Target, Sends::NotOfBackend, true),
        (RequestStep::Route, Sends::NotOfBackend, true),
        (RequestStep::Protocols, Sends::NotOfBackend, true),
        (RequestStep::RequestHeaders, Sends::NotOfBackend, true),
        (RequestStep::AccessPlugins, Sends::NotOfBackend, true),
        (RequestStep::Backend, Sends::NotOfBackend, true),
        (RequestStep::Preflight, Sends::NotOfBackend, false),
        (RequestStep::Authorization, Sends::NotOfBackend, true),
        (RequestStep::BeforeForward, Sends::OfBackend, false),
        (RequestStep::RequestFilters, Sends::NotOfBackend, false),
        (RequestStep::BackendReplacement, Sends::OfBackend, false),
        (RequestStep::Forwarding, Sends::OfBackend, false),
        (RequestStep::ResponseFilters, Sends::Nothing, false),
        (RequestStep::ErrorBackend, Sends::OfBackend, false),
        (RequestStep::ResponsePlugins, Sends::NotOfBackend, false),
        (RequestStep::BodyFilters, Sends::NotOfBackend, false),
        (RequestStep::ResponseHead, Sends::Nothing, false),
    ];

    #[test]
    fn nothing_of_a_backend_precedes_what_guards_it() {
        assert!(STEPS.is_sorted_by(|(step, ..), (next, ..)| step < next), "the table has the order of the steps");
        let responding = STEPS.iter().filter(|(_, sends, _)| *sends == Sends::OfBackend);
        for (responding, ..) in responding {
            for (guard, ..) in STEPS.iter().filter(|(.., is_guard)| *is_guard) {
                assert!(guard < responding, "{responding:?} may respond before {guard:?} has run");
            }
        }
    }

    #[test]
    fn sanitized_headers_precede_those_who_read_them() {
        for reader in [
            RequestStep::AccessPlugins,
            RequestStep::Authorization,
            RequestStep::BeforeForward,
            RequestStep::BackendReplacement,
            RequestStep::Forwarding,
        ] {
            assert!(RequestStep::RequestHeaders < reader, "{reader:?}");
        }
        for reader in [RequestStep::BackendReplacement, RequestStep::Forwarding] {
            assert!(RequestStep::RequestFilters < reader, "{reader:?} gets what filters set, and not what they remove");
        }
        assert!(RequestStep::BeforeForward < RequestStep::RequestFilters, "caches know requests of clients");
        assert!(RequestStep::Preflight < RequestStep::Authorization, "preflight requests have no credentials");
        assert!(
            RequestStep::AccessPlugins < RequestStep::Authorization,
            "servers get the identity that plugins have established"
        );
    }
}
