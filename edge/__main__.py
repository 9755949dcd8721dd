"""The command `emotion-edge`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from edge import __version__
from edge.commands.integrations import INTEGRATIONS
from edge.config import load_config, outbox_path, read_password, to_toml
from edge.errors import EXIT_OK, DeviceError, EdgeError
from edge.host.malloc import limit_arenas
from edge.settings import Config


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0 ok, 1 failure, 2 usage, 3 config, 4 model, 5 device or 6 broker."""
    options = _parser().parse_args(argv)
    # Before numpy is there. Products of a few hundred frames are too small to share out: OpenBLAS's threads
    # wait for each other and cost the sound half as much processor again.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        return int(options.command(options))
    except EdgeError as error:
        return _told(error)
    except BrokenPipeError:  # `emotion-edge ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _run(options: argparse.Namespace) -> int:
    limit_arenas()  # before numpy makes its threads
    from edge.daemon import Daemon

    daemon = Daemon(load_config(options.config))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: daemon.stop())
    try:
        daemon.run()
    except DeviceError as error:
        return _leave(_told(error))
    return _leave(EXIT_OK)


def _demo(options: argparse.Namespace) -> int:
    limit_arenas()
    from edge.commands.demo import run_demo

    try:
        return _leave(run_demo(seconds=options.seconds))
    except DeviceError as error:
        return _leave(_told(error))


def _analyze(options: argparse.Namespace) -> int:
    from edge.commands.analyze import Analyzer
    from edge.commands.report import print_lines

    config = load_config(options.config)
    analyzer = Analyzer(config, modality=options.modality, backend=options.backend)
    every_s = None if options.every is None else options.every / 1000
    return print_lines(analyzer, options.file, every_s=every_s, as_json=options.json)


def _devices(options: argparse.Namespace) -> int:
    from edge.commands.report import print_devices
    from edge.sources.devices import list_devices

    print_devices(list_devices(), as_json=options.json)
    return EXIT_OK


def _doctor(options: argparse.Namespace) -> int:
    from edge.commands.doctor.bundle import write_bundle
    from edge.commands.doctor.report import print_findings
    from edge.commands.doctor.stages import adopt_service, count_failed, examine

    adopt_service()
    findings = print_findings(examine(options.config), as_json=options.json)
    if options.bundle is not None:
        write_bundle(options.bundle, options.config, findings)
        print(f"{options.bundle}: look into it before you send it", file=sys.stderr)
    return _leave(count_failed(findings))


def _bench(options: argparse.Namespace) -> int:
    from edge.commands.bench.history import history_path, with_history
    from edge.commands.bench.stages import run_bench
    from edge.commands.report import print_bench, working

    with working("measuring the stages, then the daemon"):
        result = run_bench(load_config(options.config), seconds=options.seconds)
    print_bench(with_history(result, history_path()), as_json=options.json)
    return EXIT_OK


def _config(options: argparse.Namespace) -> int:
    if options.action == "schema":
        print(json.dumps(Config.model_json_schema(), indent=2))
        return EXIT_OK
    config = load_config(options.config)
    sys.stdout.write(to_toml(config) if options.action == "show" else "config: ok\n")
    return EXIT_OK


def _outbox(options: argparse.Namespace) -> int:
    from edge.commands import outbox as queue_report
    from edge.delivery.outbox.dead_letters import DeadLetters

    parts = queue_report.chosen(waiting=options.waiting, refused=options.refused)
    with closing(DeadLetters(outbox_path(load_config(options.config)))) as outbox:
        if options.action == "retry":
            return queue_report.retry(outbox, as_json=options.json)
        if options.action == "export":
            return queue_report.export(outbox, parts, output=options.output)
        if options.action == "purge":
            return queue_report.purge(outbox, parts, is_sure=options.yes, as_json=options.json)
        return queue_report.show(outbox, as_json=options.json)


def _listen(options: argparse.Namespace) -> int:
    from edge.commands.listen import follow

    config = load_config(options.config)
    topics = options.topic or [f"{config.mqtt.prefix}/+/event"]
    follow(
        config.mqtt, topics, password=read_password(config.mqtt), since=options.since, as_json=options.json
    )
    return EXIT_OK


