//! Conditions of rules, in the Common Expression Language.
//!
//! # What a condition can read
//!
//! | variable | what | where it is absent |
//! |---|---|---|
//! | `source.spiffe_id`, `source.trust_domain` | the caller's SPIFFE id, and its trust domain | no certificate |
//! | `source.service` | the caller's service: the path of an id of our own trust domain, without its slash | other domains too |
//! | `destination.service`, `destination.port` | what is called | never |
//! | `request.method`, `request.path`, `request.host` | the canonical request: the path with its escapes undone, the host in lower case without port | not HTTP |
//! | `request.headers['name']` | the text of a header, by its name in lower case | the request has none of that name |
//! | `user.issuer`, `user.subject`, `user.groups`, `user.roles` | what the credential says | no credential |
//! | `user.claims['name']` | a claim of it | no such claim |
//! | `now` | seconds since the Unix epoch | never |
//!
//! Headers and claims are named in the condition itself, so that [`Needs`](super::Needs) can list them. Headers that hold
//! a secret can't be read. `has(user.subject)` and `'x-debug' in request.headers` ask whether something is there.
//!
//! # What counts as true
//!
//! Reading what is absent, or comparing what can't be compared, is an error, as CEL has it; so is a result that is neither
//! true nor false. A rule that allows does not match then, a rule that denies or audits does: whatever goes wrong, less
//! passes. A header that occurs several times is looked at once for each of its texts: a rule that allows needs the
//! condition to hold for all of them, a rule that refuses for one. What stands between commas is not taken apart.
//!
//! A deny rule's `request.path == '/admin'` does not cover `/admin/`; `to.paths` does.
//!
//! # Bounds
//!
//! A condition has at most 4096 bytes, and its text bounds the work of one evaluation: lists and maps of the call have at
//! most [`MAX_ELEMENTS`] members (more is an error, as above), and a condition that could take more than [`MAX_WORK`] steps
//! is refused, which leaves room for one loop over a list of the call but not for a loop in a loop. Texts and lists are
//! not put together in loops. Several headers with several texts each make at most [`MAX_CHOICES`] evaluations.
//!
//! # Sources
//! - Language: <https://github.com/google/cel-spec>, `doc/langdef.md`; parser and interpreter of the crate `cel`.
//!   Its macros `has`, `all`, `exists`, `exists_one`, `map` and `filter`, operators and `size`, `contains`, `startsWith`,
//!   `endsWith`, `int`, `double` and `string` are accepted; regular expressions are not.

mod check;
mod values;

use std::fmt;
use std::sync::{Arc, OnceLock};

use cel::{Context, Env, ExecutionError, Program, Value};
use thiserror::Error;

pub(super) use self::check::SECRET_HEADERS;

use self::check::Reads;
use self::values::Choices;
use super::Call;
use crate::spiffe::TrustDomain;

/// Longest condition, in bytes.
pub const MAX_CONDITION_BYTES: usize = 4096;

/// Most members of a list or map that a condition reads.
pub const MAX_ELEMENTS: usize = 256;

/// Most steps of one evaluation.
pub const MAX_WORK: u64 = 10_000;

/// Most evaluations for one call, where headers occur several times.
pub const MAX_CHOICES: usize = 16;

/// The functions of CEL, which all conditions of a policy share; made for the first.
#[derive(Clone, Default)]
pub(super) struct Environment(OnceLock<Arc<Env>>);

impl Environment {
    fn get(&self) -> &Arc<Env> {
        self.0
            .get_or_init(|| Arc::new(Env::stdlib().with_optional_support(false)))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

/// A condition, compiled.
pub(super) struct When {
    program: Program,
    reads: Reads,
    environment: Arc<Env>,
    own: TrustDomain,
}

impl When {
    pub(super) fn compile(
        text: &str,
        own: &TrustDomain,
        environment: &Environment,
    ) -> Result<Self, ConditionError> {
        check::text(text)?;
        let environment = environment.get();
        let program = environment
            .compile(text)
            .map_err(|errors| syntax(text, &errors))?;
        let reads = check::expression(program.expression())?;
        Ok(Self {
            program,
            reads,
            environment: Arc::clone(environment),
            own: own.clone(),
        })
    }

    /// Headers and claims that the condition reads.
    pub(super) fn headers(&self) -> impl Iterator<Item = &str> {
        self.reads.headers.iter().map(|name| &**name)
    }

    /// Claims that the condition reads.
    pub(super) fn claims(&self) -> impl Iterator<Item = &str> {
        self.reads.claims.iter().map(|name| &**name)
    }

    /// Whether the condition reads the request, which a connection that is not HTTP does not have.
    pub(super) fn reads_request(&self) -> bool {
        self.reads.variable("request")
    }

    /// Whether the condition makes its rule match, where `refuses` says that the rule denies or audits.
    pub(super) fn matches(&self, call: &Call<'_>, refuses: bool) -> bool {
        let truth = self.evaluate(call);
        if refuses { truth.ever } else { truth.always }
    }

    /// Evaluates the condition for each choice among the texts of headers that occur several times.
    pub(super) fn evaluate(&self, call: &Call<'_>) -> Truth {
        let mut choices = match Choices::of(call, &self.reads) {
            Ok(choices) => choices,
            Err(failure) => return Truth::failed(failure),
        };
        let mut truth = Truth {
            always: true,
            ever: false,
            failure: None,
        };
        loop {
            match self.once(call, &choices) {
                Ok(true) => truth.ever = true,
                Ok(false) => truth.always = false,
                Err(failure) => return Truth::failed(failure),
            }
            if !choices.advance() {
                return truth;
            }
        }
    }

    fn once(&self, call: &Call<'_>, choices: &Choices) -> Result<bool, Failure> {
        let mut context = Context::with_env(Arc::clone(&self.environment));
        values::provide(&mut context, call, &self.reads, choices, &self.own)?;
        match self.program.execute(&context) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(_) => Err(Failure::NotBool),
            Err(ExecutionError::NoSuchKey(name)) => Err(Failure::Absent(name.as_str().into())),
            // Whatever else it says may hold a value of the call.
            Err(_) => Err(Failure::Mismatch),
        }
    }
}

impl fmt::Debug for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("When")
            .field("reads", &self.reads)
            .finish_non_exhaustive()
    }
}

