"""A TLS server that prints what it is sent: port, certificate, key."""

import socket
import ssl
import sys
import threading

port, certificate, key = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
context.set_alpn_protocols(["http/1.1"])


def serve(connection):
    connection.settimeout(2)
    try:
        with context.wrap_socket(connection, server_side=True) as stream:
            print("connected")
            print(stream.recv(65536))
    except OSError as error:
        print("ended", error)


with socket.create_server(("127.0.0.1", int(port))) as listener:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()
