//! The grammar of executable documents, by recursive descent. The limit of levels bounds the stack.

use super::document::{
    Argument, Fragment, GraphqlDocument, GraphqlField, GraphqlValue, InlineFragment, Operation, OperationKind,
    Selection, TypeReference, VariableDefinition,
};
use super::lexer::{GraphqlLexer, GraphqlToken};
use super::{DocumentError, DocumentLimits};

impl<'t> GraphqlDocument<'t> {
    /// Parses a document. Whether its fragments exist and end is checked by [`super::CheckedDocument`].
    pub(super) fn parse(text: &'t str, limits: &DocumentLimits) -> Result<GraphqlDocument<'t>, DocumentError> {
        if text.len() > limits.bytes {
            return Err(DocumentError::new(format!("the document is longer than {} bytes", limits.bytes)));
        }
        let lexer = GraphqlLexer::new(text, limits.tokens);
        let mut parser =
            DocumentParser { lexer, token: GraphqlToken::End, depth_left: limits.depth, aliases_left: limits.aliases };
        parser.advance()?;
        parser.document()
    }
}

struct DocumentParser<'t> {
    lexer: GraphqlLexer<'t>,
    /// The next token.
    token: GraphqlToken<'t>,
    depth_left: usize,
    aliases_left: usize,
}

type Parsed<T> = Result<T, DocumentError>;