def _discovery(options: argparse.Namespace) -> int:
    from edge.delivery.home_assistant.discovery import clear_discovery, discovery_topic
    from edge.delivery.home_assistant.entities import discovery_payload

    config = load_config(options.config)
    if options.action == "show":
        print(json.dumps(discovery_payload(config), indent=2))
        return EXIT_OK
    clear_discovery(config)
    print(f"{discovery_topic(config)}: removed; a daemon started with mqtt.discovery = true brings it back")
    return EXIT_OK


def _integration(options: argparse.Namespace) -> int:
    from edge.commands.integrations import render_integration

    sys.stdout.write(render_integration(options.name, load_config(options.config)))
    return EXIT_OK


def _told(error: EdgeError) -> int:
    """Say what went wrong; return the exit code for it."""
    print(f"emotion-edge: {error}", file=sys.stderr)
    return error.exit_code


def _leave(code: int) -> int:
    """Return the exit code, or leave with it at once where a driver hangs: so would what it does at exit."""
    from edge.sources.driver_threads import is_hanging

    if is_hanging():
        sys.stdout.flush()
        os._exit(code)
    return code


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

    doctor = commands.add_parser(
        "doctor",
        help="tries every part of this device; each failure says what to type",
        description="Safe while the daemon runs. The exit code is the number of failures, 100 at most.",
    )
    doctor.add_argument(
        "--bundle", type=Path, metavar="FILE", help="a new .tar.gz for a bug report, scrubbed"
    )
    doctor.set_defaults(command=_doctor)

    bench = commands.add_parser("bench", help="how fast each stage is on this device")
    bench.add_argument("--seconds", type=_positive, default=15.0, help="how long the whole daemon is watched")
    bench.set_defaults(command=_bench)

    config = commands.add_parser("config", help="the effective configuration, its schema, or a check of it")
    config.add_argument("action", choices=["show", "schema", "check"])
    config.set_defaults(command=_config)

    outbox = commands.add_parser(
        "outbox",
        help="what waits to be sent, what was refused, what was dropped",
        description="show (default): counts and the newest dead letters. retry: dead letters wait again, "
        "with their ids and numbers. export: JSON lines of what waits and of the dead letters. purge: deletes"
        " them. All are safe while the daemon runs.",
    )
    outbox.add_argument("action", nargs="?", default="show", choices=["show", "retry", "export", "purge"])
    outbox.add_argument("--waiting", action="store_true", help="export, purge: only what waits")
    outbox.add_argument("--refused", action="store_true", help="export, purge: only the dead letters")
    outbox.add_argument("--output", type=Path, metavar="FILE", help="export: a new file, not standard output")
    outbox.add_argument("--yes", action="store_true", help="purge: do it, not only say what would go")
    outbox.set_defaults(command=_outbox)

    discovery = commands.add_parser("discovery", help="what Home Assistant is told, or its removal there")
    discovery.add_argument("action", choices=["show", "remove"])
    discovery.set_defaults(command=_discovery)

    integration = commands.add_parser("integration", help="a flow or a dashboard for this device, to import")
    integration.add_argument("name", choices=INTEGRATIONS)
    integration.set_defaults(command=_integration)

    hear = commands.add_parser("listen", help="the events of all devices as they come, each once")
    hear.add_argument("topic", nargs="*", help="MQTT filters; default: the events of every device")
    hear.add_argument(
        "--since",
        type=_since,
        metavar="TIME",
        help="leave out what is older: 2026-01-02T03:04:05Z, or 10m, 2h, 1d. It brings back nothing that the "
        "broker no longer has",
    )
    hear.set_defaults(command=_listen)

    for command in (analyze, devices, doctor, bench, outbox, hear):
        command.add_argument("--json", action="store_true", help="stable JSON instead of a table")
    for command in (run, analyze, doctor, bench, config, outbox, hear, discovery, integration):
        command.add_argument("--config", type=Path, metavar="FILE", help="TOML; defaults apply without one")
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
