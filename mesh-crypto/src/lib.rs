//! RSA key pairs, AEAD whose nonces cannot repeat, HMAC, HKDF and secrets that cannot be printed
