//! Reads what production code of a file makes public: its `pub` items, and the names of types in their signatures.

use std::collections::BTreeSet;

use crate::module_source::{Visibility, closing, is_item_keyword, is_name, modules_in, production_tokens};
use crate::tokens::Token;

#[derive(Debug, Default)]
pub(crate) struct Interface {
    pub(crate) items: Vec<PublicItem>,
    /// Types in signatures, fields, variants and `impl` blocks of other types: a type that only mentions itself is not
    /// here.
    pub(crate) mentioned: BTreeSet<String>,
    /// Names that other crates use without writing them: those in exported macros, and those of items that are exported
    /// under another name.
    pub(crate) implied: BTreeSet<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PublicItem {
    pub(crate) line: usize,
    pub(crate) name: String,
    /// Whether it is a type or a trait, or a re-export of what may be one.
    pub(crate) is_type: bool,
}

pub(crate) fn interface(source: &str) -> Interface {
    let tokens = production_tokens(source);
    let mut reader = Reader { tokens: &tokens, at: 0, owners: Vec::new(), interface: Interface::default() };
    reader.read();
    let mut interface = reader.interface;
    let uses = modules_in(&tokens).into_iter().flat_map(|module| module.uses);
    for reexport in uses.filter(|one| one.visibility == Visibility::Public && is_name(&one.name) && one.name != "_") {
        let is_type = is_type_name(&reexport.name);
        interface.implied.extend(reexport.path.into_iter().last().filter(|name| *name != reexport.name));
        interface.items.push(PublicItem { line: reexport.line, name: reexport.name, is_type });
    }
    interface
}

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
    /// The types whose bodies or `impl` blocks are around the position, each with the end of that block.
    owners: Vec<(usize, &'a str)>,
    interface: Interface,
}

impl<'a> Reader<'a> {
    fn text(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |token| token.text.as_str())
    }

