//! A request's life on one screen: from its head to the answer that goes back.

use std::borrow::Cow;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, EXPECT, HOST, LOCATION};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::activity::Phase;
use super::body::{RequestBody, ResponseBody, Source};
use super::connection::Peer;
use super::cross_origin;
use super::exchange::Exchange;
use super::fault::Fault;
use super::forward;
use super::framing;
use super::headers::{self, join_cookies, strip_request};
use super::kong;
use super::manners::{METHODS, Manners};
use super::passage;
use super::request_id::X_REQUEST_ID;
use super::target::{Host, Path};
use super::tls::Session;
use super::tries;
use super::upgrade::Upgrade;
use super::view::View;
use crate::plugin::{Chain, Framing};
use crate::snapshot::router::Question;
use crate::snapshot::rule::{Action, Backend, Filters, Rule, Target};
use crate::snapshot::tries::Tries;
use crate::snapshot::{Bind, Listener};
use crate::upstream::Upstream;

/// Answers one request. What goes wrong becomes an answer too, so there is no error.
pub(crate) async fn serve(peer: Rc<Peer>, request: Request<Incoming>) -> Result<Response<ResponseBody>, Infallible> {
    // The one look at the configuration: this request goes by it to its end, whatever comes meanwhile.
    let view = peer.worker.view();
    let version = request.version();
    let manners = Manners::of(&request);
    let mut exchange = Exchange::open(&peer, &request);
    let mut request = request.map(|incoming| RequestBody::new(incoming, version, &peer));

    let mut decision = decide(&view, &mut request, &mut exchange);
    if let Ok(Decision::Ask { listener, rule, chain, asked, framing, upgrade }) = decision {
        // Boxed: requests of other rules do not set aside what plugins need.
        let rule = (listener, rule, chain);
        let asking = ask(&view, rule, asked, (framing, upgrade), &mut request, &mut exchange, &manners);
        decision = Box::pin(asking).await;
    }
    let outcome = match decision {
        Ok(Decision::Answer(answer)) => Ok(answer),
        Ok(Decision::Ask { .. }) => unreachable!("plugins are asked once"),
        Ok(Decision::Forward { rule, backend, upstream, tries, upgrade }) => {
            if exchange.through.is_some() || exchange.kong.is_some() {
                peer.activity.sent.set(Some(Instant::now()));
            }
            let answer = match tries {
                None => forward::forward(upstream, request, upgrade, &mut exchange).await,
                // Boxed: requests of other rules do not set aside what its timers need.
                Some(tries) => Box::pin(tries::forward(upstream, request, upgrade, &mut exchange, tries)).await,
            };
            answer.map(|mut answer| {
                finish(&mut answer, &exchange.id, &[&backend.filters, &rule.filters]);
                answer
            })
        }
        Err(fault) => Err(fault),
    };
    let mut close = peer.group.is_closing();
    let mut answer = outcome.unwrap_or_else(|fault| {
        let fault = exchange.kong.as_ref().map_or(fault, |kong| kong.words(fault));
        let account = fault.account();
        exchange.fault = Some(account.word);
        // Whoever wrote that and whoever passed it on may not agree where the next request begins.
        close |= account.status == StatusCode::BAD_REQUEST;
        let mut answer = manners.answer(&account, &exchange.id).map(Source::Ours);
        finish(&mut answer, &exchange.id, &[]);
        kong::offer(fault, version, answer.headers_mut());
        answer
    });
    if let Some(grant) = exchange.grant.take() {
        grant.apply(answer.headers_mut());
    }
    let now = Instant::now();
    if let Some(through) = &mut exchange.through {
        through.answer(&mut answer, &exchange.id, now);
    }
    kong::mark(&mut answer, &exchange, now);
    exchange.status = Some(answer.status());
    // HTTP/2 has no such field; its connections are told to end as a whole.
    if close && version < Version::HTTP_2 {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    peer.activity.enter(Phase::Answering, now);
    peer.activity.cut_off.set(exchange.cut_off.as_ref().map(|cut_off| cut_off.sleep.deadline()));
    if matches!(answer.body(), Source::Switched(..)) {
        return Ok(switch(answer, exchange));
    }
    Ok(answer.map(|source| ResponseBody::new(source, exchange, version)))
}

/// The answer behind which the connection, or the stream, belongs to another protocol.
fn switch(answer: Response<Source>, mut exchange: Exchange) -> Response<ResponseBody> {
    // What comes now is no answer whose end somebody waits for.
    exchange.cut_off = None;
    let (head, source) = answer.into_parts();
    let mut answer = Response::from_parts(head, ResponseBody::none());
    if let Source::Switched(upgrade, endpoint) = source {
        upgrade.grant(&mut answer);
        exchange.status = Some(answer.status());
        (*upgrade).open(endpoint, exchange);
    }
    answer
}

/// What becomes of a request.
enum Decision<'v> {
    Answer(Response<Source>),
    /// Plugins decide whether it goes on.
    Ask {
        listener: &'v Arc<Listener>,
        rule: &'v Arc<Rule>,
        chain: &'v Arc<Chain>,
        asked: Asked,
        framing: Framing,
        upgrade: Option<Box<Upgrade>>,
    },
    /// The request is now as the endpoint is to see it.
    Forward {
        rule: &'v Rule,
        backend: &'v Backend,
        upstream: &'v Arc<Upstream>,
        tries: Option<&'v Tries>,
        upgrade: Option<Box<Upgrade>>,
    },
}