/// What a condition came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Truth {
    /// It held, whichever texts of repeated headers are looked at.
    pub(super) always: bool,
    /// It held for some of them, or could not be evaluated.
    pub(super) ever: bool,
    /// Why it could not be evaluated.
    pub(super) failure: Option<Failure>,
}

impl Truth {
    fn failed(failure: Failure) -> Self {
        Self {
            always: false,
            ever: true,
            failure: Some(failure),
        }
    }
}

/// Why a condition could not be evaluated. No value of the call is in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Failure {
    /// It reads what the call does not have.
    Absent(Box<str>),
    /// A value is larger than conditions read.
    TooLarge(&'static str),
    /// A header is not text.
    NotText(Box<str>),
    /// The result is neither true nor false.
    NotBool,
    /// Values of types that do not go together, or arithmetic that has no result.
    Mismatch,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(name) => write!(f, "the call has no {name}"),
            Self::TooLarge(what) => write!(f, "{what} is larger than conditions read"),
            Self::NotText(header) => write!(f, "the header {header} is not text"),
            Self::NotBool => f.write_str("it is neither true nor false"),
            Self::Mismatch => f.write_str("it compares or computes what does not go together"),
        }
    }
}

fn syntax(text: &str, errors: &cel::ParseErrors) -> ConditionError {
    let Some(first) = errors.errors.first() else {
        return ConditionError::Syntax {
            line: 1,
            column: 1,
            message: "it is no expression".to_owned(),
        };
    };
    // The parser counts bytes of the text from 1; what it says can name the whole text.
    let position = |number: isize| usize::try_from(number).unwrap_or(1).max(1);
    let mut message = first.msg.clone();
    if message.len() > text.len().min(MAX_MESSAGE_BYTES) {
        let end = message.floor_char_boundary(MAX_MESSAGE_BYTES);
        message.truncate(end);
    }
    ConditionError::Syntax {
        line: position(first.pos.0),
        column: position(first.pos.1),
        message,
    }
}

/// What is wrong with a condition.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConditionError {
    /// The text is too long.
    #[error("{bytes} bytes are more than the limit of {MAX_CONDITION_BYTES}")]
    TooLong {
        /// Length of the text.
        bytes: usize,
    },
    /// The expression is nested too deeply or has too many operators.
    #[error("it is nested too deeply or has too many operators; split it into several rules")]
    TooDeep,
    /// An evaluation could take too many steps.
    #[error(
        "it could take {steps} steps, more than the limit of {MAX_WORK}; loop over one list at a time"
    )]
    TooMuchWork {
        /// The most steps that it could take.
        steps: u64,
    },
    /// The text is not CEL.
    #[error("line {line}, column {column}: {message}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// There is no such variable or field.
    #[error("there is no {name}{}", suggestion(nearest.as_deref()))]
    Unknown {
        /// What is written.
        name: String,
        /// What comes nearest to it.
        nearest: Option<String>,
    },
    /// A variable is read as a whole.
    #[error("{name} can't be read as a whole; name one of its fields: {fields}")]
    Whole {
        /// The variable.
        name: String,
        /// Its fields.
        fields: String,
    },
    /// A header or claim is not named in the condition itself.
    #[error("{name} needs a name in quotes, such as {name}['x']")]
    NotNamed {
        /// `request.headers` or `user.claims`.
        name: &'static str,
    },
    /// No header has this name.
    #[error("no header is named {name:?}; names are in lower case")]
    HeaderName {
        /// What is written.
        name: String,
    },
    /// The header holds a secret, which a record of the decision would show.
    #[error("the header {name} holds a secret; read what it proves from user")]
    Secret {
        /// The header.
        name: String,
    },
    /// There is no such function.
    #[error("there is no function {name}{}", suggestion(nearest.as_deref()))]
    Function {
        /// What is written.
        name: String,
        /// What comes nearest to it.
        nearest: Option<String>,
    },
    /// A loop puts texts or lists together.
    #[error("texts and lists can't be put together in a loop")]
    Growth,
    /// The expression can be neither true nor false.
    #[error("it is neither true nor false; compare it with something")]
    NotBool,
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"))
}

const MAX_MESSAGE_BYTES: usize = 200;

#[cfg(test)]
mod tests;
