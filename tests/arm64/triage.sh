#!/usr/bin/env bash
# Triage a synthetic head CT with the demo engine on emulated arm64, on a processor of each kind that
# kernels are for, and compare each result with this machine's own.
#   tests/arm64/triage.sh build/arm64
set -euo pipefail

slices=${SLICES:-3}
# Without dot products, with them, and with matrix products of bytes; the kernels' level on each.
processors=${PROCESSORS:-cortex-a72 cortex-a76 max}
declare -A levels=([cortex-a72]=None [cortex-a76]=dotprod [max]=i8mm)

# shellcheck source=tests/arm64/system.sh
source "$(dirname "$0")/system.sh"

export XDG_CACHE_HOME="$build/cache"
# A synthetic scan: of a real one the demo engine says nothing that could be compared.
rm -rf "$XDG_CACHE_HOME" "$build/native" "$build/phantom"
"$native" -m edge_medgemma phantom draw "$build/phantom" --finding intracranial_haemorrhage
arguments=(triage "$build/phantom" --slices "$slices" --no-report --provider cpu)
"$native" -m edge_medgemma "${arguments[@]}" --out "$build/native" > /dev/null

level_in_use='from edge_medgemma.runtime.kernels.level import kernel_level; print(kernel_level())'
for processor in $processors; do
  describe_processor "$processor"
  write_launcher "$processor"
  level=$(emulated -c "$level_in_use")
  [ "$level" = "${levels[$processor]}" ] || {
    echo "on $processor the kernels' level is $level, not ${levels[$processor]}" >&2
    exit 1
  }
  rm -rf "$XDG_CACHE_HOME" "${build:?}/$processor"
  emulated -m edge_medgemma "${arguments[@]}" --out "$build/$processor"
  echo "$processor, kernels for $level:"
  "$native" "$repository/tests/arm64/compare.py" "$build/native/triage.json" "$build/$processor/triage.json"
done
