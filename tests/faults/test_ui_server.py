"""`symile-clin ui` against what a hostile page, a careless variable or a kill does: one real server, raw requests."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from symile_clin.cli import run
from symile_clin.progress import Quiet
from symile_clin.tracking import MlflowTracker, start_run
from tests.browser.chromium import browser, free_port

CANARY = b"canary-4711"
JSON = ("Content-Type: application/json",)
#: Set in the server's environment by somebody else: each alone would open MLflow's server.
WEAKENING = {
    "MLFLOW_HOST": "0.0.0.0",
    "MLFLOW_PORT": "1",
    "MLFLOW_SERVER_ALLOWED_HOSTS": "*",
    "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "*",
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true",
    "MLFLOW_ENABLE_REMOTE_ASSISTANT": "true",
    "MLFLOW_DEPLOYMENTS_TARGET": "http://evil.example",
    "MLFLOW_STATIC_PREFIX": "/elsewhere",
    "MLFLOW_GUNICORN_OPTS": "--bind 0.0.0.0:1",
    "MLFLOW_UVICORN_OPTS": "--host 0.0.0.0",
    "MLFLOW_ARTIFACTS_DESTINATION": "/",
    "UVICORN_HOST": "0.0.0.0",
    "UVICORN_FORWARDED_ALLOW_IPS": "*",
    "FORWARDED_ALLOW_IPS": "*",
    "WEB_CONCURRENCY": "4",
}
CHROMIUM = shutil.which("chromedriver")


@dataclass(frozen=True)
class Server:
    """A running `symile-clin ui`.

    Attributes:
        run_id: of a run in its store.
        said: on stderr, up to the line that names the address.
    """

    process: subprocess.Popen[str]
    port: int
    run_id: str
    said: str

    def ask(
        self, method: str, target: str, *, host: str | None = "", headers: Sequence[str] = (), body: bytes = b""
    ) -> tuple[int, bytes]:
        """Status and all that comes back; `host` "" is the server's own, None sends none."""
        lines = [f"{method} {target} HTTP/1.1"]
        lines += [] if host is None else [f"Host: {host or f'127.0.0.1:{self.port}'}"]
        lines += [*headers, "Connection: close", f"Content-Length: {len(body)}"]
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        found = re.match(rb"HTTP/1\.1 (\d+)", answer)
        assert found, f"{method} {target}: {answer[:200]!r}"
        return int(found[1]), answer

    @property
    def family(self) -> list[psutil.Process]:
        """The process, MLflow's and its workers."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]


@contextmanager
def serving(store: tuple[Path, str], environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """The command, as a person starts it."""
    port = free_port()
    code = "from symile_clin.cli import main; main()"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}  # tests set some
    command = [sys.executable, "-c", code, "ui", "--port", str(port)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=store[0], env={**plain, **(environment or {})}, stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stderr is not None
        said = ""
        while "Ctrl-C" not in said:
            line = process.stderr.readline()
            assert line, f"the UI ended: {said}"
            said += line
        try:
            yield Server(process, port, store[1], said)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=30)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a run and an artifact in it, and a file beside the artifacts that no request may bring back."""
    root = tmp_path_factory.mktemp("served")
    tracker = start_run(
        uri=f"sqlite:///{root / 'mlflow.db'}", experiment="symile-clin", run_name="one", tags={}, progress=Quiet()
    )
    assert isinstance(tracker, MlflowTracker)
    (root / "canary.txt").write_bytes(CANARY)
    (root / "figure.txt").write_text("a figure")
    tracker.artifact(root / "figure.txt", patient_level=False)
    tracker.finish()
    return root, tracker.run_id


@pytest.fixture(scope="module")
def server(store: tuple[Path, str]) -> Iterator[Server]:
    """One server for all tests; every variable that would open it is set."""
    with serving(store, WEAKENING) as started:
        yield started


