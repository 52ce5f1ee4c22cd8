//! Programs after parsing: terms whose variables, functions and labels are resolved.

use super::builtins::Builtin;
use super::format::TextFormat;
use super::operators::BinaryOperator;

/// A program, and the functions that it uses of the library.
pub(crate) struct JqProgram {
    pub(super) main: Term,
    pub(super) library: Vec<Function>,
}

pub(super) struct Function {
    pub(super) id: u32,
    /// The ids of the parameters, which are closures.
    pub(super) parameters: Vec<u32>,
    pub(super) body: Term,
}

pub(super) enum Term {
    Identity,
    Literal(Literal),
    /// A string with interpolated terms, whose values are written in a format.
    Text(Vec<TextPiece>, TextFormat),
    Format(TextFormat),
    /// The value of the second term, evaluated on the input, is the index.
    Index(Box<Term>, Box<Term>),
    Slice(Box<Term>, Option<Box<Term>>, Option<Box<Term>>),
    Iterate(Box<Term>),
    Try(Box<Term>, Option<Box<Term>>),
    List(Option<Box<Term>>),
    Object(Vec<(Term, Term)>),
    Negate(Box<Term>),
    Pipe(Box<Term>, Box<Term>),
    Comma(Box<Term>, Box<Term>),
    Binary(BinaryOperator, Box<Term>, Box<Term>),
    And(Box<Term>, Box<Term>),
    Or(Box<Term>, Box<Term>),
    Alternative(Box<Term>, Box<Term>),
    Assign(Box<Term>, Box<Term>),
    Update(Box<Term>, Box<Term>),
    /// The operator is `None` for `//=`.
    UpdateBy(Option<BinaryOperator>, Box<Term>, Box<Term>),
    If(Box<Term>, Box<Term>, Option<Box<Term>>),
    Reduce(Box<Term>, BindingPattern, Box<Term>, Box<Term>),
    Foreach(Box<Term>, BindingPattern, Box<Term>, Box<Term>, Option<Box<Term>>),
    Bind(Box<Term>, BindingPattern, Box<Term>),
    Define(Box<Function>, Box<Term>),
    Variable(u32),
    Label(u32, Box<Term>),
    Break(u32),
    /// A parameter of the function that contains the term.
    Closure(u32),
    /// A function that the program defines.
    Call(u32, Vec<Term>),
    /// A function of the library, by its position.
    Library(usize, Vec<Term>),
    Builtin(Builtin, Vec<Term>),
    /// A function that compares the input with a regular expression.
    Regex(RegexFunction, Box<regex::Regex>, bool, Option<Box<Term>>),
}

#[derive(Clone, Debug)]
pub(super) enum Literal {
    Null,
    Boolean(bool),
    Number(f64),
    Text(Box<str>),
}

pub(super) enum TextPiece {
    Literal(Box<str>),
    Term(Term),
}

pub(super) enum BindingPattern {
    Variable(u32),
    List(Vec<BindingPattern>),
    /// Members by key, each bound to a variable, to a pattern, or to both.
    Object(Vec<(Term, Option<u32>, Option<BindingPattern>)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RegexFunction {
    Test,
    Match,
    Capture,
    Scan,
    Split,
    Substitute,
}
