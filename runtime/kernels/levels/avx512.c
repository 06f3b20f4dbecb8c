/* Ice Lake, Tiger Lake, Zen 4 and later: vectors of 512 bits with AVX512_VNNI. */
#define LEVEL_X86
#define LEVEL level_avx512
#define LEVEL_AVX512
#define LEVEL_GCC 9
#define LEVEL_CLANG 9
#define LEVEL_NAME "avx512"
#define LEVEL_TARGET "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni"
#include "level.inc"
