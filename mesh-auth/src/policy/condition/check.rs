//! What a condition may say, decided before it is ever evaluated.

use std::collections::BTreeSet;

use cel::IdedExpr;
use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr, operators,
};

use super::{ConditionError, MAX_CONDITION_BYTES, MAX_ELEMENTS, MAX_WORK};

/// What a condition reads of a call.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Variable and field; both of the table [`VARIABLES`].
    pub(super) fields: BTreeSet<(&'static str, &'static str)>,
    pub(super) headers: BTreeSet<Box<str>>,
    pub(super) claims: BTreeSet<Box<str>>,
    pub(super) now: bool,
}

impl Reads {
    /// Whether any field of a variable is read.
    pub(super) fn variable(&self, name: &str) -> bool {
        self.fields.iter().any(|(variable, _)| *variable == name)
    }

    pub(super) fn has(&self, variable: &'static str, field: &'static str) -> bool {
        self.fields.contains(&(variable, field))
    }
}

/// Refuses a text that the parser, which is recursive, should not see: one whose tree could be deep.
pub(super) fn text(text: &str) -> Result<(), ConditionError> {
    if text.len() > MAX_CONDITION_BYTES {
        return Err(ConditionError::TooLong { bytes: text.len() });
    }
    let (mut depth, mut choices, mut operators) = (0_usize, 0_usize, 0_usize);
    let mut rest = text.chars();
    while let Some(char) = rest.next() {
        match char {
            '\'' | '"' => skip_text(&mut rest, char),
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '?' => choices += 1,
            '.' | '!' | '-' | '+' | '*' | '/' | '%' | '<' | '>' | '=' | '&' | '|' | ':' => {
                operators += 1;
            }
            _ => {}
        }
        if depth > MAX_BRACKETS || choices > MAX_BRACKETS || operators > MAX_OPERATORS {
            return Err(ConditionError::TooDeep);
        }
    }
    Ok(())
}

/// Goes behind a text in quotes. Where a text is written in one of the rarer ways (raw, three quotes) this may end too
/// early and count what is no operator, never the reverse for what the parser takes as one.
fn skip_text(rest: &mut std::str::Chars<'_>, quote: char) {
    while let Some(char) = rest.next() {
        if char == '\\' {
            rest.next();
        } else if char == quote {
            return;
        }
    }
}

/// Checks an expression and says what it reads.
pub(super) fn expression(expression: &IdedExpr) -> Result<Reads, ConditionError> {
    if is_never_bool(expression, None) {
        return Err(ConditionError::NotBool);
    }
    let mut checker = Checker::default();
    let steps = checker.visit(expression, 0)?;
    if steps > MAX_WORK {
        return Err(ConditionError::TooMuchWork { steps });
    }
    Ok(checker.reads)
}

#[derive(Default)]
struct Checker<'a> {
    reads: Reads,
    /// Names that the loops around an expression give.
    scope: Vec<&'a str>,
    loops: usize,
}

