//! Shared by tests of the whole program: an isolated environment, the program, a client, and expected output.
//!
//! ```text
//!   site.rs     a folder, and a loopback address with ports reserved for one test
//!   program.rs  `portico` as a process: output and exit status
//!   client.rs   single requests and continuous load
//!   network.rs  a network namespace, for fixed ports and missing privileges
//!   objects.rs  shared manifests
//!   golden.rs   expected output, rewritten by UPDATE=1
//! ```

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of this module")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by unwrap and report to stdout")]

pub mod client;
pub mod golden;
pub mod network;
pub mod objects;
pub mod program;
pub mod site;

use std::time::Duration;

/// Polls until there is a result. Only for state without events, such as that of another process.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let pause = Duration::from_millis(20);
    for _ in 0..TEST_TIMEOUT.as_millis() / pause.as_millis() {
        if let Some(answer) = ask() {
            return answer;
        }
        #[expect(clippy::disallowed_methods, reason = "there is no event to wait for, and this thread is idle")]
        std::thread::sleep(pause);
    }
    panic!("{what}: not within {TEST_TIMEOUT:?}");
}

/// Timeout for events that are expected immediately. Long, because other tests may keep the machine busy.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(20);
