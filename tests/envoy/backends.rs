//! Endpoints whose responses a test decides, and which count their requests.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::harness::site::own_address;

/// What an endpoint does with each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behavior {
    Respond(u16),
    /// Responds with 200 when the gate is opened.
    Wait,
}

/// An endpoint. It serves until the test process ends.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    state: Arc<BackendState>,
}

struct BackendState {
    behavior: Behavior,
    requests: AtomicUsize,
    /// Whether waiting requests get their response.
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Backend {
    pub(crate) fn start(behavior: Behavior) -> Backend {
        let listener = TcpListener::bind((own_address(), 0)).unwrap();
        let state = BackendState {
            behavior,
            requests: AtomicUsize::new(0),
            is_open: Mutex::new(false),
            opened: Condvar::new(),
        };
        let backend = Backend { address: listener.local_addr().unwrap(), state: Arc::new(state) };
        let state = Arc::clone(&backend.state);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                thread::spawn(move || state.serve(socket));
            }
        });
        backend
    }

    /// How many requests it has got so far.
    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Lets requests have their responses, now and later.
    pub(crate) fn open(&self) {
        *self.state.is_open.lock().unwrap() = true;
        self.state.opened.notify_all();
    }
}

impl BackendState {
    /// Responds on a connection until the client closes it.
    fn serve(&self, socket: TcpStream) {
        let mut stream = BufReader::new(socket);
        let mut line = String::new();
        while stream.read_line(&mut line).is_ok_and(|read| read > 0) {
            if line == "\r\n" {
                self.requests.fetch_add(1, Ordering::SeqCst);
                let status = self.status();
                let port = stream.get_ref().local_addr().unwrap().port().to_string();
                let length = port.len();
                let response = format!("HTTP/1.1 {status} Status\r\ncontent-length: {length}\r\n\r\n{port}");
                if stream.get_mut().write_all(response.as_bytes()).is_err() {
                    return;
                }
            }
            line.clear();
        }
    }

    fn status(&self) -> u16 {
        match self.behavior {
            Behavior::Respond(status) => status,
            Behavior::Wait => {
                drop(self.opened.wait_while(self.is_open.lock().unwrap(), |is_open| !*is_open).unwrap());
                200
            }
        }
    }
}
