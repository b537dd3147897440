//! Reading tokens without checking them, for people to look at.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::{MAX_TOKEN_BYTES, TokenError};

/// Gives a token's header as it stands, **without checking the signature or anything else**. For display only.
///
/// # Errors
/// When the text is not a JWT.
pub fn decode_header_unverified(token: &str) -> Result<Map<String, Value>, TokenError> {
    decode_unverified(token)?;
    let header = token.split('.').next().unwrap_or_default();
    let header = URL_SAFE_NO_PAD.decode(header).ok();
    header
        .and_then(|header| serde_json::from_slice(&header).ok())
        .ok_or(TokenError::Malformed)
}

/// Gives a token's claims as they stand, **without checking the signature or anything else**. For
/// display only: nothing may be decided by what this returns.
///
/// # Errors
/// When the text is not a JWT.
pub fn decode_unverified(token: &str) -> Result<Map<String, Value>, TokenError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::TooLarge { bytes: token.len() });
    }
    if token.bytes().filter(|&b| b == b'.').count() != 2 {
        return Err(TokenError::Malformed);
    }
    jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(TokenError::Claims)
}
