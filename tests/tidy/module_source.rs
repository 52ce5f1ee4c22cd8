//! Reads what a module declares and names outside of its tests: child modules, items, imports and paths in code.

use std::collections::BTreeSet;

use crate::tokens::{Token, tokens};

/// A module of a file. An inline module is a module of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ModuleSource {
    /// Names of the inline modules around it, outermost first.
    pub(crate) inline: Vec<String>,
    pub(crate) children: BTreeSet<String>,
    pub(crate) items: BTreeSet<String>,
    pub(crate) uses: Vec<Use>,
    pub(crate) paths: Vec<CodePath>,
}

/// One name of a `use` declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) line: usize,
    pub(crate) path: Vec<String>,
    /// What it is called here; `*` for everything in the path.
    pub(crate) name: String,
    pub(crate) visibility: Visibility,
}

impl Use {
    pub(crate) fn is_reexport(&self) -> bool {
        self.visibility != Visibility::Private
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visibility {
    Private,
    /// In a part of the crate, such as `pub(crate)`.
    Restricted,
    Public,
}

/// A path in code, or a single name that may be that of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CodePath {
    pub(crate) line: usize,
    pub(crate) path: Vec<String>,
}

/// The modules of a file: first its own, then its inline modules.
pub(crate) fn modules(source: &str) -> Vec<ModuleSource> {
    modules_in(&production_tokens(source))
}

pub(crate) fn modules_in(production_tokens: &[Token]) -> Vec<ModuleSource> {
    let mut reader = Reader { tokens: production_tokens, at: 0, modules: vec![ModuleSource::default()] };
    reader.read_module(0);
    reader.modules
}

/// Leaves out items, statements and fields that only tests or fuzzing compile.
pub(crate) fn production_tokens(source: &str) -> Vec<Token> {
    let all = tokens(source);
    let text = |at: usize| all.get(at).map_or("", |token| token.text.as_str());
    let mut kept = Vec::new();
    let mut at = 0;
    while at < all.len() {
        if text(at) == "#" && text(at + 1) == "[" {
            let end = closing(&all, at + 1);
            let words: Vec<&str> = (at + 2..end).map(text).collect();
            let only_tests = words.first() == Some(&"cfg")
                && words.iter().any(|word| ["test", "fuzzing"].contains(word))
                && !words.contains(&"not");
            if only_tests {
                at = item_end(&all, end + 1);
                continue;
            }
        }
        kept.push(all[at].clone());
        at += 1;
    }
    kept
}

/// The position after the item, statement or field at `at`.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut keyword = "";
    while at < tokens.len() {
        match text(at) {
            "#" if text(at + 1) == "[" => at = closing(tokens, at + 1),
            ";" => return at + 1,
            // In generics of a function, a comma does not end anything. After a field or a variant, it does.
            "," if keyword.is_empty() => return at + 1,
            "}" | ")" | "]" => return at,
            "{" => {
                at = closing(tokens, at);
                if !["use", "const", "static", "type", "let"].contains(&keyword) {
                    return at + 1;
                }
            }
            "(" | "[" => at = closing(tokens, at),
            // `const fn` is a function.
            word if begins_item(word) && (keyword.is_empty() || keyword == "const") => keyword = word,
            _ => {}
        }
        at += 1;
    }
    at
}

/// The position of the bracket that closes the one at `open`.
pub(crate) fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len()
}

pub(crate) fn is_item_keyword(word: &str) -> bool {
    ["fn", "struct", "enum", "union", "trait", "type", "const", "static", "mod"].contains(&word)
}

/// Also of a statement.
fn begins_item(word: &str) -> bool {
    is_item_keyword(word) || ["use", "let", "impl"].contains(&word)
}

pub(crate) fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
    modules: Vec<ModuleSource>,
}

