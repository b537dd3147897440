"""PyJWT as the other side of tokens: `make` prints keys, good tokens and attacks; `verify` checks one of ours."""

import base64
import hashlib
import hmac
import json
import sys

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ISSUER = "https://login.example.org/"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def public(key, kid, algorithm):
    """The key as an issuer publishes it."""
    text = {"RS256": jwt.algorithms.RSAAlgorithm, "ES256": jwt.algorithms.ECAlgorithm, "EdDSA": jwt.algorithms.OKPAlgorithm}
    jwk = text[algorithm].to_jwk(key.public_key(), as_dict=True)
    jwk.update({"kid": kid, "use": "sig", "alg": algorithm})
    jwk.pop("key_ops", None)
    return jwk


def make(now, secret):
    keys = {
        "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }
    claims = {"iss": ISSUER, "sub": "alice", "aud": "orders", "exp": now + 600, "iat": now, "groups": ["teller"]}
    app = {**claims, "iss": "app-key"}
    sign = lambda alg, body=claims, **header: jwt.encode(body, keys[alg], alg, headers={"kid": alg, **header})
    good = {alg: sign(alg) for alg in keys}
    good["HS256"] = jwt.encode(app, secret, "HS256")
    good["list"] = sign("ES256", {**claims, "aud": ["other", "orders"]})

    pem = keys["RS256"].public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    message = b64(json.dumps({"alg": "HS256", "kid": "RS256"}).encode()) + "." + b64(json.dumps(claims).encode())
    confused = message + "." + b64(hmac.new(pem, message.encode(), hashlib.sha256).digest())
    own = ec.generate_private_key(ec.SECP256R1())
    bad = {
        "none": jwt.encode(claims, None, "none", headers={"kid": "RS256"}),
        "confusion": confused,
        "embedded key": jwt.encode(claims, own, "ES256", headers={"kid": "ES256", "jwk": public(own, "ES256", "ES256")}),
        "key url": sign("ES256", jku="https://evil.example/"),
        "critical": sign("ES256", crit=["exp"], exp=1),
        "forged": jwt.encode(claims, own, "ES256", headers={"kid": "ES256"}),
        "other algorithm": jwt.encode(claims, keys["RS256"], "PS256", headers={"kid": "RS256"}),
        "no kid": jwt.encode(claims, keys["ES256"], "ES256"),
        "unknown kid": sign("ES256", kid="other"),
        "expired": sign("ES256", {**claims, "exp": now - 60}),
        "to come": sign("ES256", {**claims, "nbf": now + 120}),
        "other audience": sign("ES256", {**claims, "aud": "payments"}),
        "other issuer": sign("ES256", {**claims, "iss": "https://evil.example/"}),
        "no expiry": sign("ES256", {k: v for k, v in claims.items() if k != "exp"}),
        "no subject": sign("ES256", {k: v for k, v in claims.items() if k != "sub"}),
        "issuer as consumer": sign("ES256", app),
        "consumer as issuer": jwt.encode(claims, secret, "HS256", headers={"kid": "RS256"}),
        "consumer as workload": jwt.encode({**app, "sub": "spiffe://example.org/admin"}, secret, "HS256"),
        "other secret": jwt.encode(app, secret[::-1], "HS256"),
        "other hash": jwt.encode(app, secret, "HS384"),
    }
    jwks = {"keys": [public(key, alg, alg) for alg, key in keys.items()]}
    print(json.dumps({"jwks": jwks, "good": good, "bad": bad}))


def verify(token, secret, audience, issuer):
    options = {"require": ["exp", "iat", "iss", "sub", "aud"]}
    print(json.dumps(jwt.decode(token, secret, ["HS256"], options, audience=audience, issuer=issuer)))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(int(sys.argv[2]), sys.argv[3])
    else:
        verify(*sys.argv[2:])
