#!/bin/sh
# Runs the command of plugin.toml as the daemon would: its stdin and stdout are the stream, the caller's PeerId is in the environment.
set -eu
cd "$(dirname "$0")"

command=$(sed -n "s/^exec = \\[\"sh\", \"-c\", '\\(.*\\)'\\]\$/\\1/p" plugin.toml)
[ -n "$command" ] || { echo "no command found in plugin.toml" >&2; exit 1; }

# Arguments: what the caller writes, what the caller must read.
expect() {
    answer=$(printf "$1" | env -i PATH="$PATH" P2POS_REMOTE_PEER=p2p1test sh -c "$command")
    [ "$answer" = "$2" ] || { printf 'wrote %s\nread  %s\nnot   %s\n' "$1" "$answer" "$2" >&2; exit 1; }
}

expect 'ana\n' 'hello ana, you are p2p1test'
expect 'ana' 'hello ana, you are p2p1test'
expect '' 'hello , you are p2p1test'
expect '$(date) `id`; *\n' 'hello $(date) `id`; *, you are p2p1test'
echo "hello-sh: 4 exchanges as expected"
