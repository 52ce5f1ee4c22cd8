//! Connections of plugins that are deleted or changed while their servers hold them: they count until they end, and
//! then others may have as many.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::harness::client::get;
use crate::harness::eventually;
use crate::harness::objects::{route, save_good_objects};
use crate::harness::program::{Program, run};
use crate::harness::site::{Site, own_address};

/// `--max-plugin-connections`, and the share of one namespace: seven times as many as are free.
const LIMIT: usize = 8;
const SHARE: usize = 7;

/// A server for logs that does not respond before it is released.
struct LogServer {
    address: String,
    state: Arc<(Mutex<LogServerState>, Condvar)>,
}

#[derive(Default)]
struct LogServerState {
    /// Requests without a response.
    held: usize,
    responded: usize,
    is_released: bool,
}

impl LogServer {
    fn start() -> LogServer {
        let listener = TcpListener::bind((own_address(), 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::<(Mutex<LogServerState>, Condvar)>::default();
        let of_listener = Arc::clone(&state);
        // The threads end with the test process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, state) = (stream.unwrap(), Arc::clone(&of_listener));
                thread::spawn(move || drop(serve(stream, &state)));
            }
        });
        LogServer { address, state }
    }

    fn held(&self) -> usize {
        self.state.0.lock().unwrap().held
    }

    fn responded(&self) -> usize {
        self.state.0.lock().unwrap().responded
    }

    fn release(&self) {
        self.state.0.lock().unwrap().is_released = true;
        self.state.1.notify_all();
    }
}

/// Responds to one request after the other, each after the server was released.
fn serve(mut stream: TcpStream, (state, released): &(Mutex<LogServerState>, Condvar)) -> std::io::Result<()> {
    let mut received = Vec::new();
    loop {
        let Some(end) = end_of_request(&received) else {
            let mut buffer = [0; 4096];
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            received.extend_from_slice(&buffer[..count]);
            continue;
        };
        received.drain(..end);
        let mut locked = state.lock().unwrap();
        locked.held += 1;
        locked = released.wait_while(locked, |state| !state.is_released).unwrap();
        locked.held -= 1;
        drop(locked);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        state.lock().unwrap().responded += 1;
    }
}

/// The length of the first request with its body, if all of it was received.
fn end_of_request(received: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(received).into_owned();
    let head = text.split_once("\r\n\r\n")?.0.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let end = head.len() + 4 + length.unwrap_or(0);
    (received.len() >= end).then_some(end)
}

/// A route whose requests are logged to the server, each in a request of its own.
fn logged_route(server: &LogServer) -> String {
    let plugin = format!(
        "---\napiVersion: configuration.konghq.com/v1\nkind: KongPlugin\nmetadata: {{name: log}}\nplugin: http-log\n\
         config: {{http_endpoint: \"http://{}/\", timeout: 60000, queue: {{concurrency_limit: -1}}}}\n",
        server.address
    );
    let annotation = "  name: logged\n  annotations: {konghq.com/plugins: log}\n";
    let route = route("good", "logged", "echo").replacen("  name: logged\n", annotation, 1);
    assert!(route.contains(annotation));
    route + &plugin
}

/// Waits until this number of edits was reported.
fn wait_for_edits(program: &Program, number: usize) {
    program
        .wait_messages(|messages| messages.matches("Changed, live after").count() >= number)
        .unwrap_or_else(|messages| panic!("edit {number} was not reported\n{messages}"));
}

#[test]
fn connections_of_deleted_and_changed_plugins_are_released() {
    let site = Site::new();
    save_good_objects(&site);
    let limit = LIMIT.to_string();
    let program = run(&site, &["--access-log", "off", "--max-plugin-connections", &limit]);
    program.wait_started();
    let address = site.address_of("port");
    let mut edits = 0;
    let mut edit = |text: Option<&str>| {
        match text {
            Some(text) => site.save("manifests/logged.yaml", text),
            None => site.remove("manifests/logged.yaml"),
        }
        edits += 1;
        wait_for_edits(&program, edits);
    };
    for round in 0..2 {
        let (first, second) = (LogServer::start(), LogServer::start());
        for (server, next) in [(&first, Some(logged_route(&second))), (&second, None)] {
            if server.address == first.address {
                edit(Some(&logged_route(server)));
            }
            for _ in 0..LIMIT {
                assert_eq!(get(&address, "/logged").status, 200);
            }
            eventually("the share of the namespace", || (server.held() == SHARE).then_some(()));
            // The plugin gets another server, or is deleted with its route, while all of these wait.
            edit(next.as_deref());
            assert_eq!(server.held(), SHARE, "round {round}");
            server.release();
            eventually("responses to all that were held", || (server.responded() >= SHARE).then_some(()));
        }
        assert_eq!(get(&address, "/logged").status, 404, "round {round}");
    }
    program.stop().expect_success();
}