impl<'a> Checker<'a> {
    /// Checks an expression; the most steps that evaluating it takes.
    fn visit(&mut self, expression: &'a IdedExpr, depth: usize) -> Result<u64, ConditionError> {
        if depth > MAX_DEPTH {
            return Err(ConditionError::TooDeep);
        }
        match &expression.expr {
            Expr::Literal(_) => Ok(1),
            Expr::Ident(name) => self.ident(name),
            Expr::Select(select) => self.select(select, depth),
            Expr::Call(call) => self.call(call, depth),
            Expr::List(list) => {
                self.refuse_growth(list.elements.iter())?;
                self.all(list.elements.iter(), depth)
            }
            Expr::Map(map) => {
                let mut parts = Vec::new();
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        parts.extend([&entry.key, &entry.value]);
                    }
                }
                self.refuse_growth(parts.iter().copied())?;
                self.all(parts.into_iter(), depth)
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, depth),
            Expr::Struct(message) => Err(unknown(&message.type_name, &[])),
            Expr::Unspecified => Err(ConditionError::NotBool),
        }
    }

    fn all(
        &mut self,
        expressions: impl Iterator<Item = &'a IdedExpr>,
        depth: usize,
    ) -> Result<u64, ConditionError> {
        let mut steps = 1_u64;
        for expression in expressions {
            steps = steps.saturating_add(self.visit(expression, depth + 1)?);
        }
        Ok(steps)
    }

    /// In a loop a list of anything but constants could grow with each turn, and loops can follow each other.
    fn refuse_growth(
        &self,
        mut parts: impl Iterator<Item = &'a IdedExpr>,
    ) -> Result<(), ConditionError> {
        if self.loops > 0 && !parts.all(|part| matches!(part.expr, Expr::Literal(_))) {
            return Err(ConditionError::Growth);
        }
        Ok(())
    }

    fn ident(&mut self, name: &str) -> Result<u64, ConditionError> {
        if self.scope.contains(&name) {
            return Ok(1);
        }
        if name == "now" {
            self.reads.now = true;
            return Ok(1);
        }
        match fields_of(name) {
            Some((_, fields)) => Err(ConditionError::Whole {
                name: name.to_owned(),
                fields: fields.join(", "),
            }),
            None => {
                let mut names: Vec<&str> = VARIABLES.iter().map(|(name, _)| *name).collect();
                names.push("now");
                names.extend(&self.scope);
                Err(unknown(name, &names))
            }
        }
    }

    fn select(&mut self, select: &'a SelectExpr, depth: usize) -> Result<u64, ConditionError> {
        match self.place(&select.operand)? {
            Place::Variable(variable, fields) => {
                let Some(field) = fields.iter().find(|field| **field == select.field) else {
                    return Err(unknown_field(variable, &select.field, fields));
                };
                match (variable, *field) {
                    ("request", "headers") => Err(NEEDS_HEADER),
                    ("user", "claims") => Err(NEEDS_CLAIM),
                    _ => {
                        self.reads.fields.insert((variable, field));
                        Ok(2)
                    }
                }
            }
            Place::Headers => self.header(&select.field),
            Place::Claims => Ok(self.claim(&select.field)),
            Place::Field(name) => Err(unknown(&format!("{name}.{}", select.field), &[])),
            Place::Other => Ok(self.visit(&select.operand, depth + 1)?.saturating_add(1)),
        }
    }

    fn call(&mut self, call: &'a CallExpr, depth: usize) -> Result<u64, ConditionError> {
        let name = call.func_name.as_str();
        let member = match (name, &*call.args) {
            (operators::INDEX, [object, key]) | (operators::IN, [key, object]) => {
                Some((object, key))
            }
            _ => None,
        };
        if let Some((object, key)) = member {
            let key = match &key.expr {
                Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
                _ => None,
            };
            match (self.place(object)?, key) {
                (Place::Headers, Some(key)) => return self.header(key),
                (Place::Claims, Some(key)) => return Ok(self.claim(key)),
                (Place::Headers, None) => return Err(NEEDS_HEADER),
                (Place::Claims, None) => return Err(NEEDS_CLAIM),
                _ => {}
            }
        }
        let is_known = OPERATORS.contains(&name)
            || FUNCTIONS
                .iter()
                .any(|(own, is_method)| *own == name && (*is_method || call.target.is_none()));
        if !is_known {
            let known: Vec<&str> = FUNCTIONS
                .iter()
                .map(|(name, _)| *name)
                .chain(MACROS)
                .collect();
            return Err(ConditionError::Function {
                name: name.to_owned(),
                nearest: nearest(name, &known),
            });
        }
        if name == operators::ADD && self.loops > 0 {
            return self.sum_in_loop(call, depth);
        }
        let own = if name == operators::IN { SEARCH } else { 1 };
        let parts = call.target.as_deref().into_iter().chain(&call.args);
        Ok(self.all(parts, depth)?.saturating_add(own))
    }

    /// Loops collect what they make by `@result + …`, which nobody can write; nothing else adds in a loop.
    fn sum_in_loop(&mut self, call: &'a CallExpr, depth: usize) -> Result<u64, ConditionError> {
        match &*call.args {
            [result, more] if matches!(&result.expr, Expr::Ident(name) if name == RESULT) => {
                match &more.expr {
                    Expr::List(list) => self.all(list.elements.iter(), depth),
                    _ => self.visit(more, depth + 1),
                }
            }
            _ => Err(ConditionError::Growth),
        }
    }

    fn comprehension(
        &mut self,
        own: &'a ComprehensionExpr,
        depth: usize,
    ) -> Result<u64, ConditionError> {
        let range = self.visit(&own.iter_range, depth + 1)?;
        let turns = elements(&own.iter_range);
        let names = self.scope.len();
        self.scope.push(&own.iter_var);
        self.scope.extend(own.iter_var2.as_deref());
        self.scope.push(&own.accu_var);
        let start = self.visit(&own.accu_init, depth + 1)?;
        self.loops += 1;
        let turn = self
            .visit(&own.loop_cond, depth + 1)?
            .saturating_add(self.visit(&own.loop_step, depth + 1)?);
        let result = self.visit(&own.result, depth + 1)?;
        self.loops -= 1;
        self.scope.truncate(names);
        Ok(range
            .saturating_add(start)
            .saturating_add(result)
            .saturating_add(turns.saturating_mul(turn)))
    }

    /// What an expression that something is selected of stands for.
    fn place(&self, expression: &'a IdedExpr) -> Result<Place, ConditionError> {
        match &expression.expr {
            Expr::Ident(name) if !self.scope.contains(&name.as_str()) => Ok(fields_of(name)
                .map_or(Place::Other, |(variable, fields)| {
                    Place::Variable(variable, fields)
                })),
            Expr::Select(select) if !select.test => match self.place(&select.operand)? {
                Place::Variable("request", _) if select.field == "headers" => Ok(Place::Headers),
                Place::Variable("user", _) if select.field == "claims" => Ok(Place::Claims),
                Place::Variable(variable, fields) => {
                    let field = fields.iter().find(|field| **field == select.field);
                    match field {
                        Some(field) => Ok(Place::Field(format!("{variable}.{field}"))),
                        None => Err(unknown_field(variable, &select.field, fields)),
                    }
                }
                _ => Ok(Place::Other),
            },
            _ => Ok(Place::Other),
        }
    }

    fn header(&mut self, name: &str) -> Result<u64, ConditionError> {
        let is_name = !name.is_empty()
            && http::HeaderName::from_bytes(name.as_bytes())
                .is_ok_and(|canonical| canonical.as_str() == name);
        if !is_name {
            return Err(ConditionError::HeaderName {
                name: name.to_owned(),
            });
        }
        if SECRET_HEADERS.contains(&name) {
            return Err(ConditionError::Secret {
                name: name.to_owned(),
            });
        }
        self.reads.fields.insert(("request", "headers"));
        self.reads.headers.insert(name.into());
        Ok(3)
    }

    fn claim(&mut self, name: &str) -> u64 {
        self.reads.fields.insert(("user", "claims"));
        self.reads.claims.insert(name.into());
        3
    }
}