/// What the client has asked for, which is what plugins decide about.
struct Asked {
    host: Host,
    /// If the request has another one for the endpoint by now.
    target: Option<Uri>,
    /// Nothing had to be made of its path before it was matched.
    is_plain: bool,
}

fn decide<'v>(
    view: &'v View,
    request: &mut Request<RequestBody>,
    exchange: &mut Exchange,
) -> Result<Decision<'v>, Fault> {
    let peer = Rc::clone(&exchange.peer);
    if let Some(fault) = peer.activity.refused() {
        return Err(fault);
    }
    let upgrade = Upgrade::take(request)?;
    framing::check(request)?;
    if request.headers().len() > peer.worker.limits.max_fields {
        return Err(Fault::Fields);
    }
    let uri = request.uri().clone();
    let path = Path::of(request.method(), &uri)?;
    let host = Host::of(request.version(), &uri, request.headers(), peer.group.address)?;
    let Some(path) = path else { return Ok(Decision::Answer(about_the_server(&exchange.id))) };
    let name = host.name();

    // Listeners are apart: the most specific one for the host decides, and no other is asked.
    let bind = view.bind(&peer.group.address);
    let listener = bind.and_then(|bind| bind.listener(&name));
    if bind.is_some_and(|bind| is_misdirected(bind, listener, peer.session.as_deref(), &name)) {
        return Err(Fault::Misdirected);
    }
    let listener = listener.ok_or(Fault::NoListener)?;
    if listener.is_kong() {
        kong::note(exchange);
    }
    let path = kong::read(listener, path);
    let question = Question {
        path: &path.path,
        query: path.query,
        method: request.method(),
        headers: request.headers(),
        authority: host.written.as_bytes(),
        scheme: peer.client.scheme,
        server_name: peer.session.as_ref().and_then(|session| session.server_name.as_deref()),
    };
    let Some(matched) = listener.find(&name, &question) else {
        exchange.series = Some(view.series(&peer.worker, listener, None, None));
        return Err(Fault::NoRoute);
    };
    let rule = matched.rule;
    let framing = if rule.plugins.is_some() { passage::framing(request.headers()) } else { Framing::default() };
    let Some(manner) = &rule.kong else {
        introduce(&peer, request, (rule, &host, listener), &exchange.id);
        kong::name_us(request, exchange);
        if let Some(chain) = &rule.plugins {
            exchange.series = Some(view.series(&peer.worker, listener, Some(rule), None));
            let asked = Asked { is_plain: !path.changed(), host, target: None };
            return Ok(Decision::Ask { listener, rule, chain, asked, framing, upgrade });
        }
        return act(view, (listener, rule), (&host, &path), upgrade, request, exchange);
    };
    kong::note(exchange);
    // Until it is known which backend it goes to: whoever gets no further is counted, too.
    let booked = || Some(view.series(&peer.worker, listener, Some(rule), None));
    if let Some(refused) = kong::admit(manner, request, &host, &peer).transpose() {
        exchange.series = booked();
        let mut answer = refused?;
        finish(&mut answer, &exchange.id, &[]);
        return Ok(Decision::Answer(answer));
    }
    introduce(&peer, request, (rule, &host, listener), &exchange.id);
    let upgrade = kong::upgrading(upgrade);
    let Ok(before) = kong::pass_on(rule, manner, matched.path, &path, request, exchange) else {
        exchange.series = booked();
        return Err(Fault::Rewrite);
    };
    let is_plain = !path.changed();
    let rewritten = (before.is_some() || !is_plain).then(|| request.uri().clone());
    // Where it is as the client wrote it, what was read of that is what the endpoint gets.
    let path = match &rewritten {
        None => path,
        Some(uri) => match Path::of(request.method(), uri) {
            Ok(Some(path)) => path,
            Ok(None) | Err(_) => {
                exchange.series = booked();
                return Err(Fault::Rewrite);
            }
        },
    };
    let Some(chain) = &rule.plugins else {
        return act(view, (listener, rule), (&host, &path), upgrade, request, exchange);
    };
    exchange.series = booked();
    let asked = Asked { host, target: before, is_plain };
    Ok(Decision::Ask { listener, rule, chain, asked, framing, upgrade })
}

