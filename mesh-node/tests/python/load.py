"""Calls a node over connections that stay open, until it is told to stop: `load.py PORT CLIENTS METHODS`.

Prints a line for every request: its number, its status and what went wrong. Where a connection is refused, or reset
before anything came back on it (the system queued it for a process that then went away), the request is made again
under the same number; the test looks whether it was seen twice. Everything else that is no answer is a loss.
"""

import http.client
import signal
import sys
import threading
import time

methods = sys.argv[3].split(",")
stopping = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopping.set())
lock = threading.Lock()


def say(line):
    with lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def client(name):
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
    number = 0
    while not stopping.is_set():
        number += 1
        method = methods[number % len(methods)]
        body = b"%d" % number if method == "POST" else None
        request = "%s-%d" % (name, number)
        while True:
            is_fresh = connection.sock is None
            try:
                if is_fresh:
                    connection.connect()
                connection.request(method, "/api/load?number=" + request, body,
                                   {"Host": "order-service", "X-Request-Id": request})
                answer = connection.getresponse()
                text = answer.read()
                say("%s %d %s" % (request, answer.status, "" if answer.status == 200 else text))
            except ConnectionRefusedError:
                time.sleep(0.02)
                continue
            except ConnectionResetError as error:
                connection.close()
                if is_fresh:
                    continue
                say("%s LOST %r" % (request, error))
            except (OSError, http.client.HTTPException) as error:
                say("%s LOST %r" % (request, error))
                connection.close()
            break
        time.sleep(0.005)


threads = [threading.Thread(target=client, args=("client%d" % number,)) for number in range(int(sys.argv[2]))]
for thread in threads:
    thread.start()
while not stopping.is_set():
    stopping.wait(1)
for thread in threads:
    thread.join()
say("done")
