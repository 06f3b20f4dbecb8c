#!/usr/bin/env bash
# Debian's DICOM peers, validators and browser that tests/runtime/clinic and tests/clinic call, and the
# compiler and emulator of arm64 that tests/direct_kernels calls.
# Tests without them are skipped, each with its reason; so this never fails, it only says what it did.
set -uo pipefail

packages=(
  chromium dcmtk dicom3tools fonts-noto-core libpango-1.0-0 libpangoft2-1.0-0
  orthanc orthanc-dicomweb poppler-utils
  gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
)

leave() {
  echo "peers of the tests: $1"
  exit 0
}

missing=()
if command -v dpkg-query > /dev/null; then
  for package in "${packages[@]}"; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)
    [ "$state" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || leave "all are installed"
fi
command -v apt-get > /dev/null || leave "no apt-get here; tests that need them are skipped"
[ "$(id -u)" = 0 ] || leave "not root, nothing installed; missing: ${missing[*]}"

# No service of theirs may start: tests start their own, on ports of their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod 755 "$policy" && trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
quick=(-o Acquire::Retries=1 -o Acquire::http::Timeout=10 -o Acquire::https::Timeout=10)
log=$(mktemp)
if timeout 120 apt-get update -q "${quick[@]}" > "$log" 2>&1 &&
  timeout 600 apt-get install -q -y --no-install-recommends "${quick[@]}" "${missing[@]}" >> "$log" 2>&1; then
  rm -f "$log"
  leave "installed ${missing[*]}"
fi
reason=$(grep -m 1 -E '^(E|W|Err)' "$log" || tail -n 1 "$log")
rm -f "$log"
leave "could not install ${missing[*]} (${reason:-timed out}); tests that need them are skipped"
