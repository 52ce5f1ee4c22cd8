//! The directives of a snippet with their blocks, as they are written.

use super::lexer::{SnippetLexer, SnippetTokenKind};
use super::refusal::{DirectiveRefusal, RefusedSnippet};
use super::remedies;

/// A directive with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WrittenDirective {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) arguments: Vec<String>,
    pub(super) block: Option<Vec<WrittenDirective>>,
}

impl WrittenDirective {
    /// The arguments, if their number is right and there is no block.
    pub(super) fn exactly<const N: usize>(&self) -> Result<[&str; N], DirectiveRefusal> {
        self.without_block()?;
        let mut arguments = [""; N];
        if self.arguments.len() != N {
            let plural = if N == 1 { "argument" } else { "arguments" };
            return Err(DirectiveRefusal::invalid(format!("takes {N} {plural}, not {}", self.arguments.len())));
        }
        for (argument, text) in arguments.iter_mut().zip(&self.arguments) {
            *argument = text;
        }
        Ok(arguments)
    }

    /// The arguments, of which there has to be one, if there is no block.
    pub(super) fn some_arguments(&self) -> Result<&[String], DirectiveRefusal> {
        self.without_block()?;
        match self.arguments.is_empty() {
            true => Err(DirectiveRefusal::invalid("has no argument")),
            false => Ok(&self.arguments),
        }
    }

    fn without_block(&self) -> Result<(), DirectiveRefusal> {
        match self.block {
            Some(_) => Err(DirectiveRefusal::invalid("takes no block")),
            None => Ok(()),
        }
    }

    pub(super) fn inner(&self) -> Result<&[WrittenDirective], DirectiveRefusal> {
        self.block.as_deref().ok_or_else(|| DirectiveRefusal::invalid("has no block"))
    }

    /// The refusal of this directive, in a snippet that restricts access or not.
    pub(super) fn refuse(&self, refusal: DirectiveRefusal, restricts: bool) -> RefusedSnippet {
        refusal.at(self.line, &self.name, restricts)
    }
}

/// Reads the directives of a text. If it cannot be read, it is not known what its rest contains, so that it counts as
/// one that restricts access.
pub(super) fn read(text: &str) -> Result<Vec<WrittenDirective>, RefusedSnippet> {
    if text.len() > MAX_BYTES {
        let message = format!("is longer than {} KiB", MAX_BYTES >> 10);
        return Err(DirectiveRefusal::new(message, "split it, or use annotations and plugins").at(1, "", true));
    }
    let mut reader = TreeReader { lexer: SnippetLexer::new(text), directives: 0 };
    reader.block(&[])
}

struct TreeReader<'t> {
    lexer: SnippetLexer<'t>,
    /// How many have been read.
    directives: usize,
}

