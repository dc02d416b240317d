"""A real Chromium without a window, driven by its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-port=0", "--hide-scrollbars", "about:blank",
)  # fmt: skip
START_S = WAIT_S = 30.0


class Navigated(Exception):
    """The page that was asked is not there any more."""


class Page:
    """One tab. What it logs as an error, or may not load, is in `troubles`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.troubles: list[str] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._loaded: set[str] = set()  # documents, by the id of what loaded them
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            said = message.json()
            answer = self._answers.pop(said.get("id"), None)
            if answer is not None:
                answer.set_result(said)
            elif said.get("method") == "Page.lifecycleEvent":
                if said["params"]["name"] == "load":
                    async with self._news:
                        self._loaded.add(said["params"]["loaderId"])
                        self._news.notify_all()
            elif said.get("method") == "Log.entryAdded":
                entry = said["params"]["entry"]
                if entry["level"] == "error":
                    self.troubles.append(f"{entry['text']} {entry.get('url', '')}")
            elif said.get("method") == "Runtime.exceptionThrown":
                self.troubles.append(str(said["params"]["exceptionDetails"]))
            elif said.get("method") == "Page.javascriptDialogOpening":
                await self._socket.send_json(
                    {"id": next(self._numbers), "method": "Page.handleJavaScriptDialog",
                     "params": {"accept": True}}
                )  # fmt: skip

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(2 * WAIT_S):
            said: dict[str, Any] = await answer
        if "navigated" in said.get("error", {}).get("message", ""):
            raise Navigated
        assert "error" not in said, said["error"]
        found: dict[str, Any] = said["result"]
        return found

    async def open(self, url: str) -> None:
        """Return when all of it is loaded."""
        loader = (await self.send("Page.navigate", url=url))["loaderId"]
        async with self._news:
            await self._news.wait_for(lambda: loader in self._loaded)

    async def size(self, width: int, height: int, *, mobile: bool = False) -> None:
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=mobile,
        )  # fmt: skip

    async def scheme(self, name: str) -> None:
        """`light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        await self.send("Emulation.setEmulatedMedia", features=features)

    async def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        said = await self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    async def until(self, condition: str) -> Any:
        """The value of an expression once it is true; asked again whenever the page changes, and
        on the page that comes after it."""
        try:
            async with asyncio.timeout(WAIT_S):
                return await self._seen_at_last(condition)
        except TimeoutError:
            raise AssertionError(f"never: {condition}; troubles: {self.troubles}") from None

    async def _seen_at_last(self, condition: str) -> Any:
        while True:
            seen = len(self._loaded)
            try:
                return await self._seen(condition)
            except Navigated:
                await self._more_than(seen)

    async def _more_than(self, count: int) -> None:
        """Return when more documents have been loaded."""
        async with self._news:
            await self._news.wait_for(lambda: len(self._loaded) > count)

    async def _seen(self, condition: str) -> Any:
        return await self.run(
            f"""new Promise((resolve) => {{
              const look = () => {{
                const found = {condition};
                if (found) {{ observer.disconnect(); resolve(found); }}
              }};
              const observer = new MutationObserver(look);
              observer.observe(document, {{
                subtree: true, childList: true, attributes: true, characterData: true,
              }});
              addEventListener("focusin", look);
              look();
            }})"""
        )

    async def type(self, text: str) -> None:
        await self.send("Input.insertText", text=text)

    async def press(self, key: str) -> None:
        """A key that is no letter, such as `Tab` or `Enter`."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowRight": 39}[key]
        how = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        text = {"Enter": "\r", " ": " "}.get(key)
        await self.send("Input.dispatchKeyEvent", type="keyDown", text=text or "", **how)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **how)

    async def hover(self, selector: str) -> None:
        """Move the pointer onto the middle of an element."""
        x, y = await self.run(
            f"""(() => {{
              const one = document.querySelector({selector!r});
              one.scrollIntoView({{block: "center"}});
              const box = one.getBoundingClientRect();
              return [box.x + box.width / 2, box.y + box.height / 2];
            }})()"""
        )
        await self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    async def picture(self, of: str = "") -> bytes:
        """A PNG of the window; or of all that a selector finds, with what lies between."""
        how: dict[str, Any] = {"format": "png"}
        if of:
            how |= {"captureBeyondViewport": True, "clip": await self._around(of)}
        return base64.b64decode((await self.send("Page.captureScreenshot", **how))["data"])

    async def _around(self, selector: str, margin_px: int = 8) -> dict[str, float]:
        left, top, right, bottom = await self.run(
            f"""(() => {{
              const found = [...document.querySelectorAll({selector!r})]
                .map((one) => one.getBoundingClientRect());
              return [
                Math.min(...found.map((box) => box.left)) + scrollX,
                Math.min(...found.map((box) => box.top)) + scrollY,
                Math.max(...found.map((box) => box.right)) + scrollX,
                Math.max(...found.map((box) => box.bottom)) + scrollY,
              ];
            }})()"""
        )
        x, y = max(0, left - margin_px), max(0, top - margin_px)
        width, height = right + margin_px - x, bottom + margin_px - y
        return {"x": x, "y": y, "width": width, "height": height, "scale": 1}


@contextlib.asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Page]:
    """A page of a new browser, whose profile is in `folder`."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *QUIET, f"--user-data-dir={folder}",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(START_S):
            address = await _address(process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{address}/json/list") as answer:
                tab = next(tab for tab in await answer.json() if tab["type"] == "page")
            url = tab["webSocketDebuggerUrl"]
            async with session.ws_connect(url, max_msg_size=0) as socket:
                yield await _begun(socket)
    finally:
        process.terminate()
        await process.communicate()


async def _begun(socket: aiohttp.ClientWebSocketResponse) -> Page:
    page = Page(socket)
    for domain in ("Page", "Log", "Runtime"):
        await page.send(f"{domain}.enable")
    await page.send("Page.setLifecycleEventsEnabled", enabled=True)
    await page.send("Emulation.setFocusEmulationEnabled", enabled=True)  # as in front of somebody
    return page


async def _address(process: asyncio.subprocess.Process) -> str:
    """Where the browser says that it listens."""
    assert process.stderr is not None
    async for line in process.stderr:
        said = line.decode(errors="replace")
        if "DevTools listening on ws://" in said:
            return said.split("ws://")[1].split("/")[0]
    raise AssertionError("Chromium has ended")