impl<'a> Reader<'a> {
    fn text(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |token| token.text.as_str())
    }

    fn before(&self, at: usize) -> &'a str {
        at.checked_sub(1).map_or("", |at| self.text(at))
    }

    /// Reads up to the end of the source, or up to the brace that closes an inline module.
    fn read_module(&mut self, module: usize) {
        let mut depth = 0;
        while self.at < self.tokens.len() {
            let word = self.text(self.at);
            let next = self.text(self.at + 1);
            match word {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" if depth == 0 => return,
                "}" | ")" | "]" => depth -= 1,
                "mod" if self.text(self.at + 2) == "{" => {
                    let mut inline = self.modules[module].inline.clone();
                    inline.push(next.to_owned());
                    self.modules[module].children.insert(next.to_owned());
                    self.modules.push(ModuleSource { inline, ..ModuleSource::default() });
                    self.at += 3;
                    self.read_module(self.modules.len() - 1);
                }
                "mod" if self.text(self.at + 2) == ";" => {
                    self.modules[module].children.insert(next.to_owned());
                    self.at += 1;
                }
                "use" if is_name(next) || ["{", "::"].contains(&next) => {
                    let visibility = match self.before(self.at) {
                        "pub" => Visibility::Public,
                        ")" => Visibility::Restricted,
                        _ => Visibility::Private,
                    };
                    self.at += 1;
                    self.read_use(module, Vec::new(), visibility);
                    continue;
                }
                "macro_rules" if next == "!" => {
                    let name = self.text(self.at + 2);
                    self.modules[module].items.insert(name.to_owned());
                    self.at += 2;
                }
                word if depth == 0 && is_item_keyword(word) && is_name(next) && !is_item_keyword(next) => {
                    self.modules[module].items.insert(next.to_owned());
                    self.at += 1;
                }
                word if is_name(word) && ![".", "::", "fn"].contains(&self.before(self.at)) => {
                    self.read_path(module);
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    /// Reads a path in code. A single name counts if it can be that of a type or of a called function.
    fn read_path(&mut self, module: usize) {
        let line = self.tokens[self.at].line;
        let mut path = vec![self.text(self.at).to_owned()];
        self.at += 1;
        while self.text(self.at) == "::" && is_name(self.text(self.at + 1)) {
            path.push(self.text(self.at + 1).to_owned());
            self.at += 2;
        }
        let is_called = ["(", "!"].contains(&self.text(self.at));
        if path.len() > 1 || is_called || path[0].starts_with(char::is_uppercase) {
            self.modules[module].paths.push(CodePath { line, path });
        }
    }

    /// Reads one tree of a `use` declaration, whose path begins with `path`.
    fn read_use(&mut self, module: usize, mut path: Vec<String>, visibility: Visibility) {
        let line = self.tokens.get(self.at).map_or(0, |token| token.line);
        let mut name = None;
        loop {
            let word = self.text(self.at);
            match word {
                "{" => {
                    self.at += 1;
                    while !["}", ""].contains(&self.text(self.at)) {
                        self.read_use(module, path.clone(), visibility);
                        self.at += usize::from(self.text(self.at) == ",");
                    }
                    self.at += 1;
                    return;
                }
                // A path that begins with `::` is one of another crate.
                "::" if path.is_empty() => path.push(String::new()),
                "::" => {}
                "*" => name = Some("*".to_owned()),
                "as" => {
                    name = Some(self.text(self.at + 1).to_owned());
                    self.at += 1;
                }
                // At the end of a path, `self` is the module before it.
                "self" if !path.is_empty() => {}
                word if is_name(word) => path.push(word.to_owned()),
                _ => break,
            }
            self.at += 1;
        }
        let name = name.or_else(|| path.last().cloned()).unwrap_or_default();
        self.modules[module].uses.push(Use { line, path, name, visibility });
        // Whatever cannot be part of a tree is skipped, so that reading goes on.
        if ![",", "}", ";"].contains(&self.text(self.at)) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Visibility::{Private, Public, Restricted};
    use super::*;

    /// The path, the name, and where it can be used.
    type FoundUse<'a> = (&'a str, &'a str, Visibility);
    type Uses<'a> = &'a [FoundUse<'a>];

    fn uses(source: &str) -> Vec<(String, String, Visibility)> {
        let module = modules(source).swap_remove(0);
        module.uses.into_iter().map(|one| (one.path.join("::"), one.name, one.visibility)).collect()
    }

    fn paths(source: &str) -> Vec<(usize, String)> {
        let module = modules(source).swap_remove(0);
        module.paths.into_iter().map(|found| (found.line, found.path.join("::"))).collect()
    }

    #[test]
    fn imports_are_found_with_the_names_they_bind() {
        let cases: &[(&str, Uses<'_>)] = &[
            ("use a::B;", &[("a::B", "B", Private)]),
            ("pub use a::B;", &[("a::B", "B", Public)]),
            ("pub(in crate::x) use a::B as C;", &[("a::B", "C", Restricted)]),
            (
                "use a::{self, b::{C, D as E}, f};",
                &[("a", "a", Private), ("a::b::C", "C", Private), ("a::b::D", "E", Private), ("a::f", "f", Private)],
            ),
            ("use super::super::A;", &[("super::super::A", "A", Private)]),
            ("use self::a::*;", &[("self::a", "*", Private)]),
            ("use ::http::A;", &[("::http::A", "A", Private)]),
            ("#[cfg(test)]\nuse a::{B, C};\nuse d::E;", &[("d::E", "E", Private)]),
            ("fn f() { use a::B; }", &[("a::B", "B", Private)]),
        ];
        for (source, expected) in cases {
            let found = uses(source);
            let found: Vec<FoundUse<'_>> =
                found.iter().map(|(path, name, visibility)| (path.as_str(), name.as_str(), *visibility)).collect();
            assert_eq!(found, *expected, "{source}");
        }
    }

    #[test]
    fn paths_and_single_names_in_code_are_found() {
        let cases: &[(&str, &[(usize, &str)])] = &[
            ("fn f() {\n crate::a::b::<T>() }", &[(2, "crate::a::b"), (2, "T")]),
            ("fn f(x: super::A) -> B {\n x.c::<u8>(); d(); e }", &[(1, "super::A"), (1, "B"), (2, "d")]),
            ("fn f() { ::http::a() }", &[]),
            ("macro_rules! m { () => { $crate::a!() } }", &[(1, "crate::a")]),
            ("#[cfg(test)]\nfn f<A, B>(x: crate::a::C) { crate::b() }\nfn g() { h() }", &[(3, "h")]),
            ("struct S {\n#[cfg(test)]\nx: crate::a::B,\ny: crate::c::D }", &[(4, "crate::c::D")]),
            ("#[cfg(test)]\nconst A: [u8; 1] = crate::b([1]);\nfn g() { h() }", &[(3, "h")]),
            ("fn f() {\n#[cfg(any(test, fuzzing))]\nlet a = { crate::b() };\nc() }", &[(4, "c")]),
            ("#[cfg(not(test))]\nfn f() { g() }", &[(2, "g")]),
        ];
        for (source, expected) in cases {
            let found = paths(source);
            let found: Vec<(usize, &str)> = found
                .iter()
                .map(|(line, path)| (*line, path.as_str()))
                .filter(|(_, path)| !["cfg", "any", "not", "u8"].contains(path))
                .collect();
            assert_eq!(found, *expected, "{source}");
        }
    }

    #[test]
    fn children_and_items_are_those_of_production_code() {
        let source = "mod a;\npub(crate) mod b;\n#[cfg(test)]\nmod tests;\nstruct C;\nconst fn d() { fn e() {} }\n\
                      impl C { fn f() {} }\nmacro_rules! g { () => {} }\nmod h { pub use super::C; struct I; }\nenum J {}";
        let modules = modules(source);
        assert_eq!(Vec::from_iter(&modules[0].children), ["a", "b", "h"]);
        assert_eq!(Vec::from_iter(&modules[0].items), ["C", "J", "d", "g"]);
        assert_eq!(modules[1].inline, ["h"]);
        assert_eq!(Vec::from_iter(&modules[1].items), ["I"]);
        assert_eq!(modules[1].uses[0].path, ["super", "C"]);
    }
}
