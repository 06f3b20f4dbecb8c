/* The vision kernel: rows to int8, normed or not, times weights in int8, and what becomes of the sums. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

typedef struct {
  ptrdiff_t rows, inputs, outputs;
} Case;

static const Case cases[] = {{1, 1, 1}, {5, 48, 7}, {37, 200, 50}, {64, 72, 33}};

static double clipped(double x) { return x < -128 ? -128 : x > 127 ? 127 : x; }

static double gelu(double x) {
  return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

static uint8_t *packed_weights(const VisionKernel *kernel, const Case *of, const int8_t *weights) {
  ptrdiff_t bytes = panel_bytes(of->inputs, kernel->panel, kernel->notes);
  ptrdiff_t count = panels(kernel, of->outputs);
  uint8_t *packed = allocated(bytes * count, 1);
  for (ptrdiff_t p = 0; p < count; p++)
    kernel->pack(weights, of->inputs, of->outputs, p, packed + p * bytes);
  return packed;
}

static uint32_t *allocated_rows(const VisionKernel *kernel, ptrdiff_t rows, ptrdiff_t size) {
  return allocated(rounded_up(rows, VISION_ROWS) * row_stride(size, kernel->notes), sizeof(uint32_t));
}

static void multiply(const VisionKernel *kernel, Linear *work) {
  work->notes = allocated(rounded_up(work->row_count, VISION_ROWS) * note_words(work->inputs), sizeof(int32_t));
  work->least_limits = allocated(row_words(work->inputs) / 4, sizeof(int32_t));
  if (kernel->note) kernel->least_limits(work, work->least_limits);
  if (kernel->note) kernel->note(work, 0, work->row_count);
  for (ptrdiff_t first = 0; first < work->row_count; first += VISION_ROWS) {
    ptrdiff_t last = first + VISION_ROWS;
    kernel->multiply(work, first, last < work->row_count ? last : work->row_count, 0,
                     panels(kernel, work->outputs));
  }
  free(work->notes), free(work->least_limits);
}

/* integers[rows][inputs] of the formula; a norm has an epsilon. */
static void quantise(const Quantisation *a, double *integers) {
  for (ptrdiff_t r = 0; r < a->row_count; r++) {
    const float *row = a->rows + r * a->size;
    double mean = 0, squares = 0;
    for (ptrdiff_t d = 0; d < a->size; d++) mean += row[d] / (double)a->size;
    for (ptrdiff_t d = 0; d < a->size; d++) squares += (row[d] - mean) * (row[d] - mean);
    double factor = 1 / sqrt(squares / (double)a->size + a->epsilon);
    for (ptrdiff_t d = 0; d < a->size; d++) {
      double x = row[d];
      if (a->weight) x = (x - mean) * factor * a->weight[d] + a->bias[d];
      integers[r * a->size + d] = rint(clipped(x * a->inverse_scale));
    }
  }
}

/* products[rows][outputs] of the formula. */
static void multiplied(const double *integers, const int8_t *weights, const Linear *a,
                       double *products) {
  for (ptrdiff_t r = 0; r < a->row_count; r++)
    for (ptrdiff_t n = 0; n < a->outputs; n++) {
      double sum = 0;
      for (ptrdiff_t k = 0; k < a->inputs; k++)
        sum += integers[r * a->inputs + k] * weights[k * a->outputs + n];
      products[r * a->outputs + n] = sum * a->scales[n] + a->bias[n];
    }
}

