"""The mesh session protocol, version 1, both sides, written from PROTOCOL.md alone.

Meant to be read next to the document: sections come in its order, and names are its names, down to `t_i` and `prk_u`.
Nothing here was taken from the implementation that the tests hold this one against.

Clock and randomness are parameters: a clock gives milliseconds since 1970-01-01 UTC, a source of randomness n bytes.
What the library below draws by itself is the seed of OAEP, the salt of PSS and the coins of an ML-KEM encapsulation;
nothing that an implementation checks depends on choosing those. Nothing here is constant time, and Python erases no
memory: this is for tests.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Callable, Protocol

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Clock = Callable[[], int]
Random = Callable[[int], bytes]


def system_clock() -> int:
    """Milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


class Refused(Exception):
    """What does not hold. `told` is all that the peer may hear of it (section 11); the text is for the local log."""

    def __init__(self, why: str, told: str = "refused") -> None:
        super().__init__(why)
        self.told = told


# 1. Notation

VERSION = 1
FIRST_MESSAGE, REPLY, OFFER, RESUMPTION, RESUMED, CHALLENGE, WITH_COOKIE = 1, 2, 3, 4, 5, 6, 7
MESSAGE_LIMIT = 65_536
NAME_LIMIT, SPKI_LIMIT, ATTESTATION_LIMIT, TOKEN_LIMIT, RSA_LIMIT, BOX_LIMIT = 2_048, 1_024, 32_768, 8_192, 512, 65_535


def vec(x: bytes) -> bytes:
    return struct.pack(">H", len(x)) + x


def H(x: bytes) -> bytes:
    return hashlib.sha256(x).digest()


def HMAC(key: bytes, x: bytes) -> bytes:
    return hmac.digest(key, x, "sha256")


class Reader:
    """Takes a message apart. What is missing, too long or left over makes it malformed."""

    def __init__(self, message: bytes) -> None:
        if len(message) > MESSAGE_LIMIT:
            raise Refused("a message of more than 64 KiB")
        self.message, self.at = message, 0

    def take(self, n: int) -> bytes:
        if self.at + n > len(self.message):
            raise Refused("bytes are missing")
        self.at += n
        return self.message[self.at - n : self.at]

    def vec(self, limit: int) -> bytes:
        (n,) = struct.unpack(">H", self.take(2))
        if n > limit:
            raise Refused("a field is longer than its limit")
        return self.take(n)

    def head(self, kind: int) -> None:
        if self.take(2) != bytes([VERSION, kind]):
            raise Refused(f"not version {VERSION}, or not a message of kind {kind}")

    def before(self) -> bytes:
        """All bytes so far."""
        return self.message[: self.at]

    def end(self) -> None:
        if self.at != len(self.message):
            raise Refused("bytes are left over")


# 2. Algorithms and suites


@dataclass(frozen=True)
class Suite:
    """Two bytes: the agreement, and the protection of records."""

    code: bytes

    @property
    def ml_kem(self) -> bool:
        return self.code[0] == 1

    @property
    def aes_key(self) -> int:
        """Bytes of the key of AES."""
        return {1: 32, 2: 24, 3: 16}[self.code[1] & 0x0F]

    @property
    def mac_covers_all(self) -> bool:
        return self.code[1] < 0x10

    def __str__(self) -> str:
        return self.code.hex()


SUITES = {bytes([a, p]): Suite(bytes([a, p])) for a in (0, 1) for p in (0x01, 0x02, 0x03, 0x11, 0x12, 0x13)}
DEFAULT_SUITES = [SUITES[b"\x01\x01"], SUITES[b"\x00\x01"]]
EK, CT = 1_184, 1_088  # ML-KEM-768: encapsulation key, ciphertext

_SHA256 = hashes.SHA256()
_PSS = padding.PSS(padding.MGF1(_SHA256), 32)


def _oaep(label: bytes) -> padding.OAEP:
    return padding.OAEP(padding.MGF1(_SHA256), _SHA256, label)


def spki_of(key: rsa.RSAPrivateKey | rsa.RSAPublicKey) -> bytes:
    """The one encoding of a public key."""
    public = key.public_key() if isinstance(key, rsa.RSAPrivateKey) else key
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def rsa_public(spki: bytes) -> rsa.RSAPublicKey:
    try:
        key = serialization.load_der_public_key(spki)
    except Exception as error:
        raise Refused(f"no public key: {error}") from error
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size not in (2_048, 3_072, 4_096) or spki_of(key) != spki:
        raise Refused("not RSA of a good size in its one encoding")
    return key


def verify_pss(key: rsa.RSAPublicKey, signature: bytes, message: bytes) -> None:
    try:
        key.verify(signature, message, _PSS, _SHA256)
    except InvalidSignature as error:
        raise Refused("a signature that does not hold") from error


def decrypt_oaep(key: rsa.RSAPrivateKey, ciphertext: bytes, label: bytes, random: Random) -> bytes:
    """The secret inside, or random bytes: a failure shows at the MAC of the box, and nowhere before."""
    instead = random(32)
    try:
        secret = key.decrypt(ciphertext, _oaep(label))
    except ValueError:
        return instead
    return secret if len(secret) == 32 else instead


