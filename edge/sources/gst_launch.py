"""Runs a GStreamer pipeline from standard input, as gst-launch-1.0 runs one from its arguments.

Every user of a device can read the arguments of a process, and a pipeline may contain a password. This is the
program of a child process, with the standard library only. It prints `size WIDTH HEIGHT` when the element
`edge` has caps and `fault TEXT` for an error, and ends with the pipeline.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
from ctypes import POINTER, byref, c_char_p, c_int, c_uint32, c_uint64, c_void_p

LIBRARY = "libgstreamer-1.0.so.0"
NULL, PAUSED, PLAYING = 1, 3, 4  # GstState
EOS, ERROR, CLOCK_LOST, LATENCY = 1 << 0, 1 << 1, 1 << 10, 1 << 19  # GstMessageType
TYPE_OFFSET = 64  # of the type in GstMessage, behind a GstMiniObject; on 64 bits, in all of GStreamer 1
POLL_NS = 50_000_000
END_S = 2


class _Error(ctypes.Structure):
    """A GError."""

    _fields_ = (("domain", c_uint32), ("code", c_int), ("message", c_char_p))


def main() -> int:
    """Run the pipeline until its end; return 1 after an error."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = os.getppid()
    arguments = [argument.encode() for argument in json.load(sys.stdin)]
    try:
        gst = _library()
    except OSError as error:
        return _fail(str(error))
    error_of = POINTER(_Error)()
    if not gst.gst_init_check(None, None, byref(error_of)):
        return _fail(_text(error_of) or "GStreamer does not start")
    pipeline = gst.gst_parse_launchv((c_char_p * (len(arguments) + 1))(*arguments, None), byref(error_of))
    if not pipeline or error_of:
        return _fail(_text(error_of) or "the pipeline cannot be built")
    try:
        return _play(gst, pipeline, parent)
    finally:
        signal.alarm(END_S)  # a source that waits for data may never stop
        gst.gst_element_set_state(pipeline, NULL)


def _play(gst: ctypes.CDLL, pipeline: int, parent: int) -> int:
    """Play to the end, to the first error or until the parent process has ended."""
    bus = gst.gst_element_get_bus(pipeline)
    sink = gst.gst_bin_get_by_name(pipeline, b"edge")
    pad = gst.gst_element_get_static_pad(sink, b"sink")
    gst.gst_element_set_state(pipeline, PLAYING)
    has_size = False
    # A pipeline without frames does not notice that its pipe is closed.
    while os.getppid() == parent:
        message = gst.gst_bus_timed_pop_filtered(bus, POLL_NS, EOS | ERROR | CLOCK_LOST | LATENCY)
        has_size = has_size or _print_size(gst, pad)
        if not message:
            continue
        kind = c_uint32.from_address(message + TYPE_OFFSET).value
        if kind == EOS:
            return 0
        if kind == ERROR:
            error_of = POINTER(_Error)()
            gst.gst_message_parse_error(message, byref(error_of), None)
            return _fail(_text(error_of))
        if kind == LATENCY:
            gst.gst_bin_recalculate_latency(pipeline)
        else:
            gst.gst_element_set_state(pipeline, PAUSED)
            gst.gst_element_set_state(pipeline, PLAYING)
        gst.gst_mini_object_unref(message)
    return 1


def _print_size(gst: ctypes.CDLL, pad: int) -> bool:
    """Print the size of the frames once the pad has caps; return whether it has."""
    caps = gst.gst_pad_get_current_caps(pad)
    if not caps:
        return False
    text = ctypes.string_at(gst.gst_caps_to_string(caps)).decode()
    size = re.search(r"width=\(int\)(\d+), height=\(int\)(\d+)", text)
    if size:
        print(f"size {size[1]} {size[2]}", flush=True)
    return size is not None


def _fail(text: str) -> int:
    print("fault", " ".join(text.split()), flush=True)
    return 1


def _text(error_of: ctypes._Pointer[_Error]) -> str:
    return error_of.contents.message.decode(errors="replace") if error_of else ""


def _library() -> ctypes.CDLL:
    """Load GStreamer and declare the functions that have pointers."""
    gst = ctypes.CDLL(LIBRARY)
    for name, result, arguments in (
        ("gst_init_check", c_int, [c_void_p, c_void_p, c_void_p]),
        ("gst_parse_launchv", c_void_p, [c_void_p, c_void_p]),
        ("gst_element_get_bus", c_void_p, [c_void_p]),
        ("gst_bin_get_by_name", c_void_p, [c_void_p, c_char_p]),
        ("gst_element_get_static_pad", c_void_p, [c_void_p, c_char_p]),
        ("gst_element_set_state", c_int, [c_void_p, c_int]),
        ("gst_bus_timed_pop_filtered", c_void_p, [c_void_p, c_uint64, c_uint32]),
        ("gst_message_parse_error", None, [c_void_p, c_void_p, c_void_p]),
        ("gst_bin_recalculate_latency", c_int, [c_void_p]),
        ("gst_mini_object_unref", None, [c_void_p]),
        ("gst_pad_get_current_caps", c_void_p, [c_void_p]),
        ("gst_caps_to_string", c_void_p, [c_void_p]),
    ):
        function = getattr(gst, name)
        function.restype, function.argtypes = result, arguments
    return gst


if __name__ == "__main__":
    sys.exit(main())
