//! A request's way through the plugins of its rule, and its answer's way back.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use ipnet::IpNet;
use tokio::time::Instant;

use super::body::{RequestBody, Source};
use super::connection::Peer;
use super::exchange::Exchange;
use super::fault::Fault;
use super::forward::patiently;
use super::headers::{X_FORWARDED_FOR, X_FORWARDED_PROTO, X_REAL_IP, is_grpc, lists};
use super::manners::Manners;
use super::stats::Ledger;
use super::target::{Host, Path};
use crate::plugin::chain::{Ask, Passage, Spoken};
use crate::plugin::{Chain, Client, Directory, Ended, Framing, Reply, ReplyBody, Scheme, Source as Origin};

/// Kept with the request until its answer is complete.
pub(crate) struct Through {
    chain: Arc<Chain>,
    passage: Passage,
    /// When the head of the answer was there.
    answered: Option<Instant>,
    origin: Origin,
}

/// How the body comes, before that is taken away as meant for this hop only.
pub(crate) fn framing(headers: &HeaderMap) -> Framing {
    let says = |name, word| headers.get(name).is_some_and(|value| lists(value, word));
    Framing { is_chunked: says(TRANSFER_ENCODING, "chunked"), expects_continue: says(EXPECT, "100-continue") }
}

/// Asks the plugins. None if the request may go on, and then it is as they want it.
pub(crate) async fn ask(
    chain: &Arc<Chain>,
    consumers: &Directory,
    request: &mut Request<RequestBody>,
    (host, path): (&Host, &Path<'_>),
    (listen_port, framing): (u16, Framing),
    exchange: &mut Exchange,
) -> Result<Option<Box<Reply>>, Fault> {
    let body = match chain.reads_body() {
        Some(most) => Some(read(&exchange.peer, request, most).await?),
        None => None,
    };
    let peer = &exchange.peer;
    let address = address(peer, request.headers());
    let scheme = scheme(peer, request.headers());
    let spoken = Spoken { secure: scheme == Scheme::Https, grpc: is_grpc(request.headers()) };
    let taken = std::mem::replace(request, Request::new(RequestBody::none(peer)));
    let (mut head, rest) = taken.into_parts();
    // In the books from the start: also who leaves while plugins think is told to them.
    let chain = Arc::clone(chain);
    let through = Through { chain, passage: Passage::default(), answered: None, origin: Origin::Ours };
    let through = exchange.through.insert(Box::new(through));
    let Through { chain, passage, .. } = &mut **through;
    let access = chain.access(
        Ask {
            head: &mut head,
            path: &path.path,
            query: path.query,
            client: Client {
                address,
                port: peer.address.port(),
                peer: peer.address.ip().to_canonical(),
                scheme,
                host: host.written.to_str().unwrap_or_default(),
                listen_port,
            },
            framing,
            id: &exchange.id,
            body: body.as_ref(),
            consumers,
            now: SystemTime::now(),
            spoken,
        },
        passage,
    );
    let Some(reply) = patiently(&peer.activity, access).await else { return Err(Fault::PluginTimeout) };
    *request = Request::from_parts(head, rest);
    // Only one that was read as a whole is written anew. Its length stands in the head already.
    if let Some(body) = through.passage.new_body.take() {
        request.body_mut().replace(body);
    }
    if let Some(limit) = through.passage.body_limit {
        request.body_mut().limit(limit)?;
    }
    Ok(reply)
}

/// The whole body, which is sent on all the same.
async fn read(peer: &Peer, request: &mut Request<RequestBody>, most: usize) -> Result<Bytes, Fault> {
    match patiently(&peer.activity, request.body_mut().read_ahead(most)).await {
        None => Err(Fault::UploadTimeout),
        Some(Err(_)) => Err(Fault::Body),
        Some(Ok(_)) if request.body().is_read() && request.body().ahead().len() <= most => Ok(request.body().ahead()),
        Some(Ok(_)) => Err(Fault::TooLarge),
    }
}

/// Who sent the request, as far as that can be believed: of the addresses that trusted peers have passed on, the last that
/// is none of theirs.
pub(crate) fn address(peer: &Peer, headers: &HeaderMap) -> IpAddr {
    let near = peer.address.ip().to_canonical();
    if peer.client.trusted { told(headers, &peer.worker.trusted, near) } else { near }
}

fn told(headers: &HeaderMap, trusted: &[IpNet], near: IpAddr) -> IpAddr {
    let parse = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.trim().parse::<IpAddr>().ok();
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut seen = near;
    let mut any = false;
    for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        for entry in value.as_bytes().rsplit(|byte| *byte == b',') {
            // What cannot be read ends what can be believed.
            let Some(address) = parse(entry).map(|address| address.to_canonical()) else { return seen };
            // Our own entry about the peer comes last.
            any |= address != near;
            seen = address;
            if !is_trusted(&address) {
                return seen;
            }
        }
    }
    // Those who write no list may write this one.
    if any { seen } else { headers.get(X_REAL_IP).and_then(|value| parse(value.as_bytes())).unwrap_or(seen) }
}

