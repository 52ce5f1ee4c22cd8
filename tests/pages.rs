//! Every example of the guide: objects are checked, and commands are run and compared with what the page shows. How a page says
//! what is to be done with a block is told in pages/page.rs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod harness;
#[path = "pages/objects.rs"]
mod objects;
#[path = "pages/page.rs"]
mod page;
#[path = "pages/session.rs"]
mod session;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::thread;

use harness::golden::{Golden, expect_none};
use harness::network::Network;
use harness::program::root;
use page::{Page, is_shown};
use session::Session;

#[test]
fn objects_that_pages_show_are_what_the_check_takes() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for page in pages() {
        for block in page.blocks.iter().filter(|block| block.language == "yaml" && block.left_out.is_none()) {
            checked += 1;
            let problems = objects::problems(block).join("\n");
            if !problems.is_empty() {
                wrong.push(format!("{}:{}: {problems}", page.path, block.line));
            }
        }
    }
    println!("{checked} blocks of objects were checked");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn commands_that_pages_show_answer_what_the_pages_say() {
    let Some(network) = Network::new() else { return };
    let pages: Vec<Page> = pages().into_iter().filter(Page::has_commands).collect();
    let run: Vec<&str> = pages.iter().map(|page| page.path.as_str()).collect();
    println!("run: {}", run.join(", "));
    assert!(!run.is_empty());
    let wrong: Vec<String> = thread::scope(|scope| {
        let sessions: Vec<_> = pages.iter().map(|page| scope.spawn(move || Session::run(page, network))).collect();
        sessions.into_iter().flat_map(|session| session.join().expect("what fails is said")).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// So that one more is seen by whoever reviews it.
#[test]
fn blocks_that_are_not_run_are_listed_with_their_reason() {
    let mut list = String::new();
    let (mut all, mut left_out) = (0, 0);
    for page in pages() {
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for block in page.blocks.iter().filter(|block| LANGUAGES.contains(&&*block.language)) {
            all += 1;
            left_out += usize::from(block.left_out.is_some());
            if let Some(reason) = &block.left_out {
                *reasons.entry(reason).or_default() += 1;
            }
        }
        for (reason, count) in reasons {
            writeln!(list, "{}: {count}: {reason}", page.path).expect("a String takes everything");
        }
    }
    println!("{left_out} of {all} blocks are not run");
    expect_none(&Golden::new("pages/not_run.txt").compare(&list).err().into_iter().collect::<Vec<_>>(), "pages");
}

#[test]
fn every_block_has_a_language_that_says_what_to_do_with_it() {
    let mut unknown = Vec::new();
    for page in pages() {
        for block in &page.blocks {
            if !LANGUAGES.contains(&&*block.language) && !SHOWN.contains(&&*block.language) {
                unknown.push(format!("{}:{}: {:?}", page.path, block.line, block.language));
            }
        }
    }
    assert!(unknown.is_empty(), "write one of {LANGUAGES:?} or {SHOWN:?}\n{}", unknown.join("\n"));
}

/// What is run or checked, and what is only to be read.
const LANGUAGES: [&str; 3] = ["yaml", "console", "sh"];
const SHOWN: [&str; 5] = ["text", "json", "rust", "toml", "promql"];

fn pages() -> Vec<Page> {
    let mut paths: Vec<String> =
        ["README.md", "SECURITY.md", "CONTRIBUTING.md", "ARCHITECTURE.md"].map(str::to_owned).to_vec();
    for folder in ["docs", "examples"] {
        below(Path::new(folder), &mut paths);
    }
    paths.sort();
    paths.iter().map(|path| Page::read(path)).collect()
}

fn below(folder: &Path, paths: &mut Vec<String>) {
    for entry in std::fs::read_dir(root().join(folder)).unwrap() {
        let path = folder.join(entry.unwrap().file_name());
        if root().join(&path).is_dir() {
            below(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path.display().to_string());
        }
    }
}

#[test]
fn a_page_that_shows_something_else_is_found() {
    let text = "Words.\n\n<!-- not run: it is far away -->\n```sh\nfalse\n```\n\n```console\n$ echo a; echo b\na\n…\n$ x=5\n\
                $ echo \"1$x 2\"\n1… 2\n```\n";
    let page = Page::parse("a.md", text);
    assert_eq!(page.blocks[0].left_out.as_deref(), Some("it is far away"));
    assert_eq!((page.blocks[1].line, page.blocks[1].commands().len()), (9, 3));
    let text = "<!-- page not run: it takes a chart -->\n```yaml\nreplicas: 3\n```\n```yaml\napiVersion: v1\n```\n";
    let left_out: Vec<_> = Page::parse("c.md", text).blocks.iter().map(|block| block.left_out.is_some()).collect();
    assert_eq!(left_out, [true, false], "whole objects are checked on every page");
    for (answer, shown, expected) in [
        ("a\nb\n", "a\nb\n", true),
        ("a\nb\n", "a\n…\n", true),
        ("a\nb\n", "a\n", false),
        ("a\n", "…\nb\n", false),
        ("date: today\n", "date: …\n", true),
        ("x date: today\n", "date: …\n", false),
        ("a b c\n", "…b…\n", true),
    ] {
        assert_eq!(is_shown(answer, shown), expected, "{answer:?} {shown:?}");
    }
    let Some(network) = Network::new() else { return };
    assert_eq!(Session::run(&page, network), Vec::<String>::new());
    let wrong = [
        ("```console\n$ echo a\nb\n```\n", "prints\na"),
        ("```sh\ntrue\nfalse\n```\n", "ends with 1"),
        (
            "```yaml\n# manifests/a.yaml\napiVersion: v1\nkind: Servic\nmetadata: {name: a}\n```\n```console\n$ portico run --manifests manifests\n```\n",
            "error[",
        ),
    ];
    for (text, part) in wrong {
        let found = Session::run(&Page::parse("b.md", text), network).join("\n");
        assert!(found.contains(part), "{text}: {found}");
    }
}
