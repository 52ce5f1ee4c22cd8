//! A terminal in a network of its own, and what is typed there: the files that a page names, `portico run` beside a shell, and
//! commands with their answers.

use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};

use crate::harness::network::Network;
use crate::harness::program::{Program, clean};
use crate::harness::site::{Site, files_below};
use crate::page::{Block, Ground, Page, is_shown};

pub(crate) struct Session {
    site: Site,
    network: Network,
    shell: Program,
    keyboard: ChildStdin,
    typed: usize,
    running: Vec<Program>,
}

impl Session {
    /// Everything of a page, in its order. Says what is not as the page has it.
    pub(crate) fn run(page: &Page, network: Network) -> Vec<String> {
        let mut session = Session::start(network);
        for block in page.blocks.iter().filter(|block| block.ground == Ground::Here) {
            if let Err(error) = session.step(block) {
                let told: String = session.running.iter().map(|program| program.told()).collect();
                // What comes later rests on what came before.
                return vec![format!("{}:{}: {error}\n\nPortico has told:\n{told}", page.path, block.line)];
            }
        }
        for program in session.running.drain(..) {
            program.stop().expect_fine();
        }
        Vec::new()
    }

    fn start(network: Network) -> Session {
        let site = Site::new();
        std::fs::create_dir_all(site.path("manifests")).unwrap();
        site.save(".home/.curlrc", "silent\nshow-error\n");
        let mut command = network.command("bash", &["--norc".to_owned()]);
        surround(&mut command, &site);
        command.stdin(Stdio::piped());
        // With what it started.
        let mut shell = Program::start_group(command);
        let keyboard = shell.stdin();
        let mut session = Session { site, network, shell, keyboard, typed: 0, running: Vec::new() };
        // Once it answers it is in its network; before, what is started beside it would be in that of everybody.
        session.type_in("true");
        session
    }

    fn step(&mut self, block: &Block) -> Result<(), String> {
        match (block.language.as_str(), block.file()) {
            ("yaml", Some(file)) => self.following(|session| {
                session.site.save_bytes(file, block.text.as_bytes());
                Ok(())
            }),
            ("sh", _) => self.following(|session| match session.type_in(&each(&block.text)) {
                (0, _) => Ok(()),
                (_, answer) => Err(format!("it prints\n{answer}")),
            }),
            ("console", _) => {
                for (command, shown) in block.commands() {
                    if command.starts_with("portico run ") {
                        self.start_portico(&command, &shown)?;
                        continue;
                    }
                    self.following(|session| {
                        let (_, answer) = session.type_in(&command);
                        let said = || format!("the page shows for {command}\n{shown}\nand it prints\n{answer}");
                        if is_shown(&answer, &shown) { Ok(()) } else { Err(said()) }
                    })?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// In place of what ran before, unless the line ends in `&`: then beside it.
    fn start_portico(&mut self, line: &str, shown: &str) -> Result<(), String> {
        let beside = line.strip_suffix(" &");
        if beside.is_none() {
            for program in self.running.drain(..) {
                program.stop().expect_fine();
            }
        }
        let line = format!("exec {}", beside.unwrap_or(line));
        let mut command = self.network.beside(self.shell.id(), "bash", &["-c", &line]);
        surround(&mut command, &self.site);
        let program = Program::start(command);
        let told = program.wait_started();
        self.running.push(program);
        let is_fine = !["error[", "warning["].iter().any(|word| told.contains(word) && !shown.contains(word));
        if !is_fine || !(shown.is_empty() || is_shown(&told, shown)) {
            return Err(format!("the page shows\n{shown}\nand it tells\n{told}"));
        }
        Ok(())
    }

    /// Does something that may change files, and waits until Portico has told what it thinks of the change.
    fn following(&mut self, does: impl FnOnce(&mut Session) -> Result<(), String>) -> Result<(), String> {
        let files = |session: &Session| files_below(&session.site.path("manifests"));
        let before = files(self);
        let lengths: Vec<usize> = self.running.iter().map(|program| program.told().len()).collect();
        does(self)?;
        if files(self) == before {
            return Ok(());
        }
        for (program, length) in self.running.iter().zip(lengths) {
            let is_told = |told: &str| ["live after", "error["].iter().any(|word| told[length..].contains(word));
            program.wait_told(is_told).map_err(|told| format!("the change is not told of\n{told}"))?;
        }
        Ok(())
    }

    /// The exit code, and all that is printed.
    fn type_in(&mut self, command: &str) -> (i32, String) {
        self.typed += 1;
        let (before, after) = (format!("\n<{} ends>", self.typed - 1), format!("\n<{} ends>", self.typed));
        let quoted = command.replace('\'', "'\\''");
        writeln!(self.keyboard, "eval '{quoted}' </dev/null 2>&1; printf '\\n<{} ends> %s\\n' $?", self.typed).unwrap();
        self.keyboard.flush().unwrap();
        self.shell.wait_stdout(|text| {
            let (answer, code) = text.split_once(&after)?;
            let code = code.strip_suffix('\n')?.trim().parse().ok()?;
            let answer =
                answer.split_once(&before).map_or(answer, |(_, rest)| rest.split_once('\n').unwrap_or_default().1);
            Some((code, answer.to_owned()))
        })
    }
}

/// Fails, and says which, if one of the commands does, even if those after it succeed. The shell goes on for the next block,
/// which `set -e` would not let it.
fn each(commands: &str) -> String {
    format!(
        "failed=; trap 'failed=\"${{failed:-\\`$BASH_COMMAND\\` ends with $?}}\"' ERR\n\
         {commands}\ntrap - ERR; [ -z \"$failed\" ] || {{ echo \"$failed\"; false; }}"
    )
}

/// A folder of its own, and the program that was built as `portico`.
fn surround(command: &mut Command, site: &Site) {
    clean(command);
    let folder = Path::new(env!("CARGO_BIN_EXE_portico")).parent().expect("it is in a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", folder.display()));
    command.env("CURL_HOME", site.path(".home")).current_dir(site.path("."));
}
