//! Runs the quickstart as a user does: `make run`, the printed `curl` lines, the README's examples, edits, mistakes and
//! Ctrl-C. Runs in a network namespace, so that the real ports and `localhost` can be used.
//!
//! Expected output is in `tests/make_run/`; `UPDATE=1 cargo test --workspace --test process make_run::` rewrites it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::golden::{self, Golden};
use crate::harness::network::Network;
use crate::harness::program::{Program, normalize_environment, output, portico, root, signal};
use crate::harness::site::{Site, files_below, without_times};

#[test]
fn make_run_output_and_readme_examples_work() {
    let Some(network) = Network::new() else { return };
    let site = Site::new();
    let mut command = network.command("make", &["run".to_owned()]);
    normalize_environment(&mut command);
    command.current_dir(root());
    let program = Program::start_group(command);
    let messages = program.wait_started();
    let messages = without_build_output(&messages);
    let mut differing: Vec<String> =
        Golden::new("make_run/start.txt").compare(&without_times(messages)).err().into_iter().collect();
    let shell = Shell { network, program: &program, site: &site };

    // Every printed line gets a response, and each line matches another route.
    let lines: Vec<_> =
        messages.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| line.starts_with("curl ")).collect();
    assert!(lines.len() >= 4, "{messages}");
    let mut routes = BTreeSet::new();
    for (number, line) in lines.iter().enumerate() {
        let (status, response) = shell.run_line(line);
        assert!((200..400).contains(&status), "{line}\n{status}\n{response}");
        let logged = &program.wait_lines(number + 1)[number];
        let route =
            logged.split(" route=").nth(1).and_then(|rest| rest.split(' ').next()).expect("a line names its route");
        assert!(routes.insert(route.to_owned()), "{line} is routed to {route}, like another line");
        assert!(messages.contains(&route.replacen('/', " ", 1)), "{route} is not in the table");
    }

    differing.extend(shell.differing_examples("README.md"));
    for command in commands_of(&fs::read_to_string(root().join("examples/quickstart/README.md")).unwrap()) {
        let (status, response) = shell.run_line(&command);
        assert!((200..400).contains(&status), "examples/quickstart/README.md: {command}\n{status}\n{response}");
    }

    // make succeeds if the program does.
    signal(child_of(program.id()), "TERM");
    program.wait().expect_success();
    golden::expect_none(&differing, "make_run");
}

#[test]
fn edits_and_mistakes_are_reported_while_serving() {
    let Some(network) = Network::new() else { return };
    let site = Site::new();
    let text = |file: &str| fs::read_to_string(root().join("examples/quickstart").join(file)).unwrap();
    for file in files_below(&root().join("examples/quickstart")).keys() {
        site.save(&format!("examples/quickstart/{file}"), &text(file));
    }
    // The command of the Makefile, with a copy of the files.
    let words = "run --manifests examples/quickstart --echo 127.0.0.1:9000".split(' ').map(str::to_owned);
    let mut command = network.command(env!("CARGO_BIN_EXE_portico"), &words.collect::<Vec<_>>());
    normalize_environment(&mut command);
    command.current_dir(site.path("."));
    let program = Program::start(command);
    let mut earlier_length = program.wait_started().len();
    let shell = Shell { network, program: &program, site: &site };
    let golden = Golden::new("make_run/edits.txt");
    let mut transcript = String::new();
    let mut step = |title: &str| {
        transcript += &format!("## {title}\n");
        let golden_text = golden.expected();
        let expected = golden_text
            .strip_prefix(&transcript)
            .and_then(|rest| rest.split("\n## ").next())
            .map(|text| text.trim_end().to_owned());
        let of_step = |all_messages: &str| without_times(all_messages.get(earlier_length..).unwrap_or_default());
        let all_messages = match expected.filter(|_| !golden::is_update()) {
            Some(expected) => {
                program.wait_messages(|all| of_step(all).trim_end() == expected).unwrap_or_else(|actual| actual)
            }
            None => program.messages_until_quiet(),
        };
        transcript += &format!("{}\n\n", of_step(&all_messages).trim_end());
        earlier_length = all_messages.len();
    };
    let curl_basket = "curl http://localhost:8080/basket";
    let curl_old_page = "curl http://localhost:8080/old/page";

    assert!(!shell.run_line(curl_basket).1.contains("x-shop-part"));
    site.save("examples/quickstart/shop.yaml", &text("shop.yaml").replace("value: /cart\n", "value: /basket\n"));
    step("Another path, saved by renaming");
    assert!(shell.run_line(curl_basket).1.contains("x-shop-part"));

    assert_eq!(shell.run_line(curl_old_page).0, 301);
    site.overwrite("examples/quickstart/edits.yaml", &text("edits.yaml").replace("statusCode: 301", "statusCode: 302"));
    step("Another status, written over the file");
    assert_eq!(shell.run_line(curl_old_page).0, 302);

    site.overwrite("examples/quickstart/edits.yaml", &text("edits.yaml").replace("statusCode: 301", "statusCod: 303"));
    step("A misspelled field");
    assert_eq!(shell.run_line(curl_old_page).0, 302);

    site.save("examples/quickstart/canary.yaml", &text("canary.yaml").replacen("name: shop-next", "name: shop-nxt", 1));
    step("A Service that does not exist");
    assert_eq!(shell.run_line("curl -H 'x-canary: yes' http://localhost:8080/cart").0, 500);
    assert_eq!(shell.run_line("curl http://localhost:8080/checkout").0, 200);

    site.save("examples/quickstart/shop.yaml", &text("shop.yaml").replace("spec:\n", "spec\n"));
    step("A missing colon");
    assert!(shell.run_line(curl_basket).1.contains("x-shop-part"));
    assert_eq!(shell.run_line("curl http://localhost:8080/").0, 200);

    for (file, title) in [("edits.yaml", "First fix"), ("shop.yaml", "Second fix"), ("canary.yaml", "Last fix")] {
        site.save(&format!("examples/quickstart/{file}"), &text(file));
        step(title);
    }
    assert_eq!(shell.run_line(curl_old_page).0, 301);
    assert!(!shell.run_line(curl_basket).1.contains("x-shop-part"));

    // Ctrl-C sends SIGINT.
    program.signal("INT");
    let ended = program.wait().expect_success();
    assert_eq!(&ended.messages()[earlier_length..], "", "output after the last step");
    golden::expect_none(&golden.compare(&transcript).err().into_iter().collect::<Vec<_>>(), "make_run");
}

