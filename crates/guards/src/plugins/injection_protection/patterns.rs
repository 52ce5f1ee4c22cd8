//! The expressions for attacks, and the automata that search for those of one kind.
//!
//! The automata are deterministic and built before the first request: a search takes one step for each byte and
//! automaton, whatever the expressions and the text are.

use std::sync::OnceLock;

use regex_automata::dfa::dense::{BuildError, Builder, Config, DFA};
use regex_automata::dfa::{Automaton, StartKind};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A kind of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum InjectionType {
    /// SQL, also such that plain English can look like it.
    Sql,
    /// SQL that plain English does not look like.
    SqlLowSensitivity,
    /// JavaScript in HTML.
    Js,
    /// Server-side includes.
    Ssi,
    /// The short syntax of XPath, such as `//user[1]/@name`.
    XpathAbbreviated,
    /// The axes of XPath, such as `ancestor::`.
    XpathExtended,
    /// Stack traces and names of exceptions of Java.
    JavaException,
}

impl InjectionType {
    pub(super) fn name(self) -> &'static str {
        match self {
            InjectionType::Sql => "sql",
            InjectionType::SqlLowSensitivity => "sql_low_sensitivity",
            InjectionType::Js => "js",
            InjectionType::Ssi => "ssi",
            InjectionType::XpathAbbreviated => "xpath_abbreviated",
            InjectionType::XpathExtended => "xpath_extended",
            InjectionType::JavaException => "java_exception",
        }
    }

    fn expressions(self) -> Vec<&'static str> {
        match self {
            InjectionType::Sql => [SQL, SQL_IN_PROSE].concat(),
            InjectionType::SqlLowSensitivity => SQL.to_vec(),
            InjectionType::Js => JS.to_vec(),
            InjectionType::Ssi => SSI.to_vec(),
            InjectionType::XpathAbbreviated => XPATH.to_vec(),
            InjectionType::XpathExtended => XPATH_AXES.to_vec(),
            InjectionType::JavaException => JAVA.to_vec(),
        }
    }

    /// The automaton of the kind, which all plugins share.
    pub(super) fn matcher(self) -> &'static Matcher {
        static MATCHERS: [OnceLock<Matcher>; 7] = [const { OnceLock::new() }; 7];
        MATCHERS[self as usize].get_or_init(|| {
            let expressions = self.expressions().into_iter().map(|expression| format!("(?i){expression}"));
            let expressions: Vec<_> = expressions.collect();
            Matcher::compile(&expressions).expect("the expressions of this file are small, and tests compile them")
        })
    }
}

/// Statements, and conditions that are always true.
const SQL: &[&str] = &[
    r"\bunion\b[\s(/*+]+(?:(?:all|distinct)\b[\s(/*+]+)?select\b",
    r"'\s*\)?\s*(?:or|and|\|\||&&)\s*\(?\s*(?:'[^']*'|[0-9]+|[a-z_]+)\s*(?:=|<|>|!=|\b(?:like|is|in|between)\b)",
    r"'\s*(?:or|and)\s+(?:not\s+)?(?:true|false|exists\b|sleep\b|benchmark\b)",
    r#"["'0-9)]\s*\b(?:or|and)\b\s*\(?\s*(?:["'][^"']*["']|[0-9]+)\s*(?:=|<|>|!=)\s*\(?\s*["'0-9]"#,
    r"'\s*\)?\s*;?\s*(?:--|#|/\*)",
    r"'\s*\)?\s*;\s*(?:select|insert|update|delete|drop|alter|create|truncate|exec|declare|grant|revoke|shutdown)\b",
    r"\b(?:drop|truncate|alter)\s+(?:table|database|schema|view|procedure|function|trigger)\s+[a-z_\[`'\x22]",
    r"\binsert\s+into\s+[^\s]+\s*(?:\([^)]*\)\s*)?(?:values\b|select\b)",
    r"\bdelete\s+from\s+[^\s]+\s+where\b",
    r"\bupdate\s+[^\s]+\s+set\s+[^\s=]+\s*=",
    r"\bexec(?:ute)?\b[\s(]+(?:xp_|sp_|immediate\b|master\b)",
    r"\b(?:xp_cmdshell|sp_executesql|openrowset|opendatasource)\b",
    r"\binto\s+(?:out|dump)file\b",
    r"\bload_file\s*\(",
    r"\b(?:pg_sleep|benchmark|dbms_pipe\.receive_message|dbms_lock\.sleep|extractvalue|updatexml)\s*\(",
    r"\bsleep\s*\(\s*[0-9]+",
    r"\bwaitfor\s+(?:delay|time)\s*'",
    r"\b(?:information_schema\.|sysobjects\b|pg_catalog\.|sqlite_master\b)",
];

