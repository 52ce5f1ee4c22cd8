//! A terminal session in a network namespace: saves the files of a page, runs `portico run` and a shell, and compares
//! the output of commands.

use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};

use crate::harness::network::Network;
use crate::harness::program::{Program, normalize_environment};
use crate::harness::site::{Site, files_below};
use crate::pages::page::{Block, Page, RunsOn, is_shown};

pub(crate) struct Session {
    site: Site,
    network: Network,
    shell: Program,
    stdin: ChildStdin,
    /// How many commands the shell has received.
    commands: usize,
    running: Vec<Program>,
}

impl Session {
    /// Runs the blocks of a page in order, up to the first one that fails or prints other output. Returns its error.
    pub(crate) fn run(page: &Page, network: Network) -> Vec<String> {
        let mut session = Session::start(network);
        for block in page.blocks.iter().filter(|block| block.runs_on == RunsOn::Network) {
            if let Err(error) = session.step(block) {
                let messages: String = session.running.iter().map(|program| program.messages()).collect();
                // Later blocks depend on this one.
                return vec![format!("{}:{}: {error}\n\noutput of Portico:\n{messages}", page.path, block.line)];
            }
        }
        for program in session.running.drain(..) {
            program.stop().expect_success();
        }
        Vec::new()
    }

    fn start(network: Network) -> Session {
        let site = Site::new();
        std::fs::create_dir_all(site.path("manifests")).unwrap();
        site.save(".home/.curlrc", "silent\nshow-error\n");
        let mut command = network.command("bash", &["--norc".to_owned()]);
        set_environment(&mut command, &site);
        command.stdin(Stdio::piped());
        // A process group, so that the shell's children are stopped with it.
        let mut shell = Program::start_group(command);
        let stdin = shell.stdin();
        let mut session = Session { site, network, shell, stdin, commands: 0, running: Vec::new() };
        // When the command has ended, the shell has entered its network namespace, and `command_in` can enter it too.
        session.run_command("true");
        session
    }

    fn step(&mut self, block: &Block) -> Result<(), String> {
        match (block.language.as_str(), block.file()) {
            ("yaml", Some(file)) => self.await_reload(|session| {
                session.site.save_bytes(file, block.text.as_bytes());
                Ok(())
            }),
            ("sh", _) => self.await_reload(|session| match session.run_command(&report_first_failure(&block.text)) {
                (0, _) => Ok(()),
                (_, response) => Err(format!("the output is\n{response}")),
            }),
            ("console", _) => {
                for (command, shown) in block.commands() {
                    if command.starts_with("portico run ") {
                        self.start_portico(&command, &shown)?;
                        continue;
                    }
                    self.await_reload(|session| {
                        let (_, response) = session.run_command(&command);
                        let difference =
                            || format!("the page shows for {command}\n{shown}\nbut the output is\n{response}");
                        if is_shown(&response, &shown) { Ok(()) } else { Err(difference()) }
                    })?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Starts `portico run`. Stops the running programs first, unless the line ends in `&`.
    fn start_portico(&mut self, line: &str, shown: &str) -> Result<(), String> {
        let background_line = line.strip_suffix(" &");
        if background_line.is_none() {
            for program in self.running.drain(..) {
                program.stop().expect_success();
            }
        }
        let line = format!("exec {}", background_line.unwrap_or(line));
        let mut command = self.network.command_in(self.shell.id(), "bash", &["-c", &line]);
        set_environment(&mut command, &self.site);
        let program = Program::start(command);
        let messages = program.wait_started();
        self.running.push(program);
        // What becomes of servers that plugins need is known later, on some machines before all of this was read.
        let at_start = messages.split("\nChanged\n").next().unwrap_or_default();
        let is_fine = !["error[", "warning["].iter().any(|word| at_start.contains(word) && !shown.contains(word));
        if !is_fine || !(shown.is_empty() || is_shown(&messages, shown)) {
            return Err(format!("the page shows\n{shown}\nbut the output is\n{messages}"));
        }
        Ok(())
    }

    /// Performs a change that may affect manifests. If it does, waits until Portico has reported it.
    fn await_reload(&mut self, change: impl FnOnce(&mut Session) -> Result<(), String>) -> Result<(), String> {
        let files = |session: &Session| files_below(&session.site.path("manifests"));
        let before = files(self);
        let lengths: Vec<usize> = self.running.iter().map(|program| program.messages().len()).collect();
        change(self)?;
        if files(self) == before {
            return Ok(());
        }
        for (program, length) in self.running.iter().zip(lengths) {
            let is_reported =
                |messages: &str| ["live after", "error["].iter().any(|word| messages[length..].contains(word));
            program.wait_messages(is_reported).map_err(|messages| format!("the change is not reported\n{messages}"))?;
        }
        Ok(())
    }

    /// Runs a command. Returns its exit code and output.
    fn run_command(&mut self, command: &str) -> (i32, String) {
        self.commands += 1;
        let (previous_end, end) = (format!("\n<{} ends>", self.commands - 1), format!("\n<{} ends>", self.commands));
        let quoted = command.replace('\'', "'\\''");
        writeln!(self.stdin, "eval '{quoted}' </dev/null 2>&1; printf '\\n<{} ends> %s\\n' $?", self.commands).unwrap();
        self.stdin.flush().unwrap();
        self.shell.wait_stdout(|text| {
            let (response, code) = text.split_once(&end)?;
            let code = code.strip_suffix('\n')?.trim().parse().ok()?;
            let response = response
                .split_once(&previous_end)
                .map_or(response, |(_, rest)| rest.split_once('\n').unwrap_or_default().1);
            Some((code, response.to_owned()))
        })
    }
}

/// Reports the first failing command even if later ones succeed. Unlike `set -e`, it keeps the shell alive for the next
/// block.
fn report_first_failure(commands: &str) -> String {
    format!(
        "failed=; trap 'failed=\"${{failed:-\\`$BASH_COMMAND\\` ends with $?}}\"' ERR\n\
         {commands}\ntrap - ERR; [ -z \"$failed\" ] || {{ echo \"$failed\"; false; }}"
    )
}

/// Sets the working folder and puts the tested program into PATH as `portico`.
fn set_environment(command: &mut Command, site: &Site) {
    normalize_environment(command);
    let folder = Path::new(env!("CARGO_BIN_EXE_portico")).parent().expect("the binary is in a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", folder.display()));
    command.env("CURL_HOME", site.path(".home")).current_dir(site.path("."));
}
