"""A node of the mesh on grpcio and mesh_session.py: the carriage of section 12 of PROTOCOL.md, either side.

    node_peer.py call  PORT OPTIONS     commands come on standard input, a line of JSON answers each
    node_peer.py serve PORT OPTIONS     answers calls with what it saw of them, until it is ended

    OPTIONS: --name ID --peer ID --certs FILES-WITHOUT-ENDING --ca FILE --rsa FILE [--token T] [--call-token T] [--suites 0101,0001]

Commands of the calling side:

    handshake                a session, with the suite and the peer's token
    resume                   the session that follows the one in use
    get PATH                 an exchange in one record each way, over Call
    post PATH N              a body of N bytes in several records, over Stream
    advance                  on to the next epoch
    first                    another first message, kept and not sent
    send MESSAGE             what the node says to `first`, `changed` or `resumption`
    close                    ends the session
    reopen                   goes on as if it had not been ended
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import struct
import sys
import threading
from concurrent import futures
from pathlib import Path
from typing import Any, Iterable, Iterator

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import carriage
from mesh_session import END, HEAD, SUITES, Exchange, Initiator, Local, Reader, Refused, Responder, Session, spki_of
from peer import read_key

sys.path.append(str(Path(__file__).parents[3] / "mesh-transport/proto"))
messages, services = grpc.protos_and_services("mesh.proto")
ECDSA_P256_SHA256 = 0x0403


def uri_of(certificate: x509.Certificate) -> str:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uri


class Certificates:
    """The certificate of this side, the authority that both trust, and attestations by them."""

    def __init__(self, files: Path, ca: Path) -> None:
        self.chain_pem, self.key_pem = (files.with_suffix(ending).read_bytes() for ending in (".crt", ".key"))
        self.ca_pem = ca.read_bytes()
        self.chain = x509.load_pem_x509_certificates(self.chain_pem)
        self.roots = x509.load_pem_x509_certificates(self.ca_pem)
        key = serialization.load_pem_private_key(self.key_pem, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self.key = key

    def attest(self, name: str, spki: bytes) -> bytes:
        chain = [certificate.public_bytes(serialization.Encoding.DER) for certificate in self.chain]
        listed = b"".join(struct.pack(">H", len(der)) + der for der in chain)
        signature = self.key.sign(carriage.attested(name, spki), ec.ECDSA(hashes.SHA256()))
        return bytes([len(chain)]) + listed + struct.pack(">H", ECDSA_P256_SHA256) + signature

    def verify(self, name: str, spki: bytes, attestation: bytes) -> None:
        reader = Reader(attestation)
        try:
            chain = [x509.load_der_x509_certificate(reader.vec(65_535)) for _ in range(reader.take(1)[0])]
            (scheme,) = struct.unpack(">H", reader.take(2))
            signature = reader.message[reader.at :]
            leaf, key = chain[0], chain[0].public_key()
            now = datetime.datetime.now(datetime.timezone.utc)
            if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc or uri_of(leaf) != name:
                raise Refused("a certificate of another, or of another time")
            if scheme != ECDSA_P256_SHA256 or not isinstance(key, ec.EllipticCurvePublicKey):
                raise Refused(f"scheme {scheme:04x}")
            for below, above in zip(chain, [*chain[1:], self.issuer_of(chain[-1])]):
                below.verify_directly_issued_by(above)
            key.verify(signature, carriage.attested(name, spki), ec.ECDSA(hashes.SHA256()))
        except (IndexError, ValueError, TypeError, InvalidSignature) as error:
            raise Refused(f"an attestation that does not hold: {error!r}") from error

    def issuer_of(self, certificate: x509.Certificate) -> x509.Certificate:
        for root in self.roots:
            if root.subject == certificate.issuer:
                return root
        raise Refused("an authority that is not known here")


class ByCertificate:
    """Trusts keys that the peer's certificate attests, and remembers the last token."""

    def __init__(self, certificates: Certificates, peer: str) -> None:
        self.certificates, self.peer, self.seen_token = certificates, peer, b""

    def key(self, name: str, spki: bytes, attestation: bytes) -> None:
        if name != self.peer:
            raise Refused(f"not {self.peer}")
        self.certificates.verify(name, spki, attestation)

    def token(self, name: str, token: bytes) -> None:
        self.seen_token = token


def make_local(options: argparse.Namespace) -> tuple[Local, Certificates, ByCertificate]:
    certificates = Certificates(options.certs, options.ca)
    verifier = ByCertificate(certificates, options.peer)
    suites = [SUITES[bytes.fromhex(code)] for code in options.suites.split(",")]
    local = Local(options.name, read_key(options.rsa), verifier, token=options.token.encode(), suites=suites)
    local.attestation = certificates.attest(options.name, spki_of(local.key))
    return local, certificates, verifier