impl<'t> DocumentParser<'t> {
    fn document(&mut self) -> Parsed<GraphqlDocument<'t>> {
        let mut document = GraphqlDocument::default();
        loop {
            match self.token {
                GraphqlToken::End if !document.operations.is_empty() => return Ok(document),
                GraphqlToken::Name("fragment") => {
                    self.advance()?;
                    let fragment = self.fragment()?;
                    if document.fragments.iter().any(|other| other.name == fragment.name) {
                        return Err(self.error(&format!("another fragment has the name {}", fragment.name)));
                    }
                    if document.fragments.len() == MAX_DEFINITIONS {
                        return Err(self.error("the document has too many fragments"));
                    }
                    document.fragments.push(fragment);
                }
                _ => {
                    let operation = self.operation()?;
                    let is_ambiguous = |other: &Operation<'_>| other.name.is_none() || other.name == operation.name;
                    if operation.name.is_none() && !document.operations.is_empty()
                        || document.operations.iter().any(is_ambiguous)
                    {
                        return Err(self.error("of several operations, each needs a name of its own"));
                    }
                    if document.operations.len() == MAX_DEFINITIONS {
                        return Err(self.error("the document has too many operations"));
                    }
                    document.operations.push(operation);
                }
            }
        }
    }

    fn operation(&mut self) -> Parsed<Operation<'t>> {
        let kind = match self.token {
            GraphqlToken::Punctuator(b'{') => {
                let selections = self.selections()?;
                return Ok(Operation { kind: OperationKind::Query, name: None, variables: Vec::new(), selections });
            }
            GraphqlToken::Name("query") => OperationKind::Query,
            GraphqlToken::Name("mutation") => OperationKind::Mutation,
            GraphqlToken::Name("subscription") => OperationKind::Subscription,
            _ => return Err(self.unexpected("an operation or a fragment")),
        };
        self.advance()?;
        let name = if let GraphqlToken::Name(name) = self.token { Some(name) } else { None };
        if name.is_some() {
            self.advance()?;
        }
        let mut variables: Vec<VariableDefinition<'t>> = Vec::new();
        if self.skip(b'(')? {
            loop {
                let definition = self.variable_definition()?;
                if variables.iter().any(|other| other.name == definition.name) {
                    return Err(self.error(&format!("the variable {} is defined twice", definition.name)));
                }
                if variables.len() == MAX_DEFINITIONS {
                    return Err(self.error("the operation has too many variables"));
                }
                variables.push(definition);
                if self.skip(b')')? {
                    break;
                }
            }
        }
        self.directives(false)?;
        let selections = self.selections()?;
        Ok(Operation { kind, name, variables, selections })
    }

    fn variable_definition(&mut self) -> Parsed<VariableDefinition<'t>> {
        self.expect(b'$')?;
        let name = self.name()?;
        self.expect(b':')?;
        let kind = self.nested(Self::type_reference)?;
        let default = if self.skip(b'=')? { Some(self.value(true)?) } else { None };
        self.directives(true)?;
        Ok(VariableDefinition { name, kind, default })
    }

    fn type_reference(&mut self) -> Parsed<TypeReference<'t>> {
        let kind = if self.skip(b'[')? {
            let element = self.nested(Self::type_reference)?;
            self.expect(b']')?;
            TypeReference::List(Box::new(element))
        } else {
            TypeReference::Named(self.name()?)
        };
        Ok(if self.skip(b'!')? { TypeReference::NonNull(Box::new(kind)) } else { kind })
    }

    fn fragment(&mut self) -> Parsed<Fragment<'t>> {
        let name = self.name()?;
        if name == "on" {
            return Err(self.error("a fragment cannot have the name `on`"));
        }
        if self.token != GraphqlToken::Name("on") {
            return Err(self.unexpected("`on`"));
        }
        self.advance()?;
        let on = self.name()?;
        self.directives(false)?;
        Ok(Fragment { name, on, selections: self.selections()? })
    }

    fn selections(&mut self) -> Parsed<Vec<Selection<'t>>> {
        self.nested(|parser| {
            parser.expect(b'{')?;
            let mut selections = Vec::new();
            loop {
                selections.push(parser.selection()?);
                if parser.skip(b'}')? {
                    return Ok(selections);
                }
            }
        })
    }

    fn selection(&mut self) -> Parsed<Selection<'t>> {
        if self.token != GraphqlToken::Spread {
            return self.field().map(Selection::Field);
        }
        self.advance()?;
        let on = match self.token {
            GraphqlToken::Name("on") => {
                self.advance()?;
                Some(self.name()?)
            }
            GraphqlToken::Name(name) => {
                self.advance()?;
                self.directives(false)?;
                return Ok(Selection::Spread(name));
            }
            _ => None,
        };
        self.directives(false)?;
        Ok(Selection::Inline(InlineFragment { on, selections: self.selections()? }))
    }

    fn field(&mut self) -> Parsed<GraphqlField<'t>> {
        let mut name = self.name()?;
        if self.skip(b':')? {
            self.aliases_left =
                self.aliases_left.checked_sub(1).ok_or_else(|| self.error("the document has too many aliases"))?;
            name = self.name()?;
        }
        let arguments = self.arguments(false)?;
        self.directives(false)?;
        let selections = if self.token == GraphqlToken::Punctuator(b'{') { self.selections()? } else { Vec::new() };
        Ok(GraphqlField { name, arguments, selections })
    }

    fn arguments(&mut self, is_constant: bool) -> Parsed<Vec<Argument<'t>>> {
        let mut arguments: Vec<Argument<'t>> = Vec::new();
        if self.skip(b'(')? {
            loop {
                let name = self.name()?;
                if arguments.iter().any(|other| other.name == name) {
                    return Err(self.error(&format!("the argument {name} is given twice")));
                }
                if arguments.len() == MAX_DEFINITIONS {
                    return Err(self.error("a field has too many arguments"));
                }
                self.expect(b':')?;
                arguments.push(Argument { name, value: self.value(is_constant)? });
                if self.skip(b')')? {
                    break;
                }
            }
        }
        Ok(arguments)
    }

    /// Directives are checked and not kept.
    fn directives(&mut self, is_constant: bool) -> Parsed<()> {
        while self.skip(b'@')? {
            self.name()?;
            self.arguments(is_constant)?;
        }
        Ok(())
    }

    /// A value; `is_constant`: without variables.
    fn value(&mut self, is_constant: bool) -> Parsed<GraphqlValue<'t>> {
        self.nested(|parser| {
            let token = std::mem::replace(&mut parser.token, GraphqlToken::End);
            let value = match token {
                GraphqlToken::Punctuator(b'$') if !is_constant => {
                    parser.advance()?;
                    return Ok(GraphqlValue::Variable(parser.name()?));
                }
                GraphqlToken::Punctuator(b'[') => {
                    parser.advance()?;
                    let mut items = Vec::new();
                    while !parser.skip(b']')? {
                        items.push(parser.value(is_constant)?);
                    }
                    return Ok(GraphqlValue::List(items));
                }
                GraphqlToken::Punctuator(b'{') => {
                    parser.advance()?;
                    return parser.object(is_constant);
                }
                GraphqlToken::Int(text) => GraphqlValue::Int(text),
                GraphqlToken::Float(text) => GraphqlValue::Float(text),
                GraphqlToken::Text(text) => GraphqlValue::Text(text),
                GraphqlToken::Name("true") => GraphqlValue::Boolean(true),
                GraphqlToken::Name("false") => GraphqlValue::Boolean(false),
                GraphqlToken::Name("null") => GraphqlValue::Null,
                GraphqlToken::Name(name) => GraphqlValue::Enum(name),
                other => {
                    parser.token = other;
                    return Err(parser.unexpected(if is_constant { "a value without variables" } else { "a value" }));
                }
            };
            parser.advance()?;
            Ok(value)
        })
    }

    fn object(&mut self, is_constant: bool) -> Parsed<GraphqlValue<'t>> {
        let mut fields: Vec<(&'t str, GraphqlValue<'t>)> = Vec::new();
        while !self.skip(b'}')? {
            let name = self.name()?;
            if fields.iter().any(|(other, _)| *other == name) {
                return Err(self.error(&format!("the field {name} of a value is given twice")));
            }
            if fields.len() == MAX_DEFINITIONS {
                return Err(self.error("a value has too many fields"));
            }
            self.expect(b':')?;
            fields.push((name, self.value(is_constant)?));
        }
        Ok(GraphqlValue::Object(fields))
    }

    /// Parses one level deeper.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.depth_left = self.depth_left.checked_sub(1).ok_or_else(|| self.error("the document is too deep"))?;
        let parsed = parse(self);
        self.depth_left += 1;
        parsed
    }

    fn advance(&mut self) -> Parsed<()> {
        self.token = self.lexer.next()?;
        Ok(())
    }

    /// Whether the next token is this punctuator, which is then read.
    fn skip(&mut self, punctuator: u8) -> Parsed<bool> {
        let is_next = self.token == GraphqlToken::Punctuator(punctuator);
        if is_next {
            self.advance()?;
        }
        Ok(is_next)
    }

    fn expect(&mut self, punctuator: u8) -> Parsed<()> {
        match self.skip(punctuator)? {
            true => Ok(()),
            false => Err(self.unexpected(&format!("`{}`", char::from(punctuator)))),
        }
    }

    fn name(&mut self) -> Parsed<&'t str> {
        let GraphqlToken::Name(name) = self.token else { return Err(self.unexpected("a name")) };
        self.advance()?;
        Ok(name)
    }

    fn unexpected(&self, expected: &str) -> DocumentError {
        match self.token {
            GraphqlToken::End => self.error(&format!("the document ends where {expected} is expected")),
            _ => {
                let found: String = self.lexer.last_text().chars().take(MAX_SHOWN).collect();
                self.error(&format!("{found:?} is in the place of {expected}"))
            }
        }
    }

    fn error(&self, problem: &str) -> DocumentError {
        self.lexer.error(problem)
    }
}

/// Of what is compared with all others of its list.
const MAX_DEFINITIONS: usize = 256;
const MAX_SHOWN: usize = 20;
