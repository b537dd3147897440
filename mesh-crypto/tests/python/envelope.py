"""A second implementation of the envelope, written from ENVELOPE.md alone, on the package `cryptography`.

    envelope.py check DATA                  opens every vector in DATA/envelope.json and makes its bytes again
    envelope.py open SENDER RECIPIENT AAD   an envelope from standard input to standard output
    envelope.py seal SENDER RECIPIENT AAD   the other way

SENDER and RECIPIENT are files of unencrypted PKCS#8 keys, AAD is hexadecimal.
"""

import hashlib
import hmac
import json
import os
import struct
import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

START = b"mesh-env\x01\x01"
CHUNK = 65_536
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"mesh-envelope v1 secret\0")
PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)


class Refused(Exception):
    """The one failure once a key is involved."""


def sha256(data):
    return hashlib.sha256(data).digest()


def vec(field):
    return struct.pack(">H", len(field)) + field


def fingerprint(public):
    return sha256(
        public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def derive(secret, aad, before):
    transcript = sha256(b"mesh-envelope v1 header\0" + sha256(aad) + before)
    keys = HKDF(hashes.SHA256(), 44, transcript, b"mesh-envelope v1 keys\0").derive(secret)
    commitment = HKDF(hashes.SHA256(), 32, transcript, b"mesh-envelope v1 commitment\0")
    return transcript, keys[:32], keys[32:], commitment.derive(secret)


def to_sign(aad, signed):
    return b"mesh-envelope v1 signature\0" + sha256(aad) + signed


def nonce(iv, index):
    return bytes(a ^ b for a, b in zip(iv, struct.pack(">QI", 0, index)))


def chunks_of(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)] or [b""]


def seal_chunks(key, iv, data):
    pieces = chunks_of(data, CHUNK)
    last = len(pieces) - 1
    return b"".join(
        AESGCM(key).encrypt(nonce(iv, index), piece, bytes([index == last]))
        for index, piece in enumerate(pieces)
    )


def seal(data, sender, recipient, aad):
    secret = os.urandom(32)
    before = START + fingerprint(sender.public_key()) + fingerprint(recipient)
    before += vec(recipient.encrypt(secret, OAEP))
    _, key, iv, commitment = derive(secret, aad, before)
    signed = before + commitment
    signature = sender.sign(to_sign(aad, signed), PSS, hashes.SHA256())
    return signed + vec(signature) + seal_chunks(key, iv, data)


def cut(envelope):
    """Where the wrapped secret, the commitment and the signature end."""
    if not envelope.startswith(START) or len(envelope) < 76:
        raise ValueError("no envelope")
    wrapped = 76 + struct.unpack_from(">H", envelope, 74)[0]
    signed = wrapped + 32
    signature = signed + 2 + struct.unpack_from(">H", envelope, signed)[0]
    if len(envelope) < signature:
        raise ValueError("no envelope")
    return wrapped, signed, signature


def unseal(envelope, sender, recipient, aad):
    wrapped, signed, header = cut(envelope)
    if envelope[10:42] != fingerprint(sender):
        raise Refused
    if envelope[42:74] != fingerprint(recipient.public_key()):
        raise Refused
    try:
        sender.verify(
            envelope[signed + 2 : header], to_sign(aad, envelope[:signed]), PSS, hashes.SHA256()
        )
    except InvalidSignature:
        raise Refused from None
    try:
        secret = recipient.decrypt(envelope[76:wrapped], OAEP)
    except ValueError:
        secret = b""
    if len(secret) != 32:
        secret = os.urandom(32)
    _, key, iv, commitment = derive(secret, aad, envelope[:wrapped])
    if not hmac.compare_digest(commitment, envelope[wrapped:signed]):
        raise Refused
    pieces = chunks_of(envelope[header:], CHUNK + 16)
    last = len(pieces) - 1
    if last > 0 and len(pieces[last]) == 16:
        raise Refused
    try:
        return b"".join(
            AESGCM(key).decrypt(nonce(iv, index), piece, bytes([index == last]))
            for index, piece in enumerate(pieces)
        )
    except (InvalidTag, ValueError):
        raise Refused from None


def load(path):
    return serialization.load_pem_private_key(Path(path).read_bytes(), None)


def check(folder):
    folder = Path(folder)
    vectors = json.loads((folder / "envelope.json").read_text())["vectors"]
    for vector in vectors:
        sender = load(folder / "keys" / (vector["sender"] + ".pem"))
        recipient = load(folder / "keys" / (vector["recipient"] + ".pem"))
        header, aad = bytes.fromhex(vector["header"]), bytes.fromhex(vector["aad"])
        data = bytes(at % 251 for at in range(vector["data_len"]))
        wrapped, signed, end = cut(header)
        assert end == len(header)
        secret = recipient.decrypt(header[76:wrapped], OAEP)
        derived = derive(secret, aad, header[:wrapped])
        names = ["secret", "transcript", "key", "iv", "commitment"]
        for name, value in zip(names, [secret, *derived]):
            assert value.hex() == vector[name], (vector["name"], name)
        envelope = header + seal_chunks(derived[1], derived[2], data)
        assert sha256(envelope).hex() == vector["sha256"], vector["name"]
        assert envelope[-16:].hex() == vector["last_tag"], vector["name"]
        assert unseal(envelope, sender.public_key(), recipient, aad) == data, vector["name"]
        for at in [10, 42, 80, wrapped, signed + 2, len(header), len(envelope) - 1]:
            changed = bytearray(envelope)
            changed[at] ^= 1
            try:
                unseal(bytes(changed), sender.public_key(), recipient, aad)
            except Refused:
                continue
            raise AssertionError((vector["name"], at))
    print(f"{len(vectors)} vectors")


def main(command, *arguments):
    if command == "check":
        return check(*arguments)
    sender, recipient, aad = load(arguments[0]), load(arguments[1]), bytes.fromhex(arguments[2])
    given = sys.stdin.buffer.read()
    if command == "seal":
        made = seal(given, sender, recipient.public_key(), aad)
    else:
        try:
            made = unseal(given, sender.public_key(), recipient, aad)
        except Refused:
            return "refused"
    sys.stdout.buffer.write(made)
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
