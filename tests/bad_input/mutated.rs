//! Randomly mutated files: `portico check` never crashes and prints no terminal control characters.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::harness::program::{normalize_environment, root};
use crate::harness::site::{Site, files_below};

#[test]
fn mutated_files_never_cause_a_panic() {
    let folders = ["examples/quickstart", "tests/bad_input", "tests/compile"];
    let files = folders.iter().flat_map(|folder| files_below(&root().join(folder)));
    let yaml_files: Vec<_> = files.filter(|(name, _)| name.ends_with(".yaml")).map(|(_, bytes)| bytes).collect();
    assert!(yaml_files.len() > 20, "there are files to mutate");
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..super::THREADS {
            scope.spawn(|| {
                let site = Site::new();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= MUTATED_FILES {
                        return;
                    }
                    check_output(&site, &mutate(&yaml_files, seed), seed);
                }
            });
        }
    });
}

fn check_output(site: &Site, bytes: &[u8], seed: u64) {
    fs::write(site.path("x.yaml"), bytes).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_portico"));
    normalize_environment(&mut command);
    let output = command.args(["check", "x.yaml"]).current_dir(site.path(".")).output().unwrap();
    let stdout = String::from_utf8(output.stdout).expect("the output is UTF-8");
    let is_expected = matches!(output.status.code(), Some(0 | 1))
        && output.stderr.is_empty()
        && !stdout.contains(|character: char| character.is_control() && character != '\n');
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(is_expected, "seed {seed}: {}\n{stderr}{stdout}\nof\n{}", output.status, String::from_utf8_lossy(bytes));
}

/// Two files after each other with up to ten mutations. The same seed gives the same file.
fn mutate(files: &[Vec<u8>], seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = [random.choice(files).unwrap(), &b"\n---\n"[..], random.choice(files).unwrap()].concat();
    for _ in 0..random.usize(1..=10) {
        let position = random.usize(0..bytes.len());
        let line = bytes[..position].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let end = bytes[position..]
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(bytes.len(), |length| position + length + 1);
        let fragment = random.choice(FRAGMENTS).unwrap();
        match random.u8(0..6) {
            0 => bytes[position] = random.u8(..),
            1 => drop(bytes.splice(position..position, fragment.iter().copied())),
            2 => drop(bytes.drain(position..(position + random.usize(1..20)).min(bytes.len()))),
            3 => drop(bytes.drain(line..end)),
            4 => drop(bytes.splice(line..line, b"  ".iter().copied())),
            _ => drop(bytes.splice(line..line, bytes[line..end].to_vec())),
        }
        if bytes.is_empty() {
            return b"x".to_vec();
        }
    }
    bytes
}

const MUTATED_FILES: u64 = 160;

/// YAML syntax, edge cases of numbers, and terminal escape sequences.
const FRAGMENTS: &[&[u8]] = &[
    b"- ",
    b": ",
    b"\n",
    b"---\n",
    b"{",
    b"]",
    b"\"",
    b"'",
    b"&a ",
    b"*a",
    b"!!str ",
    b"| ",
    b"null",
    b"~",
    b"-1",
    b"99999999999999999999",
    b"1e400",
    b".nan",
    b"\t",
    b"\0",
    b"\xff",
    b"? ",
    b"<<: *a\n",
    b"%YAML 1.3\n",
    b"\xef\xbb\xbf",
    b"items:\n",
    b"\"*\"",
    b"metadata: {}\n",
    b"\x1b[31m",
    b"\xe2\x80\xae",
    b"\xc2\x9b",
];
