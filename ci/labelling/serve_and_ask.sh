#!/usr/bin/env bash
# Start the server on this machine's own address, ask it, and stop it whatever happens.
set -euo pipefail
work="$1"
app=$work/app/monaibundle
ip link set lo up 2> /dev/null || true # a network namespace of its own starts without it
port="$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
url=http://127.0.0.1:$port
models="$(ls "$app/model" | paste -sd,)"

set -m # the server gets a process group of its own, to be ended with its training processes
monailabel start_server --app "$app" --studies "$work/studies" --conf models "$models" \
  --conf zoo_source local --conf sam2 false --host 127.0.0.1 --port "$port" \
  > "$work/server.log" 2>&1 &
server=$!
trap 'kill -- -$server 2> /dev/null || true; wait $server 2> /dev/null || true' EXIT

for _ in $(seq 120); do
  python -c "import urllib.request as u; u.urlopen('$url/info/', timeout=5)" 2> /dev/null && up=yes && break
  kill -0 $server 2> /dev/null || break
  sleep 1
done
if [ "${up:-no}" = no ]; then
  tail -n 40 "$work/server.log"
  echo "the server did not start"
  exit 1
fi
echo "up at $url"
python ci/label_check.py ask "$url" "$work" || { tail -n 40 "$work/server.log"; exit 1; }
