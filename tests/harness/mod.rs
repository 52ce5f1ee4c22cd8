//! Shared by tests of the whole program: an isolated environment, the program, a client, and expected output.
//!
//! ```text
//!   site.rs     a folder, and a loopback address with ports reserved for one test
//!   program.rs  `portico` as a process: output and exit status
//!   client.rs   single requests and continuous load
//!   network.rs  a network namespace, for fixed ports and missing privileges
//!   objects.rs  shared manifests
//!   polling.rs  conditions that asynchronous tests wait for
//!   ports.rs    ports that stay free until a server of a test listens
//!   golden.rs   expected output, rewritten by UPDATE=1
//! ```

#![expect(clippy::print_stdout, reason = "tests report to stdout")]

pub(crate) mod client;
pub(crate) mod golden;
pub(crate) mod network;
pub(crate) mod objects;
pub(crate) mod polling;
pub(crate) mod ports;
pub(crate) mod program;
pub(crate) mod site;

use std::time::Duration;

/// Polls until there is a result, and panics with `condition` after `TEST_TIMEOUT`. Only for state without events, such
/// as that of another process.
pub(crate) fn eventually<T>(condition: &str, poll: impl FnMut() -> Option<T>) -> T {
    eventually_within(TEST_TIMEOUT, condition, poll)
}

/// As [`eventually`], for programs that take longer to start.
pub(crate) fn eventually_within<T>(limit: Duration, condition: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let pause = Duration::from_millis(20);
    for _ in 0..limit.as_millis() / pause.as_millis() {
        if let Some(result) = poll() {
            return result;
        }
        #[expect(clippy::disallowed_methods, reason = "this thread is idle")]
        std::thread::sleep(pause); // There is no event to wait for.
    }
    panic!("{condition}: not within {limit:?}");
}

/// Timeout for events that are expected immediately. Long, because other tests may keep the machine busy.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(60);
