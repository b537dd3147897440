//! The built-in certificate authority as a service: the folder that it lives in, its server, and the node's way to it.
//!
//! | part | what it is for |
//! |---|---|
//! | `folder` | certificates and keys of the roots, and until when what they signed lives |
//! | `denied` | who gets no certificate any more |
//! | `grants` | join tokens, each good for one key |
//! | `server` | `mesh-node ca serve`: signs requests, hands out the trust bundle |
//! | `client` | the node's source of identity: asks the server |

pub(crate) mod client;
pub(crate) mod denied;
pub(crate) mod folder;
pub(crate) mod grants;
pub(crate) mod server;
