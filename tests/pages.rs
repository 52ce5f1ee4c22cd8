//! Examples in the documentation: objects are validated, and commands are run and compared with the shown output.
//! pages/page.rs describes the marks of code blocks.

mod checked;
mod objects;
pub(crate) mod page;
mod session;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::thread;

use crate::harness::golden::{Golden, expect_none};
use crate::harness::network::Network;
use crate::harness::program::root;
use page::{Page, RunsOn, is_shown};
use session::Session;

#[test]
fn shown_objects_are_valid() {
    let mut wrong = Vec::new();
    let mut validated = 0;
    for page in pages() {
        for block in page.blocks.iter().filter(|block| block.language == "yaml" && block.runs_on == RunsOn::Network) {
            validated += 1;
            let problems = objects::problems(block).join("\n");
            if !problems.is_empty() {
                wrong.push(format!("{}:{}: {problems}", page.path, block.line));
            }
        }
    }
    println!("{validated} blocks of objects were validated");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn shown_commands_print_the_shown_output() {
    let Some(network) = Network::new() else { return };
    let mut pages = pages();
    pages.retain(|page| page.blocks.iter().any(|block| block.is_command() && block.runs_on == RunsOn::Network));
    let paths: Vec<&str> = pages.iter().map(|page| page.path.as_str()).collect();
    println!("run: {}", paths.join(", "));
    assert!(!paths.is_empty());
    let wrong: Vec<String> = thread::scope(|scope| {
        let sessions: Vec<_> = pages.iter().map(|page| scope.spawn(move || Session::run(page, network))).collect();
        sessions
            .into_iter()
            .flat_map(|session| session.join().expect("sessions report errors without a panic"))
            .collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn shown_json_and_queries_are_valid() {
    let mut wrong = Vec::new();
    for page in pages() {
        for block in page.blocks.iter().filter(|block| checked::LANGUAGES.contains(&&*block.language)) {
            let problem = checked::problem(block).map(|problem| format!("{}:{}: {problem}", page.path, block.line));
            wrong.extend(problem);
        }
        let text = fs::read_to_string(root().join(&page.path)).unwrap();
        for query in checked::queries(&text) {
            wrong.extend(checked::query_problem(query).map(|problem| format!("{}: `{query}`: {problem}", page.path)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Compares the list with a golden file, so that reviews show its changes.
#[test]
fn blocks_that_are_not_run_are_listed() {
    let mut list = String::new();
    let mut blocks: BTreeMap<&str, usize> = BTreeMap::new();
    let pages = pages();
    for page in &pages {
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for block in &page.blocks {
            *blocks.entry(&block.language).or_default() += 1;
            if let RunsOn::NotRun(reason) = &block.runs_on {
                *reasons.entry(reason).or_default() += 1;
            }
        }
        for (reason, count) in reasons {
            writeln!(list, "{}: {count}: {reason}", page.path).expect("writing to a String succeeds");
        }
    }
    println!("{blocks:?}; not run:\n{list}");
    expect_none(&Golden::new("pages/not_run.txt").compare(&list).err().into_iter().collect::<Vec<_>>(), "pages");
}

#[test]
fn every_block_has_a_known_language() {
    let mut unknown = Vec::new();
    for page in pages() {
        for block in &page.blocks {
            let is_known = LANGUAGES.contains(&&*block.language) || checked::LANGUAGES.contains(&&*block.language);
            let has_reason = matches!(block.runs_on, RunsOn::NotRun(_));
            if !is_known && !has_reason && block.language != PLAIN_TEXT {
                unknown.push(format!("{}:{}: {:?}", page.path, block.line, block.language));
            }
        }
    }
    let known = [&LANGUAGES[..], &checked::LANGUAGES, &[PLAIN_TEXT]].concat().join(", ");
    assert!(unknown.is_empty(), "use {known}, or add a reason why the block is not run, for\n{}", unknown.join("\n"));
}

/// Languages of blocks with commands or manifests.
const LANGUAGES: [&str; 3] = ["yaml", "console", "sh"];
/// Diagrams, and output without a command.
const PLAIN_TEXT: &str = "text";

fn pages() -> Vec<Page> {
    page::all(root())
}

#[test]
fn wrong_pages_are_detected() {
    let commands = "Words.\n\n<!-- not run: it is far away -->\n```sh\nfalse\n```\n\n```console\n\
                $ echo a; echo b\na\n…\n$ x=5\n$ echo \"1$x 2\"\n1… 2\n```\n";
    let page = Page::parse("a.md", commands);
    assert_eq!(page.blocks[0].runs_on, RunsOn::NotRun("it is far away".to_owned()));
    assert_eq!((page.blocks[1].line, page.blocks[1].commands().len()), (9, 3));
    let text = "<!-- page on a cluster -->\n```yaml\nreplicas: 3\n```\n```yaml\napiVersion: v1\n```\n\
                <!-- not run: x -->\n```sh\nx\n```\n";
    let runs_on: Vec<RunsOn> = Page::parse("c.md", text).blocks.into_iter().map(|block| block.runs_on).collect();
    let expected = [RunsOn::Cluster, RunsOn::Network, RunsOn::NotRun("x".to_owned())];
    assert_eq!(runs_on, expected, "complete objects are validated on every page");
    for (language, text, expected_part) in [
        ("json", "{\"a\": …}", "not JSON"),
        ("promql", "rate(portico_requests_total[5m]", "unclosed"),
        ("promql", "rate(portico_request_total[5m])", "has no portico_request_total"),
    ] {
        let page = Page::parse("d.md", &format!("```{language}\n{text}\n```\n"));
        let problem = checked::problem(&page.blocks[0]).unwrap_or_default();
        assert!(problem.contains(expected_part), "{text}: {problem}");
    }
    let text =
        "`portico_tunnels` `a{b}`\n```\n`portico_x{}`\n```\n| x | `sum(portico_tunnels)` | `portico_tunnels > 1`";
    assert_eq!(checked::queries(text).collect::<Vec<_>>(), ["sum(portico_tunnels)", "portico_tunnels > 1"]);
    let page = Page::parse("d.md", "```promql\nsum(rate(portico_request_duration_seconds_bucket[5m]))\n```\n");
    assert_eq!(checked::problem(&page.blocks[0]), None);
    for (response, shown, expected) in [
        ("a\nb\n", "a\nb\n", true),
        ("a\nb\n", "a\n…\n", true),
        ("a\nb\n", "a\n", false),
        ("a\n", "…\nb\n", false),
        ("date: today\n", "date: …\n", true),
        ("x date: today\n", "date: …\n", false),
        ("a b c\n", "…b…\n", true),
    ] {
        assert_eq!(is_shown(response, shown), expected, "{response:?} {shown:?}");
    }
    let Some(network) = Network::new() else { return };
    assert_eq!(Session::run(&Page::parse("a.md", commands), network), Vec::<String>::new());
    let wrong = [
        ("```console\n$ echo a\nb\n```\n", "the output is\na"),
        ("```sh\ntrue\nfalse\n```\n", "ends with 1"),
        ("```sh\nfalse\ntrue\n```\n", "`false` ends with 1"),
        (
            "```yaml\n# manifests/a.yaml\napiVersion: v1\nkind: Servic\nmetadata: {name: a}\n```\n\
             ```console\n$ portico run --manifests manifests\n```\n",
            "error[",
        ),
    ];
    for (text, expected_part) in wrong {
        let differences = Session::run(&Page::parse("b.md", text), network).join("\n");
        assert!(differences.contains(expected_part), "{text}: {differences}");
    }
}
