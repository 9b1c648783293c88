"""A web page on this machine: choose a picture, see whether its faces are real or fake, and why.

    python app.py                                     # http://127.0.0.1:7860, this machine only
    python app.py --port 8000 --checkpoint checkpoints/mine --device cuda
    python app.py --host 0.0.0.0 --allow-host masc.example.org    # others, too: read docs/app.md

Files of more than 20 MB, or of more than 40 million pixels, are refused before any network runs. No
upload stays on the disk after its prediction. Over HTTP: docs/app.md.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware

from command_line import run
from data.isolated import IsolatedReader
from inference.detector import default_device
from predict import Detector
from web.gate import MAX_BYTES, Gate, Hosts
from web.page import MAX_PIXELS, SESSIONS, Page, build, tidying
from web.uploads import Uploads

UNFETCHED = 200  # sessions whose answers gradio keeps until they are fetched
STOPPED = 130  # the exit code after Ctrl-C


@dataclass(frozen=True)
class Config:
    checkpoint: Path | None = None
    """A folder that train.py wrote, instead of the bundled one."""
    device: str = field(default_factory=default_device)
    """cpu or cuda."""
    weights_dir: Path | None = None
    """Folder of local weight files (or MASC_WEIGHTS)."""
    host: str = "127.0.0.1"
    """0.0.0.0 lets other machines in."""
    port: int = 7860
    """Port of the page."""
    allow_host: tuple[str, ...] = ()
    """Other names by which visitors call the page, such as that of its proxy."""
    per_minute: int = 60
    """Uploads and predictions of one visitor."""

    def check(self) -> None:
        """Raises: ValueError, OSError: before anything takes long."""
        if not 0 < self.port < 65_536:
            raise ValueError(f"--port {self.port}: give a number from 1 to 65535")
        if self.per_minute < 1:
            raise ValueError("--per-minute must be at least 1")
        try:
            found = socket.getaddrinfo(self.host.strip("[]"), self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise ValueError(f"--host {self.host}: no such host") from None
        for family, kind, _, _, address in found[:1]:
            try:
                with socket.socket(family, kind) as test:
                    test.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    test.bind(address)
            except OSError as error:
                where = f"--host {self.host} --port {self.port}"
                raise ValueError(f"{where}: {error.strerror}; choose others") from None


@contextmanager
def serve(
    detector: Detector,
    host: str,
    port: int,
    allow_host: Sequence[str] = (),
    per_minute: int = Config.per_minute,
) -> Iterator[Any]:
    """The running page (a gradio.Blocks); afterwards its folder of uploads is gone."""
    uploads, reader = Uploads(), IsolatedReader(MAX_PIXELS)
    os.environ |= {
        "GRADIO_TEMP_DIR": str(uploads.folder),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_ANALYTICS_MAX_EVENTS": "1",  # else a table of all requests, made anew for each
    }
    try:
        blocks = build(Page(detector, uploads, reader))
        blocks._queue.pending_messages_per_session.max_size = UNFETCHED
        hosts = Hosts(host, allow_host)
        gate = Middleware(Gate, blocks=blocks, uploads=uploads, hosts=hosts, per_minute=per_minute)
        blocks.launch(
            server_name=f"[{host.strip('[]')}]" if ":" in host else host,
            server_port=port,
            max_file_size=MAX_BYTES,
            state_session_capacity=SESSIONS,
            app_kwargs={"middleware": [gate], "lifespan": tidying(blocks, uploads)},
            prevent_thread_lock=True,
            footer_links=["api", "gradio"],
            # Whatever the environment says:
            share=False,
            ssr_mode=False,
            num_workers=0,
            mcp_server=False,
            pwa=False,
            run_history=False,
            enable_monitoring=False,
        )
        try:
            yield blocks
        finally:
            blocks.close(verbose=False)
    finally:
        reader.close()
        uploads.close()


def main(config: Config) -> int:
    config.check()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that uploads are deleted
    try:
        detector = Detector(config.checkpoint, config.device, "all", config.weights_dir)
        options = config.allow_host, config.per_minute
        with serve(detector, config.host, config.port, *options):
            threading.Event().wait()
    except KeyboardInterrupt:
        return STOPPED
    return 0


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__))
