//! The name that callers use for a service.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of a service, such as `order-service`; cheap to clone.
///
/// 1 to 253 bytes of letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit, without
/// two dots in a row. Letters are kept in lower case, because the name travels as an authority, which is
/// compared without regard to case.
///
/// # Sources
///
/// RFC 1035 section 2.3.4 (length), RFC 9110 section 4.2.3 (case).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// Reads a name; letters become lower case.
    ///
    /// # Errors
    ///
    /// [`NameError`] when the name is empty, too long, or holds something else than the letters above.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong { bytes: name.len() });
        }
        let edges = [name.bytes().next(), name.bytes().next_back()];
        if !edges.iter().flatten().all(u8::is_ascii_alphanumeric) || name.contains("..") {
            return Err(NameError::Shape);
        }
        if let Some(bad) = name
            .chars()
            .find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.'))
        {
            return Err(NameError::Character { character: bad });
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ServiceName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::parse(name)
    }
}

impl TryFrom<String> for ServiceName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        Self::parse(&name)
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> Self {
        name.as_str().to_owned()
    }
}

/// Why a text is not a service name.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("a service name must not be empty")]
    Empty,

    /// More than 253 bytes.
    #[error("a service name of {bytes} bytes is longer than the limit of {MAX_NAME_BYTES}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },

    /// It begins or ends with something else than a letter or digit, or has an empty label.
    #[error(
        "a service name must begin and end with a letter or digit and have no two dots in a row"
    )]
    Shape,

    /// A character that has no place in a name.
    #[error("a service name must not contain {character:?}; use letters, digits, `-`, `_` and `.`")]
    Character {
        /// The first such character.
        character: char,
    },
}

/// A domain name has at most 255 octets on the wire, 253 as text (RFC 1035 section 2.3.4).
const MAX_NAME_BYTES: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: Result<&str, NameError>) {
        let got = ServiceName::parse(name);
        assert_eq!(
            got,
            expected.map(|kept| ServiceName(kept.into())),
            "{name:?}"
        );
    }

    #[test]
    fn accepts_names_that_fit_an_authority() {
        check("order-service", Ok("order-service"));
        check("Order_Service.v2", Ok("order_service.v2"));
        check("a", Ok("a"));
        check(&"a".repeat(253), Ok(&"a".repeat(253)));
    }

    // threat 51
    #[test]
    fn refuses_everything_else() {
        check("", Err(NameError::Empty));
        check(&"a".repeat(254), Err(NameError::TooLong { bytes: 254 }));
        check("-a", Err(NameError::Shape));
        check("a.", Err(NameError::Shape));
        check("a..b", Err(NameError::Shape));
        check("a b", Err(NameError::Character { character: ' ' }));
        check("a\nb", Err(NameError::Character { character: '\n' }));
        check("a/b", Err(NameError::Character { character: '/' }));
        check("über", Err(NameError::Shape));
        check("aüber", Err(NameError::Character { character: 'ü' }));
    }
}