def x25519(private: X25519PrivateKey, share: bytes) -> bytes:
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(share))
    except ValueError as error:
        raise Refused("an all-zero agreement") from error


def x25519_key(random: Random) -> tuple[X25519PrivateKey, bytes]:
    private = X25519PrivateKey.from_private_bytes(random(32))
    return private, private.public_key().public_bytes_raw()


def ml_kem_key(suite: bool, random: Random) -> tuple[MLKEM768PrivateKey | None, bytes]:
    """A pair from a seed `d ‖ z`, and nothing in suites without ML-KEM."""
    if not suite:
        return None, b""
    private = MLKEM768PrivateKey.from_seed_bytes(random(64))
    return private, private.public_key().public_bytes_raw()


def encapsulate(ek: bytes) -> tuple[bytes, bytes]:
    """(secret, ciphertext), or nothing where the suite has no ML-KEM."""
    if not ek:
        return b"", b""
    try:
        return MLKEM768PublicKey.from_public_bytes(ek).encapsulate()
    except ValueError as error:
        raise Refused("not a key of ML-KEM-768") from error


def HKDF_Extract(salt: bytes, secret: bytes) -> bytes:
    return HMAC(salt, secret)


def HKDF_Expand(prk: bytes, info: bytes, n: int) -> bytes:
    out, block = b"", b""
    while len(out) < n:
        block = HMAC(prk, block + info + bytes([len(out) // 32 + 1]))
        out += block
    return out[:n]


# 3. Key offer


class Verifier(Protocol):
    """Decides whether a key is that of a name, and what a token is worth; raises `Refused`."""

    def key(self, name: str, spki: bytes, attestation: bytes) -> None: ...

    def token(self, name: str, token: bytes) -> None: ...


@dataclass
class Local:
    """What a side is, and what it insists on."""

    name: str
    key: rsa.RSAPrivateKey
    verifier: Verifier
    attestation: bytes = b""
    token: bytes = b""
    suites: list[Suite] = field(default_factory=lambda: list(DEFAULT_SUITES))
    smallest_key: int = 2_048
    clock: Clock = system_clock
    random: Random = os.urandom

    def sign(self, message: bytes) -> bytes:
        return self.key.sign(message, _PSS, _SHA256)

    def identity(self) -> bytes:
        return vec(self.name.encode()) + vec(spki_of(self.key)) + vec(self.attestation)


@dataclass(frozen=True)
class Peer:
    """Who the other side is."""

    name: str
    spki: bytes
    attestation: bytes

    @staticmethod
    def read(reader: Reader) -> Peer:
        name = reader.vec(NAME_LIMIT)
        try:
            text = name.decode()
        except UnicodeDecodeError as error:
            raise Refused("a name that is not UTF-8") from error
        if not name:
            raise Refused("no name")
        return Peer(text, reader.vec(SPKI_LIMIT), reader.vec(ATTESTATION_LIMIT))

    def public(self, signature: bytes, signed: bytes, smallest: int) -> rsa.RSAPublicKey:
        """The key, if the signature is its own and it is large enough."""
        key = rsa_public(self.spki)
        verify_pss(key, signature, signed)
        if key.key_size < smallest:
            raise Refused(f"a key of {key.key_size} bits")
        return key


@dataclass(frozen=True)
class Offer:
    """A key offer, read and its signature checked."""

    suites: list[bytes]
    share_o: bytes
    ek_o: bytes
    peer: Peer
    key: rsa.RSAPublicKey

    @staticmethod
    def read(offer: bytes, smallest_key: int) -> Offer:
        reader = Reader(offer)
        reader.head(OFFER)
        (count,) = reader.take(1)
        if count == 0:
            raise Refused("an offer without suites")
        suites = [reader.take(2) for _ in range(count)]
        share_o = reader.take(32)
        ek_o = reader.take(EK) if any(suite[0] == 1 for suite in suites) else b""
        peer = Peer.read(reader)
        signed = reader.before()
        signature = reader.vec(RSA_LIMIT)
        reader.end()
        key = peer.public(signature, b"mesh-session v1 offer signature\0" + H(signed), smallest_key)
        return Offer(suites, share_o, ek_o, peer, key)


def make_offer(local: Local, share_o: bytes, ek_o: bytes) -> bytes:
    suites = b"".join(suite.code for suite in local.suites)
    signed = bytes([VERSION, OFFER, len(local.suites)]) + suites + share_o + ek_o + local.identity()
    return signed + vec(local.sign(b"mesh-session v1 offer signature\0" + H(signed)))


# 4 to 6. The initiator's side. In `v` lie the values of a handshake by their names in the document.

TO_RESPONDER, TO_INITIATOR = b"mesh-session v1 secret to responder", b"mesh-session v1 secret to initiator"
INITIATOR_SIGNATURE, RESPONDER_SIGNATURE = b"mesh-session v1 initiator signature\0", b"mesh-session v1 responder signature\0"


class Initiator:
    """Begins sessions with the peer of one name."""

    def __init__(self, local: Local, expected_name: str, limits: Limits | None = None) -> None:
        self.local, self.expected_name, self.limits = local, expected_name, limits or Limits()

    def start(self, offer: bytes) -> Waiting:
        local, v = self.local, SimpleNamespace()
        read = Offer.read(offer, local.smallest_key)
        if read.peer.name != self.expected_name:
            raise Refused(f"an offer of {read.peer.name}")
        local.verifier.key(read.peer.name, read.peer.spki, read.peer.attestation)
        suite = next((suite for suite in local.suites if suite.code in read.suites), None)
        if suite is None:
            raise Refused("no suite in common")

        v.x25519_i, v.share_i = x25519_key(local.random)
        v.ml_kem_i, v.ek_i = ml_kem_key(suite.ml_kem, local.random)
        v.k_o, ct_o = encapsulate(read.ek_o if suite.ml_kem else b"")
        v.d_o = x25519(v.x25519_i, read.share_o)
        v.secret_i = local.random(32)
        ct_i = read.key.encrypt(v.secret_i, _oaep(TO_RESPONDER))
        now = struct.pack(">Q", local.clock())
        v.clear_i = (bytes([VERSION, FIRST_MESSAGE]) + suite.code + H(offer) + now + local.random(32) + v.share_i
                     + ct_o + v.ek_i + vec(ct_i))  # fmt: skip
        schedule_i(v)
        signed_i = local.identity() + vec(local.token)
        v.inner_i = signed_i + vec(local.sign(INITIATOR_SIGNATURE + v.t_i + H(signed_i)))
        v.first_message = v.clear_i + vec(seal_box(v.box_i, v.t_i, v.inner_i))
        return Waiting(self, v, suite, read.peer, read.key, local.clock(), None)

    def resume(self, old: Session, token: bytes) -> Waiting:
        local, v = self.local, SimpleNamespace()
        if old.role != "initiator" or old.closed:
            raise Refused("only the initiator of a session that is not closed resumes it")
        v.x25519_i, v.share_i = x25519_key(local.random)
        v.ml_kem_i, v.ek_i = ml_kem_key(old.suite.ml_kem, local.random)
        now = struct.pack(">Q", local.clock())
        v.clear_u = bytes([VERSION, RESUMPTION]) + old.id + now + local.random(32) + v.share_i + v.ek_i
        schedule_u(v, old.resumption)
        v.inner_u = vec(token)
        v.message = v.clear_u + vec(seal_box(v.box_u, v.t_u, v.inner_u))
        return Waiting(self, v, old.suite, old.peer, None, old.authenticated, old)


@dataclass
class Waiting:
    """The initiator between its message and the reply. Takes one input; after a failure, none."""

    side: Initiator
    v: SimpleNamespace
    suite: Suite
    peer: Peer
    key: rsa.RSAPublicKey | None
    authenticated: int
    old: Session | None
    patience: int = 10_000
    is_over: bool = False
    is_challenged: bool = False

    def __post_init__(self) -> None:
        self.until = self.side.local.clock() + self.patience

    @property
    def message(self) -> bytes:
        """What was sent."""
        message: bytes = self.v.message if self.old else self.v.first_message
        return message

    def input(self, answer: bytes) -> Session | bytes:
        """The session, or, on a first challenge, the message to send."""
        if self.is_over or self.side.local.clock() >= self.until:
            self.is_over = True
            raise Refused("no answer is waited for any more")
        if answer[:2] == bytes([VERSION, CHALLENGE]) and not self.is_challenged:
            self.is_challenged = True
            reader = Reader(answer)
            reader.head(CHALLENGE)
            cookie = reader.take(40)
            reader.end()
            return bytes([VERSION, WITH_COOKIE]) + cookie + self.message
        self.is_over = True
        local, v = self.side.local, self.v
        if self.old:
            read_resumed(v, self.suite, self.old.resumption, answer)
        else:
            assert self.key is not None
            read_reply(v, self.suite, local, self.key, answer)
        # The document does not say that the initiator asks about the responder's token; whom else would it be for?
        local.verifier.token(self.peer.name, v.token_r)
        return Session("initiator", self.suite, self.peer, v, self.authenticated, local.clock, self.side.limits)


def read_reply(v: SimpleNamespace, suite: Suite, local: Local, key: rsa.RSAPublicKey, reply: bytes) -> None:
    """Opens a reply, and leaves what the session begins with in `v`."""
    reader = Reader(reply)
    reader.head(REPLY)
    if reader.take(2) != suite.code:
        raise Refused("a reply in another suite")
    reader.take(32)
    share_r = reader.take(32)
    ct_r_prime = reader.take(CT) if suite.ml_kem else b""
    ct_r = reader.vec(RSA_LIMIT)
    v.clear_r = reader.before()
    v.sealed_r = reader.vec(BOX_LIMIT)
    reader.end()
    v.d_e = x25519(v.x25519_i, share_r)
    v.k_e = v.ml_kem_i.decapsulate(ct_r_prime) if suite.ml_kem else b""
    v.secret_r = decrypt_oaep(local.key, ct_r, TO_INITIATOR, local.random)
    schedule_r(v)
    v.inner_r = open_box(v.box_r, v.t_r, v.sealed_r)
    reader = Reader(v.inner_r)
    v.token_r = reader.vec(TOKEN_LIMIT)
    signature = reader.vec(RSA_LIMIT)
    reader.end()
    verify_pss(key, signature, RESPONDER_SIGNATURE + v.t_r + H(vec(v.token_r)))
    schedule_session(v, v.t_r, v.sealed_r)


def read_resumed(v: SimpleNamespace, suite: Suite, resumption: bytes, reply: bytes) -> None:
    """The same for the reply to a resumption."""
    reader = Reader(reply)
    reader.head(RESUMED)
    reader.take(32)
    share_r = reader.take(32)
    ct_r_prime = reader.take(CT) if suite.ml_kem else b""
    v.clear_v = reader.before()
    v.sealed_v = reader.vec(BOX_LIMIT)
    reader.end()
    v.d_e = x25519(v.x25519_i, share_r)
    v.k_e = v.ml_kem_i.decapsulate(ct_r_prime) if suite.ml_kem else b""
    schedule_v(v, resumption)
    v.inner_v = open_box(v.box_v, v.t_v, v.sealed_v)
    reader = Reader(v.inner_v)
    v.token_r = reader.vec(TOKEN_LIMIT)
    reader.end()
    schedule_session(v, v.t_v, v.sealed_v)


# 4 to 6. The responder's side


@dataclass
class LiveOffer:
    """An offer whose private halves are still here."""

    offer: bytes
    local: Local
    x25519_o: X25519PrivateKey
    ml_kem_o: MLKEM768PrivateKey | None
    until: int | None = None


class ReplayCache:
    """Randoms that were taken. Never forgets one early; when it is full, it takes no more."""

    def __init__(self, clock: Clock, tolerance: int, capacity: int = 65_536) -> None:
        # A message is good until one tolerance after its time, which may be one tolerance ahead of the clock: both
        # ends of that belong to it, so an entry lives a millisecond longer than twice the tolerance.
        self.clock, self.life, self.capacity = clock, 2 * tolerance + 1, capacity
        self.entries: dict[bytes, int] = {}

    def check(self, random: bytes) -> None:
        now = self.clock()
        for entry in [entry for entry, until in self.entries.items() if until <= now]:
            del self.entries[entry]
        if random in self.entries:
            raise Refused("a message for the second time")
        if len(self.entries) >= self.capacity:
            raise Refused("the replay cache is full", "busy")

    def enter(self, random: bytes) -> None:
        self.check(random)
        self.entries[random] = self.clock() + self.life


class Responder:
    """Answers first messages and resumptions, and holds the sessions."""

    tolerance, offer_overlap, resumption_limit = 60_000, 60_000, 3_600_000

    def __init__(self, local: Local, limits: Limits | None = None, cookies: CookieMint | None = None) -> None:
        self.limits, self.cookies = limits or Limits(), cookies
        self.replays = ReplayCache(local.clock, self.tolerance)
        self.offers: list[LiveOffer] = []
        self.sessions: dict[bytes, Session] = {}
        self.change_identity(local)

    def change_identity(self, local: Local) -> None:
        """A new offer; the one before it stays good for an overlap."""
        for old in self.offers:
            old.until = old.until or local.clock() + self.offer_overlap
        self.local = local
        x25519_o, share_o = x25519_key(local.random)
        ml_kem_o, ek_o = ml_kem_key(any(suite.ml_kem for suite in local.suites), local.random)
        self.offers.append(LiveOffer(make_offer(local, share_o, ek_o), local, x25519_o, ml_kem_o))

    @property
    def offer(self) -> bytes:
        return self.offers[-1].offer

    def answer(self, message: bytes, address: bytes = b"") -> bytes:
        """What goes back: the offer, a challenge or a reply. Raises `Refused`."""
        if not message:
            return self.offer
        with_cookie = message[:2] == bytes([VERSION, WITH_COOKIE])
        cookie, message = (message[2:42], message[42:]) if with_cookie else (b"", message)
        if message[:2] not in (bytes([VERSION, FIRST_MESSAGE]), bytes([VERSION, RESUMPTION])):
            raise Refused("neither a first message nor a resumption")
        if self.cookies and not self.cookies.is_good(cookie, address, message):
            return bytes([VERSION, CHALLENGE]) + self.cookies.mint(address, message)
        take = self.take if message[1] == FIRST_MESSAGE else self.take_resumption
        reply, session = take(message)
        self.sessions[session.id] = session
        return reply

    def check_fresh(self, time: bytes, random: bytes) -> None:
        (at,) = struct.unpack(">Q", time)
        if abs(at - self.local.clock()) > self.tolerance:
            raise Refused("a time too far from the clock here")
        self.replays.check(random)

    def take(self, first_message: bytes) -> tuple[bytes, Session]:
        v, suite, live, random, ct_i, sealed_i = self.read_first(first_message)
        peer, key = open_first(v, suite, live.local, ct_i, sealed_i)
        local = live.local
        local.verifier.key(peer.name, peer.spki, peer.attestation)
        local.verifier.token(peer.name, v.token_i)
        self.replays.enter(random)

        v.x25519_r, share_r = x25519_key(local.random)
        v.d_e = x25519(v.x25519_r, v.share_i)
        v.k_e, ct_r_prime = encapsulate(v.ek_i)
        v.secret_r = local.random(32)
        ct_r = key.encrypt(v.secret_r, _oaep(TO_INITIATOR))
        v.clear_r = bytes([VERSION, REPLY]) + suite.code + local.random(32) + share_r + ct_r_prime + vec(ct_r)
        schedule_r(v)
        v.inner_r = vec(local.token) + vec(local.sign(RESPONDER_SIGNATURE + v.t_r + H(vec(local.token))))
        v.sealed_r = seal_box(v.box_r, v.t_r, v.inner_r)
        schedule_session(v, v.t_r, v.sealed_r)
        session = Session("responder", suite, peer, v, local.clock(), local.clock, self.limits)
        return v.clear_r + vec(v.sealed_r), session

    def read_first(self, first_message: bytes) -> tuple[SimpleNamespace, Suite, LiveOffer, bytes, bytes, bytes]:
        """All that is refused without using a key, in the order of section 4."""
        v, reader = SimpleNamespace(first_message=first_message), Reader(first_message)
        reader.head(FIRST_MESSAGE)
        suite_bytes = reader.take(2)
        offer_hash, time, random, v.share_i = reader.take(32), reader.take(8), reader.take(32), reader.take(32)
        v.ct_o, v.ek_i = (reader.take(CT), reader.take(EK)) if suite_bytes[0] == 1 else (b"", b"")
        ct_i = reader.vec(RSA_LIMIT)
        v.clear_i = reader.before()
        sealed_i = reader.vec(BOX_LIMIT)
        reader.end()
        suite = SUITES.get(suite_bytes)
        if suite is None or suite not in self.local.suites:
            raise Refused(f"suite {suite_bytes.hex()} is not one of ours")
        self.offers = [offer for offer in self.offers if offer.until is None or offer.until > self.local.clock()]
        live = next((offer for offer in self.offers if H(offer.offer) == offer_hash), None)
        if live is None:
            raise Refused("an offer that is not live here", "stale offer")
        if suite not in live.local.suites:
            raise Refused("a suite that this offer does not list")
        if len(ct_i) != live.local.key.key_size // 8:
            raise Refused("a ciphertext that is not as long as the modulus")
        self.check_fresh(time, random)
        v.d_o = x25519(live.x25519_o, v.share_i)
        v.k_o = live.ml_kem_o.decapsulate(v.ct_o) if suite.ml_kem and live.ml_kem_o else b""
        return v, suite, live, random, ct_i, sealed_i

    def take_resumption(self, message: bytes) -> tuple[bytes, Session]:
        v, reader = SimpleNamespace(message=message), Reader(message)
        reader.head(RESUMPTION)
        old = self.session(reader.take(16))
        time, random, v.share_i = reader.take(8), reader.take(32), reader.take(32)
        v.ek_i = reader.take(EK) if old.suite.ml_kem else b""
        v.clear_u = reader.before()
        sealed_u = reader.vec(BOX_LIMIT)
        reader.end()
        self.check_fresh(time, random)
        schedule_u(v, old.resumption)
        v.inner_u = open_box(v.box_u, v.t_u, sealed_u)
        reader = Reader(v.inner_u)
        v.token_i = reader.vec(TOKEN_LIMIT)
        reader.end()
        local = self.local
        if local.clock() - old.authenticated > self.resumption_limit:
            raise Refused("the full handshake was too long ago")
        local.verifier.token(old.peer.name, v.token_i)
        self.replays.enter(random)

        v.x25519_r, share_r = x25519_key(local.random)
        v.d_e = x25519(v.x25519_r, v.share_i)
        v.k_e, ct_r_prime = encapsulate(v.ek_i)
        v.clear_v = bytes([VERSION, RESUMED]) + local.random(32) + share_r + ct_r_prime
        schedule_v(v, old.resumption)
        v.inner_v = vec(local.token)
        v.sealed_v = seal_box(v.box_v, v.t_v, v.inner_v)
        schedule_session(v, v.t_v, v.sealed_v)
        session = Session("responder", old.suite, old.peer, v, old.authenticated, local.clock, self.limits)
        return v.clear_v + vec(v.sealed_v), session

    def session(self, id: bytes) -> Session:
        session = self.sessions.get(id)
        if session is None or session.is_over():
            self.sessions.pop(id, None)
            raise Refused("no such session", "no session")
        return session


def open_first(v: SimpleNamespace, suite: Suite, local: Local, ct_i: bytes, sealed_i: bytes) -> tuple[Peer, rsa.RSAPublicKey]:
    """Decrypts, opens the box, verifies the signature and the size of the key."""
    v.secret_i = decrypt_oaep(local.key, ct_i, TO_RESPONDER, local.random)
    schedule_i(v)
    v.inner_i = open_box(v.box_i, v.t_i, sealed_i)
    reader = Reader(v.inner_i)
    peer = Peer.read(reader)
    v.token_i = reader.vec(TOKEN_LIMIT)
    signed_i = reader.before()
    signature = reader.vec(RSA_LIMIT)
    reader.end()
    return peer, peer.public(signature, INITIATOR_SIGNATURE + v.t_i + H(signed_i), local.smallest_key)


# 7. Cookie


class CookieMint:
    """Makes and checks cookies. Keeps nothing of who asked."""

    life = 30_000

    def __init__(self, clock: Clock, random: Random) -> None:
        self.clock, self.key = clock, random(32)

    def mint(self, address: bytes, message: bytes) -> bytes:
        return self._cookie(struct.pack(">Q", self.clock()), address, message)

    def is_good(self, cookie: bytes, address: bytes, message: bytes) -> bool:
        if len(cookie) != 40:
            return False
        (at,) = struct.unpack(">Q", cookie[:8])
        is_ours = hmac.compare_digest(cookie, self._cookie(cookie[:8], address, message))
        return is_ours and 0 <= self.clock() - at <= self.life

    def _cookie(self, time: bytes, address: bytes, message: bytes) -> bytes:
        return time + HMAC(self.key, b"mesh-session v1 cookie\0" + time + vec(address) + H(message))


# 8. Key schedule


def schedule_i(v: SimpleNamespace) -> None:
    v.t_i = H(b"mesh-session v1 init\0" + v.clear_i)
    v.prk_i = HKDF_Extract(v.t_i, v.secret_i + v.d_o + v.k_o)
    v.box_i = HKDF_Expand(v.prk_i, b"mesh-session v1 init box\0", 76)


def schedule_r(v: SimpleNamespace) -> None:
    v.t_r = H(b"mesh-session v1 reply\0" + H(v.first_message) + v.clear_r)
    v.prk = HKDF_Extract(v.t_r, v.secret_i + v.secret_r + v.d_o + v.d_e + v.k_o + v.k_e)
    v.box_r = HKDF_Expand(v.prk, b"mesh-session v1 reply box\0", 76)


def schedule_u(v: SimpleNamespace, resumption: bytes) -> None:
    v.t_u = H(b"mesh-session v1 resume\0" + v.clear_u)
    v.prk_u = HKDF_Extract(v.t_u, resumption)
    v.box_u = HKDF_Expand(v.prk_u, b"mesh-session v1 resume box\0", 76)


def schedule_v(v: SimpleNamespace, resumption: bytes) -> None:
    v.t_v = H(b"mesh-session v1 resumed\0" + H(v.message) + v.clear_v)
    v.prk = HKDF_Extract(v.t_v, resumption + v.d_e + v.k_e)
    v.box_v = HKDF_Expand(v.prk, b"mesh-session v1 resumed box\0", 76)


def schedule_session(v: SimpleNamespace, t: bytes, sealed: bytes) -> None:
    v.t_s = H(b"mesh-session v1 session\0" + t + sealed)
    v.id = HKDF_Expand(v.prk, b"mesh-session v1 session id\0" + v.t_s, 16)
    v.resumption = HKDF_Expand(v.prk, b"mesh-session v1 resumption\0" + v.t_s, 32)
    v.chain_0 = HKDF_Expand(v.prk, b"mesh-session v1 chain\0" + v.t_s, 32)


def keys_of(chain: bytes) -> bytes:
    return HKDF_Expand(chain, b"mesh-session v1 keys\0", 152)


def next_chain(chain: bytes) -> bytes:
    return HKDF_Expand(chain, b"mesh-session v1 next\0", 32)


def seal_box(box: bytes, t: bytes, inner: bytes) -> bytes:
    key, iv, mac = box[:32], box[32:44], box[44:]
    c_tag = AESGCM(key).encrypt(iv, inner, t)
    return c_tag + HMAC(mac, t + c_tag)


def open_box(box: bytes, t: bytes, sealed: bytes) -> bytes:
    key, iv, mac = box[:32], box[32:44], box[44:]
    c_tag, found = sealed[:-32], sealed[-32:]
    if len(sealed) < 48 or not hmac.compare_digest(found, HMAC(mac, t + c_tag)):
        raise Refused("a box whose MAC does not hold")
    try:
        return AESGCM(key).decrypt(iv, c_tag, t)
    except InvalidTag as error:
        raise Refused("a box that does not open") from error


# 9. Records

END, HEAD, TRAILERS = 1, 2, 4
TO_THE_RESPONDER, TO_THE_INITIATOR = 1, 2
TEXT_LIMIT = 16 << 20
CLOSE_ROUTE = b"mesh-session close"


@dataclass(frozen=True)
class RecordKeys:
    """The keys of one direction in one epoch."""

    suite: Suite
    key: bytes
    iv: bytes
    mac: bytes

    @staticmethod
    def both(suite: Suite, keys: bytes) -> dict[int, RecordKeys]:
        def cut(k: bytes) -> RecordKeys:
            return RecordKeys(suite, k[: suite.aes_key], k[32:44], k[44:76])

        return {TO_THE_RESPONDER: cut(keys[:76]), TO_THE_INITIATOR: cut(keys[76:])}

    def nonce(self, header: bytes) -> bytes:
        return bytes(a ^ b for a, b in zip(self.iv, header[20:32]))

    def mac_of(self, header: bytes, route_hash: bytes, body: bytes) -> bytes:
        return HMAC(self.mac, route_hash + header + (body if self.suite.mac_covers_all else body[-16:]))

    def seal(self, header: bytes, route_hash: bytes, plaintext: bytes) -> bytes:
        body = AESGCM(self.key).encrypt(self.nonce(header), plaintext, header + route_hash)
        return header + body + self.mac_of(header, route_hash, body)

    def has_sealed(self, record: bytes, route_hash: bytes) -> bool:
        return hmac.compare_digest(record[-32:], self.mac_of(record[:32], route_hash, record[32:-32]))

    def open(self, record: bytes, route_hash: bytes) -> bytes:
        header, body = record[:32], record[32:-32]
        try:
            return AESGCM(self.key).decrypt(self.nonce(header), body, header + route_hash)
        except InvalidTag as error:
            raise Refused("a record that does not open") from error


def make_header(epoch: int, flags: int, direction: int, id: bytes, exchange: int, index: int) -> bytes:
    return struct.pack(">BBBB16sQI", VERSION, epoch, flags, direction, id, exchange, index)


class Window:
    """Takes each exchange number once, and none that is `size` or more below the highest."""

    def __init__(self, size: int) -> None:
        self.size, self.highest, self.taken = size, -1, set[int]()

    def claim(self, number: int) -> None:
        if number in self.taken or number <= self.highest - self.size:
            raise Refused("an exchange number that was taken, or that is too old")
        self.taken.add(number)
        if number > self.highest:
            self.highest = number
            self.taken = {taken for taken in self.taken if taken > self.highest - self.size}


# 10. Epochs

AHEAD = 4  # epochs that a record may be ahead of its receiver


@dataclass(frozen=True)
class Limits:
    """Section 11. Times in milliseconds."""

    blocks: int = 1 << 32
    blocks_at_most: int = 1 << 34
    records: int = 1 << 32
    age: int = 3_600_000
    overlap: int = 30_000
    window: int = 4_096
    idle: int = 900_000
    life: int = 3_600_000


class Epoch:
    """The keys of an epoch, and what they have done."""

    def __init__(self, number: int, suite: Suite, chain: bytes, began: int) -> None:
        self.number, self.began, self.records = number, began, 0
        self.ended: int | None = None
        self.keys = RecordKeys.both(suite, keys_of(chain))
        self.blocks = {TO_THE_RESPONDER: 0, TO_THE_INITIATOR: 0}
        # All that is kept of the chain: `chain_n` itself is not needed once this is there.
        self.chain_next = next_chain(chain) if number < 255 else b""

    def count(self, direction: int, n: int) -> None:
        self.records += 1
        self.blocks[direction] += -(-n // 16) + 5  # the text, two each for header and route, one for the tag

    def is_done(self, limits: Limits, now: int) -> bool:
        return (max(self.blocks.values()) >= limits.blocks or self.records >= limits.records
                or now - self.began >= limits.age)  # fmt: skip


class Session:
    """An established session, either side's."""

    def __init__(self, role: str, suite: Suite, peer: Peer, v: SimpleNamespace, authenticated: int,
                 clock: Clock = system_clock, limits: Limits = Limits()) -> None:  # fmt: skip
        self.role, self.suite, self.peer, self.v, self.authenticated = role, suite, peer, v, authenticated
        self.clock, self.limits, self.closed = clock, limits, False
        self.id: bytes = v.id
        self.resumption: bytes = v.resumption
        self.made = self.used = clock()
        self.newest = Epoch(0, suite, v.chain_0, clock())
        self.epochs = {0: self.newest}
        self.heard = 0  # the newest epoch of which a record was opened
        self.window = Window(limits.window)
        self.next_exchange = 0
        self.under_way: dict[int, Exchange] = {}

    def is_over(self) -> bool:
        now = self.clock()
        return self.closed or now - self.used >= self.limits.idle or now - self.made >= self.limits.life

    def advance(self) -> int:
        """Goes on to the next epoch, for all that is sealed from here on."""
        if not self.may_advance():
            raise Refused("no epoch follows 255, or the peer was not heard for four")
        self._enter(self._following(self.newest.number + 1))
        return self.newest.number

    def may_advance(self) -> bool:
        return self.newest.number < min(255, self.heard + AHEAD)

    def begin(self, route: bytes) -> Exchange:
        """The initiator's next exchange."""
        if self.role != "initiator" or self.is_over():
            raise Refused("no exchange begins here")
        if self.newest.number == 255 and self.newest.is_done(self.limits, self.clock()):
            raise Refused("the last epoch has done its share")
        number, self.next_exchange = self.next_exchange, self.next_exchange + 1
        return Exchange(self, number, route, TO_THE_RESPONDER, TO_THE_INITIATOR)

    def accept(self, route: bytes, record: bytes) -> tuple[Exchange, int, bytes]:
        """The exchange that a record begins, with the record's flags and text."""
        if self.role != "responder" or self.is_over():
            raise Refused("no exchange begins here", "no session")
        if len(record) < 80:
            raise Refused("too short for a record")
        (number,) = struct.unpack(">Q", record[20:28])
        if number >= 1 << 63:
            raise Refused("no such exchange")
        exchange = Exchange(self, number, route, TO_THE_INITIATOR, TO_THE_RESPONDER)
        flags, plaintext = exchange.open(record)
        if route == CLOSE_ROUTE and flags == END and not plaintext:
            self.closed = True
        return exchange, flags, plaintext

    def close_record(self) -> bytes:
        """What ends the session; nothing more begins in it."""
        record = self.begin(CLOSE_ROUTE).seal(b"", END)
        self.closed = True
        return record

    def _following(self, number: int) -> list[Epoch]:
        """The epochs behind the newest, up to that one."""
        found, chain = list[Epoch](), self.newest.chain_next
        for n in range(self.newest.number + 1, number + 1):
            found.append(Epoch(n, self.suite, chain, self.clock()))
            chain = found[-1].chain_next
        return found

    def _enter(self, following: list[Epoch]) -> None:
        for epoch in following:
            self.newest.chain_next, self.newest.ended = b"", self.clock()
            self.newest = self.epochs[epoch.number] = epoch
        self.sweep()

    def may_begin_in(self, epoch: Epoch) -> bool:
        """Whether the first record of an exchange may be of it."""
        return epoch.ended is None or self.clock() - epoch.ended <= self.limits.overlap

    def sweep(self) -> None:
        """Erases the keys that no stream may need any more."""
        began = min((e.began_in for e in self.under_way.values() if e.began_in is not None), default=256)
        self.epochs = {n: epoch for n, epoch in self.epochs.items()
                       if n >= began or self.may_begin_in(epoch)}  # fmt: skip

    def keys_for(self, number: int, lowest: int | None) -> tuple[Epoch, list[Epoch]]:
        """The epoch of a record, and what is yet to be gone on to. `lowest` is none for a first record."""
        self.sweep()
        if self.newest.number < number <= self.newest.number + AHEAD:
            following = self._following(number)
            return following[-1], following
        epoch = self.epochs.get(number)
        if epoch is None or not (self.may_begin_in(epoch) if lowest is None else number >= lowest):
            raise Refused("a record of an epoch that is not taken here")
        return epoch, []

    def seal(self, exchange: Exchange, index: int, plaintext: bytes, flags: int) -> bytes:
        now, direction = self.clock(), exchange.sends
        if self.closed:
            raise Refused("the session is closed")
        if self.newest.is_done(self.limits, now) and self.may_advance():
            self.advance()
        epoch = self.newest
        if epoch.blocks[direction] >= self.limits.blocks_at_most or len(plaintext) > TEXT_LIMIT or index >= 1 << 32:
            raise Refused("a limit is reached")
        epoch.count(direction, len(plaintext))
        self.used = now
        if exchange.began_in is None:
            exchange.start(epoch.number)
        header = make_header(epoch.number, flags, direction, self.id, exchange.number, index)
        return epoch.keys[direction].seal(header, exchange.route_hash, plaintext)

    def open(self, exchange: Exchange, index: int, record: bytes) -> tuple[int, int, bytes]:
        """(epoch, flags, text)"""
        if self.closed or not 80 <= len(record) <= 80 + TEXT_LIMIT:
            raise Refused("closed, or not a record")
        version, number, flags, direction, id, of, found = struct.unpack(">BBBB16sQI", record[:32])
        if (version, direction, id, of, found) != (VERSION, exchange.takes, self.id, exchange.number, index) or flags & ~7:
            raise Refused("not the header that comes next")
        is_first = exchange.takes == TO_THE_RESPONDER and index == 0
        epoch, following = self.keys_for(number, None if is_first else exchange.lowest)
        keys = epoch.keys[direction]
        if not keys.has_sealed(record, exchange.route_hash):
            raise Refused("a record whose MAC does not hold")
        self._enter(following)
        self.heard = max(self.heard, number)
        if is_first:
            self.window.claim(exchange.number)
            exchange.start(number)
        plaintext = keys.open(record, exchange.route_hash)
        epoch.count(direction, len(plaintext))
        self.used = self.clock()
        return number, flags, plaintext


class Exchange:
    """A pair of streams: one that is sealed here, one that is opened here."""

    def __init__(self, session: Session, number: int, route: bytes, sends: int, takes: int) -> None:
        self.session, self.number, self.route_hash, self.sends, self.takes = session, number, H(route), sends, takes
        self.sealed = self.opened = 0
        self.lowest = 0
        self.began_in: int | None = None
        self.has_sent_end = self.has_ended = self.has_failed = False

    def start(self, epoch: int) -> None:
        """The first record of the exchange was of this epoch; no answer to it is of an earlier one."""
        self.began_in = self.lowest = epoch
        self.session.under_way[self.number] = self

    def seal(self, plaintext: bytes, flags: int = 0) -> bytes:
        if self.has_sent_end:
            raise Refused("a record behind the last")
        index, self.sealed = self.sealed, self.sealed + 1  # used once, also when sealing fails
        record = self.session.seal(self, index, plaintext, flags)
        self.has_sent_end = bool(flags & END)
        self._finish()
        return record

    def open(self, record: bytes) -> tuple[int, bytes]:
        """(flags, text) of the next record."""
        if self.has_ended or self.has_failed:
            raise Refused("nothing more of this stream opens")
        try:
            self.lowest, flags, plaintext = self.session.open(self, self.opened, record)
        except Refused:
            self.has_failed = True
            self._finish()
            raise
        self.opened += 1
        self.has_ended = bool(flags & END)
        self._finish()
        return flags, plaintext

    def drop(self) -> None:
        """Nobody waits for the rest."""
        self.has_sent_end = self.has_failed = True
        self._finish()

    def _finish(self) -> None:
        if self.has_sent_end and (self.has_ended or self.has_failed):
            self.session.under_way.pop(self.number, None)
            self.session.sweep()
