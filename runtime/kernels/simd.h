/* The portable layer that every kernel is written over. A file of `levels/` says which processor it is
 * for and includes the kernels, which are so compiled once for each level.
 *
 * Vectors are those of gcc and clang: arithmetic between them needs no function. A vector has LANES
 * lanes of 32 bits. What the compilers have no operator for stands here, a few lines a level:
 *
 *   Sums add_dots(Sums, Bytes u, Bytes s)     four products of u8 by s8 are added to each lane; u is
 *                                             below 128, or an int8 plus DOT_OFFSET (none on Arm)
 *   Ints widened(Sums)                        the sums as int32, where int16 holds what they end with
 *   Ints add_pair_dots(Ints, Ints a, Ints b)  two products of int16 by int16 are added to each lane
 *   Ints pairs_of(Floats even, Floats odd)    numbers rounded to int16, as pairs for add_pair_dots
 *
 * Without a dot instruction (AVX2), Sums are int16, which wrap: DOTS says how many additions of products up to
 * LARGEST_DOT they hold. Elsewhere they are int32.
 */
#ifndef SIMD_H
#define SIMD_H
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define EACH_OF(count, i) _Pragma("GCC unroll 16") for (int i = 0; i < (count); i++)

#if defined(LEVEL_AVX2) || defined(LEVEL_AVX_VNNI)
#define LANES 8
#elif defined(LEVEL_AVX512) || defined(LEVEL_AMX)
#define LANES 16
#else
#define LANES 4
#endif

INLINE ptrdiff_t least(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef uint32_t Words __attribute__((vector_size(LANES * 4)));
typedef int8_t Bytes __attribute__((vector_size(LANES * 4)));
typedef uint8_t UBytes __attribute__((vector_size(LANES * 4)));
typedef uint64_t Longs __attribute__((vector_size(LANES * 4)));

INLINE Floats load_floats(const void *from) {
  Floats x;
  memcpy(&x, from, sizeof x);
  return x;
}

INLINE Ints load_ints(const void *from) {
  Ints x;
  memcpy(&x, from, sizeof x);
  return x;
}

INLINE void store_floats(void *to, Floats x) { memcpy(to, &x, sizeof x); }
INLINE void store_ints(void *to, Ints x) { memcpy(to, &x, sizeof x); }

INLINE Floats all_floats(float x) { return x - (Floats){0}; }
INLINE Ints all_ints(int32_t x) { return x - (Ints){0}; }

INLINE Ints lane_numbers(void) {
  Ints x;
  for (int i = 0; i < LANES; i++) x[i] = i;
  return x;
}

/* Less than LANES numbers, zeros after them; nothing beyond them is read. */
INLINE Floats load_first_floats(const float *from, ptrdiff_t count) {
#if LANES == 16
  return (Floats)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
#elif LANES == 8
  return (Floats)_mm256_maskload_ps(from, (__m256i)(lane_numbers() < (int32_t)count));
#else
  Floats x = {0};
  for (ptrdiff_t i = 0; i < count; i++) x[i] = from[i];
  return x;
#endif
}

/* The same of any count. */
INLINE Floats load_some_floats(const float *from, ptrdiff_t count) {
  return count >= LANES ? load_floats(from) : load_first_floats(from, count);
}

/* The same, but that two or four numbers are in all lanes, again and again: masks are slower. */
INLINE Floats load_repeated_floats(const float *from, ptrdiff_t count) {
  if (count == 2) {
    uint64_t two;
    memcpy(&two, from, sizeof two);
    return (Floats)(two - (Longs){0});
  }
#if LANES == 16
  if (count == 4) return (Floats)_mm512_broadcast_f32x4(_mm_loadu_ps(from));
#endif
  return load_first_floats(from, count);
}

/* The lanes of `x` at `places`. */
INLINE Floats lanes_at(Floats x, Ints places) {
#if LANES == 16
  return (Floats)_mm512_permutexvar_ps((__m512i)places, (__m512)x);
#elif LANES == 8
  return (Floats)_mm256_permutevar8x32_ps((__m256)x, (__m256i)places);
#else
  Floats y;
  for (int i = 0; i < LANES; i++) y[i] = x[places[i]];
  return y;
#endif
}

/* Lane i is lane places[i] of x, or of y from LANES on. */
INLINE Ints lanes_of_two(Ints x, Ints y, Ints places) {
#ifdef __clang__
  Ints out;
  for (int i = 0; i < LANES; i++) out[i] = places[i] < LANES ? x[places[i]] : y[places[i] - LANES];
  return out;
#else
  return __builtin_shuffle(x, y, places);
#endif
}

/* Numbers [column][row] to [row][column]. */
INLINE void transpose_square(Ints r[LANES]) {
  Ints low, high, t[LANES];
  for (int i = 0; i < LANES; i++) {
    low[i] = i / 2 + i % 2 * LANES;
    high[i] = LANES / 2 + i / 2 + i % 2 * LANES;
  }
  for (int step = 1; step < LANES; step *= 2) {
    for (int i = 0; i < LANES / 2; i++) {
      t[2 * i] = lanes_of_two(r[i], r[i + LANES / 2], low);
      t[2 * i + 1] = lanes_of_two(r[i], r[i + LANES / 2], high);
    }
    for (int i = 0; i < LANES; i++) r[i] = t[i];
  }
}

INLINE void store_some_floats(float *to, Floats x, ptrdiff_t count) {
  if (count >= LANES) store_floats(to, x);
  else
    for (ptrdiff_t i = 0; i < count; i++) to[i] = x[i];
}

INLINE Floats floats_of(Ints x) { return __builtin_convertvector(x, Floats); }

/* Added to an int8 to make it the first factor of add_dots. The sums are then larger by it times the sum
 * of the second factors. */
#define DOT_OFFSET (LANES == 4 ? 0 : 128)

/* Vectors that a tile of sums is wide. Of 16 registers 12 hold sums, or 8 where a product takes one too. */
#ifdef LEVEL_AVX_VNNI
#define TILE_VECTORS 3
#else
#define TILE_VECTORS (LANES == 4 ? 3 : 2)
#endif

#if LANES == 16
#define DOTS INT32_MAX
typedef Ints Sums;
INLINE Floats larger(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE Floats smaller(Floats a, Floats b) { return (Floats)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE Ints rounded(Floats x) { return (Ints)_mm512_cvtps_epi32((__m512)x); }
INLINE Floats floats_of_bytes(const int8_t *from) {
  return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from)));
}
INLINE void store_bytes(int8_t *to, Ints x) {
  _mm_storeu_si128((__m128i *)to, _mm512_cvtsepi32_epi8((__m512i)x));
}
INLINE float lane_sum(Floats x) { return _mm512_reduce_add_ps((__m512)x); }
INLINE float lane_maximum(Floats x) { return _mm512_reduce_max_ps((__m512)x); }
INLINE Sums add_dots(Sums sums, Bytes u, Bytes s) {
  return (Ints)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)u, (__m512i)s);
}
INLINE Ints add_pair_dots(Ints sums, Ints a, Ints b) {
  return (Ints)_mm512_dpwssd_epi32((__m512i)sums, (__m512i)a, (__m512i)b);
}