def refused(answer: tuple[int, bytes]) -> bool:
    """Whether it is a 4xx without the canary."""
    return 400 <= answer[0] < 500 and CANARY not in answer[1]


def api(run_id: str) -> str:
    return f"/api/2.0/mlflow/runs/get?run_id={run_id}"


def test_its_own_pages_and_runs_are_served(server: Server) -> None:
    assert server.ask("GET", "/")[0] == 200
    found = server.ask("GET", api(server.run_id))
    assert found[0] == 200
    assert b'"run_name": "one"' in found[1]
    artifact = server.ask("GET", f"/get-artifact?path=figure.txt&run_uuid={server.run_id}")
    assert artifact[0] == 200
    assert artifact[1].endswith(b"a figure")
    own = (f"Origin: http://127.0.0.1:{server.port}", "Sec-Fetch-Site: same-origin", *JSON)
    search = b'{"experiment_ids": ["1"], "max_results": 5}'
    assert server.ask("POST", "/ajax-api/2.0/mlflow/runs/search", headers=own, body=search)[0] == 200
    tunnelled = ("Origin: http://localhost:8123", "Sec-Fetch-Site: same-origin")  # ssh -L 8123:127.0.0.1:PORT
    assert server.ask("GET", api(server.run_id), host="localhost:8123", headers=tunnelled)[0] == 200
    assert server.ask("GET", api(server.run_id), host=f"[::1]:{server.port}")[0] == 200


@pytest.mark.parametrize("path", ["/", "/health", "/version", "/static-files/x.js", "RUN"])
def test_a_foreign_host_gets_no_answer(server: Server, path: str) -> None:
    target = api(server.run_id) if path == "RUN" else path
    for host in (
        "evil.example", "10.attacker.example.com", f"10.attacker.example.com:{server.port}", "127.0.0.1.evil.example",
        "localhost.evil.example", "192.168.0.7", f"192.168.0.7:{server.port}", "172.16.0.1", "10.0.0.1", "0.0.0.0",
        "[::ffff:10.0.0.1]", "fc00::1", "localhost.", "2130706433", "127.1", "user@localhost", "localhost,evil.example",
        "localhost:80:80", "localhost:@evil.example", "EVIL.EXAMPLE", " ", None,
    ):  # fmt: skip
        assert refused(server.ask("GET", target, host=host)), host
    own = f"127.0.0.1:{server.port}"
    for hosts in ((own, "evil.example"), ("evil.example", own), (own, own)):
        assert refused(server.ask("GET", target, host=None, headers=[f"Host: {host}" for host in hosts])), hosts
    assert refused(server.ask("GET", f"http://evil.example{target}"))
    assert refused(server.ask("GET", f"http://{own}{target}", host="evil.example"))
    forwarded = ("X-Forwarded-Host: localhost", "X-Forwarded-For: 127.0.0.1", "Forwarded: host=localhost")
    assert refused(server.ask("GET", target, host="evil.example", headers=forwarded))


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
def test_a_foreign_origin_gets_no_answer(server: Server, method: str) -> None:
    for origin in (
        "null", "https://evil.example", "http://evil.example", "http://localhost.evil.example", "file://",
        "http://10.attacker.example.com", f"http://127.0.0.1:{server.port}.evil.example", "http://127.0.0.1",
        f"http://127.0.0.1:{server.port + 1}", f"https://127.0.0.1:{server.port}", f"http://localhost:{server.port}",
        f"http://127.0.0.1:{server.port}, https://evil.example", "",
    ):  # fmt: skip
        for more in ((), ("Sec-Fetch-Site: cross-site",), ("Access-Control-Request-Method: POST",)):
            headers = (f"Origin: {origin}", *more, *JSON)
            answer = server.ask(method, api(server.run_id), headers=headers)
            assert refused(answer), (origin, more)
            assert b"access-control-allow-origin" not in answer[1].lower()
    own = f"Origin: http://127.0.0.1:{server.port}"
    assert refused(server.ask(method, api(server.run_id), headers=(own, "Origin: https://evil.example", *JSON)))


