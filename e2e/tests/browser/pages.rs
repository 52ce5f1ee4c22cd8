//! Chromium shows pages that Portico compresses in each coding, stores and validates, and gets compressed events at
//! once.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use portico_e2e::without_cluster::{self, Program};
use serde_json::{Value, json};

use super::chromium::Chromium;

#[test]
fn a_browser_shows_compressed_and_stored_pages() {
    without_cluster::run("portico-pages", &[], shows_pages);
}

async fn shows_pages() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let origin = Origin::start()?;
    let objects = format!("{}{}", without_cluster::GATEWAY, manifests()?);
    let _portico = Program::portico(folder.path(), &objects, &["127.0.0.1:8080"]).await?;
    let mut browser = Chromium::start(folder.path())?;
    let tab = browser.open_tab()?;
    browser.open(&tab, "http://pages.localhost:8080/start")?;
    browser.wait_for(&tab, "document.body?.innerText === 'line of a page '.repeat(2000).trim()").await?;
    let navigation = browser.evaluate(&tab, "performance.getEntriesByType('navigation')[0].toJSON()")?;
    ensure!(navigation["encodedBodySize"].as_u64() < Some(1000) && navigation["decodedBodySize"] == 30_000);

    let responses = browser.evaluate(&tab, &FETCH_ALL.replace("TEXT", TEXT))?;
    let [gzip, br, zstd, first_shared, shared, first_cached, cached] = &responses.as_array().context("a list")?[..]
    else {
        anyhow::bail!("{responses}")
    };
    for (coding, response) in [("gzip", gzip), ("br", br), ("zstd", zstd), ("zstd", shared), ("zstd", cached)] {
        ensure!(response["status"] == 200 && response["isText"] == true, "{coding}: {response}");
        ensure!(response["coding"] == coding && response["size"].as_u64() < Some(1000), "{coding}: {response}");
        // The entity tag of what is compressed is weak, and is that of the stored response.
        ensure!(response["tag"] == "W/\"1\"", "{coding}: {response}");
    }
    // The browser asks whether its copy is fresh, and Portico sends 304 without the origin: only fields.
    ensure!(first_shared["state"] == "portico; fwd=uri-miss; fwd-status=200; stored", "{first_shared}");
    ensure!(shared["state"].as_str().is_some_and(|state| state.starts_with("portico; hit")), "{shared}");
    ensure!(shared["sent"].as_u64() == Some(SIZE_OF_FIELDS), "{shared}");
    // The browser does not ask for what is fresh.
    ensure!(first_cached["sent"].as_u64() > Some(SIZE_OF_FIELDS) && cached["sent"] == 0, "{first_cached} {cached}");

    // The second event is sent when the page has shown the first one.
    let events = browser.evaluate(&tab, EVENTS)?;
    ensure!(events == json!(["first", "second"]), "{events}");
    let requests = origin.requests();
    let expected = ["/start", "/gzip", "/br", "/zstd", "/shared", "/cached", "/events", "/continue"];
    ensure!(requests == expected, "each page is requested once: {requests:?}");
    Ok(())
}

/// A route for each coding, and one with the cache too.
fn manifests() -> Result<String> {
    let mut manifests = String::from(SERVICE_AND_CACHE);
    for coding in ["gzip", "br", "zstd"] {
        let plugin = json!({
            "apiVersion": "configuration.konghq.com/v1", "kind": "KongPlugin", "metadata": { "name": coding },
            "plugin": "compression", "config": { "codings": [coding] },
        });
        write!(manifests, "---\n{plugin}\n---\n{}\n", route(coding, &format!("/{coding}"), coding))?;
    }
    write!(manifests, "---\n{}\n", route("pages", "/", "zstd,cache"))?;
    Ok(manifests)
}

fn route(name: &str, path: &str, plugins: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": name, "annotations": { "konghq.com/plugins": plugins } },
        "spec": {
            "parentRefs": [{ "name": "web" }],
            "hostnames": ["pages.localhost"],
            "rules": [{
                "matches": [{ "path": { "value": path } }],
                "backendRefs": [{ "name": "pages", "port": 9100 }],
            }],
        },
    })
}

/// A server of pages, which records the paths of requests.
struct Origin(Arc<OriginState>);

