#!/usr/bin/env python3
"""order-service: answers POST /getOrdersByUser on localhost; its sidecar does the rest."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Orders(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        if self.path == "/getOrdersByUser":
            # The sidecar has verified who calls; what a caller sends under this name is dropped.
            caller = self.headers["x-mesh-peer-id"]
            self.answer(200, {"orders": [{"id": 7, "item": f"a book for {asked['user']}"}], "caller": caller})
        else:
            self.answer(404, {"error": {"message": f"there is no {self.path} here"}})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", 8080), Orders).serve_forever()
