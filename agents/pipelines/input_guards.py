"""ffmpeg options that keep an input from opening anything but what it is said to be.

A playlist is a program: it may name local files, hosts inside the network, or itself. So for each kind of input ffmpeg
is told which protocols it may speak and which formats it may read, and formats that only point elsewhere (playlists as
files, concat scripts, DASH, SDP, image sequences, text) are in no list. HLS is read over HTTP alone, and then nothing
but HTTP may follow from it. Redirects are followed before ffmpeg starts, where each hop can be checked.

These options narrow what a hostile input reaches; an address inside a playlist that changes after it was checked is
stopped by the operating system alone (an own user and an egress filter).
"""

from __future__ import annotations

_MEDIA_FORMATS = (
    "aac,ac3,aiff,amr,asf,av1,avi,caf,dts,dv,eac3,flac,flv,gxf,h261,h263,h264,hevc,ivf,jpeg_pipe,live_flv,m4v,matroska,"
    "mjpeg,mov,mp3,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,png_pipe,truehd,vc1,vc1test,vvc,w64,wav,wtv,yuv4mpegpipe"
)
"""Demuxers, by ffmpeg's names, that read one stream of bytes and open nothing else."""

_HTTP_OPTIONS = (
    *("-protocol_whitelist", "http,https,tls,tcp,crypto"),
    *("-format_whitelist", f"{_MEDIA_FORMATS},hls,webvtt"),
    *("-max_redirects", "0"),
)
_OPTIONS: dict[str, tuple[str, ...]] = {
    "file": ("-protocol_whitelist", "file", "-format_whitelist", _MEDIA_FORMATS),
    "http": _HTTP_OPTIONS,
    "https": _HTTP_OPTIONS,
    "rtmp": ("-protocol_whitelist", "rtmp,tcp", "-format_whitelist", "flv,live_flv"),
    "rtmps": ("-protocol_whitelist", "rtmps,rtmp,tls,tcp", "-format_whitelist", "flv,live_flv"),
    # Over TCP alone: by UDP the server would name the address to which media and answers go.
    "rtsp": (
        *("-protocol_whitelist", "rtsp,rtp,tcp"),
        *("-format_whitelist", "rtsp,rtp,mpegts"),
        *("-rtsp_transport", "tcp"),
    ),
    "srt": ("-protocol_whitelist", "srt", "-format_whitelist", _MEDIA_FORMATS),
}


def input_guard_options(uri: str) -> tuple[str, ...]:
    """Gives the options to put before `-i` for an input.

    Args:
        uri: An absolute path, "file:" with a path behind it, or a URL of a scheme that inputs may have.

    Returns:
        Options and their values, in ffmpeg's order.

    Raises:
        ValueError: When the scheme is none that inputs may have.
    """
    scheme = input_scheme(uri)
    options = _OPTIONS.get(scheme)
    if options is None:
        allowed = ", ".join(_OPTIONS)
        raise ValueError(f'Cannot guard an input of the scheme "{scheme}": inputs have one of {allowed}.')
    return options


def input_scheme(uri: str) -> str:
    """Tells the scheme of an input in lower case; "file" for an absolute path."""
    if uri.startswith("/"):
        return "file"
    scheme, colon, _ = uri.partition(":")
    return scheme.lower() if colon else ""