#[test]
fn readme_messages_match_the_output() {
    let site = Site::new();
    for (file, bytes) in files_below(&root().join("examples/quickstart")) {
        let text = String::from_utf8(bytes).unwrap();
        // The README shows the messages about two mistakes: a misspelled Service and a misspelled field.
        let text = text.replacen(
            "name: shop-next\n          port: 80\n          # F",
            "name: shop-nxt\n          port: 80\n          # F",
            1,
        );
        site.save(&format!("examples/quickstart/{file}"), &text.replacen("statusCode:", "statusCod:", 1));
    }
    let mut command = portico(&site);
    command.args(["check", "examples/quickstart"]);
    let printed = String::from_utf8(output(command).stdout).unwrap();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let shown: Vec<_> = blocks(&readme, "text").filter(|block| block.contains("error[")).collect();
    assert!(!shown.is_empty(), "README.md has no `text` block with `error[`; add one, or delete this test");
    for block in shown {
        assert!(printed.contains(&block), "README.md shows\n{block}\nbut the output is\n{printed}");
    }
}

/// A shell in the network namespace of the program.
struct Shell<'a> {
    network: Network,
    program: &'a Program,
    site: &'a Site,
}

impl Shell<'_> {
    /// Runs a `curl` line unchanged. Returns the status code and curl's output.
    fn run_line(&self, line: &str) -> (u16, String) {
        // Options in .curlrc leave the line itself unchanged.
        self.site.save("curl/.curlrc", "silent\nshow-error\nwrite-out = \"\\n%{http_code}\"\n");
        let mut command = self.network.command_in(self.program.id(), "sh", &["-c", line]);
        command.env("CURL_HOME", self.site.path("curl"));
        let output = output(command);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (response, status) = text.rsplit_once('\n').unwrap_or_default();
        let errors = String::from_utf8_lossy(&output.stderr);
        (status.parse().unwrap_or_default(), format!("{response}{errors}"))
    }

    /// Runs the console blocks of a document, and describes those whose output differs from the shown one.
    fn differing_examples(&self, document: &str) -> Vec<String> {
        let text = fs::read_to_string(root().join(document)).unwrap();
        let mut differing = Vec::new();
        for block in blocks(&text, "console") {
            let (command, shown) = block.split_once('\n').unwrap_or((&block, ""));
            let command = command.strip_prefix("$ ").expect("a console block starts with a command");
            let (_, response) = self.run_line(command);
            if !is_shown(&response, shown) {
                differing.push(format!("{document} shows for {command}\n{shown}but the output is\n{response}"));
            }
        }
        differing
    }
}

/// Whether the output has the shown lines in this order. A line `…` matches any lines; there are no other gaps.
fn is_shown(output: &str, shown: &str) -> bool {
    let mut lines = output.lines();
    let mut may_skip = false;
    for shown_line in shown.lines() {
        if shown_line.trim() == "…" {
            may_skip = true;
        } else if may_skip {
            if !lines.any(|line| line == shown_line) {
                return false;
            }
            may_skip = false;
        } else if lines.next() != Some(shown_line) {
            return false;
        }
    }
    may_skip || lines.next().is_none()
}

/// The text of the code blocks in this language.
fn blocks<'a>(document: &'a str, language: &'a str) -> impl Iterator<Item = String> + 'a {
    let fence = format!("```{language}\n");
    let texts: Vec<_> =
        document.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect();
    texts.into_iter()
}

/// Commands in backticks that start with `curl`.
fn commands_of(document: &str) -> Vec<String> {
    let code_spans = document.split('`').skip(1).step_by(2);
    let commands: Vec<_> = code_spans.filter(|code| code.starts_with("curl ")).map(str::to_owned).collect();
    assert!(!commands.is_empty(), "the document shows no request");
    commands
}

/// The messages of the program that `make run` starts, which follow those of cargo. Fails if cargo has compiled
/// something, because that replaces the program while other tests run it.
fn without_build_output(messages: &str) -> &str {
    let tested = Path::new(env!("CARGO_BIN_EXE_portico"));
    assert_eq!(tested, root().join("target/debug/portico"), "the Makefile runs another program than the tested one");
    let (build, after_build) =
        messages.split_once("    Finished `dev` profile").expect("cargo reports the end of the build");
    // Cargo also reports that it waits for a lock.
    let is_compiled_again = build.contains("Compiling ");
    assert!(
        !is_compiled_again,
        "`make run` compiled Portico again; run this test with `cargo test --workspace`, which shares its \
         build:\n{build}"
    );
    after_build.split_once('\n').expect("the line is complete").1
}

/// The only child of a process.
fn child_of(process: u32) -> u32 {
    let output =
        Command::new("ps").args(["-o", "pid=", "--ppid", &process.to_string()]).output().expect("ps is installed");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    text.parse().unwrap_or_else(|_| panic!("process {process} should have one child, found {text:?}"))
}
