/* Loads of bfloat16 numbers as floats. */
#ifndef BFLOAT_H
#define BFLOAT_H
#include "simd.h"

typedef uint16_t Bfloats __attribute__((vector_size(LANES * 2)));
typedef uint32_t BfloatPairs __attribute__((vector_size(LANES * 2)));
typedef uint64_t BfloatFours __attribute__((vector_size(LANES * 2)));

/* bfloat16 is the upper half of a float. */
INLINE Floats floats_of_bfloats(Bfloats x) {
#if LANES == 4
  return (Floats)vshll_n_u16((uint16x4_t)x, 16); /* gcc 12 converts these lane by lane */
#else
  return (Floats)(__builtin_convertvector(x, Words) << 16);
#endif
}

INLINE float float_of_bfloat(uint16_t x) {
  uint32_t bits = (uint32_t)x << 16;
  float number;
  memcpy(&number, &bits, sizeof number);
  return number;
}

/* bfloat16 numbers of any count, as load_some_floats gives floats. */
INLINE Floats load_some_bfloats(const uint16_t *from, ptrdiff_t count) {
  Bfloats x = {0};
  if (count >= LANES) memcpy(&x, from, sizeof x);
#if LANES == 16
  else x = (Bfloats)_mm256_maskz_loadu_epi16((__mmask16)((1u << count) - 1), from);
#else
  else
    for (ptrdiff_t i = 0; i < count; i++) x[i] = from[i];
#endif
  return floats_of_bfloats(x);
}

/* The same, but that two or four numbers are in all lanes, again and again. */
INLINE Floats load_repeated_bfloats(const uint16_t *from, ptrdiff_t count) {
  uint32_t two;
  uint64_t four;
  if (count == 2) {
    memcpy(&two, from, sizeof two);
    return floats_of_bfloats((Bfloats)(two - (BfloatPairs){0}));
  }
  if (count == 4) {
    memcpy(&four, from, sizeof four);
    return floats_of_bfloats((Bfloats)(four - (BfloatFours){0}));
  }
  return load_some_bfloats(from, count);
}
#endif
