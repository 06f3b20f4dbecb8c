/* Alder Lake and later laptops, N100: the dot instructions on vectors of 256 bits. */
#define LEVEL_X86
#define LEVEL level_avx_vnni
#define LEVEL_AVX_VNNI
#define LEVEL_GCC 11
#define LEVEL_CLANG 12
#define LEVEL_NAME "avx_vnni"
#define LEVEL_TARGET "avx2,fma,f16c,bmi2,avxvnni"
#include "level.inc"
