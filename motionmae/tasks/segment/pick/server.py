"""The page's server: its own files, frames by number, results by the names of a list. No path comes from the page."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from motionmae.errors import MotionMAEError
from motionmae.evaluation.masks import VOID, palette
from motionmae.tasks.segment.pick.guard import LIMIT, Guard
from motionmae.tasks.segment.pick.session import Session

PAGE = Path(__file__).parent / "page"
TYPES = {"index.html": "text/html", "pick.js": "text/javascript", "pick.css": "text/css"}
SIDE = 1600  # pixels of the longest side of a picture that the page is shown


class Answers:
    """What the server answers, by the name of the route."""

    def __init__(self, session: Session, end: Callable[[], None]):
        self.session, self.end = session, end

    def page(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in TYPES:
            raise HTTPException(404)
        return Response((PAGE / name).read_bytes(), media_type=TYPES[name])

    def facts(self, request: Request) -> Response:
        config, (frames, starts) = self.session.config, (self.session.footage.frames, self.session.footage.starts)
        return JSONResponse(
            {
                "video": Path(config.video).name, "model": config.model, "count": frames.count,
                "width": frames.width, "height": frames.height, "seconds": starts, "drawing": self.session.content,
                "palette": palette().tolist(),
            }
        )  # fmt: skip

    def frame(self, request: Request) -> Response:
        return jpeg(self.session.picture(self._number(request), False))

    def found(self, request: Request) -> Response:
        return jpeg(self.session.picture(self._number(request), True))

    def base(self, request: Request) -> Response:
        mask = self.session.bases.get((self._number(request), request.path_params["run"]))
        mask = self.session.mask(self._number(request)) if mask is None else mask
        if mask is None:
            raise HTTPException(404)
        shown = np.where(mask == VOID, 0, mask)
        colours = np.concatenate((palette()[shown], np.where(shown > 0, 255, 0)[..., None]), axis=2)
        return image_answer(Image.fromarray(colours.astype(np.uint8)), "PNG")

    def _number(self, request: Request) -> int:
        if not 0 <= (value := request.path_params["number"]) < self.session.footage.frames.count:
            raise HTTPException(404)
        return value

    async def draw(self, request: Request) -> Response:
        content = await body(request)
        return await self._asked(lambda: self.session.keep(content))

    async def start(self, request: Request) -> Response:
        content = await body(request)
        return await self._asked(lambda: self.session.start(content))

    async def _asked(self, work: Callable[[], object]) -> Response:
        try:
            await run_in_threadpool(work)
        except MotionMAEError as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse(self.session.state())

    def stop(self, request: Request) -> Response:
        self.session.stop()
        return JSONResponse(self.session.state())

    def finish(self, request: Request) -> Response:
        self.session.stop()
        self.end()
        return JSONResponse({})

    def state(self, request: Request) -> Response:
        return JSONResponse(self.session.state())

    def file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name == "masks.zip" and "masks" in self.session.made:
            return zipped(self.session.out / "masks")
        path = self.session.file(name)
        if path is None:
            raise HTTPException(404)
        return FileResponse(path, filename=name)


def application(session: Session, token: str, end: Callable[[], None]) -> Guard:
    """The whole server of a session; `end` is called when the user has finished."""
    to = Answers(session, end)
    routes = [
        Route("/", to.page),
        Route("/page/{name}", to.page),
        Route("/facts", to.facts),
        Route("/frame/{number:int}", to.frame),
        Route("/found/{number:int}", to.found),
        Route("/base/{number:int}/{run:int}", to.base),
        Route("/state", to.state),
        Route("/file/{name}", to.file),
        Route("/draw", to.draw, methods=["POST"]),
        Route("/start", to.start, methods=["POST"]),
        Route("/stop", to.stop, methods=["POST"]),
        Route("/finish", to.finish, methods=["POST"]),
    ]
    return Guard(Starlette(routes=routes), token)


async def body(request: Request) -> Any:
    """A request's JSON, of LIMIT bytes at most, however it is sent."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > LIMIT:
            raise HTTPException(413, f"refused: more than {LIMIT} bytes")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise HTTPException(400, "refused: not JSON") from None


def jpeg(pixels: np.ndarray) -> Response:
    """A picture for looking at, no larger than the page needs it."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    return image_answer(image, "JPEG")


def image_answer(shown: Image.Image, kind: str) -> Response:
    """An image as an answer."""
    content = io.BytesIO()
    shown.save(content, kind)
    return Response(content.getvalue(), media_type=f"image/{kind.lower()}")


def zipped(folder: Path) -> Response:
    """The masks as one file."""

    def parts() -> Iterator[bytes]:
        with TemporaryFile() as content:
            with zipfile.ZipFile(content, "w") as archive:
                for path in sorted(folder.glob("*.png")):
                    archive.write(path, f"masks/{path.name}")
            content.seek(0)
            while part := content.read(1 << 16):
                yield part

    headers = {"content-disposition": 'attachment; filename="masks.zip"'}
    return StreamingResponse(parts(), media_type="application/zip", headers=headers)
