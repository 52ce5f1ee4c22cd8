//! Parses programs, and resolves their variables, functions and labels. What is not supported is refused here, with the
//! name of the construct.

mod structures;

use std::collections::HashMap;

use super::format::TextFormat;
use super::operators::BinaryOperator;
use super::program::{BindingPattern, Function, JqProgram, Literal, Term, TextPiece};
use super::tokens::{SyntaxError, TextToken, Token, tokens};

pub(super) type ParsedTerm<T> = Result<T, SyntaxError>;

/// The longest source of a program.
const MAX_SOURCE: usize = 16 << 10;

/// The most terms within one another, which the parser and the evaluation visit by recursion.
const MAX_NESTING: usize = 64;

impl JqProgram {
    /// The program with this source, or why it is refused.
    pub(crate) fn parse(source: &str) -> Result<JqProgram, SyntaxError> {
        if source.len() > MAX_SOURCE {
            return Err(SyntaxError::new("the program is longer than 16 KiB"));
        }
        let mut names = ScopeNames::default();
        let main = Parser::new(tokens(source)?, &mut names, 0).whole()?;
        let library =
            names.library.into_iter().map(|function| function.expect("a function is parsed where it is used"));
        Ok(JqProgram { main, library: library.collect() })
    }
}

/// What names stand for at the current place of the program.
#[derive(Default)]
pub(super) struct ScopeNames {
    pub(super) next_id: u32,
    pub(super) variables: Vec<(String, u32)>,
    pub(super) labels: Vec<(String, u32)>,
    pub(super) functions: Vec<NamedFunction>,
    pub(super) library: Vec<Option<Function>>,
    pub(super) library_positions: HashMap<(String, usize), usize>,
}

pub(super) struct NamedFunction {
    pub(super) name: String,
    pub(super) arity: usize,
    pub(super) id: u32,
    pub(super) is_parameter: bool,
}

impl ScopeNames {
    fn new_id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }

    fn bind(&mut self, name: String) -> u32 {
        let id = self.new_id();
        self.variables.push((name, id));
        id
    }
}

pub(super) struct Parser<'n> {
    tokens: Vec<Token>,
    position: usize,
    pub(super) names: &'n mut ScopeNames,
    depth: usize,
}

impl<'n> Parser<'n> {
    pub(super) fn new(tokens: Vec<Token>, names: &'n mut ScopeNames, depth: usize) -> Self {
        Parser { tokens, position: 0, names, depth }
    }

