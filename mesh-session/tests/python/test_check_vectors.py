"""The checker of vectors against vectors made here: it finds what it should, and nothing else."""

from __future__ import annotations

import copy
import random
import unittest
from typing import Any

from cryptography.hazmat.primitives import serialization

import check_vectors
import mesh_session as m
from mesh_session import END, HEAD, SUITES, Initiator, Local, Responder, Session
from test_mesh_session import Trusting, rsa_key

NOW = 1_800_000_000_000


def pkcs8(whose: int) -> str:
    form = serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return rsa_key(2_048, whose).private_bytes(*form).hex()


def seed(private: Any) -> str:
    text: str = private.private_bytes_raw().hex()
    return text


def records(a: Session, b: Session) -> list[dict[str, Any]]:
    made = []

    def note(sender: m.Exchange, text: bytes, flags: int) -> bytes:
        record = sender.seal(text, flags)
        header = dict(zip(("epoch", "flags"), record[1:3]), exchange=int.from_bytes(record[20:28], "big"))
        side = "initiator" if record[3] == 1 else "responder"
        made.append({"from": side, **header, "index": int.from_bytes(record[28:32], "big"), "route": b"orders".hex(),
                     "plaintext": text.hex(), "record": record.hex()})  # fmt: skip
        return record

    for epoch in range(3):
        sent = a.begin(b"orders")
        got, _, _ = b.accept(b"orders", note(sent, b"question", HEAD))
        sent.open(note(got, b"answer " * 40, HEAD | END))
        got.open(note(sent, b"", END))
        (a if epoch else b).advance()
    return made


def session_fields(session: Session, names: str) -> dict[str, Any]:
    fields: dict[str, Any] = {name: getattr(session.v, name).hex() for name in names.split()}
    chain, fields["epochs"] = session.v.chain_0, []
    for n in range(4):
        fields["epochs"].append({"epoch": n, "chain": chain.hex(), "keys": m.keys_of(chain).hex()})
        chain = m.next_chain(chain)
    return fields


def make(suite: m.Suite) -> dict[str, Any]:
    dice = random.Random(suite.code)
    sides = [Local(name, rsa_key(2_048, i), Trusting(), token=token, suites=[suite], clock=lambda: NOW, random=dice.randbytes)
             for i, (name, token) in enumerate((("alice", b"a"), ("bob", b"")))]  # fmt: skip
    responder = Responder(sides[1])
    waiting = Initiator(sides[0], "bob").start(responder.offer)
    reply = responder.answer(waiting.message)
    a = waiting.input(reply)
    assert isinstance(a, Session)
    b = responder.sessions[a.id]
    live = responder.offers[0]
    file: dict[str, Any] = {
        "about": "made in a test", "suite": suite.code.hex(), "now": NOW, "initiator_pkcs8": pkcs8(0), "responder_pkcs8": pkcs8(1),
        "x25519_o": seed(live.x25519_o), "x25519_i": seed(a.v.x25519_i), "x25519_r": seed(b.v.x25519_r),
        "secret_i": a.v.secret_i.hex(), "secret_r": a.v.secret_r.hex(), "offer": responder.offer.hex(),
        "offer_hash": m.H(responder.offer).hex(), "first_message": waiting.message.hex(), "reply": reply.hex(),
        **session_fields(b, check_vectors.FIRST), **session_fields(a, check_vectors.SECOND), "records": records(a, b),
    }  # fmt: skip
    waiting = Initiator(sides[0], "bob").resume(a, b"later")
    again = responder.answer(waiting.message)
    c = waiting.input(again)
    assert isinstance(c, Session)
    d = responder.sessions[c.id]
    file["resumed"] = {
        "now": NOW, "x25519_i": seed(c.v.x25519_i), "x25519_r": seed(d.v.x25519_r), "message": waiting.message.hex(),
        "reply": again.hex(), **session_fields(d, check_vectors.RESUMING), **session_fields(c, check_vectors.RESUMED),
        "records": records(c, d),
    }  # fmt: skip
    if suite.ml_kem:
        file |= {"ml_kem_o": seed(live.ml_kem_o), "ml_kem_i": seed(a.v.ml_kem_i)}
        file["resumed"]["ml_kem_i"] = seed(c.v.ml_kem_i)
    else:
        for of in (file, file["resumed"]):
            of.pop("k_o", None), of.pop("k_e", None)
    file["refused"] = [
        *({"what": what, "bytes": turned(bytes.fromhex(message), i), "why": f"byte {i} is another"}
          for what, message in (("offer", file["offer"]), ("first_message", file["first_message"]), ("reply", file["reply"]),
                                ("resumption", waiting.message.hex()), ("resumption_reply", again.hex()))
          for i in (0, 1, 3, 40, -1)),
        {"what": "first_message", "bytes": file["first_message"], "again": True, "why": "a repeated message"},
        {"what": "resumption", "bytes": waiting.message.hex(), "again": True, "why": "a repeated message"},
        {"what": "first_message", "bytes": file["first_message"], "now": NOW + 60_001, "why": "too late"},
        *({"what": "record", "bytes": turned(bytes.fromhex(file["records"][n]["record"]), i), "why": "changed",
           **{name: file["records"][n][name] for name in ("from", "exchange", "index", "route", "epoch")}}
          for n in range(4) for i in (0, 1, 2, 3, 9, 25, 29, 33, -1)),
    ]  # fmt: skip
    return file


def turned(message: bytes, at: int) -> str:
    changed = bytearray(message)
    changed[at] ^= 8
    return bytes(changed).hex()


def at(file: Any, path: list[Any]) -> dict[str, Any]:
    for name in path:
        file = file[name]
    found: dict[str, Any] = file
    return found


class Checks(unittest.TestCase):
    def test_good_files_pass(self) -> None:
        for code in ("0101", "0001", "0112", "0013"):
            file = check_vectors.File(make(SUITES[bytes.fromhex(code)]))
            file.check()
            self.assertGreater(file.found, 100)

    def test_a_file_with_anything_changed_does_not(self) -> None:
        good = make(SUITES[b"\1\1"])
        del good["refused"]
        for path in ([], ["resumed"], ["resumed", "epochs", 1], ["epochs", 2], ["records", 3]):
            for name, value in at(good, path).items():
                if not isinstance(value, str) or name in ("about", "from") or not value:
                    continue
                # Not the last digit, since not every bit of a scalar or of `z` matters.
                i, bad = len(value) // 4, copy.deepcopy(good)
                at(bad, path)[name] = value[:i] + ("0" if value[i] != "0" else "1") + value[i + 1 :]
                with self.assertRaises(Exception, msg=name):
                    check_vectors.File(bad).check()

    def test_a_refused_entry_that_is_good_is_found(self) -> None:
        file = make(SUITES[b"\0\1"])
        for what, message in (("offer", "offer"), ("first_message", "first_message"), ("reply", "reply")):
            file["refused"] = [{"what": what, "bytes": file[message], "why": "nothing is wrong"}]
            with self.assertRaisesRegex(AssertionError, "taken"):
                check_vectors.File(file).check()
        for record in file["records"]:
            file["refused"] = [{"what": "record", "bytes": record["record"], "why": "nothing is wrong", **record}]
            with self.assertRaisesRegex(AssertionError, "taken"):
                check_vectors.File(file).check()


if __name__ == "__main__":
    unittest.main()
