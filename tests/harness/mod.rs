//! What the tests of the whole program share: a place to run it, the program itself, a client, and texts to compare with.
//!
//! ```text
//!   site.rs     a folder, a loopback address and ports that nobody else has
//!   program.rs  `portico` as a process: what it says, how it ends
//!   client.rs   requests, one by one or without end
//!   network.rs  a network namespace, for fixed ports and few rights
//!   objects.rs  manifests that many tests need
//!   golden.rs   what it should say, in files that UPDATE=1 rewrites
//! ```

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by the one and reports by the other")]

pub mod client;
pub mod golden;
pub mod network;
pub mod objects;
pub mod program;
pub mod site;

use std::time::Duration;

/// Asks again and again until there is an answer. Only for what gives no sign: the state of another process.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let pause = Duration::from_millis(20);
    for _ in 0..PATIENCE.as_millis() / pause.as_millis() {
        if let Some(answer) = ask() {
            return answer;
        }
        #[expect(clippy::disallowed_methods, reason = "there is no event, and this thread has nothing else to do")]
        std::thread::sleep(pause);
    }
    panic!("{what}: not within {PATIENCE:?}");
}

/// How long to wait for what should happen at once. Long, because the machine may be busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(20);
