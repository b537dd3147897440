//! The checks of this crate as tower layers, for services that are built with axum, tonic or hyper.
//!
//! | layer | feature | does |
//! |---|---|---|
//! | `AuthenticateLayer` | `jwt` | checks the user's credential and says who it is |
//! | `AuthorizeLayer` | `policy` | normalises the request, decides about it, refuses or passes it on |
//!
//! Who calls is a [`Caller`] in the request's extensions: whoever accepts the connections puts it there, from the peer's
//! verified certificate (`svid::leaf_identity`); `AuthenticateLayer`, which comes first, adds the user. Without either the
//! caller is nobody, and only a rule for `anonymous` lets it pass.
//!
//! Put the layers around the whole service, before any router: `layer.layer(router)`. A router that comes first (axum's
//! `Router::layer`) has already chosen a handler by the path as it arrived, which may be another one than what was
//! decided about.
//!
//! A refusal has no body; `x-mesh-error` says what it is, and gRPC callers get it as a trailers-only status.

mod answer;
#[cfg(feature = "jwt")]
mod authenticate;
#[cfg(feature = "policy")]
mod authorize;
mod guard;

#[cfg(feature = "jwt")]
pub use self::authenticate::{Authenticate, AuthenticateLayer};
#[cfg(feature = "policy")]
pub use self::authorize::{Authorize, AuthorizeLayer};

pub use self::answer::{Refusal, ResponseFuture};
pub use self::guard::{Admit, Guarded};

#[cfg(doc)]
use crate::caller::Caller;
