//! Bad input: `portico check` and `portico run` report exactly what is wrong, and a valid route is served before the
//! bad files are added, while they exist and after they are removed.
//!
//! A case is a folder of `tests/bad_input/`: the bad files, optionally a folder `before`, and the expected output.
//! `check.txt` is the output of `check`. `run.txt` is the output of `run` when the bad files are added at runtime, when
//! they are removed, and when it starts with them. If it then waits for a file that cannot be read, they are removed
//! again.
//! `UPDATE=1 cargo test --workspace --test process bad_input::` rewrites both.

mod environment;
mod generated;
mod mutated;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::harness::client;
use crate::harness::golden::{self, Golden};
use crate::harness::network::Network;
use crate::harness::program::{self, Program, portico};
use crate::harness::site::{Site, files_below};

type Files = BTreeMap<String, Vec<u8>>;

/// One case of bad input.
struct Case {
    name: String,
    /// Files that exist before the bad files are added. A bad file of the same name replaces one.
    before: Files,
    bad: Files,
}

#[test]
fn check_reports_problems_and_severity() {
    let differing = in_parallel(&cases(), |case| {
        let site = Site::new();
        save_good(&site, &BTreeMap::new());
        save_files(&site, &case.bad);
        let text_difference = check(&site, &case.name, &["manifests"]);
        // JSON output is compared if the case has a file `check.json`.
        let json_golden = Golden::new(format!("bad_input/{}/check.json", case.name));
        let json_difference = (!json_golden.expected().is_empty()).then(|| {
            let output = program::output(portico_with(&site, &["check", "--output", "json", "manifests"]));
            json_golden.compare(&site.normalize(&String::from_utf8_lossy(&output.stdout))).err()
        });
        text_difference.or(json_difference.flatten())
    });
    golden::expect_none(&differing, "bad_input");
}

#[test]
fn run_reports_problems_at_runtime_and_serves_the_rest() {
    let differing = in_parallel(&cases(), |case| {
        let site = Site::new();
        save_good(&site, &case.before);
        let mut transcript = Transcript::new(&case.name, &site, program::run(&site, &[]));
        transcript.skip_start();
        transcript.change_files(|| save_files(&site, &case.bad));
        transcript.step("Bad files are added at runtime");
        transcript.change_files(|| restore(&site, case));
        transcript.step("The previous files are restored");
        transcript.end();

        save_files(&site, &case.bad);
        transcript.program = Some(program::run(&site, &[]));
        transcript.program().wait_started();
        transcript.step("Start with the bad files");
        if transcript.is_waiting() {
            transcript.change_files(|| restore(&site, case));
            transcript.step("The files are corrected");
        }
        transcript.end();
        transcript.compare().err()
    });
    golden::expect_none(&differing, "bad_input");
}

/// Compares the output of `portico check` with `check.txt` of a case. Returns the difference.
fn check(site: &Site, case: &str, arguments: &[&str]) -> Option<String> {
    let output = program::output(portico_with(site, &[&["check"], arguments].concat()));
    let stderr = String::from_utf8_lossy(&output.stderr);
    let text = format!("{}{stderr}{}\n", String::from_utf8_lossy(&output.stdout), output.status);
    Golden::new(format!("bad_input/{case}/check.txt")).compare(&site.normalize(&text)).err()
}

fn portico_with(site: &Site, arguments: &[&str]) -> Command {
    let mut command = portico(site);
    command.args(arguments);
    command
}

/// Output of a run, step by step, to be compared with the expected text.
struct Transcript<'a> {
    golden: Golden,
    site: &'a Site,
    program: Option<Program>,
    /// Length of the output before the current step, in bytes.
    printed: usize,
    text: String,
    /// Network namespace of the program, if it is not the default one.
    network: Option<Network>,
}

impl<'a> Transcript<'a> {
    fn new(name: &str, site: &'a Site, program: Program) -> Self {
        program.wait_started();
        let golden = Golden::new(format!("bad_input/{name}/run.txt"));
        Transcript { golden, site, program: Some(program), printed: 0, text: String::new(), network: None }
    }

    fn program(&mut self) -> &mut Program {
        self.program.as_mut().expect("the program runs")
    }

    /// Changes files while the program is stopped, so that it reads all of them at once however long that takes.
    fn change_files(&mut self, change: impl FnOnce()) {
        self.program().signal("STOP");
        change();
        self.program().signal("CONT");
    }

    /// Skips the output of the start.
    fn skip_start(&mut self) {
        self.printed = self.program().messages().len();
        self.expect_good();
    }

