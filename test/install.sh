#!/bin/sh
# install.sh [PACKAGE...]: installs what the scenarios need, where root or sudo is
# there and something is missing. It never fails: the scenarios name what is missing.
cd "$(dirname "$0")/.." || exit 0
packages="prosody ejabberd mcabber bitlbee bitlbee-plugin-otr python3-slixmpp go-sendxmpp"
[ $# -gt 0 ] && packages="$*"
missing=""
for p in $packages; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q "ok installed" || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
command -v apt-get >/dev/null || exit 0
sudo=""
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null && sudo -n true 2>/dev/null || exit 0
	sudo="sudo -n"
fi
echo "installing:$missing"
# The services are started by the tests themselves, on addresses of their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null && $sudo chmod 755 $policy
	trap '$sudo rm -f $policy' EXIT
fi
log=$(mktemp)
$sudo apt-get update -qq >"$log" 2>&1
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends $missing >>"$log" 2>&1 || { echo "apt-get could not install everything:"; tail -5 "$log"; }
rm -f "$log"
exit 0
