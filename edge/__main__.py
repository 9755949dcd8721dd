"""The command `emotion-edge`: parses the arguments and calls the module of the command."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from edge import __version__
from edge.commands.integrations import INTEGRATIONS
from edge.errors import EXIT_OK, DeviceError, EdgeError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Everything else is imported by the command that needs it: `--help` must not wait for numpy and pydantic.


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0 ok, 1 failure, 2 usage, 3 config, 4 model, 5 device or 6 broker."""
    options = _parser().parse_args(argv)
    # Must be set before numpy is imported. Products with a few hundred frames are too small for several
    # threads: OpenBLAS's threads wait for each other and cost the voice pipeline 50 % more processor time.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        code = int(options.command(options))
        sys.stdout.flush()
        return code
    except EdgeError as error:
        return _print_error(error)
    except BrokenPipeError:  # `emotion-edge ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except OSError as error:
        if error.errno not in FULL or error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left cannot be written
        return _print_error(EdgeError(f"standard output: {error.strerror}; make room or use another file"))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _run(options: argparse.Namespace) -> int:
    from edge.host.malloc import limit_arenas

    limit_arenas()  # before numpy starts its threads
    from edge.config import load_config
    from edge.daemon import Daemon

    daemon = Daemon(load_config(options.config))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: daemon.stop())
    try:
        daemon.run()
    except DeviceError as error:
        return _exit(_print_error(error))
    return _exit(EXIT_OK)


def _demo(options: argparse.Namespace) -> int:
    from edge.host.malloc import limit_arenas

    limit_arenas()
    from edge.commands.demo import run_demo

    try:
        return _exit(run_demo(seconds=options.seconds))
    except DeviceError as error:
        return _exit(_print_error(error))


def _analyze(options: argparse.Namespace) -> int:
    from edge.commands.analyze import Analyzer
    from edge.commands.analyze_report import print_results
    from edge.config import load_config

    analyzer = Analyzer(load_config(options.config), modality=options.modality, backend=options.backend)
    every_s = None if options.every is None else options.every / 1000
    return print_results(analyzer, options.file, every_s=every_s, as_json=options.json)


def _devices(options: argparse.Namespace) -> int:
    from edge.commands.devices import print_devices
    from edge.sources.devices import list_devices

    print_devices(list_devices(), as_json=options.json)
    return EXIT_OK


def _doctor(options: argparse.Namespace) -> int:
    from edge.commands.doctor.report import run_doctor

    return _exit(run_doctor(options.config, as_json=options.json, bundle=options.bundle))


def _bench(options: argparse.Namespace) -> int:
    from edge.commands.bench.history import history_path, with_history
    from edge.commands.bench.report import print_bench
    from edge.commands.bench.stages import run_bench
    from edge.commands.console import show_working
    from edge.config import load_config

    with show_working("measuring the stages, then the whole daemon"):
        result = run_bench(load_config(options.config), seconds=options.seconds)
    print_bench(with_history(result, history_path()), as_json=options.json)
    return EXIT_OK


def _config(options: argparse.Namespace) -> int:
    from edge.commands.config import run_config

    run_config(options.action, options.config)
    return EXIT_OK


def _outbox(options: argparse.Namespace) -> int:
    from edge.commands.outbox import run_outbox, select_parts
    from edge.config import load_config

    return run_outbox(
        load_config(options.config),
        options.action,
        select_parts(waiting=options.waiting, refused=options.refused),
        output=options.output,
        is_sure=options.yes,
        as_json=options.json,
    )


def _listen(options: argparse.Namespace) -> int:
    from edge.commands.listen import print_events
    from edge.config import load_config, read_password

    config = load_config(options.config)
    topics = options.topic or [f"{config.mqtt.prefix}/+/event"]
    print_events(
        config.mqtt, topics, password=read_password(config.mqtt), since=options.since, as_json=options.json
    )
    return EXIT_OK


def _discovery(options: argparse.Namespace) -> int:
    from edge.commands.discovery import run_discovery
    from edge.config import load_config

    run_discovery(options.action, load_config(options.config))
    return EXIT_OK


def _integration(options: argparse.Namespace) -> int:
    from edge.commands.integrations import render_integration
    from edge.config import load_config

    sys.stdout.write(render_integration(options.name, load_config(options.config)))
    return EXIT_OK


def _print_error(error: EdgeError) -> int:
    """Print the error; return its exit code."""
    print(f"emotion-edge: {error}", file=sys.stderr)
    return error.exit_code


