"""An HTTP proxy in front of a storage server that fails, throttles and stalls, for tests.

S3 signs the Host header, so requests reach the server as they came in, with the proxy's address in it.
"""

import http.client
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Kinds of faults. A lost answer is one to a request that the server did fulfil.
THROTTLED, FAILED, RESET, LOST_ANSWER, STALLED = "throttled", "failed", "reset", "lost_answer", "stalled"
Choose = Callable[[int], str | None]  # from the number of a request to the fault that it meets
_ERRORS = {THROTTLED: (503, "SlowDown"), FAILED: (500, "InternalError")}


class FaultProxy:
    """What a running proxy did to the requests so far."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.num_requests = 0
        self.faults: Counter[str] = Counter()


def some(share: float, *, seed: int) -> Choose:
    """Return a choice of faults of all kinds for a share of the requests."""

    def choose(number: int) -> str | None:
        rng = random.Random(f"{seed}-{number}")
        kinds = (THROTTLED, FAILED, RESET, LOST_ANSWER, STALLED)
        return rng.choices(kinds, weights=(4, 4, 4, 4, 1))[0] if rng.random() < share else None

    return choose


@contextmanager
def fault_proxy(server: str, choose: Choose) -> Iterator[FaultProxy]:
    """Run a proxy in front of the server at an endpoint `http://host:port`."""
    end = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as listener:
        proxy = FaultProxy(listener.server_address[1])
        listener.RequestHandlerClass = _handler(proxy, server.removeprefix("http://"), choose, end)
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        try:
            yield proxy
        finally:
            end.set()
            listener.shutdown()
            thread.join()


def _handler(proxy: FaultProxy, server: str, choose: Choose, end: threading.Event) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with lock:
                fault = choose(proxy.num_requests)
                proxy.num_requests += 1
                if fault:
                    proxy.faults[fault] += 1
            if fault is None:
                self._send(*self._forward(body))
            elif fault in _ERRORS:
                status, code = _ERRORS[fault]
                text = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
                self._send(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))], text)
            elif fault == STALLED:
                end.wait()
                self.close_connection = True
            else:
                status, headers, content = self._forward(body)
                if fault == RESET:
                    self._send(status, headers, content[: len(content) // 2])
                self._reset()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

        def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            connection = http.client.HTTPConnection(server, timeout=60)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):  # both are of this connection alone
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            headers = [
                pair for pair in answer.getheaders() if pair[0].lower() not in ("connection", "transfer-encoding")
            ]
            if all(name.lower() != "content-length" for name, _ in headers) and answer.status not in (204, 304):
                headers.append(("Content-Length", str(len(content))))
            return answer.status, headers, content

        def _send(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def _reset(self) -> None:
            """Break the connection off, so that the client gets a reset and no proper end."""
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
