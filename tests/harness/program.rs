//! `portico` as a process: what it says on both outputs, waiting for it to say something, and how it ends.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::PATIENCE;
use super::site::Site;

/// The program in the folder of a site, with nothing of ours in its environment.
pub fn portico(site: &Site) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portico"));
    clean(&mut command);
    command.current_dir(site.path("."));
    command
}

/// Nothing that whoever runs the tests has in the environment counts. What is printed is for people, as on a terminal.
pub fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        // The tests may have been started by make, which tells the makes below it to say where they are.
        if name.starts_with("PORTICO_") || ["MAKEFLAGS", "MAKELEVEL", "MFLAGS"].contains(&&*name) {
            command.env_remove(&*name);
        }
    }
    command.env("COLUMNS", "100").env("NO_COLOR", "1").env("PORTICO_LOG_FORMAT", "text").stdin(Stdio::null());
}

/// `portico run` on the addresses of a site, with its echo server.
pub fn run(site: &Site, more: &[&str]) -> Program {
    let mut command = portico(site);
    command.args(run_arguments(site)).args(more);
    Program::start(command)
}

/// The arguments of `run`, for those who start it in another way.
pub fn run_arguments(site: &Site) -> Vec<String> {
    let words = format!(
        "run --manifests manifests --gateway-address-pool {} --gateway-address-pool {} --echo {} --status-listen {} \
         --admin-listen {} --workers 1",
        site.address(),
        site.next_address(),
        site.at("echo"),
        site.at("status"),
        site.at("admin"),
    );
    words.split(' ').map(str::to_owned).collect()
}

/// A running program. It is killed when this is dropped.
pub struct Program {
    child: Child,
    /// Its children are killed with it.
    group: bool,
    stdout: Arc<Stream>,
    stderr: Arc<Stream>,
}

impl Program {
    pub fn start(command: Command) -> Program {
        Program::spawn(command, false)
    }

    /// As `start`, for what starts children of its own, which would live on if it was killed alone.
    pub fn start_group(mut command: Command) -> Program {
        command.process_group(0);
        Program::spawn(command, true)
    }

