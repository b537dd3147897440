//! Who a rule is about: matchers on callers, literal all of them.

use std::str;

use crate::caller::{Caller, ClaimValue, User};
use crate::spiffe::{SpiffeId, SpiffeIdError, TrustDomain};

/// Who calls.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Source {
    /// Everybody with a SPIFFE id or a credential.
    Any,
    /// Whoever has neither.
    Anonymous,
    Id(SpiffeId),
    /// Every id that starts with this text, which ends in a slash.
    Below(Box<str>),
    Domain(TrustDomain),
    User(UserMatch),
}

impl Source {
    /// Reads one `from` of a rule for services of the trust domain `own`.
    pub(super) fn parse(text: &str, own: &TrustDomain) -> Result<Self, Option<SpiffeIdError>> {
        if text == ANY {
            return Ok(Self::Any);
        }
        if text == ANONYMOUS {
            return Ok(Self::Anonymous);
        }
        if text.contains(':') && !text.starts_with(SCHEME) {
            // Not everybody with a subject: subjects are unique with their issuer only.
            return match UserMatch::parse(text) {
                None | Some(UserMatch::Any | UserMatch::Subject(_)) => Err(None),
                Some(user) => Ok(Self::User(user)),
            };
        }
        if !text.starts_with(SCHEME) {
            return SpiffeId::for_service(own, text).map(Self::Id).map_err(Some);
        }
        let (id, is_below) = match text.strip_suffix("/*") {
            Some(id) => (id, true),
            None => (text, false),
        };
        let id = SpiffeId::parse(id).map_err(Some)?;
        if id.path().is_empty() {
            return Ok(Self::Domain(id.trust_domain().clone()));
        }
        Ok(if is_below {
            Self::Below(format!("{id}/").into())
        } else {
            Self::Id(id)
        })
    }

    pub(super) fn matches(&self, caller: &Caller) -> bool {
        let id = caller.spiffe_id.as_ref();
        match self {
            Self::Any => caller.is_authenticated(),
            Self::Anonymous => !caller.is_authenticated(),
            Self::Id(own) => id == Some(own),
            Self::Below(prefix) => id.is_some_and(|id| id.as_str().starts_with(&**prefix)),
            Self::Domain(domain) => id.is_some_and(|id| id.trust_domain() == domain),
            Self::User(user) => user.matches(caller),
        }
    }
}

/// Whose credential a call carries.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum UserMatch {
    Any,
    Group(Box<str>),
    Role(Box<str>),
    Claim { name: Box<str>, value: Box<str> },
    Issuer(Box<str>),
    Subject(Box<str>),
}

impl UserMatch {
    /// Reads one of `users`. None where it is none of the forms, or where it looks as if more than its letters were meant.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == ANY {
            return Some(Self::Any);
        }
        let (kind, rest) = text.split_once(':')?;
        let is_literal = |text: &str| {
            !text.is_empty()
                && !text.contains(|c: char| matches!(c, '*' | '[' | '?') || c.is_control())
        };
        if !is_literal(rest) {
            return None;
        }
        match kind {
            "group" => Some(Self::Group(rest.into())),
            "role" => Some(Self::Role(rest.into())),
            "issuer" => Some(Self::Issuer(rest.into())),
            "subject" => Some(Self::Subject(rest.into())),
            "claim" => {
                let (name, value) = rest.split_once('=')?;
                (!name.is_empty() && !value.is_empty()).then(|| Self::Claim {
                    name: name.into(),
                    value: value.into(),
                })
            }
            _ => None,
        }
    }

    pub(super) fn matches(&self, caller: &Caller) -> bool {
        caller.user.as_deref().is_some_and(|user| self.is(user))
    }

    fn is(&self, user: &User) -> bool {
        match self {
            Self::Any => true,
            Self::Group(group) => user.has_group(group),
            Self::Role(role) => user.has_role(role),
            Self::Issuer(issuer) => *user.issuer == **issuer,
            Self::Subject(subject) => *user.subject == **subject,
            Self::Claim { name, value } => {
                let mut is_equal = false;
                if let Some(claim) = user.claims.get(name) {
                    each_text(claim, &mut |text| is_equal |= text == &**value);
                }
                is_equal
            }
        }
    }
}

/// Calls `visit` with the text of a claim, or with that of each member where it is a list: texts as they are, whole
/// numbers, true and false as JSON writes them. Other values have no text.
pub(super) fn each_text(claim: &ClaimValue, visit: &mut dyn FnMut(&str)) {
    match claim {
        ClaimValue::List(members) => members.iter().for_each(|member| text(member, visit)),
        _ => text(claim, visit),
    }
}

fn text(value: &ClaimValue, visit: &mut dyn FnMut(&str)) {
    match value {
        ClaimValue::Text(text) => visit(text),
        ClaimValue::Bool(true) => visit("true"),
        ClaimValue::Bool(false) => visit("false"),
        ClaimValue::Int(number) => {
            let mut digits = [0; MAX_DIGITS];
            visit(decimal(*number, &mut digits));
        }
        _ => {}
    }
}

/// A number as JSON writes it, without allocating.
fn decimal(number: i64, digits: &mut [u8; MAX_DIGITS]) -> &str {
    let mut rest = number.unsigned_abs();
    let mut start = MAX_DIGITS;
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        start = at;
        if rest == 0 && at + 1 < MAX_DIGITS {
            start = at + 1;
            if number < 0 {
                *digit = b'-';
                start = at;
            }
            break;
        }
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
    }
    str::from_utf8(digits.get(start..).unwrap_or_default()).unwrap_or_default()
}

/// Everybody; every service.
pub(super) const ANY: &str = "*";
pub(super) const ANONYMOUS: &str = "anonymous";
const SCHEME: &str = "spiffe://";
/// `-9223372036854775808`.
const MAX_DIGITS: usize = 20;

#[cfg(test)]
mod tests {
    use super::{MAX_DIGITS, decimal};

    #[test]
    fn numbers_are_written_as_json_writes_them() {
        for number in [0, 7, -7, 10, 1_800_000_000, i64::MAX, i64::MIN] {
            assert_eq!(decimal(number, &mut [0; MAX_DIGITS]), number.to_string());
        }
    }
}