    fn whole(mut self) -> ParsedTerm<Term> {
        let term = if self.tokens.is_empty() { Term::Identity } else { self.pipe()? };
        match self.peek() {
            None => Ok(term),
            Some(token) => Err(SyntaxError::new(format!("{} is not expected", described(token)))),
        }
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.position)
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        matches!(self.peek(), Some(Token::Symbol(found)) if *found == symbol)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Some(Token::Name(found)) if found == name)
    }

    fn take_symbol(&mut self, symbol: &str) -> bool {
        let is_there = self.is_symbol(symbol);
        self.position += usize::from(is_there);
        is_there
    }

    fn take_name(&mut self, name: &str) -> bool {
        let is_there = self.is_name(name);
        self.position += usize::from(is_there);
        is_there
    }

    fn expect_symbol(&mut self, symbol: &str) -> ParsedTerm<()> {
        if self.take_symbol(symbol) { Ok(()) } else { Err(self.missing(symbol)) }
    }

    fn expect_name(&mut self, name: &str) -> ParsedTerm<()> {
        if self.take_name(name) { Ok(()) } else { Err(self.missing(name)) }
    }

    fn missing(&self, expected: &str) -> SyntaxError {
        let found = self.peek().map_or("the end".to_owned(), described);
        SyntaxError::new(format!("{expected} is missing before {found}"))
    }

    fn variable_name(&mut self) -> ParsedTerm<String> {
        match self.peek() {
            Some(Token::Variable(name)) => {
                let name = name.clone();
                self.position += 1;
                Ok(name)
            }
            _ => Err(self.missing("a variable such as $x")),
        }
    }

    /// Parses something nested.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> ParsedTerm<T>) -> ParsedTerm<T> {
        if self.depth >= MAX_NESTING {
            return Err(SyntaxError::new(format!("terms are nested more than {MAX_NESTING} levels deep")));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// `def …; term`, `term as $x | term`, `label $x | term`, `term | term`
    fn pipe(&mut self) -> ParsedTerm<Term> {
        self.nested(Self::pipe_unchecked)
    }

    fn pipe_unchecked(&mut self) -> ParsedTerm<Term> {
        if self.take_name("def") {
            let count = self.names.functions.len();
            let function = self.definition()?;
            let rest = self.pipe()?;
            self.names.functions.truncate(count);
            return Ok(Term::Define(Box::new(function), Box::new(rest)));
        }
        if self.take_name("label") {
            let name = self.variable_name()?;
            let id = self.names.new_id();
            self.expect_symbol("|")?;
            self.names.labels.push((name, id));
            let body = self.pipe()?;
            self.names.labels.pop();
            return Ok(Term::Label(id, Box::new(body)));
        }
        let left = self.comma()?;
        if self.take_symbol("|") {
            let right = self.pipe()?;
            return Ok(Term::Pipe(Box::new(left), Box::new(right)));
        }
        Ok(left)
    }

    pub(super) fn definition(&mut self) -> ParsedTerm<Function> {
        let Some(Token::Name(name)) = self.peek().cloned() else { return Err(self.missing("the name of a function")) };
        self.position += 1;
        let (mut parameters, mut values) = (Vec::new(), Vec::new());
        if self.take_symbol("(") {
            loop {
                match self.peek().cloned() {
                    Some(Token::Name(parameter)) => parameters.push((parameter, self.names.new_id())),
                    Some(Token::Variable(parameter)) => {
                        let id = self.names.new_id();
                        values.push((parameter.clone(), id));
                        parameters.push((parameter, id));
                    }
                    _ => return Err(self.missing("a parameter")),
                }
                self.position += 1;
                if !self.take_symbol(";") {
                    break;
                }
            }
            self.expect_symbol(")")?;
        }
        self.expect_symbol(":")?;
        let id = self.names.new_id();
        let arity = parameters.len();
        self.names.functions.push(NamedFunction { name, arity, id, is_parameter: false });
        let (functions, variables) = (self.names.functions.len(), self.names.variables.len());
        for (parameter, id) in &parameters {
            let parameter = NamedFunction { name: parameter.clone(), arity: 0, id: *id, is_parameter: true };
            self.names.functions.push(parameter);
        }
        // A parameter `$x` is also a variable, with each value of the argument.
        let bound: Vec<(u32, u32)> = values.into_iter().map(|(name, id)| (self.names.bind(name), id)).collect();
        let mut body = self.pipe()?;
        self.names.functions.truncate(functions);
        self.names.variables.truncate(variables);
        for (variable, parameter) in bound.into_iter().rev() {
            let source = Box::new(Term::Closure(parameter));
            body = Term::Bind(source, BindingPattern::Variable(variable), Box::new(body));
        }
        self.expect_symbol(";")?;
        Ok(Function { id, parameters: parameters.into_iter().map(|(_, id)| id).collect(), body })
    }

    fn comma(&mut self) -> ParsedTerm<Term> {
        let mut left = self.alternative()?;
        while self.take_symbol(",") {
            let right = self.alternative()?;
            left = Term::Comma(Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    /// `//`, which binds more loosely than assignments and to the right.
    fn alternative(&mut self) -> ParsedTerm<Term> {
        let left = self.assignment()?;
        if !self.take_symbol("//") {
            return Ok(left);
        }
        let right = self.nested(Self::alternative)?;
        Ok(Term::Alternative(Box::new(left), Box::new(right)))
    }

    fn assignment(&mut self) -> ParsedTerm<Term> {
        let left = self.or()?;
        let Some(Token::Symbol(symbol)) = self.peek() else { return Ok(left) };
        let symbol = *symbol;
        let by = match symbol {
            "=" | "|=" | "//=" => None,
            "+=" => Some(BinaryOperator::Add),
            "-=" => Some(BinaryOperator::Subtract),
            "*=" => Some(BinaryOperator::Multiply),
            "/=" => Some(BinaryOperator::Divide),
            "%=" => Some(BinaryOperator::Modulo),
            _ => return Ok(left),
        };
        self.position += 1;
        let (left, right) = (Box::new(left), Box::new(self.nested(Self::alternative)?));
        Ok(match symbol {
            "=" => Term::Assign(left, right),
            "|=" => Term::Update(left, right),
            _ => Term::UpdateBy(by, left, right),
        })
    }

    fn or(&mut self) -> ParsedTerm<Term> {
        let mut left = self.and()?;
        while self.take_name("or") {
            left = Term::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> ParsedTerm<Term> {
        let mut left = self.comparison()?;
        while self.take_name("and") {
            left = Term::And(Box::new(left), Box::new(self.comparison()?));
        }
        Ok(left)
    }

    fn comparison(&mut self) -> ParsedTerm<Term> {
        const OPERATORS: &[(&str, BinaryOperator)] = &[
            ("==", BinaryOperator::Equal),
            ("!=", BinaryOperator::NotEqual),
            ("<=", BinaryOperator::LessOrEqual),
            (">=", BinaryOperator::GreaterOrEqual),
            ("<", BinaryOperator::Less),
            (">", BinaryOperator::Greater),
        ];
        self.binary(OPERATORS, Self::sum)
    }

    fn sum(&mut self) -> ParsedTerm<Term> {
        self.binary(&[("+", BinaryOperator::Add), ("-", BinaryOperator::Subtract)], Self::product)
    }

    fn product(&mut self) -> ParsedTerm<Term> {
        const OPERATORS: &[(&str, BinaryOperator)] =
            &[("*", BinaryOperator::Multiply), ("/", BinaryOperator::Divide), ("%", BinaryOperator::Modulo)];
        self.binary(OPERATORS, Self::negation)
    }

    fn binary(
        &mut self,
        operators: &[(&str, BinaryOperator)],
        operand: fn(&mut Self) -> ParsedTerm<Term>,
    ) -> ParsedTerm<Term> {
        let mut left = operand(self)?;
        let mut count = 0;
        while let Some((_, operator)) = operators.iter().find(|(symbol, _)| self.is_symbol(symbol)) {
            self.position += 1;
            count += 1;
            if count > MAX_NESTING {
                return Err(SyntaxError::new(format!("more than {MAX_NESTING} operators follow one another")));
            }
            left = Term::Binary(*operator, Box::new(left), Box::new(operand(self)?));
        }
        Ok(left)
    }

    fn negation(&mut self) -> ParsedTerm<Term> {
        if self.take_symbol("-") {
            let operand = self.nested(Self::negation)?;
            return Ok(Term::Negate(Box::new(operand)));
        }
        let term = self.postfix()?;
        if !self.take_name("as") {
            return Ok(term);
        }
        let variables = self.names.variables.len();
        let pattern = self.pattern()?;
        if self.is_symbol("?") {
            return Err(SyntaxError::new("alternatives of patterns (?//) are not supported"));
        }
        self.expect_symbol("|")?;
        let body = self.pipe()?;
        self.names.variables.truncate(variables);
        Ok(Term::Bind(Box::new(term), pattern, Box::new(body)))
    }

    fn postfix(&mut self) -> ParsedTerm<Term> {
        let mut term = self.primary()?;
        let mut count = 0;
        loop {
            count += 1;
            if count > MAX_NESTING {
                return Err(SyntaxError::new(format!("more than {MAX_NESTING} indexes follow one another")));
            }
            term = match self.peek().cloned() {
                Some(Token::Field(name)) => {
                    self.position += 1;
                    Term::Index(Box::new(term), Box::new(text_literal(&name)))
                }
                Some(Token::Symbol(".")) => {
                    self.position += 1;
                    match self.peek().cloned() {
                        Some(Token::Text(pieces)) => {
                            self.position += 1;
                            Term::Index(Box::new(term), Box::new(self.text(pieces, TextFormat::Text)?))
                        }
                        Some(Token::Symbol("[")) => self.brackets(term)?,
                        _ => return Err(self.missing("a name or [")),
                    }
                }
                Some(Token::Symbol("[")) => self.brackets(term)?,
                Some(Token::Symbol("?")) => {
                    self.position += 1;
                    Term::Try(Box::new(term), None)
                }
                _ => return Ok(term),
            };
        }
    }

    /// `[]`, `[index]`, `[from:to]` after a term.
    fn brackets(&mut self, term: Term) -> ParsedTerm<Term> {
        self.expect_symbol("[")?;
        let term = Box::new(term);
        if self.take_symbol("]") {
            return Ok(Term::Iterate(term));
        }
        if self.take_symbol(":") {
            let to = self.pipe()?;
            self.expect_symbol("]")?;
            return Ok(Term::Slice(term, None, Some(Box::new(to))));
        }
        let from = Box::new(self.pipe()?);
        if self.take_symbol(":") {
            let to = if self.is_symbol("]") { None } else { Some(Box::new(self.pipe()?)) };
            self.expect_symbol("]")?;
            return Ok(Term::Slice(term, Some(from), to));
        }
        self.expect_symbol("]")?;
        Ok(Term::Index(term, from))
    }

    fn primary(&mut self) -> ParsedTerm<Term> {
        let Some(token) = self.peek().cloned() else { return Err(self.missing("a term")) };
        self.position += 1;
        match token {
            Token::Number(number) => Ok(Term::Literal(Literal::Number(number))),
            Token::Text(pieces) => self.text(pieces, TextFormat::Text),
            Token::Format(name) => {
                let format = TextFormat::named(&name);
                let format = format.ok_or_else(|| SyntaxError::new(format!("@{name} is not a known format")))?;
                match self.peek().cloned() {
                    Some(Token::Text(pieces)) => {
                        self.position += 1;
                        self.text(pieces, format)
                    }
                    _ => Ok(Term::Format(format)),
                }
            }
            Token::Field(name) => Ok(Term::Index(Box::new(Term::Identity), Box::new(text_literal(&name)))),
            Token::Variable(name) => self.variable(&name),
            Token::Symbol(".") => match self.peek().cloned() {
                Some(Token::Text(pieces)) => {
                    self.position += 1;
                    Ok(Term::Index(Box::new(Term::Identity), Box::new(self.text(pieces, TextFormat::Text)?)))
                }
                _ => Ok(Term::Identity),
            },
            Token::Symbol("..") => self.call("recurse", Vec::new()),
            Token::Symbol("(") => {
                let term = self.pipe()?;
                self.expect_symbol(")")?;
                Ok(term)
            }
            Token::Symbol("[") => {
                if self.take_symbol("]") {
                    return Ok(Term::List(None));
                }
                let elements = self.pipe()?;
                self.expect_symbol("]")?;
                Ok(Term::List(Some(Box::new(elements))))
            }
            Token::Symbol("{") => self.object(),
            Token::Name(name) => self.named(&name),
            Token::Symbol(symbol) => Err(SyntaxError::new(format!("{symbol} is where a term must be"))),
        }
    }

    fn variable(&mut self, name: &str) -> ParsedTerm<Term> {
        if matches!(name, "ENV" | "__loc__" | "__prog_args") {
            return Err(SyntaxError::new(format!("${name} is not available to programs")));
        }
        let found = self.names.variables.iter().rev().find(|(bound, _)| bound == name);
        match found {
            Some((_, id)) => Ok(Term::Variable(*id)),
            None => Err(SyntaxError::new(format!("${name} is not defined"))),
        }
    }

    fn text(&mut self, pieces: Vec<TextToken>, format: TextFormat) -> ParsedTerm<Term> {
        if let [TextToken::Literal(literal)] = &*pieces {
            return Ok(text_literal(literal));
        }
        let mut parsed = Vec::new();
        for piece in pieces {
            parsed.push(match piece {
                TextToken::Literal(literal) => TextPiece::Literal(literal.into()),
                TextToken::Program(tokens) => TextPiece::Term(Parser::new(tokens, self.names, self.depth + 1).whole()?),
            });
        }
        Ok(Term::Text(parsed, format))
    }

    fn named(&mut self, name: &str) -> ParsedTerm<Term> {
        match name {
            "if" => return self.condition(),
            "try" => {
                let body = self.nested(Self::postfix)?;
                let handler = if self.take_name("catch") { Some(Box::new(self.nested(Self::postfix)?)) } else { None };
                return Ok(Term::Try(Box::new(body), handler));
            }
            "reduce" | "foreach" => return self.fold(name == "reduce"),
            "def" => {
                // A definition within a term.
                self.position -= 1;
                return self.pipe();
            }
            "label" => {
                self.position -= 1;
                return self.pipe();
            }
            "break" => {
                let label = self.variable_name()?;
                let found = self.names.labels.iter().rev().find(|(name, _)| *name == label);
                return match found {
                    Some((_, id)) => Ok(Term::Break(*id)),
                    None => Err(SyntaxError::new(format!("there is no label ${label}"))),
                };
            }
            "null" => return Ok(Term::Literal(Literal::Null)),
            "true" => return Ok(Term::Literal(Literal::Boolean(true))),
            "false" => return Ok(Term::Literal(Literal::Boolean(false))),
            "then" | "elif" | "else" | "end" | "as" | "and" | "or" | "catch" | "import" | "include" | "__loc__" => {
                return Err(SyntaxError::new(format!("{name} is where a term must be")));
            }
            _ => {}
        }
        let mut arguments = Vec::new();
        if self.take_symbol("(") {
            loop {
                arguments.push(self.pipe()?);
                if !self.take_symbol(";") {
                    break;
                }
            }
            self.expect_symbol(")")?;
        }
        self.call(name, arguments)
    }

    fn condition(&mut self) -> ParsedTerm<Term> {
        let condition = self.pipe()?;
        self.expect_name("then")?;
        let then = self.pipe()?;
        let otherwise = if self.take_name("elif") {
            Some(Box::new(self.nested(Self::condition)?))
        } else if self.take_name("else") {
            let otherwise = self.pipe()?;
            self.expect_name("end")?;
            Some(Box::new(otherwise))
        } else {
            self.expect_name("end")?;
            None
        };
        Ok(Term::If(Box::new(condition), Box::new(then), otherwise))
    }

    fn fold(&mut self, is_reduce: bool) -> ParsedTerm<Term> {
        let source = Box::new(self.nested(Self::postfix)?);
        self.expect_name("as")?;
        let variables = self.names.variables.len();
        let pattern = self.pattern()?;
        self.expect_symbol("(")?;
        let initial = Box::new(self.pipe()?);
        self.expect_symbol(";")?;
        let update = Box::new(self.pipe()?);
        let extract = if !is_reduce && self.take_symbol(";") { Some(Box::new(self.pipe()?)) } else { None };
        self.expect_symbol(")")?;
        self.names.variables.truncate(variables);
        Ok(if is_reduce {
            Term::Reduce(source, pattern, initial, update)
        } else {
            Term::Foreach(source, pattern, initial, update, extract)
        })
    }
}

fn text_literal(text: &str) -> Term {
    Term::Literal(Literal::Text(text.into()))
}

fn described(token: &Token) -> String {
    match token {
        Token::Name(name) => name.clone(),
        Token::Field(name) => format!(".{name}"),
        Token::Variable(name) => format!("${name}"),
        Token::Format(name) => format!("@{name}"),
        Token::Number(number) => number.to_string(),
        Token::Text(_) => "a string".to_owned(),
        Token::Symbol(symbol) => (*symbol).to_owned(),
    }
}