    fn spawn(mut command: Command, group: bool) -> Program {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = Stream::follow(child.stdout.take().expect("it is piped"));
        let stderr = Stream::follow(child.stderr.take().expect("it is piped"));
        Program { child, group, stdout, stderr }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn stdin(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().expect("it was piped")
    }

    /// Everything on stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Everything on stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// What people read on stderr, without the log.
    pub fn told(&self) -> String {
        told(&self.stderr())
    }

    /// Waits until what is told meets a condition. On failure gives what was told instead.
    pub fn wait_told(&self, meets: impl Fn(&str) -> bool) -> Result<String, String> {
        self.stderr.wait(|text| Some(told(text)).filter(|told| meets(told))).map_err(|text| told(&text))
    }

    /// Waits until stdout has so many lines, all complete.
    pub fn wait_lines(&self, count: usize) -> Vec<String> {
        self.wait_stdout(|text| {
            let lines: Vec<_> =
                text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        })
    }

    /// Waits until stdout meets a condition.
    pub fn wait_stdout<T>(&self, find: impl Fn(&str) -> Option<T>) -> T {
        self.stdout.wait(find).unwrap_or_else(|text| panic!("it does not come; stdout has\n{text}"))
    }

    /// Waits until all of stderr, the log included, meets a condition.
    pub fn wait_stderr<T>(&self, find: impl Fn(&str) -> Option<T>) -> T {
        self.stderr.wait(find).unwrap_or_else(|text| panic!("it does not come; stderr has\n{text}"))
    }

    /// Waits until everything was told that is told at the start.
    pub fn wait_started(&self) -> String {
        self.wait_told(|told| told.lines().any(|line| line.contains(" read from ")))
            .unwrap_or_else(|told| panic!("it did not start: {told}\n{}", self.stderr()))
    }

    /// What is told until nothing more comes for a while: for writing expected texts, not for comparing with them.
    pub fn told_until_quiet(&self) -> String {
        self.stderr.until_quiet();
        self.told()
    }

    pub fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Waits for the end of both outputs and of the process.
    pub fn wait(mut self) -> Ended {
        let stdout = self.stdout.wait_end();
        let stderr = self.stderr.wait_end();
        let status = self.child.wait().expect("it is our child");
        Ended { status, stdout, stderr }
    }

    /// Asks it to stop, as a cluster and Ctrl-C do, and waits.
    pub fn stop(self) -> Ended {
        self.signal("TERM");
        self.wait()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        if self.group && self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            Command::new("kill").args(["-s", "KILL", "--", &format!("-{}", self.id())]).output().ok();
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A program that has ended.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// It ended of its own accord, without a panic on the way.
    pub fn expect_fine(self) -> Self {
        assert!(self.status.success(), "{}\n{}", self.status, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    pub fn told(&self) -> String {
        told(&self.stderr)
    }
}

pub fn signal(process: u32, name: &str) {
    let kill = Command::new("kill").args(["-s", name, &process.to_string()]).output().expect("kill is everywhere");
    assert!(kill.status.success(), "kill -s {name} {process}: {}", String::from_utf8_lossy(&kill.stderr));
}

/// Runs a command that ends by itself.
pub fn output(mut command: Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
}

/// Whether tests that need rights are left out on purpose (`E2E=off`).
pub fn is_off() -> bool {
    let off = std::env::var_os("E2E").is_some_and(|value| value == "off");
    if off {
        println!("not run: E2E=off");
    }
    off
}

/// The folder of the package.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A line of the log begins with a time: `2026-01-31T09:30:00.123456Z  INFO …`.
fn is_event(line: &str) -> bool {
    let time = line.split(' ').next().unwrap_or_default();
    time.len() == 27 && time.ends_with('Z') && time.as_bytes()[10] == b'T'
}

fn told(stderr: &str) -> String {
    stderr.split_inclusive('\n').filter(|line| !is_event(line)).collect()
}

/// What came out of a pipe so far.
#[derive(Default)]
struct Stream {
    read: Mutex<Received>,
    more: Condvar,
}

#[derive(Default)]
struct Received {
    bytes: Vec<u8>,
    ended: bool,
}

impl Stream {
    fn follow(mut pipe: impl Read + Send + 'static) -> Arc<Stream> {
        let stream = Arc::new(Stream::default());
        let writer = Arc::clone(&stream);
        // It ends with the pipe, and the pipe with the process.
        thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            loop {
                let count = pipe.read(&mut buffer).unwrap_or(0);
                let mut read = writer.read.lock().unwrap();
                read.bytes.extend_from_slice(&buffer[..count]);
                read.ended = count == 0;
                writer.more.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        stream
    }

    fn text(&self) -> String {
        text(&self.read.lock().unwrap())
    }

    /// The first thing found. When the time or the stream is over: everything that came instead.
    fn wait<T>(&self, find: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        let mut found = None;
        let read = self.read.lock().unwrap();
        let (read, _) = self
            .more
            .wait_timeout_while(read, PATIENCE, |read| {
                found = find(&text(read));
                found.is_none() && !read.ended
            })
            .unwrap();
        found.ok_or_else(|| text(&read))
    }

    fn wait_end(&self) -> String {
        let read = self.read.lock().unwrap();
        let (read, waited) = self.more.wait_timeout_while(read, PATIENCE, |read| !read.ended).unwrap();
        assert!(!waited.timed_out(), "the program does not end; it said\n{}", text(&read));
        text(&read)
    }

    fn until_quiet(&self) {
        let mut read = self.read.lock().unwrap();
        loop {
            let before = read.bytes.len();
            let (now, waited) =
                self.more.wait_timeout_while(read, QUIET, |read| read.bytes.len() == before && !read.ended).unwrap();
            read = now;
            if waited.timed_out() || read.ended {
                return;
            }
        }
    }
}

fn text(read: &Received) -> String {
    String::from_utf8_lossy(&read.bytes).into_owned()
}

const QUIET: std::time::Duration = std::time::Duration::from_millis(900);
