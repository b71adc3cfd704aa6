#!/bin/sh
# fuzz.sh N: every fuzz target for N executions (such as 40000x), seeds first.
cd "$(dirname "$0")/.." || exit 1
count=${1:-40000x}
for pkg in $(grep -rl --include='*_test.go' --exclude-dir=node_modules '^func Fuzz' stanza config otrlayer proxy cmd | xargs -n1 dirname | sort -u | sed 's|^|./|'); do
	for target in $(grep -ho '^func Fuzz[A-Za-z0-9]*' "$pkg"/*_test.go | sed 's/func //'); do
		if ! out=$(test/quiet.sh go test -run '^$' -fuzz "^$target\$" -fuzztime "$count" -fuzzminimizetime 5s "$pkg"); then
			echo "$out"
			exit 1
		fi
		echo "$out" | grep -E '^ok|^fuzz: elapsed' | tail -2 | sed "s/^/$target: /"
	done
done
