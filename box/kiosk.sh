#!/bin/sh
# The page on this machine's own screen, in whatever browser there is.
set -eu

address=${EDGE_MEDGEMMA_PAGE:-http://127.0.0.1:8080/}
for browser in chromium chromium-browser google-chrome firefox; do
  if command -v "$browser" > /dev/null; then exec "$browser" --kiosk "$address"; fi
done
echo "error: no browser found; install chromium or firefox" >&2
exit 1