/// What the client meant for this hop ends here, before we, plugins and filters write anything.
fn introduce(
    peer: &Peer,
    request: &mut Request<RequestBody>,
    (rule, host, listener): (&Rule, &Host, &Listener),
    id: &HeaderValue,
) {
    let path = rule.kong.as_ref().map(|_| HeaderValue::from_str(request.uri().path()).ok());
    let headers = request.headers_mut();
    strip_request(headers, if path.is_some() { &kong::introduction::OURS } else { &headers::OURS });
    headers.remove(EXPECT);
    join_cookies(headers);
    let port = peer.client.port(listener.port);
    match path {
        None => peer.client.introduce(headers, &host.written, &port),
        Some(path) => kong::introduction::introduce(peer, headers, host, path, port),
    }
    headers.insert(X_REQUEST_ID, id.clone());
    if host.elsewhere {
        headers.insert(HOST, host.written.clone());
    }
}

/// Has the plugins of a rule decide, and goes on if they let the request pass.
async fn ask<'v>(
    view: &'v View,
    (listener, rule, chain): (&'v Arc<Listener>, &'v Arc<Rule>, &'v Arc<Chain>),
    asked: Asked,
    (framing, upgrade): (Framing, Option<Box<Upgrade>>),
    request: &mut Request<RequestBody>,
    exchange: &mut Exchange,
    manners: &Manners,
) -> Result<Decision<'v>, Fault> {
    let Asked { host, target, is_plain } = asked;
    let before = request.uri().clone();
    // What the client wrote, also where the endpoint sees another path.
    let uri = target.as_ref().unwrap_or(&before);
    let path = if is_plain {
        Path { path: Cow::Borrowed(uri.path()), query: uri.query() }
    } else {
        // Read once more, rather than carried through every request.
        let Some(path) = Path::of(request.method(), uri)? else { return Err(Fault::NoRoute) };
        kong::read(listener, path)
    };
    let consumers = &view.snapshot.consumers;
    let reply = passage::ask(chain, consumers, request, (&host, &path), (listener.port, framing), exchange).await?;
    if let Some(reply) = reply {
        exchange.fault = Some(reply.reason);
        let mut answer = passage::written(*reply, manners, &exchange.id);
        finish(&mut answer, &exchange.id, &[]);
        return Ok(Decision::Answer(answer));
    }
    if target.is_none() && *request.uri() == before {
        return act(view, (listener, rule), (&host, &path), upgrade, request, exchange);
    }
    // A plugin has changed the target, for example taken a key out of it.
    let uri = request.uri().clone();
    let path = Path::of(request.method(), &uri)?.ok_or(Fault::Rewrite)?;
    act(view, (listener, rule), (&host, &path), upgrade, request, exchange)
}

