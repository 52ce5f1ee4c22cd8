//! Purges of stored responses: `DELETE /cache`, `/cache/keys/KEY` and `/cache/tags/TAG`, in all namespaces or in that
//! of `?namespace=NAME`. They are the only requests to the admin listener that change what is served, and need a token.

use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::header::{ALLOW, AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::io::AsyncReadExt;

use super::response::{AdminResponse, json, text};

/// The stored responses of this process.
pub trait ResponseCaches: Send + Sync + 'static {
    /// Removes responses, and returns their number. `None` if the key is none.
    fn purge(&self, selection: CacheSelection<'_>, namespace: Option<&str>) -> Option<usize>;
}

/// Which responses are purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheSelection<'r> {
    All,
    /// The value of `X-Cache-Key`.
    Key(&'r str),
    /// A name in `Surrogate-Key` or `Cache-Tag`.
    Tag(&'r str),
}

/// The caches, and the file with the token that permits purges.
#[derive(Clone)]
pub struct CachePurges {
    pub caches: Arc<dyn ResponseCaches>,
    /// Read for each purge, so that a new token takes effect at once.
    pub token_file: PathBuf,
    /// The name of this process in responses.
    pub replica: Arc<str>,
}

impl CachePurges {
    /// Whether the file has a token. Called at the start, so that a mistake is noticed then.
    pub async fn check(&self) -> Result<(), String> {
        self.token().await.map(drop)
    }

    /// The response to a purge. `None` for every other path.
    pub(super) async fn respond<B>(&self, request: &Request<B>) -> Option<AdminResponse> {
        let path = request.uri().path();
        if path != "/cache" && !path.starts_with("/cache/") {
            return None;
        }
        if *request.method() != Method::DELETE {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "use DELETE");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("DELETE"));
            return Some(response);
        }
        let token = match self.token().await {
            Ok(token) => token,
            Err(message) => return Some(text(StatusCode::SERVICE_UNAVAILABLE, &message)),
        };
        if !has_token(request, &token) {
            let mut response = text(StatusCode::UNAUTHORIZED, "send the token of --admin-token-file as Bearer token");
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return Some(response);
        }
        Some(self.purge(path, request.uri().query()))
    }

    fn purge(&self, path: &str, query: Option<&str>) -> AdminResponse {
        const USAGE: &str = "use /cache, /cache/keys/KEY or /cache/tags/TAG, and ?namespace=NAME for one namespace";
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned()).ok();
        let namespace = match query.map(|query| query.strip_prefix("namespace=").and_then(decode)) {
            None => None,
            Some(Some(namespace)) if is_namespace(&namespace) => Some(namespace),
            Some(_) => return text(StatusCode::BAD_REQUEST, USAGE),
        };
        let key = path.strip_prefix("/cache/keys/");
        let tag = path.strip_prefix("/cache/tags/");
        let name = match key.or(tag).map(|name| decode(name).filter(|name| !name.is_empty())) {
            None if matches!(path, "/cache" | "/cache/") => String::new(),
            None => return text(StatusCode::NOT_FOUND, USAGE),
            Some(None) => return text(StatusCode::BAD_REQUEST, USAGE),
            Some(Some(name)) => name,
        };
        let selection = match (key, tag) {
            (Some(_), _) => CacheSelection::Key(&name),
            (None, Some(_)) => CacheSelection::Tag(&name),
            (None, None) => CacheSelection::All,
        };
        match self.caches.purge(selection, namespace.as_deref()) {
            Some(purged) => {
                let value = json!({ "purged": purged, "replica": &*self.replica, "scope": "memory of this replica" });
                json(StatusCode::OK, &value)
            }
            None => text(StatusCode::BAD_REQUEST, "the key is not valid; use the value of X-Cache-Key"),
        }
    }

    async fn token(&self) -> Result<Vec<u8>, String> {
        let name = self.token_file.display();
        let file = tokio::fs::File::open(&self.token_file).await;
        let file = file.map_err(|error| format!("cannot read the token in {name}: {error}"))?;
        let mut token = Vec::new();
        let read = file.take(MAX_TOKEN + 1).read_to_end(&mut token).await;
        read.map_err(|error| format!("cannot read the token in {name}: {error}"))?;
        let text = token.trim_ascii();
        if text.len() < MIN_TOKEN || token.len() as u64 > MAX_TOKEN || !text.iter().all(u8::is_ascii_graphic) {
            return Err(format!("the token in {name} must have {MIN_TOKEN} to {MAX_TOKEN} visible characters"));
        }
        Ok(text.to_vec())
    }
}

