#!/usr/bin/env bash
# Count the instructions that parts of a model take on emulated arm64: our kernels' and onnxruntime's.
# Needs also gcc and Debian's qemu-user, whose emulator takes plugins.
#   tests/arm64/instructions.sh build/arm64
set -euo pipefail

# shellcheck source=tests/arm64/system.sh
source "$(dirname "$0")/system.sh"

gcc -O2 -shared -fPIC "$repository/tests/arm64/instructions.c" -o "$build/instructions.so"
for processor in cortex-a76 max; do
  describe_processor "$processor"
  write_launcher "$processor" "qemu-aarch64 -plugin $build/instructions.so"
  level=dotprod
  [ "$processor" = cortex-a76 ] || level=i8mm
  emulated "$repository/tests/arm64/works.py" > "$build/works" 2> "$build/theirs"
  emulated "$repository/tests/arm64/works.py" "$level" > "$build/works" 2> "$build/ours"
  echo "instructions on $processor"
  "$native" "$repository/tests/arm64/instructions.py" "$build/works" "$build/ours" "$build/theirs"
done