def test_another_site_may_link_to_the_front_page_and_nothing_more(server: Server) -> None:
    clicked = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
    framed = (*clicked[:2], "Sec-Fetch-Dest: iframe")
    assert server.ask("GET", "/", headers=clicked)[0] == 200
    assert refused(server.ask("GET", "/", headers=framed))
    assert refused(server.ask("GET", api(server.run_id), headers=clicked))
    for site in ("cross-site", "same-site"):  # another port of this machine is the same site
        for target in ("/", api(server.run_id), f"/get-artifact?path=figure.txt&run_uuid={server.run_id}"):
            assert refused(server.ask("GET", target, headers=(f"Sec-Fetch-Site: {site}", "Sec-Fetch-Mode: no-cors")))


def test_a_form_of_another_site_changes_nothing(server: Server) -> None:
    create = b'{"experiment_id": "1", "tags": [{"key": "x", "value": "="}]}'
    types = ("text/plain", "text/plain; charset=utf-8", "application/x-www-form-urlencoded", "multipart/form-data")
    for headers in ((), *((f"Content-Type: {one}",) for one in types)):
        for target in ("/api/2.0/mlflow/runs/create", "/ajax-api/2.0/mlflow/runs/create", "/graphql"):
            assert refused(server.ask("POST", target, headers=headers, body=create)), headers
    for one in types:
        headers = (f"Content-Type: {one}", "Origin: https://evil.example", "Sec-Fetch-Site: cross-site")
        assert refused(server.ask("POST", "/api/2.0/mlflow/runs/create", headers=headers, body=create))
    delete = f'{{"run_id": "{server.run_id}"}}'.encode()
    assert refused(server.ask("POST", "/api/2.0/mlflow/runs/delete", headers=("Origin: null", *JSON), body=delete))
    search = b'{"experiment_ids": ["1"]}'
    runs = server.ask("POST", "/api/2.0/mlflow/runs/search", headers=JSON, body=search)[1]
    assert runs.count(b'"run_id"') == 1
    assert b'"lifecycle_stage": "active"' in runs


STEPS = (
    "../canary.txt", "..%2fcanary.txt", "%2e%2e/canary.txt", "%2e%2e%2fcanary.txt", "..%252fcanary.txt",
    "%252e%252e%252fcanary.txt", "%25252e%25252e%25252fcanary.txt", "..\\canary.txt", "..%5ccanary.txt",
    "a/../../canary.txt", "a/..%2f..%2fcanary.txt", "..;/canary.txt", "....//canary.txt", "/../canary.txt",
    "../../../../../../../../../../../../etc/passwd", "/etc/passwd", "%2fetc%2fpasswd", "%252fetc%252fpasswd",
    "//etc/passwd", "file:///etc/passwd", "file:%2f%2f%2fetc%2fpasswd", "figure.txt%00", "figure.txt%2500.png",
    "..%00/canary.txt", "%0d%0aX-Injected:%20yes", "C:%5cWindows",
)  # fmt: skip


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/get-artifact?run_uuid=RUN&path=STEP"),
        ("GET", "/api/2.0/mlflow/artifacts/list?run_id=RUN&path=STEP"),
        ("GET", "/ajax-api/2.0/mlflow/artifacts/list?run_id=RUN&path=STEP"),
        ("GET", "/api/2.0/mlflow-artifacts/artifacts/STEP"),
        ("GET", "/ajax-api/2.0/mlflow-artifacts/artifacts/STEP"),
        ("GET", "/api/2.0/mlflow-artifacts/artifacts/symile-clin/RUN/artifacts/STEP"),
        ("GET", "/api/2.0/mlflow-artifacts/artifacts?path=STEP"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/STEP"),
        ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/STEP"),
        ("POST", "/ajax-api/2.0/mlflow/upload-artifact?run_uuid=RUN&path=STEP"),
        ("GET", "/model-versions/get-artifact?name=m&version=1&path=STEP"),
        ("GET", "/static-files/STEP"),
        ("GET", "/STEP"),
    ],
)
def test_a_traversal_gets_no_answer(server: Server, store: tuple[Path, str], method: str, target: str) -> None:
    own = (f"Origin: http://127.0.0.1:{server.port}", "Content-Type: application/octet-stream")
    before = sorted(store[0].rglob("*"))
    for step in STEPS:
        answer = server.ask(method, target.replace("RUN", server.run_id).replace("STEP", step), headers=own, body=b"x")
        assert refused(answer), (step, answer[0])
        assert b"root:" not in answer[1]
        assert b"\r\nx-injected" not in answer[1].lower()
    assert sorted(store[0].rglob("*")) == before
    assert (store[0] / "canary.txt").read_bytes() == CANARY


