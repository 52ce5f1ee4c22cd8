//! The parser of scripts. It refuses whatever a script would do beyond the supported statements and actions.

use super::{ArgumentSource, LuaScript, ScriptAction, ScriptStep};
use crate::plugin_api::lua_value::LuaValue;
use crate::plugin_formats::template::expression::{Expression, LuaNode};
use crate::plugin_formats::template::parse::{LocalVariable, LuaParser, VariableScope};
use crate::plugin_formats::template::tokens::LuaToken;
use crate::plugin_formats::template::variables::Variable;

/// What a script contains that is not supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptSyntaxError {
    /// Counted from 1.
    pub line: usize,
    pub message: String,
    /// What to use instead.
    pub remedy: String,
}

/// A message, and a remedy if there is a better one than the usual one.
type ScriptRefusal = (String, Option<String>);
type Parsed<T> = Result<T, ScriptRefusal>;

impl<A: ScriptAction> LuaScript<A> {
    /// Parses a script, also one that returns a function without parameters, which Kong calls for each request.
    pub fn parse(text: &str) -> Result<Self, ScriptSyntaxError> {
        if text.len() > MAX_SCRIPT_BYTES {
            let message = format!("the script is longer than {MAX_SCRIPT_BYTES} bytes");
            return Err(ScriptSyntaxError { line: 1, message, remedy: "shorten it".to_owned() });
        }
        let mut parser =
            ScriptParser { lua: LuaParser::new(text, VariableScope::Script), locals: 0, steps: 0, depth: 0 };
        let steps = parser.script().map_err(|(message, remedy)| ScriptSyntaxError {
            line: parser.lua.line(),
            message,
            remedy: remedy.unwrap_or_else(|| SUPPORTED.to_owned()),
        })?;
        Ok(LuaScript { steps, locals: parser.locals })
    }
}

struct ScriptParser<'t> {
    lua: LuaParser<'t>,
    locals: usize,
    steps: usize,
    /// How many conditions are open.
    depth: usize,
}

fn plain(message: String) -> ScriptRefusal {
    (message, None)
}

fn refused(message: impl Into<String>, remedy: impl Into<String>) -> ScriptRefusal {
    (message.into(), Some(remedy.into()))
}

impl<'t> ScriptParser<'t> {
    fn script<A: ScriptAction>(&mut self) -> Parsed<Box<[ScriptStep<A>]>> {
        self.lua.advance().map_err(plain)?;
        let mut steps = self.block::<A>(true)?;
        let is_function = steps.last().is_none() && self.lua.token == LuaToken::Name("function");
        if is_function {
            self.lua.advance().map_err(plain)?;
            for symbol in ["(", ")"] {
                self.lua.expect(symbol).map_err(plain)?;
            }
            steps = self.block::<A>(false)?;
            self.end()?;
        }
        match self.lua.token {
            LuaToken::End => Ok(steps),
            _ => Err(plain(self.lua.unexpected("the end of the script"))),
        }
    }

