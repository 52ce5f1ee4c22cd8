//! Which Ingresses are those of ingress-nginx.

/// The classes of the Ingresses of ingress-nginx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NginxClassOptions {
    pub controller: String,
    /// The value of the annotation with the class.
    pub annotated: String,
}

/// The class of ingress-nginx in its installation instructions.
pub(super) const NGINX_CLASS: &str = "nginx";
