//! A network of its own for a program whose ports are fixed or whose rights are few: a namespace with loopback alone.

use std::process::Command;

/// How namespaces can be made here.
#[derive(Clone, Copy)]
pub struct Network {
    /// Without root, as root of a user namespace.
    as_user: bool,
}

impl Network {
    /// None if the test is left out on purpose. Fails with a sentence where there are no namespaces.
    pub fn new() -> Option<Network> {
        if std::env::var_os("E2E").is_some_and(|value| value == "off") {
            println!("not run: E2E=off");
            return None;
        }
        let mut refused = String::new();
        for as_user in [false, true] {
            let network = Network { as_user };
            match network.command("true", &[]).output() {
                Ok(output) if output.status.success() => return Some(network),
                Ok(output) => refused = String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                Err(error) => refused = format!("unshare: {error}"),
            }
        }
        panic!(
            "this test needs a network namespace, as root or with user namespaces: {refused}\nWhere that cannot be had, \
             E2E=off leaves it out"
        );
    }

    /// A command that runs in a new network. It is the process itself that is started, not a child of it.
    pub fn command(self, program: &str, arguments: &[String]) -> Command {
        let mut command = Command::new("unshare");
        if self.as_user {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\"", program]).args(arguments);
        command
    }

    /// A command that runs in the network of a process.
    pub fn beside(self, process: u32, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={process}"));
        if self.as_user {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.args(["--net", program]).args(arguments);
        command
    }
}