/* The sum over the lanes of each of LANES vectors. */
INLINE Floats lane_sums(const Floats x[LANES]) {
  __m512 four[4], two[2];
  for (int i = 0; i < 4; i++) {
    __m512d half[2];
    for (int j = 0; j < 2; j++) {
      __m512 a = (__m512)x[4 * i + 2 * j], b = (__m512)x[4 * i + 2 * j + 1];
      half[j] = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
    }
    four[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(half[0], half[1])),
                            _mm512_castpd_ps(_mm512_unpackhi_pd(half[0], half[1])));
  }
#define QUARTERS(a, b) \
  _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd))
  for (int i = 0; i < 2; i++) two[i] = QUARTERS(four[2 * i], four[2 * i + 1]);
  return (Floats)QUARTERS(two[0], two[1]);
}

#elif LANES == 8
INLINE Floats larger(Floats a, Floats b) { return (Floats)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE Floats smaller(Floats a, Floats b) { return (Floats)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE Ints rounded(Floats x) { return (Ints)_mm256_cvtps_epi32((__m256)x); }
INLINE Floats floats_of_bytes(const int8_t *from) {
  return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)from)));
}
INLINE void store_bytes(int8_t *to, Ints x) {
  __m128i low = _mm256_castsi256_si128((__m256i)x), high = _mm256_extracti128_si256((__m256i)x, 1);
  __m128i halves = _mm_packs_epi32(low, high);
  _mm_storel_epi64((__m128i *)to, _mm_packs_epi16(halves, halves));
}
INLINE Floats lane_sums(const Floats x[LANES]) {
  __m256 two[4], four[2];
  for (int i = 0; i < 4; i++) two[i] = _mm256_hadd_ps((__m256)x[2 * i], (__m256)x[2 * i + 1]);
  for (int i = 0; i < 2; i++) four[i] = _mm256_hadd_ps(two[2 * i], two[2 * i + 1]);
  return (Floats)_mm256_add_ps(_mm256_permute2f128_ps(four[0], four[1], 0x20),
                               _mm256_permute2f128_ps(four[0], four[1], 0x31));
}
INLINE float lane_sum(Floats x) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
INLINE float lane_maximum(Floats x) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}
#ifdef LEVEL_AVX_VNNI
#define DOTS INT32_MAX
typedef Ints Sums;
INLINE Sums add_dots(Sums sums, Bytes u, Bytes s) {
  return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sums, (__m256i)u, (__m256i)s);
}
INLINE Ints add_pair_dots(Ints sums, Ints a, Ints b) {
  return (Ints)_mm256_dpwssd_avx_epi32((__m256i)sums, (__m256i)a, (__m256i)b);
}
#else
#define DOTS 8
#define LARGEST_DOT (INT16_MAX / DOTS) /* of two products */
typedef int16_t Sums __attribute__((vector_size(LANES * 4)));
INLINE Sums add_dots(Sums sums, Bytes u, Bytes s) {
  return (Sums)_mm256_add_epi16((__m256i)sums, _mm256_maddubs_epi16((__m256i)u, (__m256i)s));
}
INLINE Ints add_pair_dots(Ints sums, Ints a, Ints b) {
  return sums + (Ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
}
#endif

#else /* Arm */
#define DOTS INT32_MAX
typedef Ints Sums;
INLINE Floats larger(Floats a, Floats b) { return (Floats)vmaxq_f32((float32x4_t)a, (float32x4_t)b); }
INLINE Floats smaller(Floats a, Floats b) {
  return (Floats)vminq_f32((float32x4_t)a, (float32x4_t)b);
}
INLINE Ints rounded(Floats x) { return (Ints)vcvtnq_s32_f32((float32x4_t)x); }
INLINE Floats floats_of_bytes(const int8_t *from) {
  int8x8_t bytes = {0};
  memcpy(&bytes, from, LANES);
  return (Floats)vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))));
}
INLINE void store_bytes(int8_t *to, Ints x) {
  int16x4_t halves = vqmovn_s32((int32x4_t)x);
  int8x8_t bytes = vqmovn_s16(vcombine_s16(halves, halves));
  memcpy(to, &bytes, LANES);
}
INLINE Floats lane_sums(const Floats x[LANES]) {
  float32x4_t a = vpaddq_f32((float32x4_t)x[0], (float32x4_t)x[1]);
  return (Floats)vpaddq_f32(a, vpaddq_f32((float32x4_t)x[2], (float32x4_t)x[3]));
}
INLINE float lane_sum(Floats x) { return vaddvq_f32((float32x4_t)x); }
INLINE float lane_maximum(Floats x) { return vmaxvq_f32((float32x4_t)x); }

