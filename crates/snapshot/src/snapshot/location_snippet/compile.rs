//! Compiles the text of a snippet.

use std::sync::Arc;

use super::block::SnippetBlock;
use super::body_edits::SubFilters;
use super::directive_tree::{self, WrittenDirective};
use super::endpoint_rewrites::EndpointRewrites;
use super::expression::SnippetRegex;
use super::ignored::{self, DirectiveEffect, IgnoredDirective};
use super::program::{RewriteStep, SnippetCondition, SnippetStep};
use super::refusal::{DirectiveRefusal, RefusedSnippet};
use super::remedies;
use super::request_fields::SnippetRequestFields;
use super::restriction::restricts_access;
use super::snippet::{LocationModifier, Snippet, SnippetLocation};
use super::text::KnownVariables;
use super::variable_scope::variables;
use super::{response_directives, rewrite_directives};
use crate::snapshot::regex::RegexLimit;

/// Where a snippet stands, which decides what it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnippetPlace {
    /// The annotation `configuration-snippet`.
    Location,
    /// The annotation `server-snippet`.
    Server,
}

impl Snippet {
    /// Compiles a snippet on its own.
    ///
    /// # Errors
    ///
    /// With the first directive that is not supported, or that nginx would not accept.
    pub fn parse(text: &str, place: SnippetPlace, limit: RegexLimit) -> Result<Self, RefusedSnippet> {
        compile(text, place, &Snippet::default(), limit)
    }

    /// Compiles a snippet of a location of a host whose server has a snippet, too. The result includes what the
    /// location inherits; the text may be empty. Variables that the server sets are known, and `Snippet::run_after`
    /// gives them their values.
    ///
    /// # Errors
    ///
    /// As [`Snippet::parse`].
    pub fn parse_below(text: &str, server: &Snippet, limit: RegexLimit) -> Result<Self, RefusedSnippet> {
        compile(text, SnippetPlace::Location, server, limit)
    }
}

fn compile(text: &str, place: SnippetPlace, server: &Snippet, limit: RegexLimit) -> Result<Snippet, RefusedSnippet> {
    let directives = directive_tree::read(text)?;
    let restricts = restricts_access(&directives);
    let scope = variables(&directives, &server.variables, restricts)?;
    let mut compiler = SnippetCompiler { scope: &scope, limit, restricts, ignored: Vec::new(), regex_bytes: 0 };
    let snippet = compiler.level(&directives, place, server)?;
    Ok(Snippet {
        restricts,
        ignored: compiler.ignored,
        regex_bytes: compiler.regex_bytes,
        variables: scope.set,
        ..snippet
    }
    .complete())
}

struct SnippetCompiler<'s> {
    scope: &'s KnownVariables,
    limit: RegexLimit,
    restricts: bool,
    ignored: Vec<IgnoredDirective>,
    regex_bytes: usize,
}

