"""A headless Chromium for tests: it opens a page and tells what it fetched, said on the console, shows and prints.

Chromium --remote-debugging-port=0 <-- DevTools protocol over a WebSocket --> Chromium.open, evaluate, pdf
"""

import base64
import importlib.util
import io
import json
import shutil
import subprocess
import time
import unicodedata
from pathlib import Path
from urllib.request import Request, urlopen

import pypdf
import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--remote-debugging-port=0", "--remote-allow-origins=*")  # fmt: skip
SAID = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")  # what the console would show

TEXTS = """(() => {
  const texts = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode())
    if (!walker.currentNode.parentElement.closest("script, style")) texts.push(walker.currentNode.data);
  return texts;
})()"""


def installed() -> str | None:
    """The browser's program; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def axe_source() -> str:
    """The script of axe-core, which finds what people with disabilities could not read or reach."""
    spec = importlib.util.find_spec("axe_playwright_python")
    return (Path(spec.submodule_search_locations[0]) / "axe.min.js").read_text(encoding="utf-8")


class Chromium:
    """One page of a browser process of its own. `profile` is an empty folder for its settings."""

    def __init__(self, program: str, profile: Path) -> None:
        command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = self._port(profile / "DevToolsActivePort")
        with urlopen(Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT")) as answer:
            target = json.load(answer)
        self.socket = websocket.create_connection(target["webSocketDebuggerUrl"], timeout=120)
        self.number, self.events = 0, []
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def _port(self, file: Path) -> str:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            if file.is_file() and (lines := file.read_text().splitlines()):
                return lines[0]
            time.sleep(0.1)
        self.process.kill()
        raise RuntimeError("Chromium did not start")

    def close(self) -> None:
        self.send("Browser.close")
        self.socket.close()
        self.process.wait(timeout=60)

    def send(self, method: str, **parameters: object) -> dict:
        """The result of one call of the protocol; events that arrive before it are kept in `events`."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def open(self, page: Path, width: int, scheme: str = "light") -> None:
        """Load a page at a width in pixels, in the colour scheme `light` or `dark`, to its end."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme_feature = {"name": "prefers-color-scheme", "value": scheme}
        self.send("Emulation.setEmulatedMedia", features=[scheme_feature])
        self.go(page.as_uri())
        self.evaluate("new Promise((done) => setTimeout(done, 300))")  # what the page may still ask for

    def go(self, address: str) -> None:
        """Load the page at an address to its end."""
        self.send("Page.navigate", url="about:blank")
        self.events = []
        self.send("Page.navigate", url=address)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(json.loads(self.socket.recv()))

    def press(self, element: str) -> None:
        """Press the left button of the mouse in the middle of an element, which a JavaScript expression gives."""
        box = self.evaluate(f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])"
                            f"({element}.getBoundingClientRect())")  # fmt: skip
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def evaluate(self, expression: str) -> object:
        """The value of a JavaScript expression in the page; of a promise, its result."""
        result = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def fetched(self) -> list[str]:
        """Addresses that the page asked for since it was opened, what it carries itself aside."""
        asked = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith(("data:", "about:"))]

    def said(self) -> list[dict]:
        """Messages of the page on the console since it was opened, errors of the browser included."""
        return [event["params"] for event in self.events if event["method"] in SAID]

    def findings(self) -> list[str]:
        """What axe-core finds serious or critical on the page, with the elements."""
        self.evaluate(axe_source())
        found = self.evaluate("axe.run(document, {resultTypes: ['violations']}).then((r) => r.violations)")
        return [
            f"{rule['id']}: {node['target']} {node.get('failureSummary', '')}"
            for rule in found if rule["impact"] in ("serious", "critical") for node in rule["nodes"]
        ]  # fmt: skip

    def pdf_text(self) -> str:
        """The text of the page as printed on A4, without white space."""
        printed = self.send("Page.printToPDF", printBackground=True, paperWidth=8.27, paperHeight=11.69)
        reader = pypdf.PdfReader(io.BytesIO(base64.b64decode(printed["data"])))
        text = "".join(page.extract_text() for page in reader.pages)
        return "".join(unicodedata.normalize("NFKC", text).split())  # without ligatures

    def words(self) -> list[str]:
        """Every word in the body of the page, also in parts that are folded away."""
        texts = self.evaluate(TEXTS)
        return unicodedata.normalize("NFKC", " ".join(texts)).split()