/* Signed by signed: without i8mm there is no instruction for u8 by s8. */
INLINE Sums add_dots(Sums sums, Bytes u, Bytes s) {
  return (Ints)vdotq_s32((int32x4_t)sums, (int8x16_t)u, (int8x16_t)s);
}

/* Of two rows times two outputs, and times the two that follow: the first row, or the last, of all four. */
INLINE Ints row_of_squares(int32x4_t left, int32x4_t right, const int is_last) {
  int64x2_t a = (int64x2_t)left, b = (int64x2_t)right;
  return (Ints)(is_last ? vzip2q_s64(a, b) : vzip1q_s64(a, b));
}

/* Pairs lie in planes: the even numbers of all lanes, then the odd ones. A pair of `b` is the same in
 * all lanes. */
INLINE Ints add_pair_dots(Ints sums, Ints a, Ints b) {
  int16x8_t planes = (int16x8_t)a, pair = (int16x8_t)b;
  int32x4_t even = vmlal_laneq_s16((int32x4_t)sums, vget_low_s16(planes), pair, 0);
  return (Ints)vmlal_high_laneq_s16(even, planes, pair, 1);
}
#endif

#if LANES == 4
INLINE Ints pairs_of(Floats even, Floats odd) {
  int16x4_t low = vqmovn_s32((int32x4_t)rounded(even));
  return (Ints)vqmovn_high_s32(low, (int32x4_t)rounded(odd));
}
#else
INLINE Ints pairs_of(Floats even, Floats odd) {
  return (rounded(even) & 0xffff) | (Ints)((__typeof__((uint32_t)0 + (Ints){0}))rounded(odd) << 16);
}
#endif

#ifdef LARGEST_DOT
INLINE Ints widened(Sums sums) {
  return (Ints)_mm256_madd_epi16((__m256i)sums, _mm256_set1_epi16(1));
}
/* Minus the sums of all lanes, as they lie in one. */
INLINE uint32_t minus_lane_total(Sums sums) {
  __m128i four = _mm_add_epi16(_mm256_castsi256_si128((__m256i)sums),
                               _mm256_extracti128_si256((__m256i)sums, 1));
  __m128i two = _mm_add_epi16(four, _mm_unpackhi_epi64(four, four));
  __m128i one = _mm_add_epi16(two, _mm_srli_epi64(two, 32));
  return (uint32_t)_mm_cvtsi128_si32(_mm_sub_epi16(_mm_setzero_si128(), one));
}
#else
INLINE Ints widened(Sums sums) { return sums; }
INLINE uint32_t minus_lane_total(Sums sums) {
  uint32_t total = 0;
  for (int i = 0; i < LANES; i++) total -= (uint32_t)sums[i];
  return total;
}
#endif

/* Minus the products of `count` bytes, zeros after them, with `factor`: what sums begin with that have them too
 * much. */
INLINE uint32_t minus_products(const int8_t *bytes, ptrdiff_t count, const int32_t factor) {
  const Bytes factors = (Bytes)all_ints((int32_t)((uint32_t)factor * 0x1010101u));
  Sums sums = {0};
  for (ptrdiff_t i = 0; i < count; i += 4 * LANES)
    sums = add_dots(sums, factors, (Bytes)load_ints(bytes + i));
  return minus_lane_total(sums);
}

INLINE Floats absolute(Floats x) { return (Floats)((Ints)x & 0x7fffffff); }
#endif