class Answer:
    """Puts an answer together from the records that carry it."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange, self.status, self.headers, self.trailers = exchange, 0, dict[str, str](), None
        self.body, self.records, self.epochs = b"", 0, list[int]()

    def take(self, record: bytes) -> None:
        flags, text = self.exchange.open(record)
        head, trailers, data = carriage.decode_record(flags, text)
        assert (head is not None) == (self.records == 0), "HEAD marks the first record"
        if head is not None:
            self.status, headers = carriage.read_answer_head(head)
            self.headers = dict(headers)
        self.body += data
        self.records += 1
        self.epochs.append(record[1])

    def json(self) -> dict[str, Any]:
        assert self.exchange.has_ended, "the answer was cut off"
        return {"status": self.status, "headers": self.headers, "body": self.body.decode(), "records": self.records,
                "epochs": self.epochs}  # fmt: skip


class Caller:
    """The calling side."""

    def __init__(self, options: argparse.Namespace) -> None:
        local, certificates, self.verifier = make_local(options)
        self.service = options.peer.rsplit("/", 1)[-1]
        credentials = grpc.ssl_channel_credentials(certificates.ca_pem, certificates.key_pem, certificates.chain_pem)
        # grpcio knows nothing of SPIFFE ids: it looks for a DNS name, and the attestation names the rest.
        settings = [("grpc.ssl_target_name_override", self.service), ("grpc.enable_retries", 0)]
        channel = grpc.secure_channel(f"127.0.0.1:{options.port}", credentials, settings)
        self.stub = services.SecureMeshStub(channel)
        self.initiator = Initiator(local, options.peer)
        self.session: Session | None = None
        self.kept: dict[str, bytes] = {}
        self.call_token: str = options.call_token

    def ask(self, message: bytes) -> bytes:
        answer = self.stub.Handshake(messages.HandshakeMessage(message=message), timeout=20, metadata=self.metadata())
        return bytes(answer.message)

    def metadata(self) -> list[tuple[str, str]]:
        return [("mesh-service", self.service)]

    def in_use(self) -> Session:
        if not self.session:
            raise Refused("no session yet")
        return self.session

    def run(self, line: str) -> dict[str, Any]:
        name, *rest = line.split()
        try:
            found: dict[str, Any] = getattr(self, "do_" + name)(*rest)
        except grpc.RpcError as error:
            trailers = {key: value for key, value in error.trailing_metadata() or () if isinstance(value, str)}
            return {"failed": error.code().name, "details": error.details(), "trailers": trailers}
        except (Refused, KeyError) as refused:
            return {"refused": str(refused)}
        return found

    def agreed(self, session: Session | bytes) -> dict[str, Any]:
        assert isinstance(session, Session)
        self.session = session
        return {"id": session.id.hex(), "suite": str(session.suite), "peer": session.peer.name,
                "token": self.verifier.seen_token.decode()}  # fmt: skip

    def do_handshake(self) -> dict[str, Any]:
        waiting = self.initiator.start(self.ask(b""))
        return self.agreed(waiting.input(self.ask(waiting.message)))

    def do_resume(self) -> dict[str, Any]:
        waiting = self.initiator.resume(self.in_use(), self.initiator.local.token)
        self.kept["resumption"] = waiting.message
        return self.agreed(waiting.input(self.ask(waiting.message)))

    def do_first(self) -> dict[str, Any]:
        """A good message, and one with a bit of its box turned."""
        message = self.initiator.start(self.ask(b"")).message
        self.kept |= {"first": message, "changed": message[:-1] + bytes([message[-1] ^ 1])}
        return {}

    def do_send(self, message: str) -> dict[str, Any]:
        return {"kind": self.ask(self.kept[message])[1]}

    def head(self, method: str, path: str, headers: carriage.Headers) -> bytes:
        # The handshake's token is for the node; each call shows one for the service, which the document leaves out.
        shown = [("x-mesh-token", self.call_token)] if self.call_token else []
        return carriage.request_head(method, path, self.service, headers + shown)

    def do_get(self, path: str) -> dict[str, Any]:
        exchange = self.in_use().begin(self.service.encode())
        head = self.head("GET", path, [("x-from", "python")])
        flags, text = carriage.encode_record(b"", head)
        record = messages.Record(sealed=exchange.seal(text, flags | END))
        answer = Answer(exchange)
        for found in self.stub.Call(record, timeout=20, metadata=self.metadata()):
            answer.take(found.sealed)
        return answer.json()

    def do_post(self, path: str, size: str) -> dict[str, Any]:
        exchange = self.in_use().begin(self.service.encode())
        body = bytes(i % 251 for i in range(int(size)))

        def records() -> Iterator[Any]:
            head = self.head("POST", path, [("content-type", "application/octet-stream")])
            flags, text = carriage.encode_record(b"", head)
            yield messages.Record(sealed=exchange.seal(text, flags))
            for at in range(0, len(body), 50_000):
                yield messages.Record(sealed=exchange.seal(body[at : at + 50_000]))
                if at == 50_000:
                    exchange.session.advance()
            yield messages.Record(sealed=exchange.seal(b"", END))

        answer = Answer(exchange)
        for found in self.stub.Stream(records(), timeout=20, metadata=self.metadata()):
            answer.take(found.sealed)
        return answer.json() | {"sent": hashlib.sha256(body).hexdigest()}

    def do_advance(self) -> dict[str, Any]:
        return {"epoch": self.in_use().advance()}

    def do_close(self) -> dict[str, Any]:
        record = messages.Record(sealed=self.in_use().close_record())
        for _ in self.stub.Call(record, timeout=20, metadata=[("mesh-service", "mesh-session close")]):
            pass
        return {}

    def do_reopen(self) -> dict[str, Any]:
        self.in_use().closed = False
        return {}


class Called(services.SecureMeshServicer):  # type: ignore[misc, name-defined]
    """The called side."""

    def __init__(self, options: argparse.Namespace) -> None:
        local, self.certificates, self.verifier = make_local(options)
        self.responder = Responder(local)
        self.peer = options.peer
        self.lock = threading.Lock()

    def identify(self, context: grpc.ServicerContext) -> None:
        """Who speaks is who the certificate of the connection says."""
        pem = context.auth_context()["x509_pem_cert"][0]
        if uri_of(x509.load_pem_x509_certificate(pem)) != self.peer:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "another certificate")

    def Handshake(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.identify(context)
        with self.lock:
            try:
                answer = self.responder.answer(request.message)
            except Refused as refused:
                print(json.dumps({"refused": str(refused), "told": refused.told}), flush=True)
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, refused.told)
        if request.message:
            print(json.dumps({"kind": answer[1], "token": self.verifier.seen_token.decode()}), flush=True)
        return messages.HandshakeMessage(message=answer)

    def Call(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        return self.answer(iter([request]), context)

    def Stream(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        return self.answer(requests, context)

    def answer(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        self.identify(context)
        route = dict(context.invocation_metadata())["mesh-service"]
        first = next(requests).sealed
        try:
            with self.lock:
                session = self.responder.session(first[4:20])
                exchange, flags, text = session.accept(route.encode(), first)
            if session.closed:
                print(json.dumps({"closed": session.id.hex()}), flush=True)
                return
            head, _, body = carriage.decode_record(flags, text)
            while not flags & END:
                with self.lock:
                    flags, text = exchange.open(next(requests).sealed)
                body += carriage.decode_record(flags, text)[2]
        except Refused as refused:
            print(json.dumps({"refused": str(refused), "told": refused.told}), flush=True)
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, refused.told)
        assert head is not None, "HEAD marks the first record"
        method, path, authority, headers = carriage.read_request_head(head)
        seen = {"method": method, "path": path, "authority": authority, "headers": dict(headers), "route": route,
                "sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body), "suite": str(session.suite),
                "session": session.id.hex(), "exchange": exchange.number, "epoch": session.newest.number}  # fmt: skip
        print(json.dumps(seen), flush=True)
        for record in self.records(exchange, json.dumps(seen).encode()):
            yield messages.Record(sealed=record)

    def records(self, exchange: Exchange, body: bytes) -> Iterable[bytes]:
        """The answer, in two records so that there is an order to keep; from the second on in the next epoch."""
        flags, text = carriage.encode_record(body[:10], carriage.answer_head(200, [("content-type", "application/json")]))
        with self.lock:
            yield exchange.seal(text, flags)
            if exchange.number == 1:
                exchange.session.advance()
            yield exchange.seal(body[10:], END)


def serve(options: argparse.Namespace) -> None:
    called = Called(options)
    server = grpc.server(futures.ThreadPoolExecutor(8))
    services.add_SecureMeshServicer_to_server(called, server)
    of = called.certificates
    credentials = grpc.ssl_server_credentials([(of.key_pem, of.chain_pem)], of.ca_pem, require_client_auth=True)
    server.add_secure_port(f"127.0.0.1:{options.port}", credentials)
    server.start()
    server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="role", required=True)
    for role in ("call", "serve"):
        side = commands.add_parser(role)
        side.add_argument("port", type=int)
        for name in ("--name", "--peer"):
            side.add_argument(name, required=True)
        for name in ("--certs", "--ca", "--rsa"):
            side.add_argument(name, type=Path, required=True)
        side.add_argument("--token", default="")
        side.add_argument("--call-token", default="")
        side.add_argument("--suites", default="0101,0001")
    options = parser.parse_args()
    if options.role == "serve":
        serve(options)
        return
    caller = Caller(options)
    for line in sys.stdin:
        print(json.dumps(caller.run(line)), flush=True)


if __name__ == "__main__":
    main()
