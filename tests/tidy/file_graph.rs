//! The graph of files of the source: a file that imports an item has an edge to the file that defines it. Re-exports
//! are followed to the definition. Methods cannot be resolved without types, so that a call of a method is no edge.

use std::collections::{BTreeMap, BTreeSet};
use std::slice::from_ref;

use crate::imports::{crate_of, module_of};
use crate::module_source::{self, ModuleSource};
use crate::tree::File;

/// Production files by their paths, each with the files that it imports and the line of the first import of each.
pub(crate) type Graph = BTreeMap<String, BTreeMap<String, usize>>;

pub(crate) fn graph(files: &[File]) -> Graph {
    let workspace = Workspace::read(files);
    let mut graph = Graph::new();
    for (path, module) in &workspace.modules {
        let edges = graph.entry(module.file.clone()).or_default();
        for (line, target) in workspace.imports(path, module) {
            if target != module.file {
                let first = edges.entry(target).or_insert(line);
                *first = line.min(*first);
            }
        }
    }
    graph
}

/// The files that are compiled without tests and fuzzing.
pub(crate) fn production_files(files: &[File]) -> BTreeSet<String> {
    Workspace::read(files).modules.into_values().map(|module| module.file).collect()
}

/// All modules of production code in the main crate and in `crates`, by their paths, which begin with the library of
/// the crate: `portico::app::run`, `portico_objects::api::kind`.
struct Workspace {
    modules: BTreeMap<Vec<String>, Module>,
}

struct Module {
    file: String,
    source: ModuleSource,
}

/// What a path leads to.
#[derive(Clone, Debug)]
enum Target {
    Module(Vec<String>),
    /// An item, by the file that defines it.
    Item(String),
    /// A crate outside of the workspace.
    OtherCrate,
}

impl Workspace {
    /// Modules that only tests or fuzzing declare are left out.
    fn read(files: &[File]) -> Workspace {
        let by_module: BTreeMap<Vec<String>, &File> =
            files.iter().filter_map(|file| Some((path_of(&file.path)?, file))).collect();
        let mut modules = BTreeMap::new();
        let mut pending: Vec<Vec<String>> = by_module.keys().filter(|path| path.len() == 1).cloned().collect();
        while let Some(path) = pending.pop() {
            let Some(file) = by_module.get(&path) else { continue };
            for source in module_source::modules(&file.text) {
                let path = [&path[..], &source.inline].concat();
                pending.extend(source.children.iter().map(|child| [&path[..], from_ref(child)].concat()));
                modules.insert(path, Module { file: file.path.clone(), source });
            }
        }
        Workspace { modules }
    }

    /// The files of the items that a module imports or names, with lines.
    fn imports(&self, path: &[String], module: &Module) -> Vec<(usize, String)> {
        let source = &module.source;
        let reexports: BTreeSet<&str> =
            source.uses.iter().filter(|one| one.is_reexport()).map(|one| one.name.as_str()).collect();
        let used = source.uses.iter().filter(|one| !one.is_reexport());
        let used = used.map(|one| (one.line, &one.path, one.name == "*"));
        // The import of a single name is an edge already, unless the import is a re-export.
        let named = source.paths.iter().filter(|named| named.path.len() > 1 || reexports.contains(&*named.path[0]));
        let named = named.map(|named| (named.line, &named.path, false));
        let files = used.chain(named).filter_map(|(line, names, is_glob)| {
            match self.resolve(path, names, is_glob, &mut BTreeSet::new()) {
                Target::Item(file) => Some((line, file)),
                // The items of a module are used by paths that begin with its name, except after `*`.
                Target::Module(target) if is_glob => Some((line, self.modules.get(&target)?.file.clone())),
                Target::Module(_) | Target::OtherCrate => None,
            }
        });
        files.collect()
    }

    /// `leads_on` says that the path is that of a module in another path: a function can have the name of a module.
    /// `visited` has the names that are being looked up, so that imports of each other end.
    fn resolve(&self, from: &[String], names: &[String], leads_on: bool, visited: &mut Visited) -> Target {
        // A path that begins with `::` is one of another crate.
        let (is_absolute, names) = match names {
            [first, rest @ ..] if first.is_empty() => (true, rest),
            _ => (false, names),
        };
        let Some((first, rest)) = names.split_first() else { return Target::OtherCrate };
        let mut target = match first.as_str() {
            "crate" => Target::Module(from[..1].to_vec()),
            "self" => Target::Module(from.to_vec()),
            "super" => Target::Module(parent(from)),
            name if is_absolute => self.library(name),
            name => {
                let declared = self.look_up(from, name, leads_on || !rest.is_empty(), visited);
                declared.unwrap_or_else(|| self.library(name))
            }
        };
        for (index, name) in rest.iter().enumerate() {
            let Target::Module(path) = &target else { break };
            let leads_on = leads_on || index + 1 < rest.len();
            target = match name.as_str() {
                "super" => Target::Module(parent(path)),
                // A name without a declaration is one that a macro of the module declares.
                name => self
                    .look_up(path, name, leads_on, visited)
                    .unwrap_or_else(|| self.modules.get(path).map_or(Target::OtherCrate, Module::item)),
            };
        }
        target
    }

