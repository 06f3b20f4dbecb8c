#include "level.h"

#include <stdint.h>
#include <string.h>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(__x86_64__)
#include <cpuid.h>

enum { LEAF_7_B, LEAF_7_C, LEAF_7_D, LEAF_7_1_A, WORDS };

/* Feature bits of the Intel manual, volume 2A, CPUID. */
static void read_features(uint32_t words[WORDS]) {
  unsigned a, b, c, d;
  memset(words, 0, WORDS * sizeof *words);
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
  words[LEAF_7_B] = b, words[LEAF_7_C] = c, words[LEAF_7_D] = d;
  if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) words[LEAF_7_1_A] = a;
}

/* Which registers the operating system keeps, as XGETBV says; 0 without OSXSAVE. */
static uint64_t kept_registers(void) {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0;
  __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
  return (uint64_t)d << 32 | a;
}

/* FMA, F16C: leaf 1; AVX2, BMI2: leaf 7. */
static int has_avx2(const uint32_t *words) {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 12 & 1) || !(c >> 29 & 1)) return 0;
  return (words[LEAF_7_B] >> 5 & 1) && (words[LEAF_7_B] >> 8 & 1) && (kept_registers() & 6) == 6;
}

/* F, DQ, BW, VL, VNNI. */
static int has_avx512(const uint32_t *words) {
  uint32_t b = words[LEAF_7_B], needed = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
  return has_avx2(words) && (b & needed) == needed && (words[LEAF_7_C] >> 11 & 1) &&
         (kept_registers() & 0xe6) == 0xe6;
}

/* AVX512_BF16, AMX-BF16, AMX-TILE, AMX-INT8; Linux lets a process use tiles when it has asked. */
static int has_amx(const uint32_t *words) {
  uint32_t d = words[LEAF_7_D], needed = 1u << 22 | 1u << 24 | 1u << 25;
  if (!has_avx512(words) || (d & needed) != needed || !(words[LEAF_7_1_A] >> 5 & 1)) return 0;
#if defined(__linux__) && defined(SYS_arch_prctl)
  enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
  return 0;
#endif
}

int level_is_claimed(const Level *level) {
  uint32_t words[WORDS];
  if (!level->decode) return 0;
  read_features(words);
  if (level == &level_amx) return has_amx(words);
  if (level == &level_avx512) return has_avx512(words);
  if (level == &level_avx_vnni) return has_avx2(words) && (words[LEAF_7_1_A] >> 4 & 1);
  return level == &level_avx2 && has_avx2(words);
}
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

/* Bits of AT_HWCAP and AT_HWCAP2, Documentation/arch/arm64/elf_hwcaps.rst. */
int level_is_claimed(const Level *level) {
  int has_dotprod = getauxval(AT_HWCAP) >> 20 & 1, has_i8mm = getauxval(AT_HWCAP2) >> 13 & 1;
  if (!level->decode) return 0;
  return has_dotprod && (level == &level_dotprod || (level == &level_i8mm && has_i8mm));
}
#else
int level_is_claimed(const Level *level) { return (void)level, 0; }
#endif

const Level *const all_levels[] = {&level_amx,  &level_avx512,  &level_avx_vnni, &level_avx2,
                                   &level_i8mm, &level_dotprod, NULL};

static const Level *in_use;

const Level *level_in_use(void) { return in_use; }
void use_level(const Level *level) { in_use = level; }
