#!/bin/bash
# Obeys the orders of tier 0 (tools/conformance/ORDERS.md): started once for each stream, which is its stdin and stdout.
# Run: p2pos-conformance plugin --tier0 -- bash plugins/hello-sh/conformance/agent.sh
set -eu
# Bytes, not characters: what follows may be anything.
export LC_ALL=C

# `read` takes its line byte by byte, so what stands behind it is still there for the programs that we start.
read -r order argument
case $order in
env)
    printf 'protocol %s\npeer %s\npetname %s\n' "$P2POS_PROTOCOL" "$P2POS_REMOTE_PEER" "$P2POS_REMOTE_PETNAME"
    ;;
echo)
    exec cat
    ;;
count)
    exec wc -c
    ;;
lines)
    # IFS= and -r keep a line as it is. The last one may have no end: then `read` fails, having read it.
    while IFS= read -r line; do printf '%s\n' "$line"; done
    printf %s "$line"
    ;;
source)
    head -c "$argument" /dev/zero | tr '\0' x
    ;;
fail)
    exit "$argument"
    ;;
*)
    echo "what is $order?" >&2
    exit 64
    ;;
esac
