//! Backends that report the request as they received it. Each Service has a listener of its own, so that its port
//! shows which Service a proxy has chosen.
//!
//! The target `/respond/404/X-Name/value` requests a status, and fields of the response, whose values may have bytes in
//! percent encoding.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// Namespaces of the Ingresses and Services of a test.
pub(crate) const NAMESPACES: [&str; 2] = ["one", "two"];
/// More than the paths and default backends of any set.
pub(crate) const SERVICES_PER_NAMESPACE: usize = 30;
/// A Service of the first namespace that no set uses.
pub(crate) const MARKER: &str = "marker";

pub(crate) fn service_name(index: usize) -> String {
    format!("s{index}")
}

/// The listeners of all Services. They end on drop.
pub(crate) struct Echo {
    /// Namespace and name, and the address.
    services: Vec<(String, SocketAddr)>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Echo {
    pub(crate) fn start(address: IpAddr) -> io::Result<Echo> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut echo = Echo { services: Vec::new(), stop, threads: Vec::new() };
        let all = NAMESPACES.iter().flat_map(|space| (0..SERVICES_PER_NAMESPACE).map(move |index| (space, index)));
        let names = all.map(|(namespace, index)| format!("{namespace}/{}", service_name(index)));
        for name in names.chain([format!("{}/{MARKER}", NAMESPACES[0])]) {
            let listener = TcpListener::bind((address, 0))?;
            echo.services.push((name.clone(), listener.local_addr()?));
            let stop = Arc::clone(&echo.stop);
            echo.threads.push(thread::spawn(move || accept(&listener, &name, &stop)));
        }
        Ok(echo)
    }

    pub(crate) fn services(&self) -> &[(String, SocketAddr)] {
        &self.services
    }

    /// The Services for Portico, with the address and port of their listener.
    pub(crate) fn to_yaml(&self) -> String {
        let mut yaml = String::new();
        for (service, address) in &self.services {
            let (namespace, name) = service.split_once('/').expect("the name has a namespace");
            let (ip, port) = (address.ip(), address.port());
            write!(
                yaml,
                "---\napiVersion: v1\nkind: Service\nmetadata:\n  namespace: {namespace}\n  name: {name}\n  \
                 annotations: {{ portico.dev/address: {ip} }}\nspec:\n  ports:\n    \
                 - {{ port: 80, targetPort: {port} }}\n",
            )
            .expect("a string accepts all text");
        }
        yaml
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for ((_, address), thread) in self.services.iter().zip(self.threads.drain(..)) {
            // A connection wakes the listener. Without it, the thread would wait forever.
            if TcpStream::connect(address).is_ok() {
                thread.join().ok();
            }
        }
    }
}

/// How many requests a Service has received for each target.
type Counts = Mutex<BTreeMap<String, usize>>;

fn accept(listener: &TcpListener, service: &str, stop: &AtomicBool) {
    let counts = Arc::new(Counts::default());
    for stream in listener.incoming() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (service, counts) = (service.to_owned(), Arc::clone(&counts));
        // The thread ends with the connection, which the proxy closes.
        thread::spawn(move || stream.and_then(|stream| serve(&stream, &service, &counts)));
    }
}

/// Serves requests until the proxy closes the connection or requests that.
fn serve(stream: &TcpStream, service: &str, counts: &Counts) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    stream.set_nodelay(true)?;
    while let Some(request) = read_request(&mut reader)? {
        let response = response(&request, service, counted(counts, &request.target));
        (&*stream).write_all(response.as_bytes())?;
        if request.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            break;
        }
    }
    Ok(())
}

struct EchoRequest {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
}