    fn before(&self, at: usize) -> &'a str {
        at.checked_sub(1).map_or("", |at| self.text(at))
    }

    fn read(&mut self) {
        let mut is_exported_macro = false;
        while self.at < self.tokens.len() {
            while self.owners.pop_if(|(end, _)| *end <= self.at).is_some() {}
            let next = self.text(self.at + 1);
            match self.text(self.at) {
                "#" if next == "[" => {
                    let end = closing(self.tokens, self.at + 1);
                    is_exported_macro |= self.text(self.at + 2) == "macro_export";
                    self.at = end;
                }
                "macro_rules" if next == "!" => {
                    let end = closing(self.tokens, self.at + 3);
                    if is_exported_macro {
                        let names = self.tokens[self.at..end].iter().map(|token| &token.text);
                        self.interface.implied.extend(names.filter(|name| is_name(name)).cloned());
                        self.at = end;
                    }
                    is_exported_macro = false;
                }
                "impl" if self.begins_block() => {
                    self.read_impl();
                    continue;
                }
                // The type of a trait's implementation.
                "type" if !self.owners.is_empty() => self.mention(self.at + 2, self.find(self.at, &[";"])),
                "pub" if !self.is_restricted() => {
                    self.read_public();
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    /// Whether `pub` is followed by a part of the crate, and not by a type of a tuple.
    fn is_restricted(&self) -> bool {
        self.text(self.at + 1) == "(" && ["crate", "super", "self", "in"].contains(&self.text(self.at + 2))
    }

    /// Whether `impl` begins a block here, and not a type such as `impl Iterator`.
    fn begins_block(&self) -> bool {
        let before = self.before(self.at);
        let is_repeated = before == "(" && self.before(self.at - 1) == "$";
        is_repeated || ["", "}", ";", "{", "]", "unsafe"].contains(&before)
    }

    /// Reads up to the block, which is read like other code.
    fn read_impl(&mut self) {
        let generics = self.at + 1;
        let start = if self.text(generics) == "<" { self.find(generics + 1, &[">"]) } else { generics };
        let open = self.find(start, &["{"]);
        let split = self.find(start, &["for", "{"]);
        // In bounds, `for` declares lifetimes.
        let is_of_trait = self.text(split) == "for" && self.text(split + 1) != "<";
        let (implemented, owner) = if is_of_trait {
            (self.first_type(start, split), self.first_type(split, open))
        } else {
            ("", self.first_type(start, open))
        };
        self.owners.push((closing(self.tokens, open), owner));
        let already_mentioned = self.interface.mentioned.contains(implemented);
        self.mention(generics, open);
        // An implementation needs the trait only where a caller names it.
        if !already_mentioned {
            self.interface.mentioned.remove(implemented);
        }
        self.at = open + 1;
    }

    fn first_type(&self, start: usize, end: usize) -> &'a str {
        (start..end).map(|at| self.text(at)).find(|name| is_type_name(name)).unwrap_or_default()
    }

    /// Reads the item or the field after `pub`, up to what has to be read like other code.
    fn read_public(&mut self) {
        let mut keyword = self.at + 1;
        while ["async", "unsafe", "extern"].contains(&self.text(keyword))
            || (self.text(keyword) == "const" && !self.is_value(keyword))
        {
            keyword += 1;
        }
        let name = keyword + 1 + usize::from(self.text(keyword + 1) == "mut");
        let after = name + 1;
        let word = self.text(keyword);
        if word == "use" {
            self.at = after;
            return;
        }
        // A field may be called `union`, and a type may begin with `fn(`.
        if !is_item_keyword(word) || [":", "("].contains(&self.text(keyword + 1)) {
            // The fields of tuples have no names.
            let start = if self.text(keyword + 1) == ":" { keyword + 2 } else { keyword };
            let end = self.find(start, &[",", ")", "}", ";"]);
            self.mention(start, end);
            self.at = end;
            return;
        }
        let is_type = ["struct", "enum", "union", "trait", "type"].contains(&word);
        if is_name(self.text(name)) {
            let name = &self.tokens[name];
            self.interface.items.push(PublicItem { line: name.line, name: name.text.clone(), is_type });
        }
        self.at = after;
        match word {
            "fn" => self.read_to(after, &["{", ";"]),
            "const" | "static" => self.read_to(after, &["=", ";"]),
            "struct" | "union" | "enum" | "trait" | "type" => {
                self.owners.push((self.tokens.len(), self.text(name)));
                self.read_type(word, after);
            }
            _ => {}
        }
    }

    /// Whether `const` declares a constant, and does not belong to a function.
    fn is_value(&self, at: usize) -> bool {
        !["fn", "async", "unsafe", "extern"].contains(&self.text(at + 1))
    }

    fn read_to(&mut self, start: usize, ends: &[&str]) {
        self.at = self.find(start, ends);
        self.mention(start, self.at);
    }

    /// Reads a type from the position after its name. It is the owner of its fields.
    fn read_type(&mut self, word: &str, after: usize) {
        let generics_end = if self.text(after) == "<" { self.find(after + 1, &[">"]) + 1 } else { after };
        let is_tuple = self.text(generics_end) == "(";
        let open = if is_tuple { generics_end } else { self.find(after, &["{", ";"]) };
        self.mention(after, open);
        let end = if self.text(open) == ";" { open } else { closing(self.tokens, open) };
        if let Some((owner_end, _)) = self.owners.last_mut() {
            *owner_end = end;
        }
        match word {
            "enum" => self.mention(open, end),
            "trait" => {
                // Without the bodies of its functions.
                let mut at = open + 1;
                while at < end {
                    let body = self.find(at, &["{"]).min(end);
                    self.mention(at, body);
                    at = if body < end { closing(self.tokens, body) + 1 } else { end };
                }
            }
            _ => {
                self.at = open + 1;
                return;
            }
        }
        self.at = end;
    }

    /// The position of the first of these tokens that is not inside of brackets, including those of generics.
    fn find(&self, start: usize, ends: &[&str]) -> usize {
        let mut depth = 0_usize;
        for at in start..self.tokens.len() {
            let word = self.text(at);
            if word == ">" && self.before(at) == "-" {
                continue;
            }
            if depth == 0 && ends.contains(&word) {
                return at;
            }
            match word {
                "(" | "[" | "{" | "<" => depth += 1,
                ")" | "]" | "}" | ">" => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        self.tokens.len()
    }

    /// Adds the types that are named in a range of tokens, without attributes.
    fn mention(&mut self, start: usize, end: usize) {
        let owner = self.owners.last().map_or("", |(_, owner)| *owner);
        let mut at = start;
        while at < end {
            let word = self.text(at);
            if word == "#" && self.text(at + 1) == "[" {
                at = closing(self.tokens, at + 1);
            } else if is_type_name(word) && word != owner {
                self.interface.mentioned.insert(word.to_owned());
            }
            at += 1;
        }
    }
}

/// Constants have such names, too, but signatures hardly name them.
fn is_type_name(word: &str) -> bool {
    word.starts_with(char::is_uppercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_items_are_found_with_their_lines() {
        // Names of types end with `*`.
        let cases: &[(&str, &[&str])] = &[
            ("pub fn a() {}\npub(crate) fn b() {}\nfn c() {}", &["1 a"]),
            ("pub const fn a() {} pub async unsafe fn b() {} pub extern \"C\" fn c() {}", &["1 a", "1 b", "1 c"]),
            ("pub const A: u8 = 1;\npub static B: u8 = 1; pub static mut C: u8 = 1;", &["1 A", "2 B", "2 C"]),
            (
                "pub struct A;\npub enum B {} pub union C {} pub trait D {} pub type E = u8;",
                &["1 A*", "2 B*", "2 C*", "2 D*", "2 E*"],
            ),
            ("pub mod a;\npub mod b { pub fn c() {} mod d { pub fn e() {} } }", &["1 a", "2 b", "2 c", "2 e"]),
            ("impl A { pub fn b(&self) {}\nfn c(&self) {}\npub const D: u8 = 1; }", &["1 b", "3 D"]),
            ("pub struct A { pub b: u8,\npub(crate) c: u8 } pub struct D(pub u8);", &["1 A*", "2 D*"]),
            ("pub trait A { fn b(); fn c() { d() } }\npub fn e() {}", &["1 A*", "2 e"]),
            ("#[cfg(test)]\npub fn a() {}\n#[cfg(test)] mod tests { pub fn b() {} }\npub fn c() {}", &["4 c"]),
            (
                "pub use a::B;\npub use c::{d, E as F}; pub use g::*; pub(crate) use h::I; use j::K;",
                &["1 B*", "2 d", "2 F*"],
            ),
            ("macro_rules! a { ($b:ident) => { pub struct $b; pub struct C { pub $b: u8 } } }", &["1 C*"]),
            ("#[macro_export]\nmacro_rules! a { () => { pub struct B; } }", &[]),
            ("// pub fn a() {}\nconst A: &str = \"pub fn b() {}\";", &[]),
        ];
        for (source, expected) in cases {
            let items = interface(source).items;
            let found =
                items.iter().map(|item| format!("{} {}{}", item.line, item.name, if item.is_type { "*" } else { "" }));
            assert_eq!(Vec::from_iter(found), *expected, "{source}");
        }
    }

    #[test]
    fn types_in_public_signatures_are_mentioned() {
        let cases: &[(&str, &[&str])] = &[
            ("pub fn a<T: B>(c: &[C]) -> Option<d::D> where T: E { F::g() }", &["B", "C", "D", "E", "Option", "T"]),
            ("fn a(b: B) {} pub(crate) fn c(d: D) {}", &[]),
            ("pub const A: B<C = D> = E; pub static F: G = H;", &["B", "C", "D", "G"]),
            ("pub type A = B<C>; type D = E;", &["B", "C"]),
            ("pub struct A<T: B> { pub c: Map<C, D>, e: E, #[f(F)] pub g: G }", &["B", "C", "D", "G", "Map", "T"]),
            ("pub struct A<F: Fn(B) -> C>(pub D, E) where F: G; fn h(i: I) {}", &["B", "C", "D", "F", "Fn"]),
            ("pub struct A where B: C { pub d: fn(D) -> E }", &["B", "C", "D", "E"]),
            ("pub struct A(pub (B, u8), pub(crate) C, pub fn(D)); fn e(f: F) {}", &["B", "D"]),
            ("pub struct A { pub union: B, pub r#type: C }", &["B", "C"]),
            ("pub enum A { B(#[from] C), #[serde(D)] E { f: F }, G = 1 }", &["B", "C", "E", "F", "G"]),
            (
                "pub trait A<T>: B { type C: D; fn e(f: F) -> G { H::i() } fn j(k: K); }",
                &["B", "C", "D", "F", "G", "K", "T"],
            ),
            ("impl A { pub fn b(c: C) -> D {} fn e(f: F) {} }", &["C", "D"]),
            ("pub fn a(b: impl B) -> impl C { d(|e: E| e) }", &["B", "C"]),
            // Itself.
            ("pub struct A { pub b: Box<A> } impl A { pub fn c() -> A {} }", &["Box"]),
            ("pub struct A(pub Option<A>); pub enum B { C(B) }", &["C", "Option"]),
            ("impl A { pub fn a() -> A {} } impl B { pub fn b() -> A {} }", &["A"]),
            // Of another type.
            ("impl From<A> for B { fn from(a: A) -> B {} }", &["A"]),
            ("impl<T: A> b::B<C> for d::D<T> where T: E {}", &["A", "C", "E", "T"]),
            ("impl<F> A<F> where F: for<'a> Fn(&'a B) -> A<C> {}", &["B", "C", "F", "Fn"]),
            ("impl Iterator for A { type Item = B; fn next() { C } }", &["B"]),
            ("impl A for B {} pub fn c(a: A) {}", &["A"]),
            ("pub fn c(a: A) {} impl A for B {}", &["A"]),
        ];
        for (source, expected) in cases {
            assert_eq!(Vec::from_iter(interface(source).mentioned), *expected, "{source}");
        }
    }

    #[test]
    fn exported_macros_and_other_names_imply_items() {
        let cases: &[(&str, &[&str])] = &[
            ("#[macro_export]\nmacro_rules! a { () => { $crate::b::C } }", &["C", "a", "b", "crate", "macro_rules"]),
            ("#[macro_export]\n#[doc(hidden)]\nmacro_rules! a { () => {} }", &["a", "macro_rules"]),
            ("macro_rules! a { () => { b() } } #[inline] fn c() {}", &[]),
            ("pub use a::B as C; pub use d::E;", &["B"]),
        ];
        for (source, expected) in cases {
            assert_eq!(Vec::from_iter(interface(source).implied), *expected, "{source}");
        }
    }
}
