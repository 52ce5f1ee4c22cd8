//! Error backends of ingress-nginx: what they get, and what clients get in place of errors, of Services without
//! endpoints, and of hosts and paths that no Ingress has.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use portico::api::ingress_nginx::PREFIX;

use super::nginx_guards::{
    CLASS, WITH_CONFIG_MAP, config_map, get, ingress, rule_for, secret, service, start, with_users,
};
use crate::harness::client::Connection;
use crate::harness::site::Site;

/// A server that responds with its name as the body. Its threads end with the process.
struct Backend {
    port: u16,
    received: Arc<Mutex<Vec<Received>>>,
}

/// A request: its head in lower case but for the request line, and its body.
#[derive(Clone, Debug)]
struct Received {
    line: String,
    fields: Vec<(String, String)>,
    body: String,
}

impl Received {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// The values of these fields; `-` in place of a missing one.
    fn values<const N: usize>(&self, names: [&str; N]) -> [&str; N] {
        names.map(|name| self.field(name).unwrap_or("-"))
    }
}

impl Backend {
    /// `status`: of the response to a request.
    fn start(address: IpAddr, name: &'static str, status: fn(&Received) -> u16) -> Backend {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let received = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&received);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let all = Arc::clone(&all);
                thread::spawn(move || serve(stream, name, status, &all));
            }
        });
        Backend { port, received }
    }

    fn take(&self) -> Vec<Received> {
        std::mem::take(&mut *self.received.lock())
    }

    /// The only request since the last call.
    fn take_one(&self) -> Received {
        let received = self.take();
        let [one] = &received[..] else { panic!("{received:#?}") };
        one.clone()
    }
}

