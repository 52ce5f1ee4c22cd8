//! Reads the source files of plugins: their module documentation, and the phases that they implement.

use std::fs;
use std::path::PathBuf;

use crate::root;

/// The crates of plugins.
const CRATES: &[&str] = &["bodies", "guards", "logins", "logs", "traffic"];

/// The module documentation of a plugin, which is the beginning of its page.
pub(crate) fn module_docs(name: &str) -> String {
    let main_file = texts(name).into_iter().next().expect("a plugin has a file");
    let lines = main_file.lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// Whether the plugin implements the method of the phase outside of tests.
pub(crate) fn implements(name: &str, phase: &str) -> bool {
    let function = format!("fn {phase}");
    let mut texts = texts(name);
    texts.extend(shared_implementation(&texts[0]));
    texts.iter().any(|text| {
        let production = text.split("#[cfg(test)]\nmod tests {").next().expect("split returns at least one part");
        production.lines().map(str::trim_start).any(|line| {
            line.strip_prefix(&function)
                .is_some_and(|rest| rest.starts_with("<'a>(&'a self") || rest.starts_with("(&self"))
        })
    })
}

/// The text of the module of a crate of plugins that implements the plugin, if several kinds share it.
fn shared_implementation(main_file: &str) -> Option<String> {
    let plugin = main_file.lines().find_map(|line| line.trim().strip_prefix("type Plugin = "))?.trim_end_matches(';');
    let implementation = format!("impl Plugin for {plugin} {{");
    let crates = CRATES.iter().map(|name| root().join("crates").join(name).join("src"));
    let folders = crates.flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    let mut texts = folders.filter_map(|folder| fs::read_to_string(folder.join("mod.rs")).ok());
    texts.find(|text| text.contains(&implementation))
}

/// The texts of the main file of the plugin and of the other files in its directory, without `tests.rs`.
fn texts(name: &str) -> Vec<String> {
    let stems = CRATES
        .iter()
        .map(|crate_name| root().join("crates").join(crate_name).join("src/plugins").join(name.replace('-', "_")));
    let files = stems.flat_map(|stem| [stem.with_extension("rs"), stem.join("mod.rs")]);
    let mut paths: Vec<PathBuf> = files.filter(|path| path.exists()).collect();
    assert_eq!(paths.len(), 1, "{name} must be one file or folder of the crates {CRATES:?}: {paths:?}");
    let stem = if paths[0].ends_with("mod.rs") { paths[0].with_file_name("") } else { paths[0].with_extension("") };
    if stem.is_dir() {
        let files = fs::read_dir(&stem).unwrap().map(|entry| entry.unwrap().path());
        let is_source = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
        paths.extend(files.filter(|path| is_source(path) && !path.ends_with("mod.rs") && !path.ends_with("tests.rs")));
    }
    paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}
