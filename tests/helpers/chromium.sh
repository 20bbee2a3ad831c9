#!/bin/sh
# Make sure that a Chromium is there for the browser tests: the one in $CHROMIUM or on the PATH,
# else Debian's package, else the one that playwright brings.
set -eu
for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome; do
    if [ -n "$name" ] && command -v "$name" >/dev/null 2>&1; then exit 0; fi
done
as_root=""
if [ "$(id -u)" != 0 ] && command -v sudo >/dev/null 2>&1; then as_root="sudo -n"; fi
if command -v apt-get >/dev/null 2>&1; then
    echo "Installing Chromium for the browser tests." >&2
    if $as_root apt-get update -qq && $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends chromium >/dev/null; then exit 0; fi
fi
exec "${VENV:-.venv}/bin/python" -m playwright install --with-deps chromium