/// Whether a text can be the name of a namespace: other parameters after it are a mistake, too.
fn is_namespace(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn has_token<B>(request: &Request<B>, token: &[u8]) -> bool {
    let mut values = request.headers().get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Some((scheme, sent)) = value.as_bytes().split_at_checked(7) else { return false };
    scheme.eq_ignore_ascii_case(b"bearer ") && verify_slices_are_equal(sent.trim_ascii(), token).is_ok()
}

const MIN_TOKEN: usize = 16;
const MAX_TOKEN: u64 = 4096;

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// Records purges.
    #[derive(Default)]
    struct Recorded(Mutex<Vec<String>>);

    impl ResponseCaches for Recorded {
        fn purge(&self, selection: CacheSelection<'_>, namespace: Option<&str>) -> Option<usize> {
            self.0.lock().push(format!("{selection:?} {namespace:?}"));
            (selection != CacheSelection::Key("bad")).then_some(3)
        }
    }

    const TOKEN: &str = "0123456789abcdef-token";

    fn purges(token: &str) -> (CachePurges, Arc<Recorded>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("token");
        std::fs::write(&token_file, token).unwrap();
        let caches = Arc::new(Recorded::default());
        (CachePurges { caches: caches.clone(), token_file, replica: "one".into() }, caches, folder)
    }

    async fn send(purges: &CachePurges, method: &str, target: &str, authorization: &[&str]) -> Option<u16> {
        let mut request = Request::builder().method(method).uri(target);
        for value in authorization {
            request = request.header(AUTHORIZATION, *value);
        }
        purges.respond(&request.body(()).unwrap()).await.map(|response| response.status().as_u16())
    }

    #[tokio::test]
    async fn purges_need_the_token() {
        let (purges, caches, _folder) = purges(&format!("{TOKEN}\n"));
        let bearer = format!("Bearer {TOKEN}");
        for authorization in [
            &[][..],
            &["Bearer "],
            &["Bearer 0123456789abcdef-toke"],
            &[TOKEN],
            &["Basic 0123456789abcdef-token"],
            &[&bearer, &bearer],
        ] {
            assert_eq!(send(&purges, "DELETE", "/cache", authorization).await, Some(401), "{authorization:?}");
        }
        assert_eq!(send(&purges, "GET", "/cache", &[&bearer]).await, Some(405));
        assert!(caches.0.lock().is_empty());
        std::fs::write(&purges.token_file, "short").unwrap();
        assert_eq!(send(&purges, "DELETE", "/cache", &["Bearer short"]).await, Some(503), "fails closed");
        assert!(purges.check().await.is_err());
        assert!(caches.0.lock().is_empty());
    }

    #[tokio::test]
    async fn paths_select_what_is_purged() {
        let (purges, caches, _folder) = purges(TOKEN);
        let bearer = format!("bearer {TOKEN}");
        for (target, status) in [
            ("/cache", Some(200)),
            ("/cache/?namespace=shop", Some(200)),
            ("/cache/keys/abc", Some(200)),
            ("/cache/tags/a%2Fb?namespace=shop", Some(200)),
            ("/cache/keys/bad", Some(400)),
            ("/cache/keys/", Some(400)),
            ("/cache/tags/%FF", Some(400)),
            ("/cache?namespace=", Some(400)),
            ("/cache?name=shop", Some(400)),
            ("/cache/other/x", Some(404)),
            ("/caches", None),
            ("/debug/store", None),
        ] {
            assert_eq!(send(&purges, "DELETE", target, &[&bearer]).await, status, "{target}");
        }
        let expected =
            ["All None", "All Some(\"shop\")", "Key(\"abc\") None", "Tag(\"a/b\") Some(\"shop\")", "Key(\"bad\") None"];
        assert_eq!(*caches.0.lock(), expected);
    }
}
