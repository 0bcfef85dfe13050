#!/usr/bin/env bash
# Seconds of CPU time that each crate takes to compile, in user mode and in the kernel, as lines of the file RUSTC_TIMES:
#
#   RUSTC_WRAPPER=$PWD/scripts/bench/rustc-times.sh RUSTC_TIMES=$PWD/target/times cargo test --workspace --no-run
#   sort -rnk2 target/times | head
name=
previous=
for word in "$@"; do
    [ "$previous" = --crate-name ] && name=$word
    previous=$word
done
TIMEFORMAT='%U %S'
status=0
{ seconds=$({ time "$@" 1>&4 2>&3; } 2>&1) || status=$?; } 3>&2 4>&1
[ -z "$name" ] || printf '%s %s\n' "$name" "$seconds" >> "${RUSTC_TIMES:?names a file}"
exit $status
