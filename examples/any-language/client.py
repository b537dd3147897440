#!/usr/bin/env python3
"""user-service: calls order-service through its own sidecar, with nothing but the standard library."""

import json
import urllib.error
import urllib.request

SIDECAR = "http://127.0.0.1:15001"


class CallError(Exception):
    """What the mesh or the other program said; `code` is stable, `request_id` names the call in all logs."""

    def __init__(self, status, code, message, request_id):
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.request_id = status, code, request_id


def call(service, method, value):
    request = urllib.request.Request(
        f"{SIDECAR}/v1/call/{service}/{method}",
        data=json.dumps(value).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=35) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        said = json.loads(error.read() or b"{}").get("error", {})
        code = error.headers.get("x-mesh-error", "application")
        raise CallError(error.code, code, said.get("message", error.reason), error.headers.get("x-request-id")) from None


if __name__ == "__main__":
    print(call("order-service", "getOrdersByUser", {"user": "ada"}))
    for service, method in [("order-service", "removeOrder"), ("oder-service", "getOrdersByUser")]:
        try:
            call(service, method, {"user": "ada"})
        except CallError as error:
            print(error)
