//! Randomly mutated files: `portico check` never crashes and prints no terminal control characters.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::harness::program::{clean, root};
use crate::harness::site::{Site, files_below};

#[test]
fn mutated_files_never_cause_a_panic() {
    let folders = ["examples/quickstart", "tests/bad_input", "tests/compile"];
    let files = folders.iter().flat_map(|folder| files_below(&root().join(folder)));
    let texts: Vec<_> = files.filter(|(name, _)| name.ends_with(".yaml")).map(|(_, bytes)| bytes).collect();
    assert!(texts.len() > 20, "there are files to mutate");
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..super::AT_A_TIME {
            scope.spawn(|| {
                let site = Site::new();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= FILES {
                        return;
                    }
                    check_output(&site, &mutate(&texts, seed), seed);
                }
            });
        }
    });
}

fn check_output(site: &Site, bytes: &[u8], seed: u64) {
    fs::write(site.path("x.yaml"), bytes).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_portico"));
    clean(&mut command);
    let output = command.args(["check", "x.yaml"]).current_dir(site.path(".")).output().unwrap();
    let said = String::from_utf8(output.stdout).expect("the output is UTF-8");
    let fine = matches!(output.status.code(), Some(0 | 1))
        && output.stderr.is_empty()
        && !said.contains(|character: char| character.is_control() && character != '\n');
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(fine, "seed {seed}: {}\n{stderr}{said}\nof\n{}", output.status, String::from_utf8_lossy(bytes));
}

/// Two files after each other with up to ten mutations. The same seed gives the same file.
fn mutate(texts: &[Vec<u8>], seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = [random.choice(texts).unwrap(), &b"\n---\n"[..], random.choice(texts).unwrap()].concat();
    for _ in 0..random.usize(1..=10) {
        let at = random.usize(0..bytes.len());
        let line = bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let end = bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length + 1);
        let fragment = random.choice(FRAGMENTS).unwrap();
        match random.u8(0..6) {
            0 => bytes[at] = random.u8(..),
            1 => drop(bytes.splice(at..at, fragment.iter().copied())),
            2 => drop(bytes.drain(at..(at + random.usize(1..20)).min(bytes.len()))),
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

const FILES: u64 = 160;

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
