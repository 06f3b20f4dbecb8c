/* Powers of two, and GELU, which is made of them. */
#ifndef POWERS_H
#define POWERS_H
#include "simd.h"

#define AT_ONCE 4 /* vectors of a function of some, at most */

/* 2 to the power of each x <= 0, by `terms` of which the last is that of x to the power of 0. Step by step for
 * all of them, for no step of one can begin before its last one has ended. */
INLINE void powers_by_terms(Floats *x, const int count, const float *terms, const int term_count) {
  Floats sums[AT_ONCE];
  Ints whole[AT_ONCE];
  EACH_OF(count, i) {
    x[i] = larger(x[i], all_floats(-126));
    sums[i] = all_floats(terms[0]);
  }
  EACH_OF(count, i) whole[i] = rounded(x[i]);
  EACH_OF(count, i) x[i] -= floats_of(whole[i]);
  for (int term = 1; term < term_count; term++)
    EACH_OF(count, i) sums[i] = sums[i] * x[i] + terms[term];
  EACH_OF(count, i) x[i] = (Floats)((Words)sums[i] + ((Words)whole[i] << 23)); /* a float32's exponent */
}

/* To 1e-7 of it, as Cephes' exp2f; 2^-126 for less than that. */
INLINE void powers_of_two(Floats *x, const int count) {
  static const float terms[] = {1.535336188e-4f, 1.339887440e-3f, 9.618437357e-3f, 5.550332471e-2f,
                                2.402264791e-1f, 6.931472028e-1f, 1};
  powers_by_terms(x, count, terms, 7);
}

INLINE Floats power_of_two(Floats x) {
  powers_of_two(&x, 1);
  return x;
}

/* GELU by tanh: x times the logistic function of 2 * sqrt(2 / pi) * (x + 0.044715 x^3). What is not a number
 * stays none: x86 returns the second number where one is none. */
INLINE void gelus(Floats *x, const int count) {
  const float factor = 2.302208198f; /* 2 * sqrt(2 / pi) * log2(e) */
  Floats powers[AT_ONCE], zero = {0};
  EACH_OF(count, i) powers[i] = -absolute((x[i] * x[i] * 0.044715f + 1) * x[i]) * factor;
  powers_of_two(powers, count);
  EACH_OF(count, i) x[i] = (larger(zero, x[i]) + smaller(zero, x[i]) * powers[i]) / (powers[i] + 1);
}

INLINE Floats gelu(Floats x) {
  gelus(&x, 1);
  return x;
}

/* To 1e-4 of it. */
#if LANES == 16
INLINE Floats rough_power_of_two(Floats x) {
  Floats rest = (Floats)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF);
  Floats sum = all_floats(0.078024828f) * rest + 0.226066738f;
  sum = sum * rest + 0.695833658f;
  sum = sum * rest + 0.999925224f;
  return (Floats)_mm512_scalef_ps((__m512)sum, (__m512)x);
}
#else
INLINE Floats rough_power_of_two(Floats x) {
  static const float terms[] = {0.05550327f, 0.24226275f, 0.6931472f, 0.99992996f};
  powers_by_terms(&x, 1, terms, 4);
  return x;
}
#endif
#endif