    /// The statements up to `end`, `else`, `elseif` or the end. `is_whole`: the script itself.
    fn block<A: ScriptAction>(&mut self, is_whole: bool) -> Parsed<Box<[ScriptStep<A>]>> {
        let mut steps = Vec::new();
        let visible = self.lua.locals.len();
        loop {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(refused(format!("the script has more than {MAX_STEPS} statements"), "shorten it"));
            }
            if self.lua.accept(";").map_err(plain)? {
                continue;
            }
            match self.lua.token.clone() {
                LuaToken::End => break,
                LuaToken::Name("end" | "else" | "elseif") if !is_whole => break,
                LuaToken::Name("if") => steps.push(self.condition()?),
                LuaToken::Name("local") => steps.push(self.local()?),
                LuaToken::Name("return") => {
                    self.lua.advance().map_err(plain)?;
                    if is_whole && steps.is_empty() && self.lua.token == LuaToken::Name("function") {
                        break;
                    }
                    self.return_value(&mut steps)?;
                    break;
                }
                LuaToken::Name(word @ ("for" | "while" | "repeat" | "goto" | "break" | "do")) => {
                    return Err(plain(format!("`{word}` is not supported")));
                }
                LuaToken::Name("function") => {
                    return Err(refused("functions are not supported", "write their statements where they are called"));
                }
                LuaToken::Name(name) => steps.push(self.call_or_assignment(name)?),
                _ => return Err(plain(self.lua.unexpected("a statement"))),
            }
        }
        self.lua.locals.truncate(visible);
        Ok(steps.into())
    }

    fn end(&mut self) -> Parsed<()> {
        match self.lua.accept_word("end").map_err(plain)? {
            true => Ok(()),
            false => Err(plain(self.lua.unexpected("`end`"))),
        }
    }

    fn condition<A: ScriptAction>(&mut self) -> Parsed<ScriptStep<A>> {
        let mut branches = Vec::new();
        loop {
            // After `if` or `elseif`.
            self.lua.advance().map_err(plain)?;
            let condition = self.expression::<A>()?;
            if !self.lua.accept_word("then").map_err(plain)? {
                return Err(plain(self.lua.unexpected("`then`")));
            }
            branches.push((Some(condition), self.nested_block()?));
            if self.lua.token != LuaToken::Name("elseif") {
                break;
            }
        }
        if self.lua.accept_word("else").map_err(plain)? {
            branches.push((None, self.nested_block()?));
        }
        self.end()?;
        Ok(ScriptStep::If(branches.into()))
    }

    fn nested_block<A: ScriptAction>(&mut self) -> Parsed<Box<[ScriptStep<A>]>> {
        if self.depth >= MAX_DEPTH {
            return Err(refused(
                format!("conditions are nested deeper than {MAX_DEPTH} levels"),
                "combine them with and",
            ));
        }
        self.depth += 1;
        let block = self.block(false)?;
        self.depth -= 1;
        Ok(block)
    }

    fn local<A: ScriptAction>(&mut self) -> Parsed<ScriptStep<A>> {
        self.lua.advance().map_err(plain)?;
        if self.lua.token == LuaToken::Name("function") {
            return Err(refused("functions are not supported", "write their statements where they are called"));
        }
        let name = self.lua.name().map_err(plain)?;
        if self.lua.token == LuaToken::Symbol(",") {
            return Err(refused("several variables in one `local` are not supported", "write a `local` for each"));
        }
        let value = match self.lua.accept("=").map_err(plain)? {
            true => self.unchecked_expression()?,
            false => Expression { root: LuaNode::Nil },
        };
        let number = self.locals;
        self.locals += 1;
        if let LuaNode::Variable(table @ (Variable::RequestHeader | Variable::RequestQueryArgument), None) = value.root
        {
            A::may_read(table).map_err(plain)?;
            self.lua.locals.push((name, LocalVariable::Table(table)));
            return Ok(ScriptStep::SetLocal(number, Expression { root: LuaNode::Nil }));
        }
        value.check_variables(&A::may_read).map_err(plain)?;
        self.lua.locals.push((name, LocalVariable::Value(number)));
        Ok(ScriptStep::SetLocal(number, value))
    }

    /// What follows `return`: nothing, or the call of an action.
    fn return_value<A: ScriptAction>(&mut self, steps: &mut Vec<ScriptStep<A>>) -> Parsed<()> {
        match self.lua.token.clone() {
            LuaToken::End | LuaToken::Name("end" | "else" | "elseif") | LuaToken::Symbol(";") => {}
            LuaToken::Name("nil" | "true" | "false") => self.lua.advance().map_err(plain)?,
            LuaToken::Name(name) => steps.push(self.call_or_assignment(name)?),
            _ => return Err(refused("`return` of a value is not supported", "return nothing, or an exit")),
        }
        self.lua.accept(";").map_err(plain)?;
        steps.push(ScriptStep::Return);
        Ok(())
    }

    fn call_or_assignment<A: ScriptAction>(&mut self, first: &'t str) -> Parsed<ScriptStep<A>> {
        let line = self.lua.line();
        self.lua.advance().map_err(plain)?;
        let local = self.lua.locals.iter().rev().find(|(name, _)| *name == first).map(|(_, local)| *local);
        if let Some(local) = local {
            let LocalVariable::Value(number) = local else {
                return Err(refused(
                    format!("the table {first} is changed"),
                    "call the function that changes the request",
                ));
            };
            if !self.lua.accept("=").map_err(plain)? {
                return Err(plain(self.lua.unexpected("`=`")));
            }
            return Ok(ScriptStep::SetLocal(number, self.expression::<A>()?));
        }
        let mut path = first.to_owned();
        while self.lua.accept(".").map_err(plain)? {
            path.push('.');
            path.push_str(self.lua.name().map_err(plain)?);
        }
        if let Some((action, arguments)) = self.assignment::<A>(&path)? {
            return self.act(line, &path, action, arguments);
        }
        let action = A::find(&path).map_err(|(message, remedy)| (message, Some(remedy)))?;
        if !self.lua.accept("(").map_err(plain)? {
            return Err(match self.lua.token {
                LuaToken::Symbol("=") => {
                    refused(format!("`{path}` is assigned a value, which is not supported"), "use a local variable")
                }
                _ => plain(self.lua.unexpected("\"(\"")),
            });
        }
        let mut arguments = Vec::new();
        if !self.lua.accept(")").map_err(plain)? {
            loop {
                arguments.push(self.argument::<A>(0)?);
                if self.lua.accept(")").map_err(plain)? {
                    break;
                }
                self.lua.expect(",").map_err(plain)?;
            }
        }
        self.act(line, &path, action, arguments)
    }

    fn act<A: ScriptAction>(
        &mut self,
        line: usize,
        path: &str,
        action: A,
        arguments: Vec<ArgumentSource>,
    ) -> Parsed<ScriptStep<A>> {
        let literals: Vec<_> = arguments.iter().map(ArgumentSource::literal).collect();
        action.check(&literals).map_err(|message| plain(format!("`{path}`: {message}")))?;
        if action.changes_request() {
            for (_, local) in &mut self.lua.locals {
                if let LocalVariable::Table(_) = local {
                    *local = LocalVariable::FormerTable;
                }
            }
        }
        Ok(ScriptStep::Act(line, action, arguments.into()))
    }

    /// `PATH = VALUE` as an action, whose path ends with ` =`. The name of a field of a table is its first argument.
    fn assignment<A: ScriptAction>(&mut self, path: &str) -> Parsed<Option<(A, Vec<ArgumentSource>)>> {
        let in_table =
            |table: &&str| path.strip_prefix(*table).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let table = TABLES.into_iter().find(in_table);
        let mut arguments = Vec::new();
        let name = match table {
            None if ["ngx.status", "ngx.var.args"].contains(&path) => format!("{path} ="),
            None => return Ok(None),
            Some(table) => {
                let name = match path[table.len()..].strip_prefix('.') {
                    Some(name) if name.contains('.') => {
                        return Err(plain(format!("`{path}`: a field of {table} cannot be a table")));
                    }
                    Some(name) => name.as_bytes().to_vec(),
                    None => {
                        self.lua.expect("[").map_err(plain)?;
                        let LuaToken::Text(name) = self.lua.token.clone() else {
                            return Err(plain(self.lua.unexpected("the name of a field in quotes")));
                        };
                        self.lua.advance().map_err(plain)?;
                        self.lua.expect("]").map_err(plain)?;
                        name
                    }
                };
                // In names of headers without quotes, underscores stand for hyphens.
                let name = match table {
                    "ngx.header" if path != table => {
                        name.iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect()
                    }
                    _ => name,
                };
                arguments.push(ArgumentSource::Value(Expression { root: LuaNode::Text(name.into()) }));
                format!("{table} =")
            }
        };
        if !self.lua.accept("=").map_err(plain)? {
            return Err(plain(self.lua.unexpected("`=`")));
        }
        let action = A::find(&name).map_err(|(message, remedy)| (message, Some(remedy)))?;
        arguments.push(self.argument::<A>(0)?);
        Ok(Some((action, arguments)))
    }

    fn argument<A: ScriptAction>(&mut self, depth: usize) -> Parsed<ArgumentSource> {
        if self.lua.token != LuaToken::Symbol("{") {
            return Ok(ArgumentSource::Value(self.expression::<A>()?));
        }
        if depth >= MAX_TABLE_DEPTH {
            return Err(refused(
                format!("tables are nested deeper than {MAX_TABLE_DEPTH} levels"),
                "write fewer levels",
            ));
        }
        self.lua.advance().map_err(plain)?;
        let mut fields = Vec::new();
        while !self.lua.accept("}").map_err(plain)? {
            let name = match self.lua.token.clone() {
                LuaToken::Name(name) => {
                    self.lua.advance().map_err(plain)?;
                    name.to_owned()
                }
                LuaToken::Symbol("[") => {
                    self.lua.advance().map_err(plain)?;
                    let LuaToken::Text(name) = self.lua.token.clone() else {
                        return Err(plain(self.lua.unexpected("the name of a field in quotes")));
                    };
                    self.lua.advance().map_err(plain)?;
                    self.lua.expect("]").map_err(plain)?;
                    String::from_utf8(name).map_err(|_| plain("the name of a field is not UTF-8".to_owned()))?
                }
                _ => return Err(refused("lists in tables are not supported", "write fields, each as NAME = VALUE")),
            };
            if !self.lua.accept("=").map_err(plain)? {
                return Err(refused("lists in tables are not supported", "write fields, each as NAME = VALUE"));
            }
            let value = self.argument::<A>(depth + 1)?;
            if fields.len() >= MAX_FIELDS || fields.iter().any(|(known, _)| *known == name) {
                return Err(refused(format!("field {name} occurs twice, or is one too many"), "remove it"));
            }
            fields.push((name, value));
            if !self.lua.accept(",").map_err(plain)? && !self.lua.accept(";").map_err(plain)? {
                self.lua.expect("}").map_err(plain)?;
                break;
            }
        }
        Ok(ArgumentSource::Table(fields.into()))
    }

    fn unchecked_expression(&mut self) -> Parsed<Expression> {
        self.lua.script_expression().map_err(|message| {
            let remedy = REPLACEMENTS.iter().find(|(construct, _)| message.contains(construct));
            (message, remedy.map(|(_, remedy)| (*remedy).to_owned()))
        })
    }

    fn expression<A: ScriptAction>(&mut self) -> Parsed<Expression> {
        let expression = self.unchecked_expression()?;
        expression.check_variables(&A::may_read).map_err(plain)?;
        Ok(expression)
    }
}

