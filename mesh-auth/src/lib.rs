//! SPIFFE identities, service tokens and a policy engine that explains itself.
//!
//! ```
//! use mesh_auth::caller::Caller;
//! use mesh_auth::policy::{Policy, PolicyConfig, Query, RuleConfig};
//! use mesh_auth::request::{CanonicalRequest, Limits};
//! use mesh_auth::spiffe::{SpiffeId, TrustDomain};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let domain = TrustDomain::parse("example.org")?;
//! let read = RuleConfig::new("users-read-orders", &["user-service"], "order-service")
//!     .with_methods(&["GET"])
//!     .with_paths(&["/api/*"]);
//! let policy = Policy::build(&PolicyConfig::default().with_rule(read), &domain)?;
//!
//! let caller = Caller::new(Some(SpiffeId::for_service(&domain, "user-service")?), None);
//! let request = http::Request::get("/public/../api/orders").header("host", "order-service").body(())?;
//! let request = CanonicalRequest::new(request.into_parts().0, &Limits::default())?;
//! let query = Query::new(&caller, "order-service", 1_800_000_000).with_request(&request);
//! assert!(policy.decide(&query).is_allowed());
//! println!("{}", policy.explain(&query));
//! # Ok(())
//! # }
//! ```
//!
//! ## Where to start
//!
//! | you want | see |
//! |---|---|
//! | an axum service that knows its callers by mutual TLS | `examples/axum.rs` |
//! | a tonic service that takes tokens | `examples/tonic.rs` |
//! | decisions in code of your own | the example above, [`policy`] |
//! | to know why, and what would change it | [`policy::Policy::explain`] |
//! | to check tokens, and nothing else | [`token`], with `default-features = false, features = ["jwt"]` |
//! | certificates for a test or a small mesh | [`ca`] |
//!
//! ## What this crate does not do
//!
//! It opens no connection, reads no file and no clock: certificates, secrets, rules and the time are
//! arguments. It does not verify certificate chains (the TLS library does; `svid` adds the rules
//! that it does not know). It fetches no key sets: `token::Jwks` says when to fetch, and judges what came. Tokens
//! are not encrypted ones. Conditions of rules know no regular expressions.
//!
//! ## Modules
//!
//! | module | what it is for |
//! |---|---|
//! | `caller` | who calls, as policies see it |
//! | `spiffe` | SPIFFE ids and trust domains, parsed strictly |
//! | `svid` | the rules for X.509-SVIDs, leaf and signer |
//! | `bundle` | the roots of a trust domain: PEM, and the format that SPIFFE servers publish |
//! | `ca` | a small authority: issues and signs X.509-SVIDs, replaces its root, lets newcomers join |
//! | `request` | the canonical request, and stripping forged identity headers |
//! | `token` | service tokens, and the credentials of users: tokens by public key, consumers, API keys |
//! | `policy` | rules, decisions and explanations; recorded decisions: replayed, compared, drafted from |
//! | `layer` | the same as tower layers |
//!
//! ## Features
//!
//! | feature | adds |
//! |---|---|
//! | `policy` (default) | the modules `policy` and `request` (http, cel, `serde_json`) |
//! | `jwt` (default) | the module `token` (jsonwebtoken, aws-lc-rs) |
//! | `svid` (default) | the module `svid` (x509-parser) |
//! | `bundle` | the module `bundle` (base64, `serde_json`), and `svid` |
//! | `ca` | the module `ca` (rcgen, getrandom), and `svid` |
//! | `tower` | the module `layer`, with what of `policy` and `jwt` is there |
//! | `serde` | `Deserialize` and `Serialize` for configuration, SPIFFE ids and trust domains |
//!
//! ## Errors
//!
//! Each module has an error of its own that names the rule which was broken. Callers outside should
//! learn less: `request::RequestError::status` is the status to answer with, every
//! `token::TokenError` is 401, and a denial is 403.

#[cfg(feature = "bundle")]
pub mod bundle;
#[cfg(feature = "ca")]
pub mod ca;
pub mod caller;
#[cfg(any(feature = "jwt", feature = "svid"))]
mod hex;
#[cfg(all(feature = "tower", any(feature = "policy", feature = "jwt")))]
pub mod layer;
#[cfg(feature = "policy")]
pub mod policy;
#[cfg(feature = "policy")]
pub mod request;
pub mod spiffe;
#[cfg(feature = "svid")]
pub mod svid;
#[cfg(feature = "jwt")]
pub mod token;