/* A layer, its sums added to what stands there, and a second layer after GELU of the first. */
static double check_case(const VisionKernel *kernel, const Case *of, int is_normed) {
  ptrdiff_t in = of->rows * of->inputs, out = of->rows * of->outputs;
  Case second = {of->rows, of->outputs, of->inputs};
  float *x = allocated(in, sizeof *x), *y = allocated(out, sizeof *y), *z = allocated(in, sizeof *z);
  float *per_input = allocated(4 * of->inputs, sizeof *per_input);
  float *per_output = allocated(2 * of->outputs, sizeof *per_output);
  int8_t *weights = allocated(of->inputs * of->outputs, 1);
  double *integers = allocated(in, sizeof *integers), *products = allocated(out, sizeof *products);
  double *hidden = allocated(out, sizeof *hidden), *last = allocated(in, sizeof *last);
  draw_floats(x, in, -140, 140);
  draw_floats(per_input, 4 * of->inputs, 0.5, 1.5);
  draw_floats(per_output, 2 * of->outputs, 1e-3, 2e-3);
  draw_bytes(weights, of->inputs * of->outputs, -128, 127);
  for (ptrdiff_t i = 0; i < in; i++) x[i] = rintf(x[i]);
  uint32_t *rows = allocated_rows(kernel, of->rows, of->inputs);
  uint32_t *activated = allocated_rows(kernel, of->rows, of->outputs);
  uint8_t *packed = packed_weights(kernel, of, weights);
  uint8_t *packed_second = packed_weights(kernel, &second, weights);

  Quantisation quantisation = {.rows = x, .row_count = of->rows, .size = of->inputs,
                               .epsilon = 1e-6f, .inverse_scale = is_normed ? 50 : 1, .out = rows};
  if (is_normed) quantisation.weight = per_input, quantisation.bias = per_input + of->inputs;
  kernel->quantise(&quantisation, 0, of->rows);
  quantise(&quantisation, integers);
  Linear first = {.rows = rows, .weights = packed, .scales = per_output,
                  .bias = per_output + of->outputs, .row_count = of->rows, .inputs = of->inputs,
                  .outputs = of->outputs, .after = STORED, .out = y, .activated = activated,
                  .inverse_scale = 0.5f};
  multiplied(integers, weights, &first, products);
  multiply(kernel, &first);
  double largest = difference(y, products, out);
  first.after = ADDED;
  multiply(kernel, &first);
  for (ptrdiff_t i = 0; i < out; i++) hidden[i] = 2 * products[i];
  largest = fmax(largest, difference(y, hidden, out));

  first.after = ACTIVATED;
  multiply(kernel, &first);
  for (ptrdiff_t i = 0; i < out; i++)
    hidden[i] = rint(clipped(gelu(products[i]) * first.inverse_scale));
  Linear after = {.rows = activated, .weights = packed_second, .scales = per_input + 2 * of->inputs,
                  .bias = per_input + 3 * of->inputs, .row_count = of->rows,
                  .inputs = of->outputs, .outputs = of->inputs, .after = STORED, .out = z};
  multiplied(hidden, weights, &after, last);
  multiply(kernel, &after);
  largest = fmax(largest, difference(z, last, in));
  void *all[] = {x,      y,    z,    per_input, per_output, weights,       integers, products,
                 hidden, last, rows, activated, packed,     packed_second};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  return largest;
}

/* A layer in float32, of which rows and weights become int16. */
static double check_pairs(const VisionKernel *kernel, const Case *of) {
  ptrdiff_t in = of->rows * of->inputs, out = of->rows * of->outputs, count = of->inputs * of->outputs;
  float *x = allocated(in, sizeof *x), *y = allocated(out, sizeof *y);
  float *weights = allocated(count, sizeof *weights), *bias = allocated(of->outputs, sizeof *bias);
  float *scales = allocated(of->outputs, sizeof *scales);
  float *row_scales = allocated(of->rows, sizeof *row_scales);
  double *products = allocated(out, sizeof *products);
  ptrdiff_t bytes = pair_panel_bytes(kernel, of->inputs), last = panels(kernel, of->outputs);
  uint32_t *rows = allocated(rounded_up(of->rows, VISION_ROWS) * pair_words(of->inputs), 4);
  uint8_t *packed = allocated(last * bytes, 1);
  draw_floats(x, in, -1, 1);
  draw_floats(weights, count, -1, 1);
  draw_floats(bias, of->outputs, -1, 1);
  for (ptrdiff_t p = 0; p < last; p++)
    kernel->pack_pairs(weights, of->inputs, of->outputs, p, packed + p * bytes, scales);
  Quantisation quantisation = {.rows = x, .row_count = of->rows, .size = of->inputs,
                               .inverse_scale = 1, .out = rows, .row_scales = row_scales};
  kernel->quantise(&quantisation, 0, of->rows);
  Linear linear = {.rows = rows, .weights = packed, .scales = scales, .bias = bias,
                   .row_count = of->rows, .inputs = of->inputs, .outputs = of->outputs,
                   .after = STORED, .out = y, .row_scales = row_scales};
  kernel->multiply_pairs(&linear, 0, of->rows, 0, last);
  for (ptrdiff_t r = 0; r < of->rows; r++)
    for (ptrdiff_t n = 0; n < of->outputs; n++) {
      double sum = bias[n];
      for (ptrdiff_t k = 0; k < of->inputs; k++)
        sum += (double)x[r * of->inputs + k] * weights[k * of->outputs + n];
      products[r * of->outputs + n] = sum;
    }
  double largest = difference(y, products, out);
  void *all[] = {x, y, weights, bias, scales, row_scales, products, rows, packed};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  return largest;
}

double check_vision(const VisionKernel *kernel) {
  double largest = 0;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (int is_normed = 0; is_normed < 2; is_normed++)
      largest = fmax(largest, check_case(kernel, cases + i, is_normed));
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    largest = fmax(largest, check_pairs(kernel, cases + i));
  return largest;
}