/// What the rule does with a request that may pass.
fn act<'v>(
    view: &'v View,
    (listener, rule): (&'v Arc<Listener>, &'v Arc<Rule>),
    (host, path): (&Host, &Path<'_>),
    upgrade: Option<Box<Upgrade>>,
    request: &mut Request<RequestBody>,
    exchange: &mut Exchange,
) -> Result<Decision<'v>, Fault> {
    let peer = Rc::clone(&exchange.peer);
    let split = match &rule.action {
        Action::Forward(split) => split,
        Action::Redirect(redirect) => {
            exchange.series = Some(view.series(&peer.worker, listener, Some(rule), None));
            if let Some(cors) = &rule.filters.cors
                && let Some(mut answer) = cross_origin::admit(cors, request, exchange)
            {
                finish(&mut answer, &exchange.id, &[&rule.filters]);
                return Ok(Decision::Answer(answer));
            }
            let host = host.written.to_str().unwrap_or_default();
            let location = redirect.location(peer.client.scheme, host, listener.port, &path.path, path.query);
            let mut answer = Response::new(Source::Ours(Bytes::new()));
            *answer.status_mut() = redirect.status;
            let location = HeaderValue::try_from(location).map_err(|_| Fault::Rewrite)?;
            answer.headers_mut().insert(LOCATION, location);
            finish(&mut answer, &exchange.id, &[&rule.filters]);
            return Ok(Decision::Answer(answer));
        }
        Action::Fail(failure) => {
            exchange.series = Some(view.series(&peer.worker, listener, Some(rule), None));
            return Err(Fault::Rule(*failure));
        }
    };
    let backend = view.pick(rule, split);
    exchange.series = Some(view.series(&peer.worker, listener, Some(rule), Some(backend)));
    // Before it is asked whether the backend can be used: browsers show errors only to pages that may read answers.
    if let Some(cors) = backend.filters.cors.as_ref().or(rule.filters.cors.as_ref())
        && let Some(mut answer) = cross_origin::admit(cors, request, exchange)
    {
        finish(&mut answer, &exchange.id, &[&backend.filters, &rule.filters]);
        return Ok(Decision::Answer(answer));
    }
    let upstream = match &backend.target {
        Target::Upstream(upstream) => upstream,
        Target::Fail(failure) => return Err(Fault::Rule(*failure)),
    };

    // The rule's filters come first, so that the backend's, which are more specific, have the last word. Mirrors see what
    // the filters of their own level make of the request: what is meant for one backend is no business of another.
    let levels = [&rule.filters, &backend.filters];
    for (level, filters) in levels.iter().enumerate() {
        if let Some(edits) = &filters.request_headers {
            edits.apply(request.headers_mut());
        }
        // A handshake makes sense only to who goes on with it.
        if !filters.mirrors.is_empty() && upgrade.is_none() {
            let finish = |copy: &mut Request<()>| rewrite(copy, path, &levels[..=level]).is_ok();
            peer.worker.mirrors.copy(&filters.mirrors, request, finish);
        }
    }
    rewrite(request, path, &levels)?;

    Ok(Decision::Forward { rule, backend, upstream, tries: split.tries.as_deref(), upgrade })
}

/// Whether the request came over a connection that belongs to another listener than its host does (RFC 9110, section
/// 15.5.20): a browser reuses one for every name in its certificate, but what guards a listener was checked for its own
/// connections only.
fn is_misdirected(bind: &Bind, listener: Option<&Arc<Listener>>, session: Option<&Session>, host: &str) -> bool {
    match (session, &bind.tls) {
        (None, None) => false,
        (Some(session), Some(_)) => {
            let server_name = session.server_name.as_deref();
            // What most clients send, and then there is nothing to look up.
            if server_name == Some(host) {
                return false;
            }
            let greeted = bind.greeted(server_name);
            !greeted.zip(listener).is_some_and(|(greeted, listener)| Arc::ptr_eq(greeted, listener))
        }
        // The port was turned from HTTP to HTTPS, or back, while the connection was open.
        (None, Some(_)) | (Some(_), None) => true,
    }
}

/// The target and Host as the endpoint sees them. The bytes of the client go through, unless what was matched differs from
/// them or a filter rewrites it. Of several rewrites the last counts.
fn rewrite<B>(request: &mut Request<B>, path: &Path<'_>, filters: &[&Filters]) -> Result<(), Fault> {
    let rewrites = || filters.iter().rev().filter_map(|filters| filters.rewrite.as_ref());
    if let Some(host) = rewrites().find_map(|rewrite| rewrite.host.as_ref()) {
        request.headers_mut().insert(HOST, host.clone());
    }
    let edit = rewrites().find_map(|rewrite| rewrite.path.as_ref());
    if edit.is_none() && !path.changed() && request.uri().authority().is_none() {
        return Ok(());
    }
    let mut target = edit.map_or_else(|| path.path.clone().into_owned(), |edit| edit.apply(&path.path));
    if let Some(query) = path.query {
        target.push('?');
        target.push_str(query);
    }
    let target = PathAndQuery::from_maybe_shared(Bytes::from(target)).map_err(|_| Fault::Rewrite)?;
    *request.uri_mut() = Uri::from(target);
    Ok(())
}

/// The request's id, unless the endpoint has given one, and then the filters, which may change that, too.
fn finish(answer: &mut Response<Source>, id: &HeaderValue, filters: &[&Filters]) {
    let headers = answer.headers_mut();
    headers.entry(X_REQUEST_ID).or_insert_with(|| id.clone());
    for edits in filters.iter().filter_map(|filters| filters.response_headers.as_ref()) {
        edits.apply(headers);
    }
}

/// `OPTIONS *` asks what the server can do, and the server is us.
fn about_the_server(id: &HeaderValue) -> Response<Source> {
    let mut answer = Response::new(Source::Ours(Bytes::new()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer.headers_mut().insert(ALLOW, METHODS);
    finish(&mut answer, id, &[]);
    answer
}
