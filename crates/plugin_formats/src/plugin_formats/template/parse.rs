//! The parser of expressions: one function for each level of precedence, from `or` to literals.

use super::expression::{Expression, LuaArithmetic, LuaComparison, LuaNode};
use super::format;
use super::functions::LuaFunction;
use super::pattern;
use super::syntax_error::TemplateSyntaxError;
use super::tokens::{LuaToken, next_token};
use super::variables::{Variable, ngx_constant};

/// The longest expression.
const MAX_EXPRESSION_BYTES: usize = 4096;
/// How many operators, calls, variables and literals an expression may have. Evaluation recurses at most as deep.
const MAX_NODES: usize = 250;
/// How deep parentheses, brackets, calls and unary operators may be nested.
const MAX_DEPTH: usize = 40;

/// Words with a meaning in Lua that is not supported.
const STATEMENTS: &[&str] = &[
    "break", "do", "else", "elseif", "end", "for", "function", "goto", "if", "in", "local", "repeat", "return", "then",
    "until", "while",
];

impl Expression {
    /// Parses the text after `$(` up to the closing parenthesis. Returns the expression and the offset after the
    /// parenthesis.
    pub(super) fn parse_in_template(text: &str) -> Result<(Expression, usize), TemplateSyntaxError> {
        let mut parser = LuaParser::new(text, VariableScope::Template);
        parser.expression_until_parenthesis().map_err(|message| TemplateSyntaxError::in_template(text, message))
    }

    /// Parses a chunk of Lua that consists of one expression, with or without `return` before it.
    pub fn parse_return(text: &str) -> Result<Expression, TemplateSyntaxError> {
        LuaParser::new(text, VariableScope::Chunk)
            .chunk()
            .map_err(|message| TemplateSyntaxError::in_chunk(text.trim(), message))
    }
}

/// Which variables an expression may use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum VariableScope {
    /// `headers`, `query_params`, `uri_captures` and `shared`.
    Template,
    /// Functions below `kong`.
    Chunk,
    /// Functions below `kong`, and local variables, in a text with comments.
    Script,
}

pub(super) struct LuaParser<'t> {
    text: &'t str,
    scope: VariableScope,
    /// Offset after `token`.
    at: usize,
    pub(super) token: LuaToken<'t>,
    /// Of the current expression.
    nodes: usize,
    depth: usize,
    /// The local variables that are visible. The last one of a name counts.
    pub(super) locals: Vec<(&'t str, LocalVariable)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LocalVariable {
    /// A value, by the number of the variable.
    Value(usize),
    /// All headers or all parameters of the request. They are read when a field is, so the request must be the same.
    Table(Variable),
    /// A table of the request before it was changed.
    FormerTable,
}

pub(super) type Parsed<T> = Result<T, String>;

impl<'t> LuaParser<'t> {
    pub(super) fn new(text: &'t str, scope: VariableScope) -> Self {
        LuaParser { text, scope, at: 0, token: LuaToken::End, nodes: 0, depth: 0, locals: Vec::new() }
    }

    /// The line of the current token, counted from 1.
    pub(super) fn line(&self) -> usize {
        1 + self.text[..self.at].bytes().filter(|byte| *byte == b'\n').count()
    }

    /// An expression of a script, with a limit of its own.
    pub(super) fn script_expression(&mut self) -> Parsed<Expression> {
        self.nodes = 0;
        Ok(Expression { root: self.expression()? })
    }

    fn expression_until_parenthesis(&mut self) -> Parsed<(Expression, usize)> {
        self.advance()?;
        let root = self.expression()?;
        if self.token != LuaToken::Symbol(")") {
            return Err(self.unexpected("the closing parenthesis"));
        }
        Ok((Expression { root }, self.at))
    }

    fn chunk(&mut self) -> Parsed<Expression> {
        self.advance()?;
        if self.token == LuaToken::Name("return") {
            self.advance()?;
        }
        let root = self.expression()?;
        if self.token == LuaToken::Symbol(";") {
            self.advance()?;
        }
        if self.token != LuaToken::End {
            return Err(self.unexpected("the end"));
        }
        Ok(Expression { root })
    }

    pub(super) fn advance(&mut self) -> Parsed<()> {
        if self.scope == VariableScope::Script {
            self.skip_comments()?;
        }
        let (token, length) = next_token(&self.text[self.at..])?;
        self.at += length;
        if self.at > MAX_EXPRESSION_BYTES && self.scope != VariableScope::Script {
            return Err(format!("more than {MAX_EXPRESSION_BYTES} bytes are used"));
        }
        self.token = token;
        Ok(())
    }