impl Expression {
    /// The value of an expression that consists of a literal.
    pub(super) fn literal(&self) -> Option<LuaValue<'static>> {
        match &self.root {
            LuaNode::Nil => Some(LuaValue::Nil),
            LuaNode::Boolean(value) => Some(LuaValue::Boolean(*value)),
            LuaNode::Number(number) => Some(LuaValue::Number(*number)),
            LuaNode::Text(text) => Some(LuaValue::Text(text.to_vec().into())),
            _ => None,
        }
    }
}

const SUPPORTED: &str = "write `if`, `local` and calls of the functions on the page of the plugin, or use a declarative \
                         plugin such as request-transformer or request-termination";

/// Constructs in messages of expressions, and what replaces them.
const REPLACEMENTS: [(&str, &str); 6] = [
    ("kong.request.get_headers", "read one header with kong.request.get_header(NAME)"),
    ("kong.request.get_query ", "read one parameter with kong.request.get_query_arg(NAME)"),
    ("kong.client.get_consumer", "attach the plugin to the consumer, or use acl"),
    ("require", "write the expression without a module; the functions of string are available"),
    ("ngx.", "use kong.request, kong.client and kong.response instead of ngx"),
    ("kong.ctx", "use a field of kong.ctx.shared, or a local variable"),
];

/// Tables with fields that are assigned.
const TABLES: [&str; 2] = ["kong.ctx.shared", "ngx.header"];

const MAX_SCRIPT_BYTES: usize = 32 << 10;
const MAX_STEPS: usize = 500;
const MAX_DEPTH: usize = 16;
const MAX_TABLE_DEPTH: usize = 8;
const MAX_FIELDS: usize = 100;
