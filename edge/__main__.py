"""The command `emotion-edge`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from edge import __version__
from edge.config import Config, load_config, outbox_path, to_toml
from edge.errors import EXIT_OK, DeviceError, EdgeError
from edge.integrations import INTEGRATIONS


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0 ok, 1 failure, 2 usage, 3 config, 4 model, 5 device or 6 broker."""
    options = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        return int(options.command(options))
    except EdgeError as error:
        print(f"emotion-edge: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `emotion-edge ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _run(options: argparse.Namespace) -> int:
    from edge.daemon import Daemon
    from edge.drivers import is_hanging

    daemon = Daemon(load_config(options.config))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: daemon.stop())
    try:
        daemon.run()
    except DeviceError as error:
        print(f"emotion-edge: {error}", file=sys.stderr)
        code = error.exit_code
    else:
        code = EXIT_OK
    if is_hanging():
        os._exit(code)  # what a driver wants to do at exit would hang, too
    return code


def _demo(options: argparse.Namespace) -> int:
    from edge.demo import run_demo

    return run_demo(seconds=options.seconds)


def _analyze(options: argparse.Namespace) -> int:
    from edge.analyze import Analyzer
    from edge.report import print_lines

    config = load_config(options.config)
    analyzer = Analyzer(config, modality=options.modality, backend=options.backend)
    every_s = None if options.every is None else options.every / 1000
    return print_lines(analyzer, options.file, every_s=every_s, as_json=options.json)


def _devices(options: argparse.Namespace) -> int:
    from edge.devices import list_devices
    from edge.report import print_devices

    print_devices(list_devices(), as_json=options.json)
    return EXIT_OK


def _bench(options: argparse.Namespace) -> int:
    from edge.bench import run_bench
    from edge.report import print_bench, working

    with working("measuring the stages, then the daemon"):
        result = run_bench(load_config(options.config), seconds=options.seconds)
    print_bench(result, as_json=options.json)
    return EXIT_OK


def _config(options: argparse.Namespace) -> int:
    if options.action == "schema":
        print(json.dumps(Config.model_json_schema(), indent=2))
        return EXIT_OK
    config = load_config(options.config)
    sys.stdout.write(to_toml(config) if options.action == "show" else "config: ok\n")
    return EXIT_OK


def _outbox(options: argparse.Namespace) -> int:
    from edge.outbox import Outbox
    from edge.report import print_outbox

    config = load_config(options.config)
    path = outbox_path(config)
    if not path.exists():
        raise EdgeError(f"{path}: no outbox there; start the daemon once, or check device.id")
    outbox = Outbox(
        path, device=config.device.id, max_events=config.outbox.max_events, max_bytes=config.outbox.max_bytes
    )
    try:
        print_outbox(outbox, as_json=options.json)
    finally:
        outbox.close()
    return EXIT_OK


def _discovery(options: argparse.Namespace) -> int:
    from edge.discovery import clear_discovery, discovery_topic
    from edge.entities import discovery_payload

    config = load_config(options.config)
    if options.action == "show":
        print(json.dumps(discovery_payload(config), indent=2))
        return EXIT_OK
    clear_discovery(config)
    print(f"{discovery_topic(config)}: removed; a daemon started with mqtt.discovery = true brings it back")
    return EXIT_OK


def _integration(options: argparse.Namespace) -> int:
    from edge.integrations import render_integration

    sys.stdout.write(render_integration(options.name, load_config(options.config)))
    return EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "emotion-edge", description="Face and voice in, one fused emotion out, over MQTT."
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--verbose", action="store_true", help="log every detail")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="the daemon")
    run.set_defaults(command=_run)

    demo = commands.add_parser("demo", help="the daemon on an embedded broker, its events printed")
    demo.add_argument("--seconds", type=_positive, help="stop by itself after so long")
    demo.set_defaults(command=_demo)

    analyze = commands.add_parser("analyze", help="images, sound and video through the daemon's own pipeline")
    analyze.add_argument("file", nargs="+", type=Path)
    analyze.add_argument("--every", type=_positive, metavar="MS", help="one line for every step of a video")
    analyze.add_argument("--modality", choices=["face", "voice", "fused"], default="fused")
    analyze.add_argument("--backend", help="instead of inference.backend")
    analyze.set_defaults(command=_analyze)

    devices = commands.add_parser("devices", help="cameras, microphones and accelerators, with their tokens")
    devices.set_defaults(command=_devices)

    bench = commands.add_parser("bench", help="how fast each stage is on this device")
    bench.add_argument("--seconds", type=_positive, default=15.0, help="how long the whole daemon is watched")
    bench.set_defaults(command=_bench)

    config = commands.add_parser("config", help="the effective configuration, its schema, or a check of it")
    config.add_argument("action", choices=["show", "schema", "check"])
    config.set_defaults(command=_config)

    outbox = commands.add_parser("outbox", help="what waits to be sent, what was refused, what was dropped")
    outbox.set_defaults(command=_outbox)

    discovery = commands.add_parser("discovery", help="what Home Assistant is told, or its removal there")
    discovery.add_argument("action", choices=["show", "remove"])
    discovery.set_defaults(command=_discovery)

    integration = commands.add_parser("integration", help="a flow or a dashboard for this device, to import")
    integration.add_argument("name", choices=INTEGRATIONS)
    integration.set_defaults(command=_integration)

    for command in (analyze, devices, bench, outbox):
        command.add_argument("--json", action="store_true", help="stable JSON instead of a table")
    for command in (run, analyze, bench, config, outbox, discovery, integration):
        command.add_argument("--config", type=Path, metavar="FILE", help="TOML; defaults apply without one")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