    fn skip_comments(&mut self) -> Parsed<()> {
        loop {
            let rest = self.text[self.at..].trim_start_matches(|character: char| character.is_ascii_whitespace());
            self.at = self.text.len() - rest.len();
            let Some(comment) = rest.strip_prefix("--") else { return Ok(()) };
            let length = match comment.strip_prefix("[[") {
                Some(inside) => 4 + inside.find("]]").ok_or("a comment has no end")? + 2,
                None if comment.starts_with("[=") => return Err("comments in [=[…]=] are not read".to_owned()),
                None => rest.find('\n').unwrap_or(rest.len()),
            };
            self.at += length;
        }
    }

    pub(super) fn accept(&mut self, symbol: &str) -> Parsed<bool> {
        let is_accepted = matches!(&self.token, LuaToken::Symbol(found) if *found == symbol);
        if is_accepted {
            self.advance()?;
        }
        Ok(is_accepted)
    }

    pub(super) fn expect(&mut self, symbol: &str) -> Parsed<()> {
        if self.accept(symbol)? { Ok(()) } else { Err(self.unexpected(&format!("{symbol:?}"))) }
    }

    pub(super) fn accept_word(&mut self, word: &str) -> Parsed<bool> {
        let is_accepted = matches!(&self.token, LuaToken::Name(name) if *name == word);
        if is_accepted {
            self.advance()?;
        }
        Ok(is_accepted)
    }

    pub(super) fn unexpected(&self, expected: &str) -> String {
        match &self.token {
            LuaToken::Symbol("=") => "\"=\" assigns a value, which is not supported; == compares".to_owned(),
            LuaToken::Symbol("^") => "the operator \"^\" is not supported".to_owned(),
            LuaToken::Symbol("{") => "\"{\" creates a table, which is not supported".to_owned(),
            LuaToken::Symbol(symbol) => format!("{symbol:?} follows instead of {expected}"),
            LuaToken::Name(word) if STATEMENTS.contains(word) => {
                format!("{word:?} is a statement of Lua, and only expressions are supported")
            }
            LuaToken::Name(name) => format!("{name:?} follows instead of {expected}"),
            LuaToken::Number(_) => format!("a number follows instead of {expected}"),
            LuaToken::Text(_) => format!("a string follows instead of {expected}"),
            LuaToken::End => format!("{expected} is missing"),
        }
    }

