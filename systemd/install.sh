#!/bin/sh
# Installs the daemon as a service, or brings it up to date; run it again at any time. It asks nothing.
#
#   sudo systemd/install.sh               packages, program, weights, udev rule, unit, sample config, doctor
#   sudo systemd/install.sh --uninstall   takes all of that away again, but for config, events and Debian packages
#
# PYTHON=python3.12 chooses another Python than the system's python3.
set -eu
umask 022

program=/opt/emotion-edge
config=/etc/emotion-edge
command=/usr/local/bin/emotion-edge
unit=/etc/systemd/system/emotion-edge.service
rule=/etc/udev/rules.d/99-emotion-edge-coral.rules
python=${PYTHON:-python3}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

say() { printf '%s\n' "install.sh: $*"; }
fail() { say "$*" >&2; exit 1; }

is_systemd_running() { [ -d /run/systemd/system ]; }

reload_devices() {
    [ -S /run/udev/control ] || return 0
    udevadm control --reload
    udevadm trigger --subsystem-match=usb --subsystem-match=apex
}

install_packages() {
    command -v apt-get >/dev/null || fail "no apt-get: only Debian and its relatives are known here"
    # PyAudio has no wheel for Linux, so it is Debian's; the venv sees it.
    packages="python3-venv python3-pyaudio"
    apt-get update -qq
    if apt-cache show python3-picamera2 >/dev/null 2>&1; then packages="$packages python3-picamera2"; fi
    if ls /dev/dri/renderD* >/dev/null 2>&1; then packages="$packages libvulkan1 mesa-vulkan-drivers"; fi
    # shellcheck disable=SC2086 # one word for each package
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
}

check_python() {
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$python: not Python 3.11 or" \
        "newer; sudo apt install python3.11-venv, then sudo PYTHON=python3.11 $here/install.sh"
}

install_program() {
    "$python" -m venv --system-site-packages "$program"
    # picamera2 is compiled against Debian's NumPy, and crashes on one of another major version.
    limit=$("$python" -c 'import numpy; print("numpy<" + str(int(numpy.__version__.split(".")[0]) + 1))' \
        2>/dev/null || echo numpy)
    "$program/bin/python" -m pip install --quiet --disable-pip-version-check --use-pep517 \
        --upgrade --upgrade-strategy only-if-needed "$here/.." "$limit"
    EMOTION_EDGE_WEIGHTS=$program/weights "$program/bin/emotion-models" fetch
    cat >"$command" <<EOF
#!/bin/sh
export EMOTION_EDGE_WEIGHTS="\${EMOTION_EDGE_WEIGHTS:-$program/weights}"
# Root may read the broker password, which the service gets as a credential.
[ "\$(id -u)" != 0 ] || export CREDENTIALS_DIRECTORY="\${CREDENTIALS_DIRECTORY:-$config}"
exec $program/bin/emotion-edge "\$@"
EOF
    chmod 755 "$command"
}

install_files() {
    # systemd refuses to start a unit whose groups do not exist.
    for group in video audio render plugdev; do
        getent group "$group" >/dev/null || groupadd --system "$group"
    done
    install -D -m 644 "$here/99-emotion-edge-coral.rules" "$rule"
    install -D -m 644 "$here/emotion-edge.service" "$unit"
    [ -e "$config/config.toml" ] || install -D -m 644 "$here/config.toml" "$config/config.toml"
    "$command" config check --config "$config/config.toml" || say "correct it, then run this again"
}

run_doctor() {
    # Not in the service's own directory: what root writes there the service may not touch. A copy of the
    # daemon that runs already has the camera.
    if is_systemd_running; then systemctl stop emotion-edge; fi
    scratch=$(mktemp -d)
    STATE_DIRECTORY=$scratch "$command" doctor || say "something is missing yet; once it is there:" \
        "sudo emotion-edge doctor"
    rm -rf "$scratch"
}

start() {
    if is_systemd_running; then
        systemctl daemon-reload
        reload_devices
        systemctl enable --quiet emotion-edge
        run_doctor
        systemctl restart emotion-edge
        say "emotion-edge runs: systemctl status emotion-edge, http://127.0.0.1:8770"
    elif command -v systemctl >/dev/null; then
        systemctl enable --quiet emotion-edge
        run_doctor
        say "systemd does not run here: the service starts when this system boots"
    else
        run_doctor
        say "there is no systemd here: $command run starts the daemon"
    fi
}

uninstall() {
    if is_systemd_running; then
        systemctl disable --quiet --now emotion-edge 2>/dev/null || true
    elif command -v systemctl >/dev/null; then
        systemctl disable --quiet emotion-edge 2>/dev/null || true
    fi
    rm -rf "$program" "$command" "$unit" "$rule" /var/cache/private/emotion-edge /var/cache/emotion-edge
    if is_systemd_running; then systemctl daemon-reload; fi
    reload_devices
    say "removed; config and events are still there: rm -r $config /var/lib/private/emotion-edge /var/lib/emotion-edge"
}

case "$*" in
    "") mode=install ;;
    --uninstall) mode=uninstall ;;
    *) say "usage: install.sh [--uninstall]" >&2; exit 2 ;;
esac
[ "$(id -u)" = 0 ] || fail "must be root: sudo $0 $*"
if [ "$mode" = uninstall ]; then
    uninstall
    exit
fi
install_packages
check_python
install_program
install_files
start
