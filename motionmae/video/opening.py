"""Before a file is opened as a video: which bytes it is, whether they may be read, and why they do not open.

Its one rule: what is said of a file was seen in it; its name is not believed.
"""

from __future__ import annotations

import os
import re

from motionmae.video import remote
from motionmae.video.errors import VideoError

# Containers of video; FFmpeg would also "open" playlists (which name other files and addresses), text and pictures.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,gif,apng,flv,asf,ogg,ivf,nut,mxf,dv,rm,wtv,obu,"
    "h264,hevc,m4v,mjpeg,vc1,yuv4mpegpipe"
)


def located(path: str) -> tuple[str, str]:
    """The file that holds a video, and FFmpeg's words for the part of it that is the video; "" for all."""
    match = re.fullmatch(r"(.+?\.tar)::(\d+)\+(\d+)::.*", path, re.DOTALL)
    if not match or os.path.lexists(path):
        return path, ""
    return match[1], f"subfile,,start,{match[2]},end,{int(match[2]) + int(match[3])},,:"


def regular(path: str, file: str) -> remote.About:
    """What is known of the file; VideoError for what is not a file, is empty or may not be read."""
    try:
        found = remote.about(file)
    except OSError as error:
        broken = os.path.islink(file) and isinstance(error, FileNotFoundError)
        raise VideoError(path, "broken link" if broken else (error.strerror or "unreadable").lower()) from error
    here = not remote.address_of(file)
    if here and not os.path.isfile(file):
        raise VideoError(path, "not a regular file")
    if not found.size:
        raise VideoError(path, "zero bytes")
    if here and not os.access(file, os.R_OK):
        raise VideoError(path, "permission denied")
    return found


def why(path: str, error: Exception) -> str:
    """Why a file does not open, in words."""
    if isinstance(error, PermissionError):
        return "permission denied"
    with remote.open_file(path) as file:
        head = file.read(16)
    if head[4:8] == b"ftyp":
        return "truncated: an mp4 without its index"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP: not read as a video"
    if head[:4] in (b"RIFF", b"\x1aE\xdf\xa3") or head[:3] == b"GIF":
        return "truncated: nothing but the beginning of its header"
    return "not a video"