impl TreeReader<'_> {
    /// The directives up to the end of a block. `opened`: the names of its directive and of those around it, with their
    /// lines.
    fn block(&mut self, opened: &[(String, usize)]) -> Result<Vec<WrittenDirective>, RefusedSnippet> {
        let mut directives = Vec::new();
        while let Some(mut directive) = self.words(opened)? {
            if directive.block.is_some() {
                let mut opened = opened.to_vec();
                opened.push((directive.name.clone(), directive.line));
                if opened.len() > MAX_DEPTH {
                    let refusal = DirectiveRefusal::new("is nested too deep", "use fewer blocks");
                    return Err(directive.refuse(refusal, true));
                }
                directive.block = Some(self.block(&opened)?);
            }
            directives.push(directive);
        }
        Ok(directives)
    }

    /// A directive without the content of its block. `None` at the end of the block around it.
    fn words(&mut self, opened: &[(String, usize)]) -> Result<Option<WrittenDirective>, RefusedSnippet> {
        let mut words: Vec<String> = Vec::new();
        let mut first_line = self.lexer.line();
        loop {
            let name = words.first().cloned().unwrap_or_default();
            let refuse = |line, message: &str| Err(DirectiveRefusal::invalid(message).at(line, &name, true));
            let token = match self.lexer.next() {
                Ok(token) => token,
                Err(refusal) => return Err(refusal.at(self.lexer.line(), &name, true)),
            };
            let Some(token) = token else {
                return match opened.last() {
                    _ if !words.is_empty() => refuse(first_line, "has no semicolon at its end"),
                    Some((name, line)) => {
                        Err(DirectiveRefusal::invalid("has a block without an end").at(*line, name, true))
                    }
                    None => Ok(None),
                };
            };
            let has_block = match token.kind {
                SnippetTokenKind::Word(word) => {
                    if words.is_empty() {
                        first_line = token.line;
                    }
                    words.push(word);
                    continue;
                }
                SnippetTokenKind::ClosingBrace if !words.is_empty() => {
                    return refuse(first_line, "has no semicolon at its end");
                }
                SnippetTokenKind::ClosingBrace if opened.is_empty() => {
                    return refuse(token.line, "has a closing brace without a block");
                }
                SnippetTokenKind::ClosingBrace => return Ok(None),
                _ if words.is_empty() => return refuse(token.line, "has a semicolon or a brace without a directive"),
                SnippetTokenKind::Semicolon => false,
                SnippetTokenKind::OpeningBrace => true,
            };
            // Code in another language, which has other quotes and braces.
            if name.ends_with("_block") {
                return Err(remedies::unsupported(&name).at(first_line, &name, true));
            }
            self.directives += 1;
            if self.directives > MAX_DIRECTIVES {
                let message =
                    format!("is the {}th directive, and a snippet may have {MAX_DIRECTIVES}", self.directives);
                let refusal = DirectiveRefusal::new(message, "use annotations or plugins for a part of them");
                return Err(refusal.at(first_line, &name, true));
            }
            let arguments = words.into_iter().skip(1).collect();
            return Ok(Some(WrittenDirective { name, line: first_line, arguments, block: has_block.then(Vec::new) }));
        }
    }
}

const MAX_BYTES: usize = 8 << 10;
const MAX_DIRECTIVES: usize = 64;
/// `location`, and `if` or `limit_except` in it; one more, so that what is nested wrongly is refused by name.
const MAX_DEPTH: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_directives() {
        let read = read("a b;\nlocation /c {\n  if ($d) { e; }\n  f 'g h';\n}").unwrap();
        let [first, location] = &read[..] else { panic!("{read:?}") };
        assert_eq!((&first.name[..], first.line, first.block.is_none()), ("a", 1, true));
        assert_eq!((location.line, &location.arguments[..]), (2, &["/c".to_owned()][..]));
        let [condition, last] = location.inner().unwrap() else { panic!("{location:?}") };
        assert_eq!((&condition.inner().unwrap()[0].name[..], last.line), ("e", 4));
        assert_eq!(last.exactly(), Ok(["g h"]));
    }

    #[test]
    fn errors_have_lines() {
        for (text, line, directive) in [
            ("a b", 1, "a"),
            ("a;\nb c\n}", 2, "b"),
            ("a;\n}", 2, ""),
            ("a;\n\nif (b) {\n c;", 3, "if"),
            (";", 1, ""),
            ("\n{", 2, ""),
            ("a\n'b", 2, "a"),
            ("a {\nb {\nc {\nd { e; } } } }", 4, "d"),
            ("\naccess_by_lua_block { it's } }", 2, "access_by_lua_block"),
        ] {
            let refused = read(text).unwrap_err();
            assert_eq!((refused.line, &refused.directive[..], refused.restricts), (line, directive, true), "{text}");
        }
        assert!(read(&"a;".repeat(64)).is_ok());
        assert_eq!(read(&"a;\n".repeat(65)).unwrap_err().line, 65);
        assert_eq!(read(&" ".repeat((8 << 10) + 1)).unwrap_err().directive, "");
    }
}
