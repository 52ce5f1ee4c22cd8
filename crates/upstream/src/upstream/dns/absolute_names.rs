//! Resolves names as absolute names, without search domains. In a Pod, the search domains would make `db.b` a
//! Service of namespace `b`, and `db` a Service of Portico's own namespace.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::source::{ResolveError, ResolveName, ResolvedName};

/// A resolver without search domains.
pub(super) struct AbsoluteNames<S>(pub(super) S);

impl<S: ResolveName> ResolveName for AbsoluteNames<S> {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ResolvedName, ResolveError>> {
        // ClusterIPs of Services are resolved as `SERVICE.NAMESPACE.svc`, since only the search domains contain the
        // cluster domain. If users write such a name, it is in the namespace of the object, or the compiler rejects it.
        if name.ends_with(".svc") || name.ends_with('.') {
            return self.0.resolve(name);
        }
        let absolute = format!("{name}.");
        async move { self.0.resolve(&absolute).await }.boxed()
    }
}