def test_no_place_outside_the_store_can_be_named(server: Server, store: tuple[Path, str]) -> None:
    """MLflow itself makes an experiment whose artifacts are /etc, and hands out its files."""
    for place in ("/etc", "file:///etc", str(store[0]), "mlflow-artifacts:/../../", "http://evil.example/x"):
        experiment = f'{{"name": "{place}", "artifact_location": "{place}"}}'.encode()
        source = f'{{"name": "m", "source": "{place}", "run_id": "{server.run_id}"}}'.encode()
        for prefix in ("/api", "/ajax-api"):
            for target, body in (("experiments/create", experiment), ("model-versions/create", source)):
                for spelled in (target, f"{target}/", target.replace("e", "%65", 1), target.replace("/", "//")):
                    assert refused(server.ask("POST", f"{prefix}/2.0/mlflow/{spelled}", headers=JSON, body=body))


@pytest.mark.parametrize(
    "target",
    [
        "/ajax-api/3.0/mlflow/assistant/config", "/ajax-api/3.0/mlflow/assistant/message", "/ajax-api/3.0/jobs/search",
        "/gateway/any/mlflow/invocations", "/gateway/mlflow/v1/models",
        "/ajax-api/3.0/mlflow/gateway/secrets/config", "/api/2.0/mlflow/webhooks", "/api/2.0/mlflow/webhooks/1",
        "/ajax-api/3.0/mlflow/scorer/invoke", "/ajax-api/3.0/mlflow/issues/invoke",
        "/ajax-api/3.0/mlflow/genai/evaluate/invoke", "/ajax-api/3.0/mlflow/jobs/1", "/metrics", "/docs",
        "/openapi.json", "/nonsense",
    ],
)  # fmt: skip
def test_what_runs_jobs_or_asks_other_machines_is_switched_off(server: Server, target: str) -> None:
    for method in ("GET", "POST", "PUT", "PATCH"):
        assert refused(server.ask(method, target, headers=JSON, body=b"{}"))


def test_what_the_front_page_asks_of_them_has_nothing_to_tell(server: Server) -> None:
    """MLflow's page shows an error where these are refused; no gateway is named, and telemetry is off."""
    assert server.ask("GET", "/ajax-api/2.0/mlflow/gateway-proxy?gateway_path=x")[1].endswith(b'{"endpoints":[]}\n')
    assert b'"disable_ui_telemetry":true' in server.ask("GET", "/ajax-api/3.0/mlflow/ui-telemetry")[1]