    fn library(&self, name: &str) -> Target {
        let root = vec![name.to_owned()];
        if self.modules.contains_key(&root) { Target::Module(root) } else { Target::OtherCrate }
    }

    fn look_up(&self, path: &[String], name: &str, leads_on: bool, visited: &mut Visited) -> Option<Target> {
        let module = self.modules.get(path)?;
        let child = [path, &[name.to_owned()]].concat();
        let child = self.modules.contains_key(&child).then_some(Target::Module(child));
        if leads_on && child.is_some() {
            return child;
        }
        if module.source.items.contains(name) {
            return Some(module.item());
        }
        if !visited.insert((path.to_vec(), name.to_owned(), leads_on)) {
            return None;
        }
        if let Some(found) = module.source.uses.iter().find(|found| found.name == name) {
            return Some(self.resolve(path, &found.path, leads_on, visited));
        }
        child.or_else(|| {
            module.source.uses.iter().filter(|found| found.name == "*").find_map(|glob| {
                let Target::Module(target) = self.resolve(path, &glob.path, true, visited) else { return None };
                self.look_up(&target, name, leads_on, visited)
            })
        })
    }
}

/// Names that are being looked up, by their module.
type Visited = BTreeSet<(Vec<String>, String, bool)>;

impl Module {
    fn item(&self) -> Target {
        Target::Item(self.file.clone())
    }
}

fn path_of(file: &str) -> Option<Vec<String>> {
    let library = match crate_of(file)? {
        "" => "portico".to_owned(),
        folder => format!("portico_{folder}"),
    };
    Some([vec![library], module_of(file)?].concat())
}