enum Place {
    Variable(&'static str, &'static [&'static str]),
    Headers,
    Claims,
    /// A field that has no fields.
    Field(String),
    Other,
}

fn fields_of(name: &str) -> Option<(&'static str, &'static [&'static str])> {
    VARIABLES
        .iter()
        .find(|(variable, _)| *variable == name)
        .copied()
}

/// The most members that what a loop goes over has.
fn elements(range: &IdedExpr) -> u64 {
    let most = u64::try_from(MAX_ELEMENTS).unwrap_or(u64::MAX);
    match &range.expr {
        Expr::List(list) => u64::try_from(list.elements.len()).unwrap_or(u64::MAX),
        Expr::Map(map) => u64::try_from(map.entries.len()).unwrap_or(u64::MAX),
        // `map` and `filter`: no more than they go over themselves.
        Expr::Comprehension(inner) => elements(&inner.iter_range),
        Expr::Call(call) if call.func_name == operators::ADD => {
            call.args.iter().map(elements).fold(0, u64::saturating_add)
        }
        Expr::Call(call) if call.func_name == operators::CONDITIONAL => {
            call.args.iter().map(elements).max().unwrap_or(most)
        }
        _ => most,
    }
}

/// Whether an expression is certainly neither true nor false. `result` is what a loop around it starts with.
fn is_never_bool(expression: &IdedExpr, result: Option<&IdedExpr>) -> bool {
    match &expression.expr {
        Expr::Literal(literal) => !matches!(literal, LiteralValue::Boolean(_)),
        Expr::List(_) | Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => true,
        Expr::Ident(name) if name == RESULT => {
            result.is_some_and(|result| is_never_bool(result, None))
        }
        Expr::Ident(name) => name == "now",
        Expr::Select(select) => {
            !select.test
                && matches!(&select.operand.expr, Expr::Ident(name) if fields_of(name).is_some())
        }
        Expr::Call(call) if call.func_name == operators::CONDITIONAL => call
            .args
            .iter()
            .skip(1)
            .any(|part| is_never_bool(part, result)),
        Expr::Call(call) => NEVER_BOOL.contains(&call.func_name.as_str()),
        Expr::Comprehension(own) => is_never_bool(&own.result, Some(&own.accu_init)),
    }
}

fn unknown(name: &str, known: &[&str]) -> ConditionError {
    ConditionError::Unknown {
        name: name.to_owned(),
        nearest: nearest(name, known),
    }
}

fn unknown_field(variable: &str, field: &str, fields: &[&str]) -> ConditionError {
    ConditionError::Unknown {
        name: format!("{variable}.{field}"),
        nearest: nearest(field, fields).map(|nearest| format!("{variable}.{nearest}")),
    }
}

/// The known word that the fewest changes of a letter lead to, where these are at most a third of its letters.
fn nearest(word: &str, known: &[&str]) -> Option<String> {
    let best = known
        .iter()
        .map(|known| (distance(word, known), known))
        .min()?;
    (best.0 * 3 <= best.1.len().max(3)).then(|| (*best.1).to_owned())
}

/// Levenshtein's distance, by rows (Wagner and Fischer, "The string-to-string correction problem", 1974).
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (line, own) in from.chars().enumerate() {
        let mut before = line;
        let mut left = line + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(to.chars()) {
            let above = *cell;
            let changed = before + usize::from(own != other);
            *cell = changed.min(above + 1).min(left + 1);
            before = above;
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

const NEEDS_HEADER: ConditionError = ConditionError::NotNamed {
    name: "request.headers",
};
const NEEDS_CLAIM: ConditionError = ConditionError::NotNamed {
    name: "user.claims",
};

/// What a condition can read.
const VARIABLES: [(&str, &[&str]); 4] = [
    ("source", &["spiffe_id", "trust_domain", "service"]),
    ("destination", &["service", "port"]),
    ("request", &["method", "path", "host", "headers"]),
    ("user", &["issuer", "subject", "groups", "roles", "claims"]),
];

const OPERATORS: [&str; 18] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::IN,
];

/// Functions, and whether they are called on something: `text.contains('x')`.
const FUNCTIONS: [(&str, bool); 8] = [
    ("size", true),
    ("contains", true),
    ("startsWith", true),
    ("endsWith", true),
    ("int", false),
    ("double", false),
    ("string", false),
    // Written by `all` and `exists`.
    (operators::NOT_STRICTLY_FALSE, false),
];

const MACROS: [&str; 6] = ["has", "all", "exists", "exists_one", "map", "filter"];

const NEVER_BOOL: [&str; 10] = [
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::NEGATE,
    "size",
    "int",
    "double",
    "string",
];

/// Headers that prove who somebody is: a record of what a decision depended on would hold them.
pub(in crate::policy) const SECRET_HEADERS: [&str; 4] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
];

/// What the loop of a macro collects in.
const RESULT: &str = "@result";
/// Steps that looking through a list counts for.
const SEARCH: u64 = 16;
/// Deepest brackets, and most `?`: the parser takes a dozen functions for each.
const MAX_BRACKETS: usize = 16;
/// Most operators: each may be one level of the tree.
const MAX_OPERATORS: usize = 512;
/// Deepest tree.
const MAX_DEPTH: usize = 64;