fn serve(stream: TcpStream, name: &str, status: fn(&Received) -> u16, all: &Mutex<Vec<Received>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream) {
        let status = status(&request);
        all.lock().push(request);
        let response =
            format!("HTTP/1.1 {status} Status\r\nx-of: {name}\r\ncontent-length: {}\r\n\r\n{name}", name.len());
        if stream.get_mut().write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let fields = lines[1..].iter().filter_map(|line| line.split_once(':'));
    let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let mut request = Received { line: lines[0].clone(), fields, body: String::new() };
    let length = request.field("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    request.body = String::from_utf8_lossy(&body).into_owned();
    Some(request)
}

/// The status that the path `/status/404` names; 200 for others.
fn status_of_path(request: &Received) -> u16 {
    let path = request.line.split(' ').nth(1).and_then(|target| target.split('?').next()).unwrap_or_default();
    path.strip_prefix("/status/").map_or(200, |status| status.parse().unwrap())
}

/// The status of the error, so that a second replacement would be seen.
fn status_of_error(request: &Received) -> u16 {
    request.field("x-code").map_or(200, |code| code.parse().unwrap())
}

/// The annotations that begin with the prefix of ingress-nginx.
fn annotations(of_nginx: &[(&str, &str)]) -> String {
    let lines: Vec<String> = of_nginx.iter().map(|(name, value)| format!("{PREFIX}{name}: \"{value}\"")).collect();
    lines.join(", ")
}

/// Two servers, and the objects about them. The Service `empty` has no endpoints.
fn backends(site: &Site) -> (Backend, Backend, String) {
    let address = IpAddr::V4(site.address());
    let main = Backend::start(address, "main", status_of_path);
    let pages = Backend::start(address, "page", status_of_error);
    let empty = service("default", "empty", "1");
    let empty = empty.split("---").next().unwrap_or_default().to_owned() + "---\n";
    let objects = CLASS.to_owned()
        + &service("default", "main", &main.port.to_string())
        + &service("default", "pages", &pages.port.to_string())
        + &empty;
    (main, pages, objects)
}

const TO_PAGES: (&str, &str) = ("default-backend", "pages");

#[test]
fn error_backend_responds_in_place_of_errors() {
    let site = Site::new();
    let (main, pages, mut objects) = backends(&site);
    let errors = ("custom-http-errors", "401,403,404,413,503");
    let passes = ("disable-proxy-intercept-errors", "true");
    let mut add = |name: &str, more: &str| {
        let rule = rule_for(&format!("{name}.example"), "/", "main");
        objects += &ingress("default", name, "01", more, &rule);
    };
    add("web", &annotations(&[errors, TO_PAGES]));
    add("passes", &annotations(&[errors, TO_PAGES, passes]));
    add("denied", &annotations(&[errors, TO_PAGES, passes, ("allowlist-source-range", "192.0.2.0/24")]));
    add("large", &annotations(&[errors, TO_PAGES, ("proxy-body-size", "4")]));
    add("users", &format!("{}, {}", annotations(&[errors, TO_PAGES]), with_users()));
    add("no-pages", &annotations(&[errors]));
    objects += &secret("default", "auth", "anna:{PLAIN}one");
    site.save("manifests/all.yaml", &objects);
    let (_program, address) = start(&site, &[]);

    let fields = "accept: text/html\r\nx-code: 1\r\nx_code: 2\r\nx-real-ip: 10.0.0.1\r\nx-own: 1\r\n";
    let response = get(&address, "web.example", "/status/404?a=b", fields);
    assert_eq!((response.status, &*response.body, response.field("x-of")), (404, "page", Some("page")));
    assert_eq!(main.take_one().line, "GET /status/404?a=b HTTP/1.1");
    let described = pages.take_one();
    assert_eq!(described.line, "GET /?a=b HTTP/1.1");
    let names = ["host", "x-code", "x-format", "x-original-uri", "x-namespace", "x-ingress-name", "x-service-name"];
    let expected = ["web.example", "404", "text/html", "/status/404?a=b", "default", "web", "main"];
    assert_eq!(described.values(names), expected);
    let names = ["x-service-port", "x-forwarded-for", "x-real-ip", "x-forwarded-proto", "x_code", "x-own"];
    assert_eq!(described.values(names), ["80", "127.0.0.1", "-", "-", "-", "1"]);
    assert_eq!(described.field("x-request-id"), response.field("x-request-id"));

    // A status that is not listed, and a success.
    for (path, status) in [("/status/500", 500), ("/", 200)] {
        let response = get(&address, "web.example", path, "");
        assert_eq!((response.status, &*response.body), (status, "main"), "{path}");
    }
    // A call could not read a page.
    let response = get(&address, "web.example", "/status/404", "content-type: application/grpc\r\n");
    assert_eq!((response.status, &*response.body), (404, "main"));
    assert!(pages.take().is_empty());

    // The body is sent once, and the connection serves further requests.
    let mut connection = Connection::open(&address).unwrap();
    for _ in 0..2 {
        let post = "POST /status/503 HTTP/1.1\r\nhost: web.example\r\ncontent-length: 6\r\n\r\nsecret";
        let response = connection.send(post).unwrap();
        assert_eq!((response.status, &*response.body), (503, "page"));
        let described = pages.take_one();
        assert_eq!((&*described.line, &*described.body), ("POST / HTTP/1.1", ""));
        assert_eq!(described.values(["content-length", "x-code"]), ["0", "503"]);
    }

    // What an endpoint sends passes, and what Portico sends does not.
    assert_eq!(get(&address, "passes.example", "/status/404", "").body, "main");
    let response = get(&address, "denied.example", "/status/200", "");
    assert_eq!((response.status, &*response.body), (403, "page"));
    assert_eq!(pages.take_one().values(["x-code", "x-ingress-name"]), ["403", "denied"]);
    let post = "POST / HTTP/1.1\r\nhost: large.example\r\ncontent-length: 6\r\n\r\nsecret";
    let response = Connection::open(&address).unwrap().send(post).unwrap();
    assert_eq!((response.status, &*response.body), (413, "page"));
    assert_eq!(pages.take_one().body, "");
    let response = get(&address, "users.example", "/", "");
    assert_eq!((response.status, &*response.body), (401, "page"));
    assert!(response.field("www-authenticate").is_some(), "{}", response.head);

    // Without a Service for errors, all of them become 404, as in ingress-nginx.
    assert_eq!(get(&address, "no-pages.example", "/status/503", "").status, 404);
}

#[test]
fn default_backend_gets_the_requests_of_services_without_endpoints() {
    let site = Site::new();
    let (_main, pages, mut objects) = backends(&site);
    let errors = ("custom-http-errors", "503");
    let mut add = |name: &str, service: &str, more: &[(&str, &str)]| {
        let rule = rule_for(&format!("{name}.example"), "/", service);
        objects += &ingress("default", name, "01", &annotations(more), &rule);
    };
    add("empty", "empty", &[TO_PAGES, errors]);
    add("missing", "missing", &[TO_PAGES]);
    add("denied", "empty", &[TO_PAGES, ("allowlist-source-range", "192.0.2.0/24")]);
    add("plain", "empty", &[]);
    add("wrong", "empty", &[("default-backend", "missing")]);
    site.save("manifests/all.yaml", &objects);
    let (_program, address) = start(&site, &[]);
    for (name, service) in [("empty", "empty"), ("missing", "missing")] {
        let response = get(&address, &format!("{name}.example"), "/a/b?c=d", "accept: text/html\r\nx_code: 1\r\n");
        // Its own error is final.
        assert_eq!((response.status, &*response.body), (503, "page"), "{name}");
        let received = pages.take_one();
        assert_eq!(received.line, "GET /a/b?c=d HTTP/1.1", "{name}");
        let names = ["x-code", "x-format", "x-ingress-name", "x-service-name", "x-service-port", "x-original-uri"];
        assert_eq!(received.values(names), ["503", "text/html", name, service, "80", "-"], "{name}");
        assert_eq!(received.field("x_code"), None);
        assert_eq!(received.field("x-request-id"), response.field("x-request-id"), "{name}");
    }
    for (name, status) in [("denied", 403), ("plain", 503), ("wrong", 503)] {
        let response = get(&address, &format!("{name}.example"), "/", "");
        assert_eq!((response.status, response.field("x-of")), (status, None), "{name}");
    }
    assert!(pages.take().is_empty());
}

#[test]
fn default_backend_of_all_ingresses_gets_what_none_has() {
    let site = Site::new();
    let (_main, pages, mut objects) = backends(&site);
    objects += &config_map(", custom-http-errors: \"404\"");
    let mut add = |name: &str, more: &str| {
        objects += &ingress("default", name, "01", more, &rule_for(&format!("{name}.example"), "/status", "main"));
    };
    add("web", "");
    add("own-list", &annotations(&[("custom-http-errors", "500")]));
    add("login", &annotations(&[("auth-url", "http://@address@:@echo@/"), ("auth-signin", "http://a.example/")]));
    add("denied", &annotations(&[("allowlist-source-range", "192.0.2.0/24")]));
    site.save("manifests/all.yaml", &objects);
    let with_default = ["--nginx-default-backend", "default/pages"];
    let (_program, address) = start(&site, &[&WITH_CONFIG_MAP[..], &with_default].concat());
    for (host, path) in [("unknown.example", "/a?b=c"), ("web.example", "/a?b=c")] {
        let response = get(&address, host, path, "");
        assert_eq!((response.status, &*response.body), (200, "page"), "{host}");
        let received = pages.take_one();
        assert_eq!(received.line, "GET /a?b=c HTTP/1.1", "{host}");
        assert_eq!(received.values(["host", "x-code"]), [host, "-"]);
    }
    // The paths that no rule has are protected as those that one has.
    assert_eq!(get(&address, "denied.example", "/a", "").status, 403);
    // Of load balancers, which expect it of ingress-nginx.
    assert_eq!(get(&address, "unknown.example", "/healthz", "").field("x-of"), None);
    assert!(pages.take().is_empty());
    for (name, body, is_replaced) in [("web", "page", true), ("own-list", "main", false), ("login", "main", false)] {
        let response = get(&address, &format!("{name}.example"), "/status/404", "");
        assert_eq!((response.status, &*response.body), (404, body), "{name}");
        assert_eq!(pages.take().len(), usize::from(is_replaced), "{name}");
    }
}
