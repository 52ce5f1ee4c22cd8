//! Checks that each file of tests belongs to a test program. Otherwise, neither cargo nor the compiler would report a
//! file that is neither in `Cargo.toml` nor a module of a program.

use std::collections::BTreeSet;

use crate::tokens::tokens;
use crate::tree::{File, Finding};

/// Folders of test programs, and the files that list them.
const FOLDERS: &[(&str, &str)] = &[("tests/", "Cargo.toml"), ("e2e/tests/", "e2e/Cargo.toml")];

pub(crate) fn findings(files: &[File]) -> Vec<Finding> {
    FOLDERS.iter().flat_map(|(folder, manifest)| left_out(files, folder, manifest)).collect()
}

fn left_out(files: &[File], folder: &str, manifest: &str) -> Vec<Finding> {
    // Modules by folder: those of `tests/a.rs`, `tests/a/main.rs` and `tests/a/mod.rs` are in `tests/a/`.
    let mut modules: BTreeSet<String> = BTreeSet::new();
    let sources = || files.iter().filter(|file| file.path.starts_with(folder) && file.has_extension("rs"));
    for file in sources() {
        let module = module_path(&file.path);
        let names = declared(file);
        modules.extend(names.iter().map(|name| format!("{module}/{name}")));
        if is_in(&file.path, folder) {
            // Modules of the root of a program are next to it.
            modules.extend(names.iter().map(|name| format!("{folder}{name}")));
        }
    }
    let programs = files.iter().find(|file| file.path == manifest).map(programs).unwrap_or_default();
    let is_known = |path: &str| {
        let module = module_path(path);
        modules.contains(module) || module.strip_prefix(folder).is_some_and(|name| programs.contains(name))
    };
    let message = format!("belongs to no test program, so it never runs; declare it as a module, or in {manifest}");
    sources().filter(|file| !is_known(&file.path)).map(|file| Finding::new(&file.path, 1, &*message)).collect()
}

/// `tests/a` for `tests/a.rs`, `tests/a/mod.rs` and `tests/a/main.rs`.
fn module_path(path: &str) -> &str {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    path.strip_suffix("/mod").or(path.strip_suffix("/main")).unwrap_or(path)
}

fn is_in(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|name| !name.contains('/'))
}

/// Names of the modules that are declared with a separate file.
fn declared(file: &File) -> Vec<String> {
    let tokens = tokens(&file.text);
    let declared = tokens.windows(3).filter(|window| window[0].text == "mod" && window[2].text == ";");
    declared.map(|window| window[1].text.clone()).collect()
}

/// Names below `[[test]]`.
fn programs(manifest: &File) -> BTreeSet<&str> {
    let mut inside = false;
    let mut names = BTreeSet::new();
    for (_, line) in manifest.lines() {
        inside = if line.starts_with('[') { line == "[[test]]" } else { inside };
        if let Some(name) = line.strip_prefix("name = ").filter(|_| inside) {
            names.insert(name.trim_matches('"'));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Places, expect};

    #[test]
    fn files_without_a_program_are_found() {
        let cases: &[(&str, &[&str], Places<'_>)] = &[
            ("a program", &["tests/one.rs"], &[]),
            ("a program in a folder", &["tests/one/main.rs", "tests/one/inner.rs"], &[("tests/one/inner.rs:1", "")]),
            ("a module", &["tests/one.rs", "tests/part.rs", "tests/part/inner.rs"], &[]),
            ("a module in a folder", &["tests/one.rs", "tests/part/mod.rs", "tests/part/inner.rs"], &[]),
            ("forgotten", &["tests/one.rs", "tests/two.rs"], &[("tests/two.rs:1", "never runs")]),
            ("another package", &["tests/one.rs", "e2e/tests/part.rs"], &[("e2e/tests/part.rs:1", "e2e/Cargo.toml")]),
        ];
        for (name, paths, expected) in cases {
            let text = |path: &str| match path {
                "tests/one.rs" => "//! One.\n#[cfg(test)]\nmod part;\n",
                _ if path.contains("part") && !path.contains("inner") => "//! A part.\npub(crate) mod inner;\n",
                _ => "//! A.\nmod tests {}\n",
            };
            let mut files: Vec<File> = paths.iter().map(|path| File::new(path, text(path))).collect();
            files.push(File::new("Cargo.toml", "[[bench]]\nname = \"two\"\n\n[[test]]\nname = \"one\"\n"));
            files.push(File::new("e2e/Cargo.toml", ""));
            expect(name, findings(&files), expected);
        }
    }
}
