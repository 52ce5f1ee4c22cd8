//! `portico` as a process: its output, waiting for output, and its exit status.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::TEST_TIMEOUT;
use super::site::Site;

/// The program in the folder of a site (an isolated environment, see [`Site`]), without the Portico variables of the
/// test environment.
pub(crate) fn portico(site: &Site) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portico"));
    normalize_environment(&mut command);
    command.current_dir(site.path("."));
    command
}

/// Removes variables of the test environment, and sets the width, the colors and the text log format, so that output
/// does not depend on the environment.
pub(crate) fn normalize_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        // make exports these variables if it runs the tests, and they would affect nested make processes.
        if name.starts_with("PORTICO_") || ["MAKEFLAGS", "MAKELEVEL", "MFLAGS"].contains(&&*name) {
            command.env_remove(&*name);
        }
    }
    command.env("COLUMNS", "100").env("NO_COLOR", "1").env("PORTICO_LOG_FORMAT", "text").stdin(Stdio::null());
}

/// Starts `portico run` with the arguments for the site, and with more arguments.
pub(crate) fn run(site: &Site, more: &[&str]) -> Program {
    let mut command = portico(site);
    command.args(run_arguments(site)).args(more);
    Program::start(command)
}

/// The arguments for the manifests, addresses and ports of a site.
pub(crate) fn run_arguments(site: &Site) -> Vec<String> {
    let line = format!(
        "run --manifests manifests --gateway-address-pool {} --gateway-address-pool {} --echo {} --status-listen {} \
         --admin-listen {} --workers 1",
        site.address(),
        site.next_address(),
        site.address_of("echo"),
        site.address_of("status"),
        site.address_of("admin"),
    );
    line.split(' ').map(str::to_owned).collect()
}

