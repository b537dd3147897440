"""One side of the session protocol over TCP, driven line by line. The program that the Rust tests talk to.

    peer.py key BITS FILE
    peer.py initiate|respond --key FILE --name NAME --peer NAME --pin SHA256 [--token T] [--peer-token T]
        [--suites 0101,0001] [--cookies] [--records N] [--overlap MS] [--now MS]

Messages and records go over a loopback connection, each behind its length in four bytes (section 12). A frame without
bytes asks for the offer; the other way it is a refusal. Commands are read from standard input, and each is answered with
one line: `ok …`, or `refused WHAT-THE-PEER-MAY-HEAR: WHY`.

    listen                       a port; connections are taken as they are needed
    connect PORT                 a new connection
    handshake                    initiator: offer, first message, reply
    resume TOKEN                 initiator: resumption of the session in use; the new one is in use then
    answer                       responder: takes one message and answers it
    use ID                       another session that is known here
    begin ROUTE                  initiator: the next exchange, in the session in use
    send NUMBER FLAGS TEXT       the next record of an exchange
    receive ROUTE                takes one record, of whatever exchange
    advance                      to the next epoch
    close                        ends the session in use
    clock MS                     moves the clock of this side
    state                        epoch, epochs whose keys are here, exchanges under way
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from carriage import receive_frame, send_frame
from mesh_session import (H, SUITES, CookieMint, Exchange, Initiator, Limits, Local, Refused, Responder, Session,
                          system_clock)  # fmt: skip


class Pinned:
    """Trusts one key and one token, both known in advance."""

    def __init__(self, name: str, pin: str, token: str) -> None:
        self.name, self.pin, self.expected = name, pin, token.encode()

    def key(self, name: str, spki: bytes, attestation: bytes) -> None:
        if name != self.name or H(spki).hex() != self.pin:
            raise Refused("not the key that is pinned")

    def token(self, name: str, token: bytes) -> None:
        if token != self.expected:
            raise Refused("not the token that is expected")


def make_key(bits: int, file: Path) -> str:
    """Writes a PKCS#8 key and gives the SHA-256 of its public half."""
    key = rsa.generate_private_key(65_537, bits)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file.write_bytes(key.private_bytes(*form))
    return pin_of(key)


def pin_of(key: rsa.RSAPrivateKey) -> str:
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return H(key.public_key().public_bytes(*form)).hex()


