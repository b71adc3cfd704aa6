#!/bin/sh
# install.sh [PACKAGE...]: installs what the scenarios need, where root or sudo is
# there and something is missing. It never fails: the scenarios name what is missing.
cd "$(dirname "$0")/.." || exit 0
packages="prosody ejabberd mcabber bitlbee bitlbee-plugin-otr profanity pidgin pidgin-otr xvfb xdotool dbus dbus-bin
	python3-slixmpp python3-nbxmpp python3-gi gir1.2-soup-3.0 libstrophe-dev libloudmouth1-dev libpurple-dev pkg-config
	python3-potr go-sendxmpp libotr5-dev libgcrypt20-dev chromium fonts-dejavu-core iproute2 tor gajim systemd
	nftables prometheus openssl util-linux lintian mmdebstrap qemu-user-static rpm wine wine64 gcc-mingw-w64-x86-64-posix"
command -v cc >/dev/null || packages="$packages gcc libc6-dev"
command -v node >/dev/null || packages="$packages nodejs"
command -v npm >/dev/null || packages="$packages npm"
[ $# -gt 0 ] && packages="$*"
missing=""
for p in $packages; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q "ok installed" || missing="$missing $p"
done
if [ -n "$missing" ] && command -v apt-get >/dev/null; then
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
fi
# The JavaScript implementation of OTR; axe-core, which checks pages for accessibility; and
# Converse.js, a client in a browser; Strophe.js, and a DOM to read with it and Converse.js
# without a browser: at the versions and hashes of their lock files.
for module in test/interop/peers/node_modules/otr test/browser/node_modules/axe-core test/browser/node_modules/converse.js \
	test/readers/clients/node_modules/strophe.js test/readers/clients/node_modules/jsdom; do
	if [ $# = 0 ] && [ ! -d $module ] && command -v npm >/dev/null; then
		log=$(mktemp)
		(cd ${module%/node_modules/*} && npm ci >"$log" 2>&1) || { echo "npm could not install ${module##*/}:"; tail -5 "$log"; }
		rm -f "$log"
	fi
done
exit 0