impl SnippetCompiler<'_> {
    /// The directives of a server or a location, except those in locations.
    fn level(
        &mut self,
        directives: &[WrittenDirective],
        place: SnippetPlace,
        outer: &Snippet,
    ) -> Result<Snippet, RefusedSnippet> {
        let mut snippet = Snippet::default();
        let (mut program, mut blocks, mut locations) = (Vec::new(), Vec::new(), Vec::new());
        for directive in directives {
            match (&directive.name[..], place) {
                ("if", _) => program.push(self.condition(directive, place, &mut blocks)?),
                ("location", SnippetPlace::Server) => locations.push(directive),
                ("limit_except", SnippetPlace::Location) => {
                    snippet.outer.access.add_method_limit(directive, self.restricts)?;
                }
                _ => self.add(directive, place, &mut snippet, &mut program).map_err(self.refusing(directive))?,
            }
        }
        self.regex_bytes += snippet.rewrites.regex_bytes();
        snippet.rewrites.inherit(&outer.rewrites);
        snippet.body.inherit(&outer.body);
        snippet.settings.inherit(&outer.settings);
        snippet.outer.inherit(&outer.outer);
        for block in &mut blocks {
            SnippetBlock::inherit(block, &snippet.outer);
        }
        snippet.outer = snippet.outer.complete();
        snippet.blocks = blocks.into_iter().map(SnippetBlock::complete).collect();
        snippet.program = program.into();
        for directive in locations {
            let location = self.location(directive, &snippet)?;
            snippet.locations.push(location);
        }
        Ok(snippet)
    }

    fn refusing(&self, directive: &WrittenDirective) -> impl Fn(DirectiveRefusal) -> RefusedSnippet {
        let restricts = self.restricts;
        move |refusal| directive.refuse(refusal, restricts)
    }

    /// A directive that is in no `if`.
    fn add(
        &mut self,
        directive: &WrittenDirective,
        place: SnippetPlace,
        snippet: &mut Snippet,
        program: &mut Vec<SnippetStep>,
    ) -> Result<(), DirectiveRefusal> {
        if let Some(step) = self.step(directive)? {
            program.push(step);
        } else if place == SnippetPlace::Server && SENT_FIELDS.contains(&&directive.name[..]) {
            SnippetRequestFields::default().add(directive, self.scope)?;
            self.ignore(directive, "locations have request fields of their own, so that nginx ignores it, too");
        } else if place == SnippetPlace::Server && EndpointRewrites::is_of_each_location(&directive.name) {
            EndpointRewrites::default().add(directive, self.scope, self.limit)?;
            self.ignore(directive, "ingress-nginx sets it in all locations, so that nginx ignores it, too");
        } else if !snippet.rewrites.add(directive, self.scope, self.limit)?
            && !snippet.body.add(directive, self.scope)?
            && !self.add_to_block(directive, &mut snippet.outer)?
            && !snippet.settings.add(directive)?
        {
            let reason = ignored::reason(directive)?.ok_or_else(|| remedies::unsupported(&directive.name))?;
            self.ignore(directive, reason);
        }
        Ok(())
    }

    /// Whether a directive is one for a block, which gets it.
    fn add_to_block(
        &mut self,
        directive: &WrittenDirective,
        block: &mut SnippetBlock,
    ) -> Result<bool, DirectiveRefusal> {
        let mut effect = block.request.add(directive, self.scope)?;
        if effect == DirectiveEffect::Other {
            effect = response_directives::add(directive, self.scope, &mut block.response)?;
        }
        match effect {
            DirectiveEffect::Added => Ok(true),
            DirectiveEffect::None(reason) => {
                self.ignore(directive, reason);
                Ok(true)
            }
            DirectiveEffect::Other => block.access.add_rule(directive),
        }
    }

    fn step(&mut self, directive: &WrittenDirective) -> Result<Option<SnippetStep>, DirectiveRefusal> {
        let step = rewrite_directives::step(directive, self.scope, self.limit)?;
        if let Some(SnippetStep::Rewrite(rewrite)) = &step {
            let RewriteStep { regex, .. } = &**rewrite;
            self.regex_bytes += regex.bytes;
        }
        Ok(step)
    }

    fn ignore(&mut self, directive: &WrittenDirective, reason: &'static str) {
        let directive = IgnoredDirective { line: directive.line, directive: directive.name.clone(), reason };
        self.ignored.push(directive);
    }

    /// An `if`, whose block is added to `blocks`.
    fn condition(
        &mut self,
        directive: &WrittenDirective,
        place: SnippetPlace,
        blocks: &mut Vec<SnippetBlock>,
    ) -> Result<SnippetStep, RefusedSnippet> {
        let condition = rewrite_directives::condition(&directive.arguments, self.scope, self.limit)
            .map_err(self.refusing(directive))?;
        if let SnippetCondition::Matches { regex, .. } = &condition {
            self.regex_bytes += regex.bytes;
        }
        let mut block = SnippetBlock::default();
        let mut steps = Vec::new();
        for inner in directive.inner().map_err(self.refusing(directive))? {
            self.add_in_condition(inner, place, &mut block, &mut steps).map_err(self.refusing(inner))?;
        }
        let block = match place {
            SnippetPlace::Server => None,
            SnippetPlace::Location => {
                blocks.push(block);
                Some(blocks.len() - 1)
            }
        };
        Ok(SnippetStep::If { condition, block, steps: steps.into() })
    }

    fn add_in_condition(
        &mut self,
        directive: &WrittenDirective,
        place: SnippetPlace,
        block: &mut SnippetBlock,
        steps: &mut Vec<SnippetStep>,
    ) -> Result<(), DirectiveRefusal> {
        if let Some(step) = self.step(directive)? {
            steps.push(step);
            return Ok(());
        }
        if directive.block.is_some() {
            return Err(DirectiveRefusal::invalid("must not be in an `if`"));
        }
        if place == SnippetPlace::Server {
            let remedy = "put the `if` into a `location`, or into a `configuration-snippet`";
            return Err(DirectiveRefusal::new("is not supported in an `if` outside of a location", remedy));
        }
        if self.add_to_block(directive, block)? {
            return Ok(());
        }
        let is_of_location = EndpointRewrites::has(&directive.name) || SubFilters::has(&directive.name);
        if is_of_location || Snippet::default().settings.add(directive)? {
            return Err(DirectiveRefusal::new("must not be in an `if`", "move it out of the `if`"));
        }
        let reason = ignored::reason(directive)?.ok_or_else(|| remedies::unsupported(&directive.name))?;
        self.ignore(directive, reason);
        Ok(())
    }

    /// A location of a server's snippet.
    fn location(&mut self, directive: &WrittenDirective, server: &Snippet) -> Result<SnippetLocation, RefusedSnippet> {
        let (modifier, path) = location_path(&directive.arguments).map_err(self.refusing(directive))?;
        let regex = match modifier {
            LocationModifier::Expression | LocationModifier::ExpressionOfAnyCase => {
                let is_any_case = modifier == LocationModifier::ExpressionOfAnyCase;
                Some(SnippetRegex::compile(path, is_any_case, self.limit).map_err(self.refusing(directive))?)
            }
            LocationModifier::Prefix | LocationModifier::PrefixBeforeExpressions | LocationModifier::Exact => None,
        };
        let directives = directive.inner().map_err(self.refusing(directive))?;
        let mut snippet = self.level(directives, SnippetPlace::Location, server)?;
        snippet.restricts = restricts_access(directives);
        snippet.variables = self.scope.set.iter().map(Arc::clone).collect();
        self.regex_bytes += regex.as_ref().map_or(0, |regex| regex.bytes);
        if let Some(regex) = regex.clone().filter(SnippetRegex::has_groups) {
            let program = std::mem::take(&mut snippet.program);
            snippet.program = std::iter::once(SnippetStep::Groups(regex)).chain(program).collect();
        }
        Ok(SnippetLocation {
            line: directive.line,
            modifier,
            path: path.into(),
            snippet: Arc::new(snippet.complete()),
            regex,
        })
    }
}