#[derive(Default)]
struct OriginState {
    requests: Mutex<Vec<String>>,
    /// Notified of each request.
    changed: Condvar,
}

impl Origin {
    fn start() -> Result<Origin> {
        let listener = TcpListener::bind("127.0.0.1:9100").context("cannot listen")?;
        let state = Arc::new(OriginState::default());
        let origin = Origin(Arc::clone(&state));
        // The threads end with the test program.
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                thread::spawn(move || state.serve(&connection));
            }
        });
        Ok(origin)
    }

    fn requests(&self) -> Vec<String> {
        // Browsers ask for the icon of a site when they like.
        let requests = self.0.requests.lock().expect("no thread panics with the lock");
        requests.iter().filter(|path| *path != "/favicon.ico").cloned().collect()
    }
}

impl OriginState {
    /// Serves one connection, which ends with the first error.
    fn serve(&self, connection: &TcpStream) -> Option<()> {
        let (mut lines, mut writer) = (BufReader::new(connection).lines(), connection);
        while let Some(line) = lines.next().and_then(Result::ok) {
            let path = line.split(' ').nth(1)?.to_owned();
            lines.by_ref().map_while(Result::ok).find(String::is_empty)?;
            self.requests.lock().ok()?.push(path.clone());
            self.changed.notify_all();
            let (kind, fields) = match &*path {
                "/events" => return self.send_events(writer),
                "/start" => ("text/html", ""),
                "/shared" => ("text/plain", "Cache-Control: no-cache\r\nCDN-Cache-Control: max-age=60\r\n"),
                "/cached" => ("text/plain", "Cache-Control: max-age=60\r\n"),
                _ => ("text/plain", ""),
            };
            let body = "line of a page\n".repeat(2000);
            let length = body.len();
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nETag: \"1\"\r\nContent-Length: {length}\r\n");
            writer.write_all(format!("{head}{fields}\r\n{body}").as_bytes()).ok()?;
        }
        Some(())
    }

    fn send_events(&self, mut writer: &TcpStream) -> Option<()> {
        writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: first\n\n").ok()?;
        let requests = self.requests.lock().ok()?;
        let waits = |requests: &mut Vec<String>| !requests.iter().any(|path| path == "/continue");
        let (requests, waited) = self.changed.wait_timeout_while(requests, Duration::from_secs(60), waits).ok()?;
        drop(requests);
        if waited.timed_out() {
            return None;
        }
        writer.write_all(b"data: second\n\n").ok()
    }
}

const SERVICE_AND_CACHE: &str = "---
apiVersion: v1
kind: Service
metadata: {name: pages, annotations: {portico.dev/address: 127.0.0.1}}
spec: {ports: [{port: 9100}]}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: cache}
plugin: proxy-cache
config: {strategy: memory, mode: rfc9111}
";

/// What the pages contain, as JavaScript.
const TEXT: &str = "'line of a page\\n'.repeat(2000)";

/// Gets pages one after the other, and describes the responses as scripts see them. Names of the host `localhost` count
/// as secure, so that the browser accepts br and zstd without TLS and its cache is in use.
const FETCH_ALL: &str = "(async () => {
    const responses = [];
    for (const path of ['/gzip', '/br', '/zstd', '/shared', '/shared', '/cached', '/cached']) {
        performance.clearResourceTimings();
        const response = await fetch(path);
        const isText = await response.text() === TEXT;
        let timing;
        while (!(timing = performance.getEntriesByType('resource')[0])) await new Promise(done => setTimeout(done, 5));
        responses.push({
            status: response.status, isText, coding: response.headers.get('content-encoding'),
            tag: response.headers.get('etag'), state: response.headers.get('cache-status'),
            size: timing.encodedBodySize, sent: timing.transferSize,
        });
    }
    return responses;
})()";

const EVENTS: &str = "new Promise((done, failed) => {
    const source = new EventSource('/events'), events = [];
    source.onerror = () => failed(new Error(`only ${events}`));
    source.onmessage = event => {
        events.push(event.data);
        if (events.length === 1) return fetch('/continue');
        source.close();
        done(events);
    };
})";

/// What `transferSize` counts for the fields of a response, whatever they are (W3C Resource Timing).
const SIZE_OF_FIELDS: u64 = 300;