/// The folder with Node.js and the packages of a folder of tests. They are installed the first time.
pub(crate) fn node_packages(tests: &str) -> String {
    // One test installs them, and the others wait.
    static INSTALLATION: Mutex<()> = Mutex::new(());
    let _guard = INSTALLATION.lock();
    let output = Command::new("bash").arg(root().join("scripts/node-packages.sh")).arg(tests).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A running program. It is killed on drop.
pub(crate) struct Program {
    child: Child,
    /// The program leads a process group, which is killed with it.
    leads_group: bool,
    stdout: Arc<Stream>,
    stderr: Arc<Stream>,
}

impl Program {
    pub(crate) fn start(command: Command) -> Program {
        Program::spawn(command, false)
    }

    /// Like `start`, for a command whose children would survive if only the command was killed.
    pub(crate) fn start_group(mut command: Command) -> Program {
        command.process_group(0);
        Program::spawn(command, true)
    }

    fn spawn(mut command: Command, leads_group: bool) -> Program {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = Stream::follow(child.stdout.take().expect("stdout is piped"));
        let stderr = Stream::follow(child.stderr.take().expect("stderr is piped"));
        Program { child, leads_group, stdout, stderr }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stdin(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().expect("stdin was piped")
    }

    /// Everything on stderr so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Messages on stderr without log events.
    pub(crate) fn messages(&self) -> String {
        without_log_events(&self.stderr())
    }

    /// Waits until the messages meet a condition. On timeout or at the end of stderr, the messages are the error.
    pub(crate) fn wait_messages(&self, meets_condition: impl Fn(&str) -> bool) -> Result<String, String> {
        self.stderr
            .wait(|text| Some(without_log_events(text)).filter(|messages| meets_condition(messages)))
            .map_err(|text| without_log_events(&text))
    }

    /// Waits until stdout has `count` complete lines.
    pub(crate) fn wait_lines(&self, count: usize) -> Vec<String> {
        self.wait_stdout(|text| {
            let lines: Vec<_> =
                text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        })
    }

    /// Waits until `find` returns a result for stdout.
    pub(crate) fn wait_stdout<T>(&self, find: impl Fn(&str) -> Option<T>) -> T {
        self.stdout.wait(find).unwrap_or_else(|text| panic!("the expected output is missing; stdout:\n{text}"))
    }

    /// Waits until `find` returns a result for stderr, including log events.
    pub(crate) fn wait_stderr<T>(&self, find: impl Fn(&str) -> Option<T>) -> T {
        self.stderr.wait(find).unwrap_or_else(|text| panic!("the expected output is missing; stderr:\n{text}"))
    }

    /// Waits for the complete startup report.
    pub(crate) fn wait_started(&self) -> String {
        // The last line of the report is like `nothing wrong; 12 objects read from 3 files`.
        self.wait_messages(|messages| messages.lines().any(|line| line.contains(" read from ")))
            .unwrap_or_else(|messages| panic!("the program did not start: {messages}\n{}", self.stderr()))
    }

    /// Messages after `QUIET_PERIOD` without new output. Only to rewrite expected output; comparisons wait until the
    /// output is as expected.
    pub(crate) fn messages_until_quiet(&self) -> String {
        self.stderr.wait_until_quiet();
        self.messages()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is a child process").is_none()
    }

    /// Waits until both outputs are closed and the process has ended.
    pub(crate) fn wait(mut self) -> Ended {
        let stdout = self.stdout.wait_end();
        let stderr = self.stderr.wait_end();
        let status = self.child.wait().expect("it is a child process");
        Ended { status, stdout, stderr }
    }

    /// Sends SIGTERM, as a cluster does, and waits for the end.
    pub(crate) fn stop(self) -> Ended {
        self.signal("TERM");
        self.wait()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // The process may have ended already.
        if self.leads_group && self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            Command::new("kill").args(["-s", "KILL", "--", &format!("-{}", self.id())]).output().ok();
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A program that has ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Verifies a successful exit without a panic.
    pub(crate) fn expect_success(self) -> Self {
        assert!(self.status.success(), "{}\n{}", self.status, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    pub(crate) fn messages(&self) -> String {
        without_log_events(&self.stderr)
    }
}

pub(crate) fn signal(process_id: u32, name: &str) {
    let kill = Command::new("kill").args(["-s", name, &process_id.to_string()]).output().expect("kill is installed");
    assert!(kill.status.success(), "kill -s {name} {process_id}: {}", String::from_utf8_lossy(&kill.stderr));
}

/// Runs a command until it ends.
pub(crate) fn output(mut command: Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
}

/// The folder of the package.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A log event starts with a timestamp: `2026-01-31T09:30:00.123456Z  INFO …`.
fn is_log_event(line: &str) -> bool {
    let time = line.split(' ').next().unwrap_or_default();
    time.len() == 27 && time.ends_with('Z') && time.as_bytes()[10] == b'T'
}

fn without_log_events(stderr: &str) -> String {
    stderr.split_inclusive('\n').filter(|line| !is_log_event(line)).collect()
}

/// Output received from a pipe.
#[derive(Default)]
struct Stream {
    received: Mutex<Received>,
    /// Notified of new output and of the end.
    changed: Condvar,
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
        // The thread ends with the pipe, and the pipe with the process.
        thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            loop {
                let count = pipe.read(&mut buffer).unwrap_or(0);
                let mut received = writer.received.lock().unwrap();
                received.bytes.extend_from_slice(&buffer[..count]);
                received.ended = count == 0;
                writer.changed.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        stream
    }

    fn text(&self) -> String {
        text(&self.received.lock().unwrap())
    }

    /// Waits for the first result of `find`. On timeout or at the end of the stream, all output is the error.
    fn wait<T>(&self, find: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        let mut found = None;
        let received = self.received.lock().unwrap();
        let (received, _) = self
            .changed
            .wait_timeout_while(received, TEST_TIMEOUT, |received| {
                found = find(&text(received));
                found.is_none() && !received.ended
            })
            .unwrap();
        found.ok_or_else(|| text(&received))
    }

    fn wait_end(&self) -> String {
        let received = self.received.lock().unwrap();
        let (received, wait_result) =
            self.changed.wait_timeout_while(received, TEST_TIMEOUT, |received| !received.ended).unwrap();
        assert!(!wait_result.timed_out(), "the program does not end; output:\n{}", text(&received));
        text(&received)
    }

    fn wait_until_quiet(&self) {
        let mut received = self.received.lock().unwrap();
        loop {
            let known = received.bytes.len();
            let (guard, wait_result) = self
                .changed
                .wait_timeout_while(received, QUIET_PERIOD, |received| received.bytes.len() == known && !received.ended)
                .unwrap();
            received = guard;
            if wait_result.timed_out() || received.ended {
                return;
            }
        }
    }
}

fn text(received: &Received) -> String {
    String::from_utf8_lossy(&received.bytes).into_owned()
}

/// A stream without output for this long is taken as complete.
const QUIET_PERIOD: std::time::Duration = std::time::Duration::from_millis(900);
