//! SPIFFE identities, service tokens and a policy engine that explains itself
