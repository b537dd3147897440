"""Checks test vectors with mesh_session.py, by the four steps of section 13 of PROTOCOL.md. Format: vectors/README.md.

    check_vectors.py FILE.json …

Prints a line for each file, and ends with an error where something differs.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import mesh_session as m
from mesh_session import SUITES, H, Initiator, LiveOffer, Local, Offer, Refused, Responder, Session, Waiting

FIRST = "clear_i t_i d_o k_o prk_i box_i inner_i token_i"
SECOND = "clear_r t_r d_e k_e prk box_r inner_r token_r t_s id resumption chain_0"
RESUMING = "clear_u t_u prk_u box_u inner_u token_i"
RESUMED = "clear_v t_v d_e k_e prk box_v inner_v token_r t_s id resumption chain_0"


class Trusting:
    def key(self, name: str, spki: bytes, attestation: bytes) -> None: ...

    def token(self, name: str, token: bytes) -> None: ...


@cache
def private_key(der: bytes) -> rsa.RSAPrivateKey:
    key = serialization.load_der_private_key(der, None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def ml_kem(file: dict[str, Any], name: str) -> MLKEM768PrivateKey | None:
    return MLKEM768PrivateKey.from_seed_bytes(bytes.fromhex(file[name])) if name in file else None


def x25519(file: dict[str, Any], name: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(file[name]))


class File:
    """One file of vectors. `found` counts what was compared."""

    def __init__(self, file: dict[str, Any]) -> None:
        self.file, self.found = file, 0
        self.suite = SUITES[self.field("suite")]
        self.now = file["now"]

    def field(self, name: str) -> bytes:
        return bytes.fromhex(self.file[name])

    def same(self, name: str, found: bytes, expected: str) -> None:
        if found.hex() != expected:
            raise AssertionError(f"{name} is {found.hex()}, and the file says {expected}")
        self.found += 1

    def compare(self, v: SimpleNamespace, names: str, expected: dict[str, Any]) -> None:
        for name in names.split():
            if name.startswith("k_") and not self.suite.ml_kem:
                assert name not in expected, f"{name} without ML-KEM"
                continue
            self.same(name, getattr(v, name), expected[name])

    # Each side in a fresh state, as often as needed.

    def local(self, whose: str, name: str) -> Local:
        key = private_key(self.field(f"{whose}_pkcs8"))
        return Local(name, key, Trusting(), suites=[self.suite], clock=lambda: self.now)

    def responder(self) -> Responder:
        responder = Responder(self.local("responder", "responder"))
        live = LiveOffer(self.field("offer"), responder.local, x25519(self.file, "x25519_o"), ml_kem(self.file, "ml_kem_o"))
        responder.offers = [live]
        return responder

    def offer(self) -> Offer:
        return Offer.read(self.field("offer"), 2_048)

    def initiator(self) -> Initiator:
        return Initiator(self.local("initiator", "initiator"), self.offer().peer.name)

    def waiting(self) -> Waiting:
        """The initiator behind its first message. Of what it holds, k_o came from its encapsulation."""
        v = SimpleNamespace(x25519_i=x25519(self.file, "x25519_i"), ml_kem_i=ml_kem(self.file, "ml_kem_i"))
        v.k_o = self.field("k_o") if self.suite.ml_kem else b""
        v.secret_i, v.first_message = self.field("secret_i"), self.field("first_message")
        offer = self.offer()
        v.d_o = m.x25519(v.x25519_i, offer.share_o)
        return Waiting(self.initiator(), v, self.suite, offer.peer, offer.key, self.now, None)

    def initiators(self) -> Session:
        session = self.waiting().input(self.field("reply"))
        assert isinstance(session, Session)
        return session

    def responders(self, v: SimpleNamespace, of: dict[str, Any]) -> Session:
        """The responder's session: its own fresh values are not those of the file, so they are taken from it."""
        for name in ("id", "resumption", "chain_0"):
            setattr(v, name, bytes.fromhex(of[name]))
        return Session("responder", self.suite, self.offer().peer, v, self.now, lambda: self.now)

    def resuming(self) -> Waiting:
        of = self.file["resumed"]
        old = self.initiators()
        v = SimpleNamespace(x25519_i=x25519(of, "x25519_i"), ml_kem_i=ml_kem(of, "ml_kem_i"))
        v.message = bytes.fromhex(of["message"])
        return Waiting(self.initiator(), v, self.suite, old.peer, None, self.now, old)

    def resumer(self) -> Responder:
        responder = self.responder()
        old = self.responders(SimpleNamespace(), self.file)
        responder.sessions[old.id] = old
        return responder

    # The four steps.

    def check(self) -> None:
        self.step_1()
        self.step_2()
        self.step_3(self.file)
        if "resumed" in self.file:
            self.resumed()
        for entry in self.file.get("refused", []):
            self.step_4(entry)

    def step_1(self) -> None:
        self.same("offer_hash", H(self.field("offer")), self.file["offer_hash"])
        responder = self.responder()
        v, suite, live, _, ct_i, sealed_i = responder.read_first(self.field("first_message"))
        peer, _ = m.open_first(v, suite, live.local, ct_i, sealed_i)
        self.compare(v, FIRST, self.file)
        self.same("secret_i", v.secret_i, self.file["secret_i"])
        self.same("initiator's key", peer.spki, m.spki_of(private_key(self.field("initiator_pkcs8"))).hex())
        # The whole of it: policy, cache and reply, which has other random values than the file's.
        assert responder.answer(self.field("first_message"))
        # And what the responder sent, by its own half of the agreement.
        share_r = x25519(self.file, "x25519_r").public_key().public_bytes_raw()
        self.same("share_r", share_r, self.field("reply")[36:68].hex())
        self.same("d_e", m.x25519(x25519(self.file, "x25519_r"), v.share_i), self.file["d_e"])

    def step_2(self) -> None:
        session = self.initiators()
        self.compare(session.v, SECOND, self.file)
        self.same("secret_r", session.v.secret_r, self.file["secret_r"])
        initiator = self.waiting()
        assert initiator.v.x25519_i.public_key().public_bytes_raw() == self.field("first_message")[76:108]

    def step_3(self, of: dict[str, Any]) -> None:
        """Low down, by the keys alone, and then as two sessions with their rules."""
        chain = bytes.fromhex(of["chain_0"])
        keys: list[dict[int, m.RecordKeys]] = []
        for n, epoch in enumerate(of["epochs"]):
            assert epoch["epoch"] == n, "epochs with a gap"
            self.same("chain", chain, epoch["chain"])
            self.same("keys", m.keys_of(chain), epoch["keys"])
            keys.append(m.RecordKeys.both(self.suite, m.keys_of(chain)))
            chain = m.next_chain(chain)
        for entry in of["records"]:
            direction = m.TO_THE_RESPONDER if entry["from"] == "initiator" else m.TO_THE_INITIATOR
            header = m.make_header(entry["epoch"], entry["flags"], direction, bytes.fromhex(of["id"]),
                                   entry["exchange"], entry["index"])  # fmt: skip
            key, route_hash = keys[entry["epoch"]][direction], H(bytes.fromhex(entry["route"]))
            plaintext, record = bytes.fromhex(entry["plaintext"]), bytes.fromhex(entry["record"])
            self.same("record", key.seal(header, route_hash, plaintext), entry["record"])
            assert key.has_sealed(record, route_hash)
            self.same("plaintext", key.open(record, route_hash), entry["plaintext"])

    def resumed(self) -> None:
        of = self.file["resumed"]
        file_now, self.now = self.now, of["now"]
        resumer = self.resumer()
        _, session = resumer.take_resumption(bytes.fromhex(of["message"]))
        self.compare(session.v, RESUMING, of)
        x25519_r = x25519(of, "x25519_r")
        self.same("share_r", x25519_r.public_key().public_bytes_raw(), bytes.fromhex(of["reply"])[34:66].hex())
        self.same("d_e", m.x25519(x25519_r, session.v.share_i), of["d_e"])
        resumed = self.resuming().input(bytes.fromhex(of["reply"]))
        assert isinstance(resumed, Session)
        self.compare(resumed.v, RESUMED, of)
        self.step_3(of)
        self.now = file_now

    def step_4(self, entry: dict[str, Any]) -> None:
        file_now, self.now = self.now, entry.get("now", self.now)
        try:
            self.try_refused(entry, bytes.fromhex(entry["bytes"]))
        except Refused:
            self.found += 1
        else:
            raise AssertionError(f"taken, but to be refused: {entry['what']}: {entry['why']}")
        finally:
            self.now = file_now

    def try_refused(self, entry: dict[str, Any], message: bytes) -> None:
        again = entry.get("again", False)
        match entry["what"]:
            case "offer":
                self.initiator().start(message)
            case "first_message":
                responder = self.responder()
                if again:
                    try:
                        responder.answer(self.field("first_message"))
                    except Refused as refused:
                        raise AssertionError("the good message is refused") from refused
                responder.answer(message)
            case "reply":
                self.waiting().input(message)
            case "resumption":
                responder = self.resumer()
                if again:
                    try:
                        responder.answer(bytes.fromhex(self.file["resumed"]["message"]))
                    except Refused as refused:
                        raise AssertionError("the good message is refused") from refused
                responder.answer(message)
            case "resumption_reply":
                self.resuming().input(message)
            case "record":
                self.open_record(entry, message)
            case other:
                raise AssertionError(f"unknown: {other}")

    def open_record(self, entry: dict[str, Any], record: bytes) -> None:
        """As the receiver of that stream, in that epoch, just before this record."""
        of_initiator = entry["from"] == "initiator"
        v = SimpleNamespace()
        session = self.responders(v, self.file)
        session.role = "responder" if of_initiator else "initiator"
        session._enter(session._following(entry["epoch"]))
        sends, takes = (2, 1) if of_initiator else (1, 2)
        exchange = m.Exchange(session, entry["exchange"], bytes.fromhex(entry["route"]), sends, takes)
        exchange.opened, exchange.lowest = entry["index"], entry["epoch"]
        if entry.get("again", False):
            assert entry["index"] == 0, "a repeated record begins an exchange"
            try:
                session.accept(bytes.fromhex(entry["route"]), record)
            except Refused as refused:
                raise AssertionError("the good record is refused") from refused
        exchange.open(record)


def main() -> None:
    for path in sys.argv[1:]:
        file = File(json.loads(Path(path).read_text()))
        try:
            file.check()
        except Exception as error:
            error.add_note(f"in {path}")
            raise
        refused = len(file.file.get("refused", []))
        print(f"ok {Path(path).name}: {file.found} values, of these {refused} refused")


if __name__ == "__main__":
    main()
