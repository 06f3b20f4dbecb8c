/* Sapphire Rapids and later: tiles of int8 and bfloat16 beside AVX-512. */
#define LEVEL_X86
#define LEVEL level_amx
#define LEVEL_AMX
#define LEVEL_GCC 11
#define LEVEL_CLANG 12
#define LEVEL_NAME "amx"
#define LEVEL_TARGET                                                                           \
  "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,amx-tile,amx-int8," \
  "amx-bf16"
#include "level.inc"
