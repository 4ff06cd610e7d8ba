#!/bin/sh
# Makes plugin.pb.h and plugin.pb.c from plugin.proto; needs the nanopb generator 0.4 (Debian: apt-get install nanopb).
# Nobody who builds the SDK needs it: what it makes is committed, and tests/check_pb.py says when that is out of date.
set -eu
cd "$(dirname "$0")"
proto=../../../plugin-protocol/proto/plugin.proto
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cp "$proto" plugin.options "$work"
(cd "$work" && nanopb_generator.py --quiet --no-timestamp plugin.proto)
cp "$work/plugin.pb.h" "$work/plugin.pb.c" .
sha256sum "$proto" | cut -d ' ' -f 1 > plugin.proto.sha256
