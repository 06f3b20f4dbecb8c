"""The page served for a real browser, and Debian's chromium to look at it."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.testclient import TestClient

from edge_medgemma.runtime.clinic.page.access.users import Users
from edge_medgemma.runtime.clinic.state_folder import StateFolder

CHROMIUM = Path("/usr/bin/chromium")

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip


@contextlib.contextmanager
def served(app: Starlette) -> Iterator[str]:
    """The application on a port of this machine; gives its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            app.state.stopping.set()
            server.should_exit = True
            thread.join(10)


ADDRESS = "http://127.0.0.1:8080"
USER, PASSWORD = "nurse.achieng", "correct horse battery"


def add_user(state: StateFolder) -> None:
    """Somebody who may log in."""
    Users(state).add(USER, PASSWORD, is_first=True)


@contextlib.contextmanager
def logged_in(app: Starlette) -> Iterator[TestClient]:
    """A client of the application for somebody who is logged in; it stays on refusals."""
    with TestClient(app, base_url=ADDRESS, follow_redirects=False) as client:
        client.headers["Origin"] = ADDRESS
        client.post("/api/login", data={"user": USER, "password": PASSWORD})
        yield client


def log_in(page: Any, address: str) -> None:
    """Fill in the form of the login page."""
    page.goto(address + "/login")
    page.fill("input[name=user]", USER)
    page.fill("input[name=password]", PASSWORD)
    page.click("main button")
    page.wait_for_url(address + "/")


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser of playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()
