//! Takes names as they are written, and never as the beginning of another one: in a Pod, the search domains make `db.b` a
//! Service of namespace `b`, and `db` one of Portico's own namespace.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::source::{Answer, Source, Unresolved};

pub(super) struct Whole<S>(pub(super) S);

impl<S: Source> Source for Whole<S> {
    fn ask<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Answer, Unresolved>> {
        // Services as a whole are `SERVICE.NAMESPACE.svc`: what the cluster is called is known to the search domains only.
        // Others who write such a name mean their own namespace, or are refused when that is compiled.
        if name.ends_with(".svc") || name.ends_with('.') {
            return self.0.ask(name);
        }
        let whole = format!("{name}.");
        async move { self.0.ask(&whole).await }.boxed()
    }
}