def _exit(code: int) -> int:
    """Return the exit code; if a driver hangs, exit at once, because a normal exit would hang as well."""
    from edge.sources.driver_threads import is_hanging

    if is_hanging():
        sys.stdout.flush()
        os._exit(code)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "emotion-edge",
        description="Recognises emotion and fatigue with a camera and a microphone; publishes over MQTT.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--verbose", action="store_true", help="log debug messages")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run the daemon")
    run.set_defaults(command=_run)

    demo = commands.add_parser("demo", help="run the daemon on an embedded broker and print its events")
    demo.add_argument("--seconds", type=_positive, help="stop after this time; default: run until Ctrl-C")
    demo.set_defaults(command=_demo)

    analyze = commands.add_parser(
        "analyze", help="analyze images, audio and video files with the daemon's pipeline"
    )
    analyze.add_argument("file", nargs="+", type=Path, help="image, audio or video")
    analyze.add_argument(
        "--every", type=_positive, metavar="MS", help="video: print one line every MS milliseconds"
    )
    analyze.add_argument(
        "--modality", choices=["face", "voice", "fused"], default="fused", help="default: fused"
    )
    analyze.add_argument("--backend", help="overrides inference.backend")
    analyze.set_defaults(command=_analyze)

    devices = commands.add_parser(
        "devices", help="list cameras, microphones and accelerators with their config tokens"
    )
    devices.set_defaults(command=_devices)

    doctor = commands.add_parser(
        "doctor",
        help="check this device; each failure has a remedy to type",
        description="Checks this device; safe while the daemon runs. The exit code is the number of failures,"
        " at most 100.",
    )
    doctor.add_argument(
        "--bundle",
        type=Path,
        metavar="FILE",
        help="write a new .tar.gz for a bug report, without private data",
    )
    doctor.set_defaults(command=_doctor)

    bench = commands.add_parser("bench", help="measure the speed of each stage on this device")
    bench.add_argument(
        "--seconds", type=_positive, default=15.0, help="how long the whole daemon is measured; default: 15"
    )
    bench.set_defaults(command=_bench)

    config = commands.add_parser(
        "config", help="show or check the effective configuration, or print its schema"
    )
    config.add_argument("action", choices=["show", "schema", "check"])
    config.set_defaults(command=_config)

    outbox = commands.add_parser(
        "outbox",
        help="show, retry, export or delete waiting events and dead letters",
        description="show (default): counts and the newest dead letters. retry: puts the dead letters back"
        " into the queue with their ids and sequence numbers. export: writes waiting events and dead letters"
        " as JSON lines. purge: deletes them. All actions are safe while the daemon runs.",
    )
    outbox.add_argument("action", nargs="?", default="show", choices=["show", "retry", "export", "purge"])
    outbox.add_argument("--waiting", action="store_true", help="export, purge: only waiting events")
    outbox.add_argument("--refused", action="store_true", help="export, purge: only dead letters")
    outbox.add_argument(
        "--output", type=Path, metavar="FILE", help="export: a new file instead of standard output"
    )
    outbox.add_argument("--yes", action="store_true", help="purge: delete; without it, only print the counts")
    outbox.set_defaults(command=_outbox)

    discovery = commands.add_parser(
        "discovery", help="show the payload that announces the device to Home Assistant, or remove the device"
    )
    discovery.add_argument("action", choices=["show", "remove"])
    discovery.set_defaults(command=_discovery)

    integration = commands.add_parser(
        "integration", help="print a Node-RED flow, Grafana dashboard or Home Assistant card for this device"
    )
    integration.add_argument("name", choices=INTEGRATIONS)
    integration.set_defaults(command=_integration)

    listen = commands.add_parser("listen", help="print the events of all devices, each once, as they arrive")
    listen.add_argument("topic", nargs="*", help="MQTT topic filters; default: the events of all devices")
    listen.add_argument(
        "--since",
        type=_since,
        metavar="TIME",
        help="omit messages older than 2026-01-02T03:04:05Z, or than 10m, 2h, 1d; a broker does not send past"
        " events again",
    )
    listen.set_defaults(command=_listen)

    for command in (analyze, devices, doctor, bench, outbox, listen):
        command.add_argument("--json", action="store_true", help="print stable JSON instead of a table")
    for command in (run, analyze, doctor, bench, config, outbox, listen, discovery, integration):
        command.add_argument(
            "--config",
            type=Path,
            metavar="FILE",
            help="TOML file; default: /etc/emotion-edge/config.toml if it exists",
        )
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return value


def _since(text: str) -> datetime:
    from edge.commands.listen import parse_since

    try:
        return parse_since(text, now=datetime.now(UTC))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
