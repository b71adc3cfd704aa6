#!/bin/sh
# scenarios.sh: the scenarios with real servers and clients, with other
# implementations of OTR, and of the page in a browser. What could not be run is named in the last lines.
cd "$(dirname "$0")/.." || exit 1
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# One package after the other: the programs of the first wait for each other.
go test -count=1 -p 1 -v -timeout 15m ./test/real ./test/interop ./test/browser ./test/packages >"$log" 2>&1
code=$?
if [ $code != 0 ]; then
	grep -aE '^ *--- (FAIL|SKIP)|_test.go:[0-9]+:|^(FAIL|panic)' "$log" | cut -c1-400
	echo "--- the end of the log:"
	tail -c 4000 "$log"
fi
passed=$(grep -ac '^ *--- PASS' "$log")
failed=$(grep -ac '^ *--- FAIL' "$log")
skipped=$(grep -ac '^ *--- SKIP' "$log")
grep -aE '^(ok|FAIL|---)' "$log" | head -60
grep -aoE '(matrix|crossing|via|capture|texts): [0-9].*' "$log"
echo "scenarios: $passed passed, $failed failed, $skipped skipped"
missing=$(grep -aoE 'missing program: [^ ]+' "$log" | sort -u)
if [ -n "$missing" ]; then
	echo "not run, for want of these programs:"
	echo "$missing"
fi
exit $code