def test_odd_requests_are_refused_and_the_server_stays(server: Server) -> None:
    for method, target in (("OPTIONS", "*"), ("CONNECT", "evil.example:443"), ("GET", "/\xff%fe"), ("TRACE", "/")):
        assert refused(server.ask(method, target)), method
    upgrade = ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
    assert refused(server.ask("GET", "/nonsense", headers=upgrade))
    for bad in (b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(bad)
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 4")
    assert server.ask("GET", "/health")[0] == 200


def test_nothing_in_the_environment_opens_it_and_that_is_said(server: Server) -> None:
    """The fixture's server was started with all of them set."""
    assert f"Not passed on to the server: {', '.join(sorted(WEAKENING))}.\n" in server.said
    listening = [
        one for process in server.family for one in process.net_connections("all") if one.status == psutil.CONN_LISTEN
    ]
    assert {(one.laddr.ip, one.laddr.port) for one in listening if one.laddr} == {("127.0.0.1", server.port)}
    asked = {one.raddr.ip for process in server.family for one in process.net_connections("inet") if one.raddr}
    assert asked <= {"127.0.0.1"}
    worker = server.family[-1].environ()
    assert (worker["MLFLOW_DISABLE_TELEMETRY"], worker["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"]) == ("true", "false")
    assert len(server.family) == 3  # this command, MLflow's, one worker: no runner of jobs


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "192.168.0.7", "10.0.0.1", "fe80::1", "169.254.0.1", "example.com", "localhost.example.com", "",
     "127.0.0.1.nip.io", "0", "*"],
)  # fmt: skip
def test_another_interface_is_refused_without_being_looked_up(
    host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_lookup(*arguments: object, **named: object) -> object:
        raise AssertionError(f"looked up {arguments} {named}")

    for name in ("getaddrinfo", "gethostbyname", "socket", "create_connection"):
        monkeypatch.setattr(socket, name, no_lookup)
    assert run(["ui", "--host", host]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--allow-other-machines" in said
    assert f"other machines may reach '{host}'" in said


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "*", "a,b", "*.example.com"])
def test_every_address_at_once_is_refused_even_with_the_flag(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ui", "--host", host, "--allow-other-machines"]) == 2
    assert "is no single address" in capsys.readouterr().err


def _gone(processes: Sequence[psutil.Process]) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium chromium-driver")
def test_its_pages_open_in_a_browser(server: Server, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    with browser(CHROMIUM, tmp_path / "profile") as window:
        window.open(f"http://127.0.0.1:{server.port}/#/experiments/1/runs?workflowType=machine_learning")
        window.wait_for("symile-clin", "one")
        window.screenshot(tmp_path / "page.png")
        # a page at another port asks, as a hostile one would
        elsewhere = subprocess.Popen(
            [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port := free_port())],
            cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            time.sleep(2)
            window.open(f"http://127.0.0.1:{port}/")
            asked = (
                "const answers = {}; const at = '" + f"http://127.0.0.1:{server.port}" + api(server.run_id) + "';"
                "for (const mode of ['cors', 'no-cors']) for (const method of ['GET', 'POST']) {"
                " try { const r = await fetch(at, {mode, method}); answers[mode + method] = [r.type, await r.text()]; }"
                " catch (e) { answers[mode + method] = ['error', '']; } } window.answers = answers;"
            )
            window.run(f"(async () => {{ {asked} }})()")
            time.sleep(3)
            answers = window.run("return window.answers")
            assert answers == {
                "corsGET": ["error", ""], "corsPOST": ["error", ""],
                "no-corsGET": ["opaque", ""], "no-corsPOST": ["opaque", ""],
            }  # fmt: skip
        finally:
            elsewhere.terminate()
            elsewhere.wait()


def test_the_server_does_not_outlive_a_killed_command(server: Server) -> None:
    """The last of the tests with that server."""
    family = server.family
    assert len(family) == 3
    server.process.kill()
    assert _gone(family)


@pytest.mark.slow
def test_two_at_once_and_each_ends_as_it_is_told(store: tuple[Path, str]) -> None:
    with serving(store) as first, serving(store) as second:
        for one in (first, second):
            assert one.ask("GET", api(one.run_id))[0] == 200
        families = first.family[1:], second.family[1:]
        for one, family, told, code in (
            (first, families[0], signal.SIGINT, 0),
            (second, families[1], signal.SIGTERM, 143),
        ):
            one.process.send_signal(told)
            assert one.process.wait(30) == code
            assert _gone(family)
            if one is first:
                assert second.ask("GET", api(second.run_id))[0] == 200
