//! What the name of a function stands for: a parameter, a definition, a function of the library, or a built-in one.

use super::builtins::Builtin;
use super::library;
use super::parse::{NamedFunction, ParsedTerm, Parser};
use super::program::{Literal, RegexFunction, Term};
use super::tokens::{SyntaxError, tokens};

impl Parser<'_> {
    pub(super) fn call(&mut self, name: &str, arguments: Vec<Term>) -> ParsedTerm<Term> {
        let arity = arguments.len();
        let defined =
            self.names.functions.iter().rev().find(|function| function.name == name && function.arity == arity);
        if let Some(NamedFunction { id, is_parameter, .. }) = defined {
            return Ok(if *is_parameter { Term::Closure(*id) } else { Term::Call(*id, arguments) });
        }
        if let Some(regex) = regex_function(name, arity) {
            return regex_call(name, regex, arguments);
        }
        if let Some(builtin) = Builtin::named(name, arity) {
            return Ok(Term::Builtin(builtin, arguments));
        }
        if let Some(source) = library::source(name, arity) {
            return Ok(Term::Library(self.library_position(name, arity, source)?, arguments));
        }
        let reason = match name {
            "input" | "inputs" | "debug" | "stderr" | "input_filename" | "input_line_number" | "env" | "halt"
            | "halt_error" | "get_search_list" | "builtins" | "now" | "localtime" | "strflocaltime" => {
                "is not available to programs of a gateway"
            }
            _ => "is not a function that Portico has",
        };
        Err(SyntaxError::new(format!("{name}/{arity} {reason}")))
    }

    fn library_position(&mut self, name: &str, arity: usize, source: &str) -> ParsedTerm<usize> {
        let key = (name.to_owned(), arity);
        if let Some(position) = self.names.library_positions.get(&key) {
            return Ok(*position);
        }
        let position = self.names.library.len();
        self.names.library.push(None);
        self.names.library_positions.insert(key, position);
        // Functions of the library see nothing of the program.
        let variables = std::mem::take(&mut self.names.variables);
        let functions = std::mem::take(&mut self.names.functions);
        let labels = std::mem::take(&mut self.names.labels);
        let mut parser = Parser::new(tokens(source)?, self.names, 0);
        let function = parser.definition();
        (self.names.variables, self.names.functions, self.names.labels) = (variables, functions, labels);
        self.names.library[position] = Some(function?);
        Ok(position)
    }
}

fn regex_function(name: &str, arity: usize) -> Option<RegexFunction> {
    Some(match (name, arity) {
        ("test", 1 | 2) => RegexFunction::Test,
        ("match", 1 | 2) => RegexFunction::Match,
        ("capture", 1 | 2) => RegexFunction::Capture,
        ("scan", 1 | 2) => RegexFunction::Scan,
        ("splits", 1 | 2) | ("split", 2) => RegexFunction::Split,
        ("sub" | "gsub", 2 | 3) => RegexFunction::Substitute,
        _ => return None,
    })
}

fn regex_call(name: &str, function: RegexFunction, arguments: Vec<Term>) -> ParsedTerm<Term> {
    let mut arguments = arguments.into_iter();
    let literal = |term: Option<Term>| match term {
        Some(Term::Literal(Literal::Text(text))) => Some(text.into_string()),
        _ => None,
    };
    let pattern = literal(arguments.next())
        .ok_or_else(|| SyntaxError::new(format!("the pattern of {name} must be a string without interpolation")))?;
    let replacement = if function == RegexFunction::Substitute { arguments.next() } else { None };
    let flags = match arguments.next() {
        None | Some(Term::Literal(Literal::Null)) => String::new(),
        flags => literal(flags)
            .ok_or_else(|| SyntaxError::new(format!("the flags of {name} must be a string without interpolation")))?,
    };
    let mut builder = regex::RegexBuilder::new(&pattern);
    builder.size_limit(MAX_REGEX_BYTES).dfa_size_limit(MAX_REGEX_BYTES);
    let mut is_global = name == "gsub" || matches!(function, RegexFunction::Scan | RegexFunction::Split);
    for flag in flags.chars() {
        match flag {
            'g' => is_global = true,
            'i' => _ = builder.case_insensitive(true),
            'x' => _ = builder.ignore_whitespace(true),
            's' => _ = builder.dot_matches_new_line(true),
            'n' => {}
            _ => return Err(SyntaxError::new(format!("{name} has no flag {flag}"))),
        }
    }
    let regex = builder.build().map_err(|error| {
        SyntaxError::new(format!(
            "the pattern of {name} is not valid: {}",
            crate::plugin_api::regex_error_message(&error)
        ))
    })?;
    // `split` with flags gives a list.
    let term = Term::Regex(function, Box::new(regex), is_global, replacement.map(Box::new));
    Ok(if name == "split" { Term::List(Some(Box::new(term))) } else { term })
}

/// The size of one compiled pattern.
const MAX_REGEX_BYTES: usize = 256 << 10;
