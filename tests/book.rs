//! The documentation book built by `make docs`: it builds, and all its links resolve.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use crate::root;

#[test]
fn book_builds_without_broken_links() {
    let output = Command::new("bash").arg("scripts/docs.sh").current_dir(root()).stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/docs.sh: {stderr}");
    assert!(!stderr.contains("WARN") && !stderr.contains("ERROR"), "mdBook printed warnings: {stderr}");

    let book = Book::read(&root().join("target/docs"));
    let summary = fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    let listed = summary.matches(".md)").count();
    assert!(listed > 20 && book.pages.len() > listed, "{listed} pages are listed, {} exist", book.pages.len());
    let broken = book.broken_links();
    assert!(broken.is_empty(), "{} broken links:\n{}", broken.len(), broken.join("\n"));
}

/// Pages and all files of the built book, by path from its root.
struct Book {
    pages: BTreeMap<PathBuf, Page>,
    files: BTreeSet<PathBuf>,
}

struct Page {
    links: Vec<String>,
    anchors: BTreeSet<String>,
}

impl Book {
    fn read(folder: &Path) -> Book {
        let mut book = Book { pages: BTreeMap::new(), files: BTreeSet::new() };
        book.read_folder(folder, Path::new(""));
        book
    }

    fn read_folder(&mut self, folder: &Path, relative: &Path) {
        for entry in fs::read_dir(folder.join(relative)).unwrap() {
            let path = relative.join(entry.unwrap().file_name());
            let full = folder.join(&path);
            if full.is_dir() {
                self.read_folder(folder, &path);
                continue;
            }
            // The 404 page is served for any path, so its links are absolute to the site.
            if path.extension().is_some_and(|extension| extension == "html") && path != Path::new("404.html") {
                self.pages.insert(path.clone(), Page::read(&fs::read_to_string(&full).unwrap()));
            }
            self.files.insert(path);
        }
    }

    fn broken_links(&self) -> Vec<String> {
        let mut broken_links = Vec::new();
        for (path, page) in &self.pages {
            for link in page.links.iter().filter(|link| !is_external(link)) {
                let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target = if file.is_empty() { Some(path.clone()) } else { resolve(path, file) };
                let target = target.map(|target| {
                    let index = target.join("index.html");
                    if self.files.contains(&index) { index } else { target }
                });
                let Some(target) = target.filter(|target| self.files.contains(target)) else {
                    broken_links.push(format!("{}: {link}", path.display()));
                    continue;
                };
                let missing = self.pages.get(&target).is_some_and(|page| !page.anchors.contains(anchor));
                if missing && !anchor.is_empty() {
                    broken_links.push(format!("{}: {link}: there is no such heading", path.display()));
                }
            }
        }
        broken_links
    }
}

impl Page {
    fn read(text: &str) -> Page {
        let links = attribute_values(text, "href").chain(attribute_values(text, "src")).map(str::to_owned).collect();
        Page { links, anchors: attribute_values(text, "id").map(str::to_owned).collect() }
    }
}

/// Values of an attribute. Quotes in code blocks are escaped in HTML and do not match.
fn attribute_values<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let parts: Vec<_> = text.split(&format!(" {name}=\"")).skip(1).collect();
    parts.into_iter().filter_map(|part| part.split_once('"')).map(|(value, _)| value)
}

fn is_external(link: &str) -> bool {
    ["https://", "http://", "mailto:"].iter().any(|start| link.starts_with(start))
}

/// `None` for links that leave the book.
fn resolve(page: &Path, link: &str) -> Option<PathBuf> {
    let mut path = page.parent()?.to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => path.pop().then_some(())?,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

#[test]
fn broken_links_are_found() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("deep")).unwrap();
    let page = |links: &[&str]| links.iter().map(|link| format!("<a href=\"{link}\">x</a>")).collect::<String>();
    let good = ["#here", "deep/b.html#there", "https://example.com/x", "deep/c.yaml", "listed"];
    let bad = ["#gone", "deep", "deep/b.html#gone", "../x.html", "/deep/b.html", "deep/README.md"];
    let text = format!("<h1 id=\"here\">A</h1>{}{}", page(&good), page(&bad));
    fs::write(folder.path().join("a.html"), text).unwrap();
    let text_of_b = "<h1 id=\"there\">B</h1><script src=\"../book.js\"></script><a href=\"../a.html#here\">x</a>";
    fs::write(folder.path().join("deep/b.html"), text_of_b).unwrap();
    fs::write(folder.path().join("deep/c.yaml"), "a: b\n").unwrap();
    fs::create_dir(folder.path().join("listed")).unwrap();
    fs::write(folder.path().join("listed/index.html"), "").unwrap();
    let broken_links = Book::read(folder.path()).broken_links();
    let expected: Vec<_> =
        bad.iter().map(|link| format!("a.html: {link}")).chain(["deep/b.html: ../book.js".to_owned()]).collect();
    assert_eq!(broken_links.len(), expected.len(), "{broken_links:?}");
    for (found, expected) in broken_links.iter().zip(&expected) {
        assert!(found.starts_with(expected.as_str()), "{found} is not about {expected}");
    }
}
