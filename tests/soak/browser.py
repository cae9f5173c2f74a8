"""A Chromium without a window, driven over its debugging pipe (https://chromedevtools.github.io/devtools-protocol/).

    with Browser(executable, tmp_path) as browser:
        page = browser.page(width=390, dark=True)
        page.open("http://127.0.0.1:8080/")
        page.wait_for("document.title === 'relayd'")
        page.screenshot(tmp_path / "phone.png")
        assert not page.complaints()

A pipe, so that there is no port and nothing to wait for. Messages are JSON with a 0 byte after each.
"""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Far more than anything takes here, for a loaded machine.
DEADLINE_S = 60.0
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: It talks by descriptors 3 and 4.
_BY_PIPE = 'exec "$@" 3<&"$0" 4>&"$TO_US"'
_READ_BYTES = 1 << 20
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # tests may be root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--password-store=basic",
    "--no-first-run",
    "--no-startup-window",  # pages that nobody asked for would come up beside ours
    "--no-proxy-server",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
#: One start in a few dozen hangs before there is a page, on a loaded machine, and never comes out of it.
_STARTS_MAX = 3
_START_S = 15.0


class Silent(AssertionError):
    """The browser does not answer."""


def executable() -> str:
    """Where it is, or ""."""
    return next((found for name in _NAMES if (found := shutil.which(name))), "")


class Browser:
    """One process, and all that it has started. As a context manager: nothing left after."""

    def __init__(self, program: str, directory: Path) -> None:
        """What it writes goes to `directory`."""
        self._program = program
        self._directory = directory
        self._start()

    def _start(self) -> None:
        from_us, self._commands = os.pipe()
        self._answers, to_us = os.pipe()
        self._got = bytearray()
        self._last_id = 0
        self._deadline_s = DEADLINE_S
        #: Everything that came and was no answer, in order.
        self.events: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [
                *("bash", "-c", _BY_PIPE, str(from_us), self._program, *_OPTIONS),
                f"--user-data-dir={self._directory / f'browser-{uuid.uuid4().hex[:8]}'}",
            ],
            env={**os.environ, "TO_US": str(to_us), "HOME": str(self._directory)},
            pass_fds=(from_us, to_us),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(from_us)
        os.close(to_us)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop()

    def _stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # a group of its own
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """The result of a command."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        wanted = self._last_id
        answer = self._next(lambda message: message.get("id") == wanted, method)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def wait_for_event(self, session: str, method: str, after: int) -> None:
        """Until there is one of a page, beyond the first `after` events of all."""

        def one(message: dict[str, Any]) -> bool:
            return (message.get("sessionId"), message.get("method")) == (session, method)

        if not any(map(one, self.events[after:])):
            self._next(one, method)

    def page(self, *, width: int, height: int = 900, dark: bool = False, scripts: bool = True) -> "Page":
        """An empty page of this size, in points. The first one of a browser may take another start of it."""
        for _ in range(_STARTS_MAX - 1):
            try:
                session = self._session()
                break
            except Silent:
                self._stop()
                self._start()
        else:
            session = self._session()
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", session, **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", session, features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", session, value=not scripts)
        return Page(self, session)

    def _session(self) -> str:
        """Of a new page, which tells of all that happens to it. Raises Silent."""
        self._deadline_s = _START_S
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session: str = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable", session)
        self._deadline_s = DEADLINE_S
        return session

    def _next(self, wanted: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """The next message that is `wanted`. Events on the way are kept."""
        deadline = time.monotonic() + self._deadline_s
        while True:
            data, found, _ = bytes(self._got).partition(b"\0")
            if not found:
                ready, _, _ = select.select([self._answers], [], [], max(deadline - time.monotonic(), 0))
                if not ready:
                    raise Silent(f"the browser has not answered in {self._deadline_s:g} s: {what}")
                read = os.read(self._answers, _READ_BYTES)
                assert read, f"the browser has ended: {what}"
                self._got += read
                continue
            del self._got[: len(data) + 1]
            message: dict[str, Any] = json.loads(data)
            if "id" not in message:
                self.events.append(message)
            if wanted(message):
                return message


class Page:
    """One page of a browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    def open(self, url: str) -> None:
        """Go there, and wait until it is loaded."""
        before = len(self._browser.events)
        answer = self._call("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        self._browser.wait_for_event(self._session, "Page.loadEventFired", before)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression comes to; a promise is waited for. Works where scripts of the page do not."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Until the expression is true: asked for after each change of the page."""
        wait = """new Promise((done, failed) => {
            const late = setTimeout(() => { look.disconnect(); failed(document.body.innerText); }, %d);
            const see = () => { if (%s) { look.disconnect(); clearTimeout(late); done(true); } };
            const look = new MutationObserver(see);
            look.observe(document, {subtree: true, childList: true, characterData: true, attributes: true});
            see();
        })"""
        self.value(wait % (DEADLINE_S / 2 * 1000, expression))

    def press(self, key: str) -> None:
        """A key of the keyboard: Tab, Enter, or a character."""
        codes = {"Tab": 9, "Enter": 13}
        text = {"Tab": "", "Enter": "\r"}.get(key, key)
        down = {"key": key, "windowsVirtualKeyCode": codes.get(key, 0), "text": text}
        self._call("Input.dispatchKeyEvent", type="keyDown", **down)
        self._call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def hide(self, *, hidden: bool) -> None:
        """As if it went behind another page, or came back."""
        state = "hidden" if hidden else "visible"
        self.value(
            f"Object.defineProperty(document, 'hidden', {{configurable: true, value: {str(hidden).lower()}}});"
            f"Object.defineProperty(document, 'visibilityState', {{configurable: true, value: '{state}'}});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """A PNG of the page: all of it, or what its window shows."""
        image = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(image["data"]))

    def headers(self, url: str) -> dict[str, str]:
        """Of the last answer for this address, by names in lower case."""
        answers = [each["params"]["response"] for each in self._events("Network.responseReceived")]
        found = [each["headers"] for each in answers if each["url"] == url]
        return {name.lower(): value for name, value in found[-1].items()}

    def requests(self) -> list[str]:
        """Addresses that it has asked for."""
        return [each["params"]["request"]["url"] for each in self._events("Network.requestWillBeSent")]

    def complaints(self) -> list[str]:
        """What its console shows: errors, warnings, exceptions, and what the policy has forbidden."""
        said = [each["params"]["entry"] for each in self._events("Log.entryAdded")]
        logged = [each["params"] for each in self._events("Runtime.consoleAPICalled")]
        thrown = [each["params"]["exceptionDetails"] for each in self._events("Runtime.exceptionThrown")]
        return [
            *(f"{each['level']}: {each['text']} {each.get('url', '')}" for each in said),
            *(f"{each['type']}: {each['args']}" for each in logged),
            *(str(each) for each in thrown),
        ]

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def _events(self, method: str) -> list[dict[str, Any]]:
        return [
            each for each in self._browser.events if each.get("sessionId") == self._session and each["method"] == method
        ]