    /// Counts a node.
    fn node(&mut self, node: LuaNode) -> Parsed<LuaNode> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(format!("more than {MAX_NODES} operators, variables and literals are used"));
        }
        Ok(node)
    }

    pub(super) fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("parentheses and operators are nested deeper than {MAX_DEPTH} levels"));
        }
        let result = parse(self);
        self.depth -= 1;
        result
    }

    fn expression(&mut self) -> Parsed<LuaNode> {
        self.nested(Self::disjunction)
    }

    fn disjunction(&mut self) -> Parsed<LuaNode> {
        let mut left = self.conjunction()?;
        while self.accept_word("or")? {
            let right = self.conjunction()?;
            left = self.node(LuaNode::Or(left.into(), right.into()))?;
        }
        Ok(left)
    }

    fn conjunction(&mut self) -> Parsed<LuaNode> {
        let mut left = self.comparison()?;
        while self.accept_word("and")? {
            let right = self.comparison()?;
            left = self.node(LuaNode::And(left.into(), right.into()))?;
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Parsed<LuaNode> {
        let mut left = self.concatenation()?;
        loop {
            let operator = match &self.token {
                LuaToken::Symbol("==") => LuaComparison::Equal,
                LuaToken::Symbol("~=") => LuaComparison::NotEqual,
                LuaToken::Symbol("<") => LuaComparison::Less,
                LuaToken::Symbol("<=") => LuaComparison::LessOrEqual,
                LuaToken::Symbol(">") => LuaComparison::Greater,
                LuaToken::Symbol(">=") => LuaComparison::GreaterOrEqual,
                _ => return Ok(left),
            };
            self.advance()?;
            let right = self.concatenation()?;
            left = self.node(LuaNode::Comparison(operator, left.into(), right.into()))?;
        }
    }

    fn concatenation(&mut self) -> Parsed<LuaNode> {
        let first = self.sum()?;
        if self.token != LuaToken::Symbol("..") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.accept("..")? {
            let part = self.sum()?;
            parts.push(self.node(part)?);
        }
        Ok(LuaNode::Concatenation(parts.into()))
    }

    fn sum(&mut self) -> Parsed<LuaNode> {
        let mut left = self.product()?;
        loop {
            let operator = match &self.token {
                LuaToken::Symbol("+") => LuaArithmetic::Add,
                LuaToken::Symbol("-") => LuaArithmetic::Subtract,
                _ => return Ok(left),
            };
            self.advance()?;
            let right = self.product()?;
            left = self.node(LuaNode::Arithmetic(operator, left.into(), right.into()))?;
        }
    }

    fn product(&mut self) -> Parsed<LuaNode> {
        let mut left = self.unary()?;
        loop {
            let operator = match &self.token {
                LuaToken::Symbol("*") => LuaArithmetic::Multiply,
                LuaToken::Symbol("/") => LuaArithmetic::Divide,
                LuaToken::Symbol("%") => LuaArithmetic::Remainder,
                _ => return Ok(left),
            };
            self.advance()?;
            let right = self.unary()?;
            left = self.node(LuaNode::Arithmetic(operator, left.into(), right.into()))?;
        }
    }

    fn unary(&mut self) -> Parsed<LuaNode> {
        let wrap: fn(Box<LuaNode>) -> LuaNode = match &self.token {
            LuaToken::Name("not") => LuaNode::Not,
            LuaToken::Symbol("-") => LuaNode::Negate,
            LuaToken::Symbol("#") => LuaNode::Length,
            _ => return self.with_suffixes(),
        };
        self.advance()?;
        let operand = self.nested(Self::unary)?;
        self.node(wrap(operand.into()))
    }

    /// A value, followed by fields, indexes and calls of methods.
    fn with_suffixes(&mut self) -> Parsed<LuaNode> {
        let is_literal = matches!(&self.token, LuaToken::Text(_) | LuaToken::Number(_));
        let mut value = self.primary()?;
        loop {
            // In Lua, a literal in front of a suffix needs parentheses.
            let is_suffix = matches!(&self.token, LuaToken::Symbol("." | "[" | ":" | "("));
            if is_suffix && is_literal {
                return Err(self.unexpected("an operator") + "; put the literal into parentheses");
            }
            if self.accept(":")? {
                let name = self.name()?;
                let path = format!("string.{name}");
                let function = LuaFunction::find(&path).ok_or_else(|| format!("there is no method :{name}()"))?;
                self.expect("(")?;
                value = self.call(function, vec![value])?;
            } else if let Some(key) = self.key()? {
                // Reading a value that is not a table evaluates no key.
                drop(key);
                value = self.node(LuaNode::Index(value.into()))?;
            } else {
                return Ok(value);
            }
        }
    }

    fn primary(&mut self) -> Parsed<LuaNode> {
        let token = std::mem::replace(&mut self.token, LuaToken::End);
        let node = match token {
            LuaToken::Number(number) => LuaNode::Number(number),
            LuaToken::Text(text) => LuaNode::Text(text.into()),
            LuaToken::Name("nil") => LuaNode::Nil,
            LuaToken::Name("true") => LuaNode::Boolean(true),
            LuaToken::Name("false") => LuaNode::Boolean(false),
            LuaToken::Name(name) if !STATEMENTS.contains(&name) => {
                self.advance()?;
                return self.named(name);
            }
            LuaToken::Symbol("(") => {
                self.advance()?;
                let inner = self.expression()?;
                self.expect(")")?;
                return Ok(inner);
            }
            other => {
                self.token = other;
                return Err(self.unexpected("a value"));
            }
        };
        self.advance()?;
        self.node(node)
    }

    /// A variable or the call of a function, after its first name.
    fn named(&mut self, name: &'t str) -> Parsed<LuaNode> {
        if self.scope == VariableScope::Template
            && let Some(table) = Variable::table(name)
        {
            let Some(key) = self.key()? else {
                return Err(format!("{name} is used without a field; write {name}.NAME or {name}[\"NAME\"]"));
            };
            return self.node(LuaNode::Variable(table, Some(key.into())));
        }
        match self.locals.iter().rev().find(|(local, _)| *local == name) {
            Some((_, LocalVariable::Value(number))) => {
                let key = LuaNode::Number(*number as f64);
                return self.node(LuaNode::Variable(Variable::Local, Some(key.into())));
            }
            Some((_, LocalVariable::Table(table))) => {
                let table = *table;
                let key = self.key()?.ok_or_else(|| format!("the table {name} is used without a field"))?;
                return self.node(LuaNode::Variable(table, Some(key.into())));
            }
            Some((_, LocalVariable::FormerTable)) => {
                return Err(format!("the table {name} was read before the request was changed; read it again"));
            }
            None => {}
        }
        let mut path = name.to_owned();
        while matches!(name, "string" | "kong" | "ngx") && self.accept(".")? {
            path.push('.');
            path.push_str(self.name()?);
        }
        if self.scope != VariableScope::Template
            && let Some(node) = self.of_request(&path)?
        {
            return self.node(node);
        }
        if self.scope != VariableScope::Template
            && let Some((variable, has_argument)) = path.strip_prefix("kong.").and_then(Variable::function)
        {
            self.expect("(")?;
            let mut arguments = self.arguments(Vec::new())?;
            if arguments.len() != usize::from(has_argument) {
                let expected = if has_argument { "one argument" } else { "no argument" };
                return Err(format!("{path} needs {expected}"));
            }
            return self.node(LuaNode::Variable(variable, arguments.pop().map(Box::new)));
        }
        let Some(function) = LuaFunction::find(&path) else {
            return Err(match &self.token {
                LuaToken::Symbol("(") => format!("the function {path} is not supported"),
                _ => format!("there is no variable {path}"),
            });
        };
        self.expect("(")?;
        self.call(function, Vec::new())
    }

    /// What a path reads without a function of one value: a table of the request, a shared value, or one of `ngx`.
    fn of_request(&mut self, path: &str) -> Parsed<Option<LuaNode>> {
        if let Some(table) = Variable::table_function(path) {
            self.expect("(")?;
            if !self.arguments(Vec::new())?.is_empty() {
                return Err(format!("{path} has arguments"));
            }
            // Without a field, it can only be the value of a local variable.
            let key = self.key()?;
            if key.is_none() && self.scope != VariableScope::Script {
                return Err(format!("{path} is used without a field"));
            }
            return Ok(Some(LuaNode::Variable(table, key.map(Box::new))));
        }
        if path == "kong.ctx.shared" {
            let key = self.key()?.ok_or("kong.ctx.shared is used without a field")?;
            return Ok(Some(LuaNode::Variable(Variable::Shared, Some(key.into()))));
        }
        if let Some(name) = path.strip_prefix("kong.ctx.shared.").filter(|name| !name.contains('.')) {
            let key = LuaNode::Text(name.as_bytes().into());
            return Ok(Some(LuaNode::Variable(Variable::Shared, Some(key.into()))));
        }
        if self.scope != VariableScope::Script {
            return Ok(None);
        }
        let header = path.strip_prefix("ngx.var.http_").filter(|name| !name.contains('.'));
        if let Some(header) = header {
            let key = LuaNode::Text(header.as_bytes().into());
            return Ok(Some(LuaNode::Variable(Variable::RequestHeader, Some(key.into()))));
        }
        Ok(match path {
            "ngx.status" => Some(LuaNode::Variable(Variable::NgxStatus, None)),
            "ngx.var.remote_addr" => Some(LuaNode::Variable(Variable::ClientIp, None)),
            "ngx.var.request_method" => Some(LuaNode::Variable(Variable::RequestMethod, None)),
            "ngx.req.get_method" => {
                self.expect("(")?;
                self.expect(")")?;
                Some(LuaNode::Variable(Variable::RequestMethod, None))
            }
            path => ngx_constant(path).map(LuaNode::Number),
        })
    }

    /// `.name` or `[expression]`, if there is one.
    fn key(&mut self) -> Parsed<Option<LuaNode>> {
        if self.accept(".")? {
            let name = self.name()?;
            return self.node(LuaNode::Text(name.as_bytes().into())).map(Some);
        }
        if self.accept("[")? {
            let key = self.expression()?;
            self.expect("]")?;
            return Ok(Some(key));
        }
        Ok(None)
    }

    pub(super) fn name(&mut self) -> Parsed<&'t str> {
        let LuaToken::Name(name) = self.token else { return Err(self.unexpected("a name")) };
        self.advance()?;
        Ok(name)
    }

    /// The rest of a call after its opening parenthesis.
    fn call(&mut self, function: LuaFunction, first: Vec<LuaNode>) -> Parsed<LuaNode> {
        let arguments = self.arguments(first)?;
        let expected = function.arguments();
        if !expected.contains(&arguments.len()) {
            return Err(format!("{} has {} arguments", function.name(), arguments.len()));
        }
        // Patterns and formats are nearly always literals, whose errors are found here and not by requests.
        match (function, arguments.get(1)) {
            (LuaFunction::Match | LuaFunction::Gsub, Some(LuaNode::Text(text))) => pattern::check(text),
            (LuaFunction::Find, Some(LuaNode::Text(text))) if arguments.len() < 4 => pattern::check(text),
            _ => Ok(()),
        }
        .map_err(|message| format!("the pattern is not valid: {message}"))?;
        if let (LuaFunction::Format, Some(LuaNode::Text(text))) = (function, arguments.first()) {
            format::check(text, arguments.len() - 1)?;
        }
        self.node(LuaNode::Call(function, arguments.into()))
    }

    fn arguments(&mut self, mut arguments: Vec<LuaNode>) -> Parsed<Vec<LuaNode>> {
        if self.accept(")")? {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.expression()?);
            if self.accept(")")? {
                return Ok(arguments);
            }
            self.expect(",")?;
        }
    }
}