    /// Appends the output since the previous step.
    fn step(&mut self, title: &str) {
        self.text += &format!("## {title}\n");
        let (site, earlier_length) = (self.site, self.printed);
        let golden_text = self.golden.expected();
        let expected =
            golden_text.strip_prefix(&self.text).map(|rest| rest.split("## ").next().unwrap_or_default().to_owned());
        let program = self.program();
        // Output is compared as soon as it is complete; excess output is detected by the next step.
        let of_step = |text: &str| text.get(earlier_length..).map(|new| site.normalize(new)).unwrap_or_default();
        let messages = match expected.filter(|expected| !golden::is_update() && !expected.trim().is_empty()) {
            Some(expected) => {
                program.wait_messages(|text| of_step(text) + "\n" == expected).unwrap_or_else(|actual| actual)
            }
            None => program.messages_until_quiet(),
        };
        self.text += &of_step(&messages);
        self.text += "\n";
        self.printed = messages.len();
        self.expect_good();
    }

    /// Whether the program has said that it serves nothing before it can read all files.
    fn is_waiting(&self) -> bool {
        self.text.rsplit("## ").next().is_some_and(|step| step.contains("Nothing is served before"))
    }

    /// The unrelated route is served and the program is alive. While it waits for files, nothing is served.
    fn expect_good(&mut self) {
        assert!(self.program().is_running());
        let address = self.site.address_of("port");
        if self.is_waiting() {
            let ready = client::get(&self.site.address_of("status"), "/readyz");
            assert_eq!(ready.status, 503, "{}", ready.body);
            assert!(ready.body.contains("first snapshot, which needs the objects of manifests/"), "{}", ready.body);
            assert!(client::try_get(&address, "localhost", "/good").is_err(), "no listener is open");
            return;
        }
        let body = match self.network {
            None => client::get(&address, "/good").body,
            Some(network) => {
                let url = format!("http://{address}/good");
                let output = program::output(network.command_in(self.program().id(), "curl", &["-sS", "--fail", &url]));
                String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
            }
        };
        assert!(body.contains(r#""path": "/good""#), "{body}");
    }

    /// Stops the program and verifies that it printed nothing after the last step.
    fn end(&mut self) {
        let ended = self.program.take().expect("the program runs").stop().expect_success();
        let excess = &ended.messages()[self.printed..];
        assert_eq!(excess, "", "output after the last step");
        self.printed = 0;
    }

    fn compare(&self) -> Result<(), String> {
        self.golden.compare(&self.text)
    }
}

fn cases() -> Vec<Case> {
    let folder = program::root().join("tests/bad_input");
    let mut names: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().expect("names are text"))
        .filter(|name| !environment::NAMES.contains(&name.as_str()))
        .collect();
    names.extend(generated::NAMES.iter().map(ToString::to_string));
    names.sort();
    names.dedup();
    let case = |name: String| {
        let path = folder.join(&name);
        let (mut before, mut bad) = (Files::new(), generated::files(&name));
        for (file, bytes) in if path.is_dir() { files_below(&path) } else { Files::new() } {
            match file.strip_prefix("before/") {
                Some(file) => _ = before.insert(file.to_owned(), bytes),
                None if !["check.json", "check.txt", "run.txt"].contains(&file.as_str()) => _ = bad.insert(file, bytes),
                None => {}
            }
        }
        assert!(!bad.is_empty(), "tests/bad_input/{name} contains no bad file");
        Case { name, before, bad }
    };
    names.into_iter().map(case).collect()
}

/// Writes `good.yaml` with the valid route, and the files that exist before the bad ones.
fn save_good(site: &Site, before: &Files) {
    let good = fs::read_to_string(program::root().join("tests/bad_input/good.yaml")).unwrap();
    site.save("manifests/good.yaml", &good);
    save_files(site, before);
}

fn save_files(site: &Site, files: &Files) {
    // The files are renamed into the folder one after the other, as by a version control system.
    for (name, bytes) in files {
        let path = format!("manifests/{name}");
        match std::str::from_utf8(bytes) {
            Ok(text) => site.save(&path, text),
            Err(_) => site.save_bytes(&path, bytes),
        }
    }
}

/// Removes the bad files or restores their previous versions.
fn restore(site: &Site, case: &Case) {
    for name in case.bad.keys().filter(|name| !case.before.contains_key(*name)) {
        site.remove(&format!("manifests/{name}"));
    }
    save_files(site, &case.before);
}

/// Runs all cases in parallel and collects the differences.
fn in_parallel(cases: &[Case], find_difference: impl Fn(&Case) -> Option<String> + Sync) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let differing = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(difference) = find_difference(case) {
                        differing.lock().unwrap().push(difference);
                    }
                }
            });
        }
    });
    let mut differing = differing.into_inner().unwrap();
    differing.sort();
    differing
}

/// Number of cases that run at the same time.
const THREADS: usize = 4;
