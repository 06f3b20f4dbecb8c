/* Haswell to Skylake, Zen 1 to 3: no dot instructions. */
#define LEVEL_X86
#define LEVEL level_avx2
#define LEVEL_AVX2
#define LEVEL_GCC 9
#define LEVEL_CLANG 9
#define LEVEL_NAME "avx2"
#define LEVEL_TARGET "avx2,fma,f16c,bmi2"
#include "level.inc"