pub(crate) fn scheme(peer: &Peer, headers: &HeaderMap) -> Scheme {
    let own = peer.client.scheme;
    if !peer.client.trusted {
        return own;
    }
    match headers.get(X_FORWARDED_PROTO).map(HeaderValue::as_bytes) {
        Some(proto) if proto.eq_ignore_ascii_case(b"https") => Scheme::Https,
        Some(proto) if proto.eq_ignore_ascii_case(b"http") => Scheme::Http,
        _ => own,
    }
}

/// A plugin's answer on the wire.
pub(crate) fn written(reply: Reply, manners: &Manners, id: &HeaderValue) -> Response<Source> {
    let Reply { status, mut headers, body, reason: _ } = reply;
    let mut answer = match body {
        ReplyBody::Negotiated(message) => manners.say(status, &message, id),
        ReplyBody::Plain(message) => manners.state(status, &message),
        ReplyBody::Raw(bytes) => manners.whole(status, bytes),
        ReplyBody::Empty => manners.whole(status, Bytes::new()),
    };
    headers.remove(CONTENT_LENGTH);
    // In place of ours of the same names, and all values of each.
    answer.headers_mut().extend(headers);
    answer.map(Source::Ours)
}

impl Through {
    /// Lets the plugins see the head of the answer, which is there now.
    pub(crate) fn answer(&mut self, answer: &mut Response<Source>, id: &HeaderValue, now: Instant) {
        self.origin = match answer.body() {
            Source::Ours(_) => Origin::Ours,
            Source::Upstream { .. } | Source::Switched(..) => Origin::Service,
        };
        self.answered = Some(now);
        let status = answer.status();
        self.chain.answer(&mut self.passage, status, answer.headers_mut(), self.origin, id);
    }

    /// Who asked, by the name that people know.
    pub(crate) fn consumer(&self) -> Option<Arc<str>> {
        let consumer = self.passage.identity.consumer.as_ref()?;
        let name = consumer.username.as_ref().or(consumer.custom_id());
        Some(name.map_or_else(|| Arc::from(&*consumer.id), |name| Arc::clone(name.text())))
    }

    /// Tells the plugins how it ended, and the books how long they took. `sent` is when the request went to an endpoint.
    pub(crate) fn log(
        &self,
        ledger: &Ledger,
        status: StatusCode,
        total: Duration,
        sent: Option<Instant>,
        (bytes_in, bytes_out): (u64, u64),
    ) {
        let upstream = sent.filter(|_| self.origin == Origin::Service);
        let upstream = upstream.zip(self.answered).map(|(sent, answered)| answered - sent);
        ledger.plugins(self.passage.times.all());
        self.chain.log(&self.passage, &Ended { status, source: self.origin, total, upstream, bytes_in, bytes_out });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_address_that_nobody_vouches_for() {
        let trusted: Vec<IpNet> = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()].into();
        let cases = [
            // Our own entry about the peer is the last.
            ("10.0.0.1", &["10.0.0.1"][..], None, "10.0.0.1"),
            ("10.0.0.1", &["192.0.2.7, 10.0.0.1"], None, "192.0.2.7"),
            ("10.0.0.1", &["6.6.6.6, 192.0.2.7, 10.9.9.9, 10.0.0.1"], None, "192.0.2.7"),
            ("10.0.0.1", &["6.6.6.6", "192.0.2.7", "10.0.0.1"], None, "192.0.2.7"),
            ("10.0.0.1", &["nonsense, 10.9.9.9, 10.0.0.1"], None, "10.9.9.9"),
            ("10.0.0.1", &["2001:db8::1, ::ffff:192.0.2.7, 2001:db8::2, 10.0.0.1"], None, "192.0.2.7"),
            ("10.0.0.1", &["10.0.0.1"], Some("192.0.2.8"), "192.0.2.8"),
            // A list is worth more than a single address, which a client may have written itself.
            ("10.0.0.1", &["192.0.2.7, 10.0.0.1"], Some("6.6.6.6"), "192.0.2.7"),
            ("10.0.0.1", &["10.0.0.1"], Some("nonsense"), "10.0.0.1"),
        ];
        for (near, lists, real, expected) in cases {
            let mut headers = HeaderMap::new();
            for list in lists {
                headers.append(X_FORWARDED_FOR, HeaderValue::from_static(list));
            }
            if let Some(real) = real {
                headers.insert(X_REAL_IP, HeaderValue::from_static(real));
            }
            let found = told(&headers, &trusted, near.parse().unwrap());
            assert_eq!(found.to_string(), expected, "{lists:?} {real:?}");
        }
    }
}