def read_key(file: Path) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(file.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


class Peer:
    """A side and its connection. Commands are the methods below `run`."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.shift = 0
        self.role: str = options.role
        local = Local(
            options.name,
            read_key(options.key),
            Pinned(options.peer, options.pin, options.peer_token),
            token=options.token.encode(),
            suites=[SUITES[bytes.fromhex(code)] for code in options.suites.split(",")],
            clock=lambda: (options.now or system_clock()) + self.shift,
        )
        limits = Limits(records=options.records, overlap=options.overlap)
        mint = CookieMint(local.clock, os.urandom) if options.cookies else None
        self.initiator = Initiator(local, options.peer, limits)
        self.responder = Responder(local, limits, mint)
        self.sessions: dict[bytes, Session] = {} if self.role == "initiate" else self.responder.sessions
        self.session: Session | None = None
        self.exchanges: dict[tuple[bytes, int], Exchange] = {}
        self.listener: socket.socket | None = None
        self.connection: socket.socket | None = None

    def stream(self) -> socket.socket:
        if self.connection is None:
            assert self.listener is not None
            self.connection, _ = self.listener.accept()
            self.connection.settimeout(20)
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.connection

    def now_in_use(self, session: Session) -> str:
        self.session = self.sessions[session.id] = session
        return f"{session.id.hex()} {session.suite} {session.peer.name}"

    def in_use(self) -> Session:
        assert self.session is not None, "no session yet"
        return self.session

    def run(self, line: str) -> str:
        name, *rest = line.rstrip("\n").split(" ")
        try:
            return f"ok {getattr(self, 'do_' + name)(*rest)}"
        except Refused as refused:
            return f"refused {refused.told}: {refused}"

    def do_listen(self) -> int:
        self.listener = socket.create_server(("127.0.0.1", 0))
        port: int = self.listener.getsockname()[1]
        return port

    def do_connect(self, port: str) -> str:
        if self.connection:
            self.connection.close()
        self.connection = socket.create_connection(("127.0.0.1", int(port)), timeout=20)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return "connected"

    def ask(self, message: bytes) -> bytes:
        send_frame(self.stream(), message)
        answer = receive_frame(self.stream())
        if not answer:
            raise Refused("the peer refuses")
        return answer

    def do_handshake(self) -> str:
        waiting = self.initiator.start(self.ask(b""))
        outcome: Session | bytes = waiting.message
        while isinstance(outcome, bytes):
            outcome = waiting.input(self.ask(outcome))
        return self.now_in_use(outcome)

    def do_resume(self, token: str) -> str:
        waiting = self.initiator.resume(self.in_use(), token.encode())
        outcome: Session | bytes = waiting.message
        while isinstance(outcome, bytes):
            outcome = waiting.input(self.ask(outcome))
        return self.now_in_use(outcome)

    def do_answer(self) -> str:
        message = receive_frame(self.stream())
        try:
            before = set(self.sessions)
            answer = self.responder.answer(message, b"the only address")
        except Refused:
            send_frame(self.stream(), b"")
            raise
        send_frame(self.stream(), answer)
        made = set(self.sessions) - before
        return self.now_in_use(self.sessions[made.pop()]) if made else f"kind {answer[1]}"

    def do_use(self, id: str) -> str:
        return self.now_in_use(self.sessions[bytes.fromhex(id)])

    def do_begin(self, *route: str) -> int:
        exchange = self.in_use().begin(" ".join(route).encode())
        self.exchanges[self.in_use().id, exchange.number] = exchange
        return exchange.number

    def do_send(self, number: str, flags: str, text: str = "") -> int:
        record = self.exchanges[self.in_use().id, int(number)].seal(bytes.fromhex(text), int(flags))
        send_frame(self.stream(), record)
        return record[1]

    def do_receive(self, *route: str) -> str:
        """Number, flags, epoch and text."""
        record = receive_frame(self.stream())
        session = self.sessions.get(record[4:20]) or self.in_use()
        number = int.from_bytes(record[20:28], "big")
        known = self.exchanges.get((session.id, number))
        if known is None:
            known, flags, text = session.accept(" ".join(route).encode(), record)
            self.exchanges[session.id, number] = known
        else:
            flags, text = known.open(record)
        return f"{number} {flags} {record[1]} {text.hex()}"

    def do_advance(self) -> int:
        return self.in_use().advance()

    def do_close(self) -> str:
        send_frame(self.stream(), self.in_use().close_record())
        return "closed"

    def do_clock(self, shift: str) -> int:
        self.shift += int(shift)
        return self.shift

    def do_state(self) -> str:
        session = self.in_use()
        session.sweep()
        return f"{session.newest.number} {','.join(map(str, sorted(session.epochs)))} {len(session.under_way)} {session.closed}"


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="role", required=True)
    key = commands.add_parser("key")
    key.add_argument("bits", type=int)
    key.add_argument("file", type=Path)
    for role in ("initiate", "respond"):
        side = commands.add_parser(role)
        side.add_argument("--key", type=Path, required=True)
        for name in ("--name", "--peer", "--pin"):
            side.add_argument(name, required=True)
        side.add_argument("--token", default="")
        side.add_argument("--peer-token", default="")
        side.add_argument("--suites", default="0101,0001")
        side.add_argument("--cookies", action="store_true")
        side.add_argument("--records", type=int, default=1 << 32)
        side.add_argument("--overlap", type=int, default=30_000)
        side.add_argument("--now", type=int, help="a clock that stands still, in milliseconds")
    options = parser.parse_args()
    if options.role == "key":
        print(make_key(options.bits, options.file))
        return
    peer = Peer(options)
    for line in sys.stdin:
        print(peer.run(line), flush=True)


if __name__ == "__main__":
    main()
