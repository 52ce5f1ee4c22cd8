//! Whatever is wrong in what it reads: `portico check` and `portico run` say exactly what, and a good route beside it
//! answers before, during and after.
//!
//! A case is a folder of `tests/bad_input/`: the bad files, which files there were `before`, and the texts that are
//! expected. `check.txt` is what `check` prints. `run.txt` is what `run` prints when the bad files appear while it runs,
//! when they go again, and when it starts with them. `UPDATE=1 cargo test --test bad_input` rewrites them.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod harness;

#[path = "bad_input/generated.rs"]
mod generated;
#[path = "bad_input/mutilated.rs"]
mod mutilated;
#[path = "bad_input/surroundings.rs"]
mod surroundings;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use harness::client;
use harness::golden::{self, Golden};
use harness::network::Network;
use harness::program::{self, Program, portico};
use harness::site::{Site, files_below};

type Files = BTreeMap<String, Vec<u8>>;

/// Something bad to read.
struct Case {
    name: String,
    /// Files that are there before the bad ones, which may be other versions of the same.
    before: Files,
    bad: Files,
}

#[test]
fn check_says_what_is_wrong_and_how_bad_it_is() {
    let differing = in_parallel(&cases(), |case| {
        let site = Site::new();
        place_good(&site, &BTreeMap::new());
        place(&site, &case.bad);
        let text = check(&site, &case.name, &["manifests"]);
        // The same for programs, where the case has such a file.
        let golden = Golden::new(format!("bad_input/{}/check.json", case.name));
        let json = (!golden.expected().is_empty()).then(|| {
            let output = program::output(portico_with(&site, &["check", "--output", "json", "manifests"]));
            golden.compare(&site.plain(&String::from_utf8_lossy(&output.stdout))).err()
        });
        text.or(json.flatten())
    });
    golden::expect_none(&differing, "bad_input");
}

#[test]
fn run_says_it_when_it_appears_and_goes_and_serves_the_rest() {
    let differing = in_parallel(&cases(), |case| {
        let site = Site::new();
        place_good(&site, &case.before);
        let mut transcript = Transcript::new(&case.name, &site, program::run(&site, &[]));
        transcript.skip_start();
        place(&site, &case.bad);
        transcript.step("The bad files appear while it runs");
        remove(&site, case);
        transcript.step("They are as before again");
        transcript.end();

        place(&site, &case.bad);
        transcript.program = Some(program::run(&site, &[]));
        transcript.program().wait_started();
        transcript.step("It starts with the bad files");
        transcript.end();
        transcript.compare().err()
    });
    golden::expect_none(&differing, "bad_input");
}

/// Compares what `portico check` says with `check.txt` of a case.
fn check(site: &Site, case: &str, arguments: &[&str]) -> Option<String> {
    let output = program::output(portico_with(site, &[&["check"], arguments].concat()));
    let stderr = String::from_utf8_lossy(&output.stderr);
    let text = format!("{}{stderr}{}\n", String::from_utf8_lossy(&output.stdout), output.status);
    Golden::new(format!("bad_input/{case}/check.txt")).compare(&site.plain(&text)).err()
}

fn portico_with(site: &Site, arguments: &[&str]) -> Command {
    let mut command = portico(site);
    command.args(arguments);
    command
}

/// What a run printed, step by step, compared with what is expected as soon as it is there.
struct Transcript<'a> {
    golden: Golden,
    site: &'a Site,
    program: Option<Program>,
    /// What was told before the current step.
    told: usize,
    text: String,
    /// The network that the program runs in, if it is not the one of everybody.
    network: Option<Network>,
}

impl<'a> Transcript<'a> {
    fn new(name: &str, site: &'a Site, program: Program) -> Self {
        program.wait_started();
        let golden = Golden::new(format!("bad_input/{name}/run.txt"));
        Transcript { golden, site, program: Some(program), told: 0, text: String::new(), network: None }
    }

    fn program(&mut self) -> &mut Program {
        self.program.as_mut().expect("it runs")
    }

    /// Passes over what was printed at the start.
    fn skip_start(&mut self) {
        self.told = self.program().told().len();
        self.expect_good();
    }

    /// Adds what is told from here on.
    fn step(&mut self, title: &str) {
        self.text += &format!("## {title}\n");
        let (site, told) = (self.site, self.told);
        let expected = self.golden.expected();
        let expected =
            expected.strip_prefix(&self.text).map(|rest| rest.split("## ").next().unwrap_or_default().to_owned());
        let program = self.program();
        // What comes is compared as soon as it is complete; whatever comes too much is noticed by the next step.
        let new = |text: &str| text.get(told..).map(|new| site.plain(new)).unwrap_or_default();
        let all = match expected.filter(|expected| !golden::is_update() && !expected.trim().is_empty()) {
            Some(expected) => program.wait_told(|text| new(text) + "\n" == expected).unwrap_or_else(|instead| instead),
            None => program.told_until_quiet(),
        };
        self.text += &new(&all);
        self.text += "\n";
        self.told = all.len();
        self.expect_good();
    }

    /// The route that has nothing to do with it answers, and the program lives.
    fn expect_good(&mut self) {
        let address = self.site.at("port");
        let body = match self.network {
            None => client::get(&address, "/good").body,
            Some(network) => {
                let url = format!("http://{address}/good");
                let output = program::output(network.beside(self.program().id(), "curl", &["-sS", "--fail", &url]));
                String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
            }
        };
        assert!(body.contains(r#""path": "/good""#), "{body}");
        assert!(self.program().is_running());
    }

    /// Stops the program. Nothing more may have been told than the steps have.
    fn end(&mut self) {
        let ended = self.program.take().expect("it runs").stop().expect_fine();
        let more = &ended.told()[self.told..];
        assert_eq!(more, "", "this came after the last step");
        self.told = 0;
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
        .filter(|name| !surroundings::NAMES.contains(&name.as_str()))
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
        assert!(!bad.is_empty(), "tests/bad_input/{name} has nothing bad in it");
        Case { name, before, bad }
    };
    names.into_iter().map(case).collect()
}

/// The good route, and what else there is before the bad files.
fn place_good(site: &Site, before: &Files) {
    let good = fs::read_to_string(program::root().join("tests/bad_input/good.yaml")).unwrap();
    site.save("manifests/good.yaml", &good);
    place(site, before);
}

fn place(site: &Site, files: &Files) {
    // All at once, as a version control system does it: moved in one after the other, within one burst of events.
    for (name, bytes) in files {
        let path = format!("manifests/{name}");
        match std::str::from_utf8(bytes) {
            Ok(text) => site.save(&path, text),
            Err(_) => site.save_bytes(&path, bytes),
        }
    }
}

/// Takes the bad files away, or puts back what was there before.
fn remove(site: &Site, case: &Case) {
    for name in case.bad.keys().filter(|name| !case.before.contains_key(*name)) {
        site.remove(&format!("manifests/{name}"));
    }
    place(site, &case.before);
}

/// Judges every case, several at a time, and gathers what differs.
fn in_parallel(cases: &[Case], judge: impl Fn(&Case) -> Option<String> + Sync) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let differing = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(difference) = judge(case) {
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

const AT_A_TIME: usize = 4;
