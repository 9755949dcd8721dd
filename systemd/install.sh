#!/bin/sh
# Installs or updates the daemon as a service. It needs no input and can be run again at any time.
#
#   sudo systemd/install.sh               packages, program, weights, udev rule, unit, sample config, doctor
#   sudo systemd/install.sh --uninstall   removes all of that except config, events and Debian packages
#
# PYTHON=python3.12 selects another Python than the system's python3.
set -eu
umask 022

program=/opt/emotion-edge
config=/etc/emotion-edge
command=/usr/local/bin/emotion-edge
unit=/etc/systemd/system/emotion-edge.service
rule=/etc/udev/rules.d/99-emotion-edge-coral.rules
python=${PYTHON:-python3}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# Python imports from the current directory, and root must not run files that lie there: all calls have -I too.
cd /

log() { printf '%s\n' "install.sh: $*"; }
fail() { log "$*" >&2; exit 1; }

is_systemd_running() { [ -d /run/systemd/system ]; }

reload_devices() {
    [ -S /run/udev/control ] || return 0
    udevadm control --reload
    udevadm trigger --subsystem-match=usb --subsystem-match=apex
}

install_packages() {
    command -v apt-get >/dev/null || fail "no apt-get: only Debian and its derivatives are supported"
    # PyAudio has no Linux wheel; the venv uses the Debian package.
    packages="python3-venv python3-pyaudio"
    apt-get update -qq
    if apt-cache show python3-picamera2 >/dev/null 2>&1; then packages="$packages python3-picamera2"; fi
    if ls /dev/dri/renderD* >/dev/null 2>&1; then packages="$packages libvulkan1 mesa-vulkan-drivers"; fi
    # shellcheck disable=SC2086 # one word for each package
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
}

check_python() {
    "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$python: not Python 3.11 or" \
        "newer; sudo apt install python3.11-venv, then sudo PYTHON=python3.11 $here/install.sh"
}

install_program() {
    "$python" -I -m venv --system-site-packages "$program"
    # picamera2 is compiled against Debian's NumPy and crashes with another major version.
    limit=$("$python" -I -c 'import numpy; print("numpy<" + str(int(numpy.__version__.split(".")[0]) + 1))' \
        2>/dev/null || echo numpy)
    "$program/bin/python" -I -m pip install --quiet --disable-pip-version-check --use-pep517 \
        --upgrade --upgrade-strategy only-if-needed "$here/.." "$limit"
    EMOTION_EDGE_WEIGHTS=$program/weights "$program/bin/emotion-models" fetch
    cat >"$command" <<EOF
#!/bin/sh
export EMOTION_EDGE_WEIGHTS="\${EMOTION_EDGE_WEIGHTS:-$program/weights}"
# Root may read the broker password; the service gets it as a credential.
[ "\$(id -u)" != 0 ] || export CREDENTIALS_DIRECTORY="\${CREDENTIALS_DIRECTORY:-$config}"
exec $program/bin/emotion-edge "\$@"
EOF
    chmod 755 "$command"
}

install_files() {
    # systemd does not start a unit whose groups do not exist.
    for group in video audio render plugdev; do
        getent group "$group" >/dev/null || groupadd --system "$group"
    done
    install -D -m 644 "$here/99-emotion-edge-coral.rules" "$rule"
    install -D -m 644 "$here/emotion-edge.service" "$unit"
    [ -e "$config/config.toml" ] || install -D -m 644 "$here/config.toml" "$config/config.toml"
    "$command" config check --config "$config/config.toml" || log "correct it, then run install.sh again"
}

run_doctor() {
    # In a scratch directory, because the service cannot change files that root writes. The running daemon is
    # stopped, because it holds the camera.
    if is_systemd_running; then systemctl stop emotion-edge; fi
    scratch=$(mktemp -d)
    STATE_DIRECTORY=$scratch "$command" doctor || log "some checks failed; correct them, then type" \
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
        log "emotion-edge is running: systemctl status emotion-edge, http://127.0.0.1:8770"
    elif command -v systemctl >/dev/null; then
        systemctl enable --quiet emotion-edge
        run_doctor
        log "systemd does not run here: the service starts when this system boots"
    else
        run_doctor
        log "systemd is not installed: start the daemon with $command run"
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
    log "removed; to delete config and events too: rm -r $config /var/lib/private/emotion-edge /var/lib/emotion-edge"
}

case "$*" in
    "") mode=install ;;
    --uninstall) mode=uninstall ;;
    *) log "usage: install.sh [--uninstall]" >&2; exit 2 ;;
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
