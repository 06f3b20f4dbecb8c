/* Every kernel of every level that this processor claims: a line for each with its largest difference
 * from the formula. Exit status 1 where one is too large. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"

#define SEED 0x9e3779b97f4a7c15u
static uint64_t state;

/* xorshift64* of Vigna, 2016. */
double drawn(double low, double high) {
  state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
  double unit = (double)(state * 0x2545f4914f6cdd1du >> 11) / (double)(1ull << 53);
  return low + unit * (high - low);
}

void draw_floats(float *to, ptrdiff_t count, double low, double high) {
  for (ptrdiff_t i = 0; i < count; i++) to[i] = (float)drawn(low, high);
}

void draw_bytes(int8_t *to, ptrdiff_t count, int low, int high) {
  for (ptrdiff_t i = 0; i < count; i++) to[i] = (int8_t)floor(drawn(low, high + 1));
}

void *allocated(ptrdiff_t count, size_t size) {
  void *memory = calloc((size_t)count, size);
  if (memory) return memory;
  fprintf(stderr, "no memory for %td x %zu bytes\n", count, size);
  exit(2);
}

double difference(const float *given, const double *expected, ptrdiff_t count) {
  double largest = 0, size = 0;
  for (ptrdiff_t i = 0; i < count; i++) {
    if (!isfinite(given[i])) return INFINITY;
    largest = fmax(largest, fabs(given[i] - expected[i]));
    size = fmax(size, fabs(expected[i]));
  }
  return largest / size;
}

static int wrong;

static void report(const Level *level, const char *kernel, double largest, double limit) {
  int is_wrong = !(largest <= limit);
  printf("%s %s %.2e%s\n", level->name, kernel, largest, is_wrong ? " WRONG" : "");
  wrong |= is_wrong;
}

int main(void) {
  for (const Level *const *level = all_levels; *level; level++) {
    if (!level_is_claimed(*level)) continue;
    state = SEED;
    report(*level, "linear", check_linear((*level)->linear), 1e-5);
    report(*level, "norm", check_norm((*level)->norm), 2e-6);
    report(*level, "decode", check_decode((*level)->decode), 1e-5);
    report(*level, "attention", check_attention((*level)->attention),
           *level == &level_amx ? 2e-2 : 2e-3); /* tiles are of bfloat16 */
    report(*level, "attention-bytes", check_attention_bytes((*level)->attention), 2e-2);
    /* A number within rounding of halfway between two integers may become either. */
    report(*level, "vision", check_vision((*level)->vision), 5e-3);
  }
  return wrong;
}