/// What can also be a sentence.
const SQL_IN_PROSE: &[&str] = &[
    r"\bselect\b[^;]*\bfrom\b",
    r"\b(?:delete\s+from|insert\s+into|drop\s+table|alter\s+table|create\s+table)\b",
    r"\bor\b\s*\(?\s*[0-9a-z_'\x22]+\s*=\s*[0-9a-z_'\x22]+",
    r"'\s*(?:or|and|union|having|like|between|group\s+by|order\s+by)\b",
    r";\s*(?:select|insert|update|delete|drop|alter|create|truncate|exec|declare|grant|revoke|shutdown)\b",
    r"@@version\b",
];

const JS: &[&str] = &[
    r"<\s*/?\s*script\b",
    r"\b(?:java|vb)script\s*:",
    r"\bdata\s*:\s*text/html\b",
    r"<\s*[a-z][^>]*[\s/'\x22]on[a-z]+\s*=",
    r"<\s*(?:iframe|object|embed|applet)\b",
    r"<\s*[a-z][^>]*\bsrcdoc\s*=",
];

const SSI: &[&str] = &[r"<!--\s*#\s*(?:config|echo|elif|else|endif|exec|flastmod|fsize|if|include|printenv|set)\b"];

const XPATH: &[&str] = &[
    r"(?:^|[^:/])//(?:\*|@|[a-z_][a-z0-9_:-]*\s*(?:\[|/@))",
    r"/@(?:\*|[a-z_])",
    r"[a-z0-9_*)]\s*\[\s*(?:@|position\s*\(|last\s*\(|contains\s*\(|starts-with\s*\(|text\s*\()",
    r"\[\s*[a-z_][a-z0-9_:-]*(?:\(\))?\s*(?:=|!=|<|>)\s*['0-9]",
    r"\]\s*/(?:\*|@|[a-z_])",
    r"'\s*\]\s*(?:\||/)",
    r"\|\s*//",
];

const XPATH_AXES: &[&str] = &[
    r"\b(?:ancestor|descendant)(?:-or-self)?\s*::\s*(?:\*|[a-z_])",
    r"\b(?:following|preceding)(?:-sibling)?\s*::\s*(?:\*|[a-z_])",
    r"\b(?:attribute|child|namespace|parent|self)\s*::\s*(?:\*|[a-z_])",
];

const JAVA: &[&str] = &[
    r"\bexception\s+in\s+thread\b",
    r"\bat\s+[a-z_$][a-z0-9_$]*(?:\.[a-z0-9_$<>]+)+\([a-z0-9_$]+\.java:[0-9]+\)",
    r"\b(?:java|javax|jakarta|kotlin|scala|org\.[a-z]+|com\.[a-z]+)\.[a-z0-9_.$]*(?:exception|error)\b",
    r"\bcaused\s+by\s*:\s*[a-z0-9_.$]*exception\b",
];

/// Searches for several expressions, for as many at once as fit into one automaton.
#[derive(Debug)]
pub(super) struct Matcher(Vec<DFA<Vec<u32>>>);

/// Memory limits of one automaton in bytes, while it is built and afterwards.
const MAX_BUILD_BYTES: usize = 1 << 20;
const MAX_BYTES: usize = 256 << 10;

impl Matcher {
    /// Fails if an expression is invalid, or needs an automaton that is too large. Classes contain ASCII only.
    pub(super) fn compile<P: AsRef<str>>(expressions: &[P]) -> Result<Matcher, Box<BuildError>> {
        let mut automata = Vec::new();
        add_automata(expressions, &mut automata)?;
        Ok(Matcher(automata))
    }

    /// A search that fails counts as a match; with this configuration, none does.
    pub(super) fn is_match(&self, text: &[u8]) -> bool {
        let input = Input::new(text).earliest(true);
        self.0.iter().any(|automaton| !matches!(automaton.try_search_fwd(&input), Ok(None)))
    }
}

/// Builds an automaton of the expressions, or one of each half if it would be too large.
fn add_automata<P: AsRef<str>>(expressions: &[P], automata: &mut Vec<DFA<Vec<u32>>>) -> Result<(), Box<BuildError>> {
    match build(expressions) {
        Ok(automaton) => automata.push(automaton),
        Err(error) if expressions.len() < 2 || !error.is_size_limit_exceeded() => return Err(error),
        Err(_) => {
            let (first, second) = expressions.split_at(expressions.len() / 2);
            add_automata(first, automata)?;
            add_automata(second, automata)?;
        }
    }
    Ok(())
}

fn build<P: AsRef<str>>(expressions: &[P]) -> Result<DFA<Vec<u32>>, Box<BuildError>> {
    let config = Config::new()
        .start_kind(StartKind::Unanchored)
        .match_kind(MatchKind::LeftmostFirst)
        .determinize_size_limit(Some(MAX_BUILD_BYTES))
        .dfa_size_limit(Some(MAX_BYTES));
    let automaton = thompson::Config::new().utf8(false).nfa_size_limit(Some(1 << 20));
    let syntax = syntax::Config::new().unicode(false).utf8(false);
    Builder::new().configure(config).thompson(automaton).syntax(syntax).build_many(expressions).map_err(Box::new)
}
