#!/bin/sh
# The unit under a real systemd: run.py boots a Debian that starts this, and reads what it prints.
# One line for each thing that holds; the first that does not ends it. The last line is "all well".
set -eu
trap 'systemctl --no-pager status emotion-edge || true; journalctl --no-pager --lines=60 || true' EXIT

config=/etc/emotion-edge/config.toml
password=kept-by-systemd
subscribe() { mosquitto_sub -h 127.0.0.1 -u reader -P "$password" "$@"; }
pid() { systemctl show --property=MainPID --value emotion-edge; }
within() { # SECONDS COMMAND...
    left=$1
    shift
    until "$@"; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || { echo "FAILED: $*"; exit 1; }
        sleep 1
    done
}
is_active() { systemctl is-active --quiet emotion-edge; }
is_online() { [ "$(subscribe -W 2 -C 1 -t emotion/room-1/availability)" = online ]; }
page_says() { # STATUS PATH [HEADER VALUE]
    /opt/emotion-edge/bin/python -c "
import sys
from http.client import HTTPConnection
page = HTTPConnection('127.0.0.1', 8770, timeout=2)
page.request('GET', sys.argv[2], headers=dict([sys.argv[3:]] if sys.argv[3:] else []))
sys.exit(page.getresponse().status != int(sys.argv[1]))" "$@" 2>/dev/null
}
is_another() { new=$(pid); [ "$new" != 0 ] && [ "$new" != "$1" ] && is_active; }
has_failed() { systemctl is-failed --quiet emotion-edge; }

# A broker that requires the password, which only root may read.
mosquitto_passwd -b -c /etc/mosquitto/passwd room-1 "$password"
mosquitto_passwd -b /etc/mosquitto/passwd reader "$password"
chown mosquitto: /etc/mosquitto/passwd
printf 'listener 1883 127.0.0.1\nallow_anonymous false\npassword_file /etc/mosquitto/passwd\n' \
    >/etc/mosquitto/conf.d/room.conf
systemctl restart mosquitto
within 20 is_active
echo "the unit starts without a password file"
sed -i 's/^host = .*/&\nusername = "room-1"/' "$config"
(umask 077; echo "$password" >/etc/emotion-edge/mqtt-password)
systemctl restart emotion-edge
within 20 is_online
echo "the password reaches the daemon as a credential: online"
subscribe -W 40 -C 1 -t emotion/room-1/event | grep -q '"specversion"'
echo "an event is received"
within 20 page_says 200 /healthz
echo "the page is served"

main=$(pid)
grep -q '^CapEff:[[:space:]]*0*$' "/proc/$main/status"
grep -q '^NoNewPrivs:[[:space:]]*1' "/proc/$main/status"
grep -q '^Seccomp:[[:space:]]*2' "/proc/$main/status"
grep -q '^Max core file size *0 *0' "/proc/$main/limits"
[ "$(stat -c %u "/proc/$main")" -gt 60000 ]
[ "$(stat -c %a /var/lib/private/emotion-edge)" = 700 ]
if tr '\0' '\n' <"/proc/$main/environ" | grep -q "$password"; then exit 1; fi
if journalctl | grep -q "$password"; then exit 1; fi
echo "a user of its own, no capabilities, a syscall filter, no core dumps, no secret in sight"

kill -KILL "$main"
within 20 is_another "$main"
within 20 is_online
echo "killed: back"

mkdir -p /run/systemd/system/emotion-edge.service.d
printf '[Service]\nWatchdogSec=4\n' >/run/systemd/system/emotion-edge.service.d/short.conf
systemctl daemon-reload
systemctl restart emotion-edge
within 20 is_online
main=$(pid)
kill -STOP "$main"
within 30 is_another "$main"
journalctl --unit=emotion-edge | grep -q 'Watchdog timeout'
within 20 is_online
echo "hung: killed by the watchdog, and back"

systemctl stop emotion-edge
emotion-edge doctor
systemctl start emotion-edge
echo "the doctor reports no failure, with the password that only root may read"

cp "$config" /tmp/good.toml
(umask 077; echo open-sesame >/etc/emotion-edge/dashboard-token)
printf '[Service]\nLoadCredential=dashboard-token:/etc/emotion-edge/dashboard-token\n' \
    >/run/systemd/system/emotion-edge.service.d/token.conf
printf '[dashboard]\nbind = "0.0.0.0:8770"\ntoken_file = "%s"\n' \
    /run/credentials/emotion-edge.service/dashboard-token >>"$config"
systemctl daemon-reload
systemctl restart emotion-edge
within 20 page_says 401 /metrics
page_says 200 /metrics Authorization "Bearer open-sesame"
echo "a page for others wants the token, a credential, too"

cp /tmp/good.toml "$config"
echo 'nonsense = 1' >>"$config"
systemctl restart emotion-edge || true
within 20 has_failed
[ "$(systemctl show --property=ExecMainStatus --value emotion-edge)" = 3 ]
journalctl --unit=emotion-edge | grep -q 'nonsense: unknown key'
cp /tmp/good.toml "$config"
systemctl restart emotion-edge
within 20 is_online
echo "a config that is wrong: one sentence and no restarts"

main=$(pid)
/source/systemd/install.sh --uninstall
[ ! -e "/proc/$main" ]
[ ! -e /etc/systemd/system/emotion-edge.service ]
[ -e "$config" ]
[ -d /var/lib/private/emotion-edge ]
echo "uninstalled: stopped, and config and events are kept"
trap - EXIT
echo "all well"
