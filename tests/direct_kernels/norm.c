/* The norm kernel: a residual with the norm of a product, and rotated heads. */
#include <math.h>
#include <stdlib.h>

#include "check.h"

#define EPSILON 1e-6f

typedef struct {
  int64_t rows, size, heads[NORM_KINDS];
} Case;

static const Case cases[] = {{1, 2, {1, 1}}, {9, 24, {3, 2}}, {3, 70, {4, 1}}, {2, 256, {8, 4}}};

/* to[size] = x of mean square 1, times the weight. */
static void norm(const double *x, const float *weight, int64_t size, double *to) {
  double squares = 0;
  for (int64_t i = 0; i < size; i++) squares += x[i] * x[i];
  for (int64_t i = 0; i < size; i++) to[i] = x[i] / sqrt(squares / (double)size + EPSILON) * weight[i];
}

static void widen(const float *x, int64_t size, double *to) {
  for (int64_t i = 0; i < size; i++) to[i] = x[i];
}

static float *drawn_floats(int64_t count) {
  float *x = allocated(count, sizeof *x);
  draw_floats(x, count, -2, 2);
  return x;
}

static double check_residual(const NormKernel *kernel, const Case *of) {
  int64_t rows = of->rows, size = of->size, all = rows * size;
  float *residual = drawn_floats(all), *product = drawn_floats(all);
  float *weights = drawn_floats(2 * size), *out = allocated(2 * all, sizeof *out);
  double *expected = allocated(2 * all, sizeof *expected), *row = allocated(size, sizeof *row);
  for (int64_t r = 0; r < rows; r++) {
    double *sum = expected + r * size;
    widen(product + r * size, size, row);
    norm(row, weights, size, sum);
    for (int64_t i = 0; i < size; i++) sum[i] += residual[r * size + i];
    norm(sum, weights + size, size, expected + all + r * size);
  }
  ResidualNorm call = {.residual = residual, .product = product, .product_weight = weights,
                       .next_weight = weights + size, .sum = out, .normed = out + all,
                       .rows = rows, .size = size, .epsilon = EPSILON};
  for (int64_t r = 0; r < rows; r += NORM_ROWS) kernel->add_residual(&call, (size_t)(r / NORM_ROWS));
  double largest = fmax(difference(out, expected, all), difference(out + all, expected + all, all));
  void *used[] = {residual, product, weights, out, expected, row};
  for (size_t i = 0; i < sizeof used / sizeof *used; i++) free(used[i]);
  return largest;
}

static double check_heads(const NormKernel *kernel, const Case *of) {
  int64_t rows = of->rows, size = of->size, half = size / 2, angles = rows * half;
  int64_t counts[NORM_KINDS] = {rows * of->heads[0] * size, rows * of->heads[1] * size};
  int64_t width = (of->heads[0] + of->heads[1]) * size;
  float *product = drawn_floats(rows * width), *weights = drawn_floats(2 * size);
  float *turns = drawn_floats(2 * angles);
  double *row = allocated(2 * size, sizeof *row), *normed = row + size, largest = 0;
  HeadNorm call = {.product = product, .weights = {weights, weights + size}, .cosines = turns,
                   .sines = turns + angles, .rows = rows, .heads = {of->heads[0], of->heads[1]},
                   .size = size, .epsilon = EPSILON};
  for (int kind = 0; kind < NORM_KINDS; kind++) call.out[kind] = allocated(counts[kind], sizeof(float));
  for (int64_t r = 0; r < rows; r += NORM_ROWS) kernel->rotate_heads(&call, (size_t)(r / NORM_ROWS));
  for (int kind = 0; kind < NORM_KINDS; kind++) {
    double *expected = allocated(counts[kind], sizeof *expected);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t h = 0; h < of->heads[kind]; h++) {
        double *to = expected + (r * of->heads[kind] + h) * size;
        widen(product + r * width + (h + kind * of->heads[0]) * size, size, row);
        norm(row, call.weights[kind], size, normed);
        for (int64_t i = 0; i < half; i++) {
          double cosine = turns[r * half + i], sine = turns[angles + r * half + i];
          to[i] = normed[i] * cosine - normed[half + i] * sine;
          to[half + i] = normed[half + i] * cosine + normed[i] * sine;
        }
      }
    largest = fmax(largest, difference(call.out[kind], expected, counts[kind]));
    free(expected);
    free(call.out[kind]);
  }
  free(product);
  free(weights);
  free(turns);
  free(row);
  return largest;
}

double check_norm(const NormKernel *kernel) {
  double largest = 0;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    largest = fmax(largest, fmax(check_residual(kernel, cases + i), check_heads(kernel, cases + i)));
  return largest;
}