/// The modifier and the path, between which there need not be a space.
fn location_path(arguments: &[String]) -> Result<(LocationModifier, &str), DirectiveRefusal> {
    let (modifier, path) = match arguments {
        [modifier, path] => match MODIFIERS.iter().find(|(written, _)| written == modifier) {
            Some((_, modifier)) => (*modifier, &path[..]),
            None => return Err(DirectiveRefusal::invalid(format!("has the modifier {modifier:?}"))),
        },
        [path] => {
            let joined =
                MODIFIERS.iter().find_map(|(written, modifier)| Some((*modifier, path.strip_prefix(written)?)));
            joined.unwrap_or((LocationModifier::Prefix, path))
        }
        _ => return Err(DirectiveRefusal::invalid("takes a modifier and a path")),
    };
    let is_expression = matches!(modifier, LocationModifier::Expression | LocationModifier::ExpressionOfAnyCase);
    match is_expression || path.starts_with('/') {
        true => Ok((modifier, path)),
        false => Err(DirectiveRefusal::new("has a path that does not begin with a slash", "write the whole path")),
    }
}

/// Longer ones first, because a path may follow directly.
const MODIFIERS: &[(&str, LocationModifier)] = &[
    ("^~", LocationModifier::PrefixBeforeExpressions),
    ("~*", LocationModifier::ExpressionOfAnyCase),
    ("~", LocationModifier::Expression),
    ("=", LocationModifier::Exact),
];

const SENT_FIELDS: &[&str] = &["proxy_set_header", "grpc_set_header"];
