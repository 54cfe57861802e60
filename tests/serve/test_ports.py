"""A port in use is told in one sentence, and one of our own servers is known."""

import http.server
import socket
import threading

import pytest

from bb3x_ray.config import ServeConfig
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.on_ray import require_free_port, url_of


def test_a_port_in_use_is_a_user_error() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=rf"serve.port {port}.*add serve.port="):
            require_free_port("127.0.0.1", port)
    require_free_port("127.0.0.1", port)


def test_our_own_server_on_the_port_is_recognised() -> None:
    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"status": "ok", "model_version": "v0007"}')

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Health) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        try:
            with pytest.raises(UserError, match="already answers there with v0007"):
                require_free_port("127.0.0.1", other.server_address[1])
        finally:
            other.shutdown()


def test_the_url_is_one_that_this_machine_can_open() -> None:
    assert url_of(ServeConfig(host="0.0.0.0", port=81)) == "http://127.0.0.1:81"
    assert url_of(ServeConfig(host="::1", port=81)) == "http://[::1]:81"
