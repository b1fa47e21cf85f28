"""`segment video --pick`: point at objects in a page on this machine instead of typing their pixels.

It listens on 127.0.0.1 alone, on a free port, and answers only who knows the token in its address.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import webbrowser

from motionmae.config import SegmentVideo, check
from motionmae.errors import MotionMAEError
from motionmae.tasks.segment.video import open_footage, source_of


def run(config: SegmentVideo) -> None:
    """Serve the page until the user has finished or presses Ctrl-C."""
    check(config)
    if not config.video:
        raise MotionMAEError("VIDEO is missing: expected a video file")
    try:
        import uvicorn

        from motionmae.tasks.segment.pick.server import application
        from motionmae.tasks.segment.pick.session import Session
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("motionmae"):
            raise
        raise MotionMAEError(f"--pick needs {error.name}: pip install 'motionmae[pick]'") from None
    session = Session(config, open_footage(config.video), source_of(config))
    token = secrets.token_urlsafe(24)
    with socket.create_server(("127.0.0.1", 0)) as door:
        settings = uvicorn.Config(
            application(session, token, lambda: setattr(server, "should_exit", True)),
            http="h11", ws="none", lifespan="off", log_level="error", access_log=False, server_header=False,
            proxy_headers=False, timeout_graceful_shutdown=1, h11_max_incomplete_event_size=1 << 14,
        )  # fmt: skip
        server = uvicorn.Server(settings)
        port = door.getsockname()[1]
        address = f"http://127.0.0.1:{port}/{token}/"
        print(f"{address}\nopen this page to point at objects; Ctrl-C ends it", flush=True)
        if config.browser:
            webbrowser.open(address)
        else:
            print(f"from another machine, first: ssh -L {port}:127.0.0.1:{port} THIS-MACHINE", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[door])
    session.stop()
    if session.thread is not None:
        session.thread.join()
    print(f"the results are in {session.out}" if session.made else "nothing was followed", flush=True)
