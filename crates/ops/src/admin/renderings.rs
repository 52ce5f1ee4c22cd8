//! Large responses of a listener, such as all metrics: how many are written at the same time, and how many bytes of
//! them wait for clients to read them.
//!
//! ```text
//!   request ─▶ permit ─┬▶ few bytes wait ─▶ render ─▶ response ─▶ its bytes count until the last client has read them
//!                      └▶ otherwise ─▶ the latest rendering, which another client is still reading
//! ```
//!
//! A client that does not read thus holds a rendering that others hold as well, and many such clients do not fill the
//! memory. Nothing is kept for later: a client that reads at once gets a rendering of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::response::{AdminResponse, response, text};

/// The renderings of one kind, such as views. Keys distinguish those with different content.
///
/// Renderings are written on blocking threads, so that tasks on the same runtime (probes, the control loop) are not
/// delayed. The number of concurrent writes is limited, since each response may be as large as the whole configuration.
pub(super) struct Renderings<K> {
    writes: Arc<Semaphore>,
    unread: Arc<Mutex<UnreadRenderings<K>>>,
}

impl<K> Clone for Renderings<K> {
    fn clone(&self) -> Self {
        Renderings { writes: Arc::clone(&self.writes), unread: Arc::clone(&self.unread) }
    }
}

/// The renderings that some client has not read completely.
struct UnreadRenderings<K> {
    /// In the order of their creation.
    entries: Vec<UnreadRendering<K>>,
    next_id: u64,
}

struct UnreadRendering<K> {
    id: u64,
    key: K,
    created: Instant,
    content_type: &'static str,
    length: usize,
    /// Refers to [`UnreadBytes`], which remove this entry when the last client has read them.
    bytes: std::sync::Weak<UnreadBytes<K>>,
}

/// The bytes of a rendering, which its clients share.
struct UnreadBytes<K> {
    id: u64,
    text: String,
    unread: Arc<Mutex<UnreadRenderings<K>>>,
}

impl<K> Drop for UnreadBytes<K> {
    fn drop(&mut self) {
        self.unread.lock().entries.retain(|entry| entry.id != self.id);
    }
}

/// The owner of the bytes of one response.
struct SharedBytes<K>(Arc<UnreadBytes<K>>);

impl<K> AsRef<[u8]> for SharedBytes<K> {
    fn as_ref(&self) -> &[u8] {
        self.0.text.as_bytes()
    }
}

/// A rendered response of status 200.
pub(super) struct Rendering {
    pub(super) content_type: &'static str,
    pub(super) text: String,
}

/// The permit to write one rendering.
pub(super) struct WritePermit<K> {
    key: K,
    unread: Arc<Mutex<UnreadRenderings<K>>>,
    _permit: OwnedSemaphorePermit,
}

impl<K: Clone + PartialEq + Send + 'static> Renderings<K> {
    pub(super) fn new() -> Self {
        let unread = UnreadRenderings { entries: Vec::new(), next_id: 0 };
        Renderings { writes: Arc::new(Semaphore::new(MAX_CONCURRENT_WRITES)), unread: Arc::new(Mutex::new(unread)) }
    }

    /// Waits while the maximum number of renderings is being written. Returns a response if nothing is to be rendered:
    /// a rendering that other clients still read, or an error if they leave no room.
    pub(super) async fn permit(&self, key: K) -> Result<WritePermit<K>, AdminResponse> {
        let permit = Arc::clone(&self.writes).acquire_owned().await.expect("the semaphore is never closed");
        let instead = self.unread.lock().instead_of_rendering(&key);
        match instead {
            None => Ok(WritePermit { key, unread: Arc::clone(&self.unread), _permit: permit }),
            Some(Ok((content_type, bytes))) => Err(shared_response(content_type, bytes)),
            Some(Err(NoRoom)) => {
                let message = "clients have not read the last responses, which take too much memory; try again in 30s";
                Err(text(StatusCode::SERVICE_UNAVAILABLE, message))
            }
        }
    }
}

/// The content type and the bytes of a rendering that another client still reads.
type SharedRendering<K> = (&'static str, Arc<UnreadBytes<K>>);

/// The unread renderings take all memory that they may have, and none is recent enough for another client.
struct NoRoom;

impl<K: PartialEq> UnreadRenderings<K> {
    /// The rendering to send instead of another one. `None` to render.
    fn instead_of_rendering(&self, key: &K) -> Option<Result<SharedRendering<K>, NoRoom>> {
        if self.entries.len() < MAX_CONCURRENT_WRITES {
            return None;
        }
        let unread: usize = self.entries.iter().map(|entry| entry.length).sum();
        let latest = self.entries.iter().rev().find(|entry| entry.key == *key);
        let is_full = unread + latest.map_or(0, |latest| latest.length) > MAX_UNREAD_BYTES;
        let max_age = if is_full { MAX_AGE_IF_FULL } else { MAX_AGE };
        let recent = latest.filter(|latest| latest.created.elapsed() <= max_age);
        match recent.and_then(|recent| Some((recent.content_type, recent.bytes.upgrade()?))) {
            Some(shared) => Some(Ok(shared)),
            None if is_full => Some(Err(NoRoom)),
            None => None,
        }
    }
}

impl<K: Send + 'static> WritePermit<K> {
    /// The response with what `render` returns, or the response that it returns instead.
    pub(super) async fn write(
        self,
        render: impl FnOnce() -> Result<Rendering, Box<AdminResponse>> + Send + 'static,
    ) -> AdminResponse {
        // The blocking task owns the permit, since it continues if the client disconnects and this future is dropped.
        let render_and_release = move || {
            let response = render().map(|rendering| self.add(rendering));
            response.unwrap_or_else(|error| *error)
        };
        tokio::task::spawn_blocking(render_and_release).await.unwrap_or_else(|error| {
            text(StatusCode::INTERNAL_SERVER_ERROR, &format!("the response could not be written: {error}"))
        })
    }

    fn add(self, Rendering { content_type, text }: Rendering) -> AdminResponse {
        let length = text.len();
        let mut unread = self.unread.lock();
        let id = unread.next_id;
        unread.next_id += 1;
        let bytes = Arc::new(UnreadBytes { id, text, unread: Arc::clone(&self.unread) });
        let created = Instant::now();
        let entry = UnreadRendering { id, key: self.key, created, content_type, length, bytes: Arc::downgrade(&bytes) };
        unread.entries.push(entry);
        drop(unread);
        shared_response(content_type, bytes)
    }
}