impl EchoRequest {
    /// All values of a field, joined by a comma.
    fn field(&self, name: &str) -> Option<String> {
        let values = self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str());
        let values: Vec<_> = values.collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<EchoRequest>> {
    let line = read_line(reader)?;
    // The target is between the first and the last space: it is invalid, but possible, that it contains others.
    let Some((method, rest)) = line.split_once(' ') else {
        return Ok(None);
    };
    let target = rest.rsplit_once(' ').map_or(rest, |(target, _)| target);
    let mut request = EchoRequest { method: method.to_owned(), target: target.to_owned(), fields: Vec::new() };
    loop {
        let line = read_line(reader)?;
        let Some((name, value)) = line.split_once(':') else { break };
        request.fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if request.field("transfer-encoding").is_some() {
        skip_chunks(reader)?;
    } else if let Some(length) = request.field("content-length") {
        let length = length.parse().map_err(io::Error::other)?;
        io::copy(&mut reader.take(length), &mut io::sink())?;
    }
    Ok(Some(request))
}

fn skip_chunks(reader: &mut BufReader<&TcpStream>) -> io::Result<()> {
    loop {
        let size = u64::from_str_radix(&read_line(reader)?, 16).map_err(io::Error::other)?;
        io::copy(&mut reader.take(size), &mut io::sink())?;
        read_line(reader)?;
        if size == 0 {
            return Ok(());
        }
    }
}

/// A line without its end, in which each byte is one character.
fn read_line(reader: &mut BufReader<&TcpStream>) -> io::Result<String> {
    let mut bytes = Vec::new();
    reader.read_until(b'\n', &mut bytes)?;
    let text: String = bytes.into_iter().map(char::from).collect();
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The number of requests for a target, with this one.
fn counted(counts: &Counts, target: &str) -> usize {
    let mut counts = counts.lock().unwrap();
    let count = counts.entry(target.to_owned()).or_default();
    *count += 1;
    *count
}

/// The facts are in the header, because the response to HEAD has no body, and in the body for readers.
fn response(request: &EchoRequest, service: &str, count: usize) -> String {
    let facts = [
        ("service", Some(service.to_owned())),
        ("method", Some(request.method.clone())),
        ("target", Some(escaped(&request.target))),
        ("count", Some(count.to_string())),
        ("host", request.field("host")),
        ("prefix", request.field("x-forwarded-prefix")),
        ("location", request.field("x-location")),
    ];
    let (mut head, mut body) = (String::new(), String::new());
    for (name, value) in facts.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        write!(head, "{FACT}{name}: {value}\r\n").expect("a string accepts all text");
        writeln!(body, "{name}={value}").expect("a string accepts all text");
    }
    for (name, value) in &request.fields {
        write!(head, "{FACT}{FIELD}{name}: {}\r\n", escaped(value)).expect("a string accepts all text");
    }
    let (status, fields) = requested(&request.target);
    for (name, value) in fields {
        write!(head, "{name}: {value}\r\n").expect("a string accepts all text");
    }
    if [204, 304].contains(&status) {
        return format!("HTTP/1.1 {status} Echo\r\n{head}\r\n");
    }
    let length = body.len();
    if request.method == "HEAD" {
        body.clear();
    }
    format!("HTTP/1.1 {status} Echo\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n{head}\r\n{body}")
}

/// The status and the fields that a target requests.
fn requested(target: &str) -> (u16, Vec<(&str, String)>) {
    let path = target.split('?').next().unwrap_or_default();
    let mut parts = path.strip_prefix("/respond/").unwrap_or_default().split('/');
    let Some(status) = parts.next().and_then(|status| status.parse().ok()) else { return (200, Vec::new()) };
    let mut fields = Vec::new();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        fields.push((name, decoded(value)));
    }
    (status, fields)
}

/// A value of a field without percent encoding. Bytes that a field cannot have are left out.
fn decoded(value: &str) -> String {
    let mut parts = value.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        let byte = u8::from_str_radix(digits, 16).ok().filter(|byte| (b' '..=b'~').contains(byte));
        text.extend(byte.map(char::from));
        text += rest;
    }
    text
}

/// Bytes that a header cannot have in all programs are written as `\xNN`.
fn escaped(target: &str) -> String {
    target.chars().flat_map(char::escape_default).collect()
}

/// The beginning of the names of headers with the facts.
pub(crate) const FACT: &str = "x-echo-";
/// What follows it for each field of the request, before its name.
pub(crate) const FIELD: &str = "field-";