fn parent(path: &[String]) -> Vec<String> {
    path.split_last().map_or_else(Vec::new, |(_, parent)| parent.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files and their text.
    type Sources = &'static [(&'static str, &'static str)];

    /// Edges as `from:line to`, of a main crate with the modules `a`, `b` and `c`, of which `b` has the child `d`.
    fn edges(sources: Sources) -> Vec<String> {
        let mut files = Vec::new();
        for (path, fixed) in [
            ("src/lib.rs", "mod a; mod b; mod c;"),
            ("src/a.rs", ""),
            ("src/b/mod.rs", "mod d;"),
            ("src/b/d.rs", "pub struct D;"),
            ("src/c.rs", "pub fn c() {}"),
        ] {
            let source = sources.iter().find(|(changed, _)| *changed == path).map_or("", |(_, source)| *source);
            files.push(File::new(path, &format!("{fixed} {source}")));
        }
        files.extend(
            sources
                .iter()
                .filter(|(path, _)| ["src/a/tests.rs", "src/b/c.rs"].contains(path) || path.starts_with("crates/"))
                .map(|(path, text)| File::new(path, text)),
        );
        let graph = graph(&files);
        let edges = graph.iter().flat_map(|(from, targets)| targets.iter().map(move |(to, line)| (from, line, to)));
        let short = |path: &str| path.trim_start_matches("src/").trim_end_matches(".rs").to_owned();
        edges.map(|(from, line, to)| format!("{}:{line} {}", short(from), short(to))).collect()
    }

    #[test]
    fn imports_are_edges_to_the_defining_file() {
        let cases: &[(&str, Sources, &[&str])] = &[
            ("use", &[("src/a.rs", "\nuse crate::c::c;")], &["a:2 c"]),
            ("path in code", &[("src/a.rs", "fn f() { crate::c::c() }")], &["a:1 c"]),
            ("of a child", &[("src/a.rs", "use crate::b::d::D;")], &["a:1 b/d"]),
            ("re-export", &[("src/b/mod.rs", "pub use d::D;"), ("src/a.rs", "use crate::b::D;")], &["a:1 b/d"]),
            ("renamed", &[("src/b/mod.rs", "pub use d::D as E;"), ("src/a.rs", "use crate::b::E;")], &["a:1 b/d"]),
            ("glob", &[("src/b/mod.rs", "pub use d::*;"), ("src/a.rs", "use crate::b::D;")], &["a:1 b/d"]),
            (
                "private import of the parent",
                &[("src/b/mod.rs", "use crate::c::c;"), ("src/b/d.rs", "fn f() { super::c() }")],
                &["b/d:1 c", "b/mod:1 c"],
            ),
            ("use of a re-export", &[("src/b/mod.rs", "pub use d::D;\nfn f(d: D) {}")], &["b/mod:2 b/d"]),
            ("module", &[("src/a.rs", "use crate::b;\nuse crate::c;\nfn f() { c::c() }")], &["a:3 c"]),
            ("through a module", &[("src/a.rs", "use crate::b;\nfn f(d: b::d::D) {}")], &["a:2 b/d"]),
            ("imported glob", &[("src/a.rs", "use crate::c::*;")], &["a:1 c"]),
            ("item of the parent", &[("src/b/mod.rs", "struct B;"), ("src/b/d.rs", "use super::B;")], &["b/d:1 b/mod"]),
            ("by a macro", &[("src/b/mod.rs", "m! { B }"), ("src/a.rs", "use crate::b::B;")], &["a:1 b/mod"]),
            ("child by its name", &[("src/b/mod.rs", "fn f() { d::f() }")], &["b/mod:1 b/d"]),
            ("associated item", &[("src/a.rs", "fn f() { crate::b::d::D::new() }")], &["a:1 b/d"]),
            ("declarations", &[("src/b/mod.rs", "pub use d::D; pub use crate::c::c;")], &[]),
            (
                "module of another crate",
                &[
                    ("crates/parts/src/lib.rs", "pub mod e;"),
                    ("crates/parts/src/e.rs", "pub struct E;"),
                    ("src/lib.rs", "pub use portico_parts::e;"),
                    ("src/a.rs", "use crate::e::E;"),
                ],
                &["a:1 crates/parts/src/e"],
            ),
            (
                "crate by its name",
                &[
                    ("crates/parts/src/lib.rs", "pub mod e;"),
                    ("crates/parts/src/e.rs", "pub struct E;"),
                    ("src/a.rs", "use portico_parts::e::E;"),
                    ("src/b/d.rs", "use ::portico_parts::e::E;"),
                    ("src/c.rs", "fn f() {\nportico_parts::e::f() }"),
                ],
                &["a:1 crates/parts/src/e", "b/d:1 crates/parts/src/e", "c:2 crates/parts/src/e"],
            ),
            (
                "from crate to crate",
                &[
                    ("crates/parts/src/lib.rs", "pub mod e;"),
                    ("crates/parts/src/e.rs", "mod f; pub use f::F;"),
                    ("crates/parts/src/e/f.rs", "pub struct F;"),
                    ("crates/upper/src/lib.rs", "pub mod g; use portico_parts::e;"),
                    ("crates/upper/src/g.rs", "\nuse crate::e::F;"),
                ],
                &["crates/upper/src/g:2 crates/parts/src/e/f"],
            ),
            (
                "module in two crates",
                &[
                    ("crates/x/src/lib.rs", "pub mod p;"),
                    ("crates/x/src/p/mod.rs", "mod q; mod r;"),
                    ("crates/x/src/p/q.rs", "use crate::p::r::R; use crate::p::t::T;"),
                    ("crates/x/src/p/r.rs", "pub struct R;"),
                    ("crates/y/src/lib.rs", "pub mod p;"),
                    ("crates/y/src/p/mod.rs", "mod r; mod t;"),
                    ("crates/y/src/p/r.rs", "use super::t::T;"),
                    ("crates/y/src/p/t.rs", "pub struct T;"),
                ],
                &[
                    "crates/x/src/p/q:1 crates/x/src/p/mod",
                    "crates/x/src/p/q:1 crates/x/src/p/r",
                    "crates/y/src/p/r:1 crates/y/src/p/t",
                ],
            ),
            ("another crate", &[("src/a.rs", "use d::D; use ::c::c; fn f() { ::c::c() }")], &[]),
            (
                "re-export of another crate",
                &[("src/b/mod.rs", "pub use http::D;"), ("src/a.rs", "use crate::b::D;")],
                &[],
            ),
            (
                "function with the name of its module",
                &[
                    ("src/b/mod.rs", "mod c; pub use c::c;"),
                    ("src/a.rs", "use crate::b::c;"),
                    ("src/b/c.rs", "pub fn c() {}"),
                ],
                &["a:1 b/c"],
            ),
            ("itself", &[("src/c.rs", "fn f() { crate::c::c() }")], &[]),
            (
                "imports of each other",
                &[("src/a.rs", "pub use crate::b::X;"), ("src/b/mod.rs", "use crate::a::X;")],
                &["b/mod:1 a"],
            ),
            (
                "test code",
                &[
                    ("src/a.rs", "#[cfg(test)]\nmod tests;\n#[cfg(test)]\nuse crate::c::c;"),
                    ("src/a/tests.rs", "use crate::c::c;"),
                ],
                &[],
            ),
            (
                "inline module",
                &[("src/a.rs", "mod x {\nuse super::super::c::c; use super::Y; }\nstruct Y;")],
                &["a:2 c"],
            ),
        ];
        for (name, sources, expected) in cases {
            assert_eq!(edges(sources), *expected, "{name}");
        }
    }
    #[test]
    fn production_files_are_those_that_a_root_leads_to() {
        let files = [
            File::new("src/lib.rs", "mod a;"),
            File::new("src/a.rs", "#[cfg(test)]\nmod tests;"),
            File::new("src/a/tests.rs", ""),
            File::new("crates/x/src/lib.rs", "pub mod b; #[cfg(any(test, fuzzing))] mod fuzzing;"),
            File::new("crates/x/src/b/mod.rs", ""),
            File::new("crates/x/src/fuzzing.rs", ""),
            File::new("tests/a.rs", ""),
        ];
        let production = Vec::from_iter(production_files(&files));
        assert_eq!(production, ["crates/x/src/b/mod.rs", "crates/x/src/lib.rs", "src/a.rs", "src/lib.rs"]);
    }
}
