"""An application behind a node: the standard library's HTTP server, which knows nothing of the mesh.

Prints one JSON line for every request that reaches it, before it is answered. The last part of the path says what to
do; anything unknown is answered with what was seen.
"""

import hashlib
import http.server
import json
import os
import sys
import threading
import time
import urllib.parse

lock = threading.Lock()
running, most_running, written = 0, 0, 0
released = threading.Event()


def say(entry):
    with lock:
        sys.stdout.write(json.dumps(entry) + "\n")
        sys.stdout.flush()


class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do(self):
        global running, most_running
        target = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(target.query))
        say({"pid": os.getpid(), "port": self.server.server_port, "method": self.command, "target": self.path,
             "connection": self.client_address[1], "headers": [[name.lower(), value] for name, value in self.headers.items()]})
        with lock:
            running += 1
            most_running = max(most_running, running)
        try:
            what = target.path.rsplit("/", 1)[-1].replace("-", "_")
            getattr(self, "do_" + what, self.do_describe)()
        finally:
            with lock:
                running -= 1

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do

    def body(self):
        """The request's body, piece by piece."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield from self.exactly(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        else:
            yield from self.exactly(int(self.headers.get("Content-Length", 0)))

    def exactly(self, left):
        while left:
            piece = self.rfile.read(min(left, 1 << 16))
            if not piece:
                raise ConnectionError("the body broke off")
            left -= len(piece)
            yield piece

    def answer(self, status=200, body=b"", headers=()):
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            headers = [*headers, ("Content-Type", "application/json")]
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(body)

    def chunk(self, piece):
        self.wfile.write(b"%x\r\n" % len(piece) + piece + b"\r\n")

    def start_chunks(self, headers=()):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    # What the last part of a path asks for.

    def do_describe(self):
        digest, size = hashlib.sha256(), 0
        for piece in self.body():
            digest.update(piece)
            size += len(piece)
        self.answer(body={"method": self.command, "target": self.path, "bytes": size, "sha256": digest.hexdigest(),
                          "headers": {name.lower(): value for name, value in self.headers.items()}})

    def do_json(self):
        """What a remote call gives back: its input and the method."""
        given = json.loads(b"".join(self.body()))
        self.answer(body={"method": self.path.strip("/"), "input": given})

    def do_echo(self):
        """The body comes back while it still comes in."""
        self.start_chunks()
        for piece in self.body():
            self.chunk(piece)
        self.wfile.write(b"0\r\n\r\n")

    def do_source(self):
        global written
        left = int(self.query["bytes"])
        self.send_response(200)
        self.send_header("Content-Length", str(left))
        self.end_headers()
        for number in range(left):
            if not left or self.command == "HEAD":
                return
            # No two blocks are the same, so that one out of place shows.
            piece = (b"%015d\n" % number * 4096)[:left]
            self.wfile.write(piece)
            left -= len(piece)
            with lock:
                written += len(piece)

    def do_stall(self):
        """Reads nothing of the body until another request says so."""
        released.wait(60)
        self.do_describe()

    def do_release(self):
        released.set()
        self.answer()

    def do_progress(self):
        self.answer(body={"written": written, "running": running, "mostRunning": most_running})

    def do_trailers(self):
        self.start_chunks([("Trailer", "X-Checksum, X-Count")])
        self.chunk(b"first ")
        self.chunk(b"second")
        self.wfile.write(b"0\r\nX-Checksum: abc123\r\nX-Count: 2\r\n\r\n")

    def do_status(self):
        for _ in self.body():
            pass
        self.answer(int(self.query["code"]), b"" if self.query["code"] == "204" else b"the application's own\n",
                    [("X-App", "1"), ("X-Mesh-Error", "forged")])

    def do_slow(self):
        for _ in self.body():
            pass
        time.sleep(float(self.query["seconds"]))
        self.answer(body={"slept": self.query["seconds"]})

    def do_drip(self):
        """Answers at once, and finishes late."""
        pieces = int(self.query["pieces"])
        self.start_chunks()
        for number in range(pieces):
            self.chunk(b"%d " % number)
            time.sleep(0.05)
        self.wfile.write(b"0\r\n\r\n")

    def do_cut(self):
        """Takes the request whole and goes away without an answer."""
        for _ in self.body():
            pass
        self.close_connection = True

    def do_surplus(self):
        """Sends more than it announced, which must not become the start of somebody else's answer."""
        for _ in self.body():
            pass
        self.answer(int(self.query.get("code", 200)), b"")
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned")

    def do_switch(self):
        """Changes protocols though nobody asked, and says what could pass for the next answer."""
        self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: own\r\n\r\n")
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned")

    def do_early(self):
        """Answers before the body is there and never reads it, so the connection is over."""
        self.answer(417, b"")
        self.close_connection = True

    def do_interim(self):
        """Many interim answers before the final one, or for ever."""
        left = int(self.query.get("count", -1))
        while left:
            self.wfile.write(b"HTTP/1.1 102 Processing\r\nX-Fill: %s\r\n\r\n" % (b"x" * 1000))
            left -= 1
        self.answer()

    def do_head_body(self):
        """An answer to HEAD with a body, which could pass for the next answer."""
        self.answer(200, b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned")
        if self.command == "HEAD":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned")

    def do_exit(self):
        for _ in self.body():
            pass
        os._exit(1)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 512

    def handle_error(self, *_):
        pass


Server(("127.0.0.1", int(sys.argv[1])), App).serve_forever()
