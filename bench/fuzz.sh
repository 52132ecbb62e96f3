#!/bin/sh
# Runs every fuzz target of the module for a time: fuzz.sh 5s
set -eu
time=${1:?usage: fuzz.sh DURATION}
# Asking go test -list would build the tests of every package.
for file in $(grep -rl --include='*_test.go' '^func Fuzz' .); do
	package=$(dirname "$file")
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		echo "fuzz $package $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x -parallel 2 "$package"
	done
done
