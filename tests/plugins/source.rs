//! The file of a plugin, as somebody reads it: what its first lines say, and which phases it writes out.

use std::fs;
use std::path::PathBuf;

use crate::harness::program::root;

/// The text before its imports, without the marks of comments.
pub(crate) fn introduction(name: &str) -> String {
    let file = files(name).into_iter().next().expect("a plugin has a file");
    let lines = file.lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// Whether there is a function of the phase in it, outside of tests.
pub(crate) fn implements(name: &str, phase: &str) -> bool {
    let function = format!("fn {phase}");
    files(name).iter().any(|text| {
        let production = text.split("#[cfg(test)]\nmod tests {").next().expect("there is always a first part");
        production.lines().map(str::trim_start).any(|line| {
            line.strip_prefix(&function)
                .is_some_and(|rest| rest.starts_with("<'a>(&'a self") || rest.starts_with("(&self"))
        })
    })
}

/// The file of the plugin and those in its folder, the one with the introduction first.
fn files(name: &str) -> Vec<String> {
    let stem = root().join("src/plugins").join(name.replace('-', "_"));
    let mut paths = vec![stem.with_extension("rs"), stem.join("mod.rs")];
    paths.retain(|path| path.exists());
    assert_eq!(paths.len(), 1, "{name} is either {0}.rs or {0}/mod.rs", stem.display());
    if stem.is_dir() {
        let others = fs::read_dir(&stem).unwrap().map(|entry| entry.unwrap().path());
        let is_source = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
        paths.extend(others.filter(|path| is_source(path) && !path.ends_with("mod.rs") && !path.ends_with("tests.rs")));
    }
    paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}