fn shared_response<K: Send + 'static>(content_type: &'static str, bytes: Arc<UnreadBytes<K>>) -> AdminResponse {
    response(StatusCode::OK, content_type, Bytes::from_owner(SharedBytes(bytes)))
}

/// Enough for two Prometheus servers, a common setup. As many renderings are never shared.
const MAX_CONCURRENT_WRITES: usize = 2;
/// The limit of unread bytes, which one more rendering for each concurrent write may exceed.
const MAX_UNREAD_BYTES: usize = 32 << 20;
/// How old a rendering may be that another client gets, normally and at the limit of unread bytes. Within the second
/// time, the clients of older renderings have read them or are disconnected.
const MAX_AGE: Duration = Duration::from_secs(1);
const MAX_AGE_IF_FULL: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn permit_is_held_until_written_despite_disconnect() {
        let renderings = Renderings::new();
        let (finish, finished) = sync_channel::<()>(1);
        let permit = renderings.permit(()).await.ok().unwrap();
        let mut response = Box::pin(permit.write(move || {
            finished.recv_timeout(Duration::from_secs(30)).ok();
            Err(Box::new(text(StatusCode::OK, "late")))
        }));
        assert!((&mut response).now_or_never().is_none(), "the response is being written");
        drop(response);
        let other_permits = [renderings.permit(()).await.ok()];
        assert_eq!(other_permits.len() + 1, MAX_CONCURRENT_WRITES);
        assert!(renderings.permit(()).now_or_never().is_none(), "all permits are taken");
        drop(finish);
        renderings.permit(()).await.ok().unwrap();
    }

    /// The body of the response to a request, and whether it was rendered for it. `None` if the request was refused.
    async fn get(renderings: &Renderings<&'static str>, key: &'static str, length: usize) -> Option<(Bytes, bool)> {
        let (response, is_rendered) = match renderings.permit(key).await {
            Ok(permit) => {
                let text = "x".repeat(length);
                (permit.write(move || Ok(Rendering { content_type: "text/plain", text })).await, true)
            }
            Err(response) => (response, false),
        };
        let is_refused = response.status() == StatusCode::SERVICE_UNAVAILABLE;
        let body = http_body_util::Limited::new(response.into_body(), usize::MAX);
        #[expect(clippy::disallowed_methods, reason = "the test made it")]
        let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        (!is_refused).then_some((body, is_rendered))
    }

    fn unread_bytes(renderings: &Renderings<&'static str>) -> usize {
        renderings.unread.lock().entries.iter().map(|entry| entry.length).sum()
    }

    #[tokio::test]
    async fn unread_renderings_are_shared() {
        let renderings = Renderings::new();
        let mut unread = Vec::new();
        for expected in [true, true, false, false] {
            let (body, is_rendered) = get(&renderings, "text", 1 << 20).await.unwrap();
            assert_eq!(is_rendered, expected);
            unread.push(body);
        }
        assert_eq!(unread_bytes(&renderings), 2 << 20);
        unread.push(get(&renderings, "other", 1).await.filter(|(_, is_rendered)| *is_rendered).unwrap().0);
        // The clients have read everything: nothing is kept.
        unread.clear();
        assert_eq!(unread_bytes(&renderings), 0);
        assert!(get(&renderings, "text", 1).await.unwrap().1);
    }

    #[tokio::test(start_paused = true)]
    async fn size_of_unread_renderings_is_limited() {
        let renderings = Renderings::new();
        let mut unread = std::collections::VecDeque::new();
        let second = MAX_AGE + Duration::from_millis(1);
        for number in 0..40 {
            tokio::time::advance(second).await;
            let (body, is_rendered) = get(&renderings, "text", 5 << 20).await.unwrap();
            // Six fit into the limit; for the others, the sixth is recent enough for half a minute.
            assert_eq!(is_rendered, number < 6, "{number}");
            unread.push_back(body);
            // Clients have half a minute to read.
            if unread.len() > 29 {
                break;
            }
        }
        assert_eq!(unread_bytes(&renderings), 30 << 20);
        tokio::time::advance(MAX_AGE_IF_FULL).await;
        assert!(get(&renderings, "text", 5 << 20).await.is_none(), "refused while nothing is recent");
        assert!(get(&renderings, "other", 5 << 20).await.is_some(), "what fits is rendered");
        unread.drain(..5);
        assert!(get(&renderings, "text", 5 << 20).await.unwrap().1, "rendered as soon as there is room");
    }
}
