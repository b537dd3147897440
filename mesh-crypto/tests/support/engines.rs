//! The engines that are compiled in.

use std::sync::Arc;

use mesh_crypto::Engine;

/// Every engine that is compiled in; each test runs over all of them.
pub(crate) fn engines() -> Vec<Arc<dyn Engine>> {
    vec![
        #[cfg(feature = "aws-lc")]
        mesh_crypto::engine::aws_lc(),
        #[cfg(feature = "rustcrypto")]
        mesh_crypto::engine::rustcrypto(),
    ]
}

/// Whether ML-KEM, OAEP and PSS take their randomness from outside, so that a vector's can be given.
pub(crate) fn takes_all_randomness(engine: &dyn Engine) -> bool {
    engine.name() == "rustcrypto"
}
