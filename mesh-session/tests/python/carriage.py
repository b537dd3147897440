"""What the mesh puts around and into the session protocol: section 12 of PROTOCOL.md.

The plaintext of records, frames on a plain stream of bytes, and the attestation of an RSA key by a certificate.
"""

from __future__ import annotations

import socket
import struct
from typing import Iterable

from mesh_session import HEAD, TEXT_LIMIT, TRAILERS, Reader, Refused, vec

Headers = list[tuple[str, str]]
FRAME_LIMIT = TEXT_LIMIT + 80


def send_frame(stream: socket.socket, frame: bytes) -> None:
    stream.sendall(struct.pack(">I", len(frame)) + frame)


def receive_frame(stream: socket.socket) -> bytes:
    (n,) = struct.unpack(">I", _exactly(stream, 4))
    if n > FRAME_LIMIT:
        raise Refused("a frame that is too long")
    return _exactly(stream, n)


def _exactly(stream: socket.socket, n: int) -> bytes:
    found = bytearray()
    while len(found) < n:
        piece = stream.recv(min(n - len(found), 1 << 16))
        if not piece:
            raise EOFError("the stream broke off")
        found += piece
    return bytes(found)


def str16(text: str) -> bytes:
    return vec(text.encode())


def encode_headers(headers: Iterable[tuple[str, str]]) -> bytes:
    pairs = list(headers)
    return struct.pack(">H", len(pairs)) + b"".join(str16(name) + str16(value) for name, value in pairs)


def encode_record(data: bytes, head: bytes | None = None, trailers: bytes | None = None) -> tuple[int, bytes]:
    """(flags without END, plaintext)"""
    flags = (HEAD if head is not None else 0) | (TRAILERS if trailers is not None else 0)
    parts = [struct.pack(">I", len(part)) + part for part in (head, trailers) if part is not None]
    return flags, b"".join(parts) + data


def decode_record(flags: int, plaintext: bytes) -> tuple[bytes | None, bytes | None, bytes]:
    """(head, trailers, data)"""

    def part(flag: int) -> bytes | None:
        nonlocal plaintext
        if not flags & flag:
            return None
        (n,) = struct.unpack(">I", plaintext[:4])
        if len(plaintext) < 4 + n:
            raise Refused("a head that is cut off")
        found, plaintext = plaintext[4 : 4 + n], plaintext[4 + n :]
        return found

    head = part(HEAD)
    trailers = part(TRAILERS)
    return head, trailers, plaintext


def request_head(method: str, path: str, authority: str, headers: Iterable[tuple[str, str]]) -> bytes:
    return str16(method) + str16(path) + str16(authority) + encode_headers(headers)


def answer_head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    return struct.pack(">H", status) + encode_headers(headers)


def read_headers(reader: Reader) -> Headers:
    (count,) = struct.unpack(">H", reader.take(2))
    return [(reader.vec(65_535).decode(), reader.vec(65_535).decode()) for _ in range(count)]


def read_request_head(head: bytes) -> tuple[str, str, str, Headers]:
    reader = Reader(head)
    method, path, authority = (reader.vec(65_535).decode() for _ in range(3))
    headers = read_headers(reader)
    reader.end()
    return method, path, authority, headers


def read_answer_head(head: bytes) -> tuple[int, Headers]:
    reader = Reader(head)
    (status,) = struct.unpack(">H", reader.take(2))
    headers = read_headers(reader)
    reader.end()
    return status, headers


ATTESTED = b"mesh-node: rsa identity key, version 1\0"


def attested(name: str, spki: bytes) -> bytes:
    """What the owner of a certificate signs to say that an RSA key is its own."""
    return ATTESTED + name.encode() + b"\0" + spki
