//! A network namespace with loopback only, for programs with fixed ports or without privileges.

use std::process::Command;

/// How network namespaces are created on this machine.
#[derive(Clone, Copy)]
pub(crate) struct Network {
    /// Whether as root of a new user namespace, without root privileges on the machine.
    as_user: bool,
}

impl Network {
    /// `None` if such tests are disabled by `E2E=off`. Panics if namespaces are unavailable.
    pub(crate) fn new() -> Option<Network> {
        if std::env::var_os("E2E").is_some_and(|value| value == "off") {
            println!("not run: E2E=off");
            return None;
        }
        let mut last_error = String::new();
        for as_user in [false, true] {
            let network = Network { as_user };
            match network.command("true", &[]).output() {
                Ok(output) if output.status.success() => return Some(network),
                Ok(output) => last_error = String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                Err(error) => last_error = format!("unshare: {error}"),
            }
        }
        panic!(
            "this test needs a network namespace, as root or with user namespaces: {last_error}\nE2E=off \
             skips the test"
        );
    }

    /// A command that runs in a new network namespace, as the started process itself and not as its child.
    pub(crate) fn command(self, program: &str, arguments: &[String]) -> Command {
        let mut command = Command::new("unshare");
        if self.as_user {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\"", program]).args(arguments);
        command
    }

    /// A command that runs in the network namespace of a process.
    pub(crate) fn command_in(self, process_id: u32, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={process_id}"));
        if self.as_user {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.args(["--net", program]).args(arguments);
        command
    }
}
