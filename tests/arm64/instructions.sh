#!/usr/bin/env bash
# Count the instructions that parts of a model take on emulated arm64: our kernels' and onnxruntime's.
# Needs also gcc and Debian's qemu-user, whose emulator takes plugins.
#   tests/arm64/instructions.sh build/arm64
set -euo pipefail

# shellcheck source=tests/arm64/system.sh
source "$(dirname "$0")/system.sh"

count_works() { emulated "$repository/tests/arm64/works.py" "$@"; }

fail() {
  tail -n 5 "$1" >&2
  exit 1
}

gcc -O2 -shared -fPIC "$repository/tests/arm64/instructions.c" -o "$build/instructions.so"
for processor in cortex-a76 max; do
  describe_processor "$processor"
  write_launcher "$processor" "qemu-aarch64 -plugin $build/instructions.so"
  level=dotprod
  [ "$processor" = cortex-a76 ] || level=i8mm
  count_works > "$build/works" 2> "$build/theirs" || fail "$build/theirs"
  count_works "$level" > "$build/works" 2> "$build/ours" || fail "$build/ours"
  echo "instructions on $processor"
  "$native" "$repository/tests/arm64/instructions.py" "$build/works" "$build/ours" "$build/theirs"
done
