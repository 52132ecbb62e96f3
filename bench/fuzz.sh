#!/bin/sh
# Runs every fuzz target of the module for a time: fuzz.sh 5s
set -eu
time=${1:?usage: fuzz.sh DURATION}
for package in $(go list ./...); do
	for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		echo "fuzz $package $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x -parallel 2 "$package"
	done
done
