/* MatMulNBits with bfloat16 scales and GatedMatMulNBits, computed by the linear kernel. */
#include <stdlib.h>

#include "level.h"
#include "ort_ops.h"

static size_t tiles(int64_t count, int64_t size) { return (size_t)((count + size - 1) / size); }

/* Few rows: products, then the gate. */
static OrtStatus *multiply_few(Product *p, OrtKernelContext *context) {
  const OrtApi *api = p->layer.api;
  const LinearKernel *kernel = p->layer.kernel;
  p->products = p->y;
  if (p->layer.is_gated) {
    p->products = malloc((size_t)(p->rows * p->layer.outputs) * sizeof(float));
    if (!p->products) return api->CreateStatus(ORT_FAIL, NO_MEMORY);
  }
  for (int64_t row = 0; row < p->rows; row++) kernel->prepare_row(p, (size_t)row);
  OrtStatus *status = api->KernelContext_ParallelFor(context, kernel->few_rows,
                                                     tiles(p->layer.outputs, LINEAR_SPAN), 0, p);
  if (!p->layer.is_gated) return status;
  for (int64_t row = 0; !status && row < p->rows; row++) kernel->gate_row(p, (size_t)row);
  free(p->products);
  return status;
}

static OrtStatus *multiply_many(Product *p, OrtKernelContext *context) {
  const OrtApi *api = p->layer.api;
  const LinearKernel *kernel = p->layer.kernel;
  size_t groups = tiles(p->rows, kernel->height);
  TRY(api->KernelContext_ParallelFor(context, kernel->prepare_rows, groups, 0, p));
  size_t all = tiles(given_outputs(&p->layer), LINEAR_TILE);
  TRY(api->KernelContext_ParallelFor(context, kernel->many_rows, all, 64, p));
  return p->lacks_memory ? api->CreateStatus(ORT_FAIL, NO_MEMORY) : NULL;
}

static OrtStatus *multiply_all(Product *p, OrtKernelContext *context) {
  size_t numbers = (size_t)(p->rows * padded_inputs(&p->layer));
  size_t scales = (size_t)(p->rows * blocks_of(&p->layer));
  size_t zero_terms = (size_t)(p->rows * zero_term_count(&p->layer));
  p->integers = malloc(numbers + (scales + zero_terms) * 4);
  if (!p->integers) return p->layer.api->CreateStatus(ORT_FAIL, NO_MEMORY);
  p->x_scales = (float *)(p->integers + numbers);
  p->zero_terms = (int32_t *)(p->x_scales + scales);
  OrtStatus *status =
      p->rows <= LINEAR_FEW_ROWS ? multiply_few(p, context) : multiply_many(p, context);
  free(p->integers);
  return status;
}

/* Whether there are as many weights and scales as N and K say. */
static OrtStatus *check_counts(const LinearLayer *layer, const OrtValue *weights,
                               const OrtValue *scales) {
  const OrtApi *api = layer->api;
  size_t weight_bytes, scale_count;
  TRY(element_count(api, weights, &weight_bytes));
  TRY(element_count(api, scales, &scale_count));
  size_t blocks = (size_t)blocks_of(layer), outputs = (size_t)layer->outputs;
  size_t block_bytes = (size_t)(layer->block * layer->bits / 8), expected;
  if (__builtin_mul_overflow(blocks, outputs, &expected) || scale_count != expected)
    return api->CreateStatus(ORT_FAIL, "the scales are not one for each block of K of the N outputs");
  if (__builtin_mul_overflow(expected, block_bytes, &expected) || weight_bytes != expected)
    return api->CreateStatus(ORT_FAIL, "the weights are not those of N outputs and K inputs");
  return NULL;
}

static OrtStatus *compute(void *kernel, OrtKernelContext *context) {
  Product p = {.layer = *(const LinearLayer *)kernel};
  const OrtApi *api = p.layer.api;
  const OrtValue *inputs[3];
  void *data[3];
  for (size_t i = 0; i < 3; i++) {
    TRY(api->KernelContext_GetInput(context, i, &inputs[i]));
    if (!inputs[i]) return api->CreateStatus(ORT_FAIL, "an input is missing");
    TRY(api->GetTensorMutableData((OrtValue *)inputs[i], &data[i]));
  }
  TRY(check_counts(&p.layer, inputs[1], inputs[2]));
  p.x = data[0], p.weights = data[1], p.scales = data[2];
  int64_t dimensions[LARGEST_AXES];
  size_t count;
  TRY(tensor_shape(api, inputs[0], dimensions, &count));
  if (count < 1) return api->CreateStatus(ORT_FAIL, "1 to 8 axes");
  if (dimensions[count - 1] != p.layer.inputs)
    return api->CreateStatus(ORT_FAIL, "the input's last axis is not K");
  p.rows = 1;
  for (size_t i = 0; i + 1 < count; i++) p.rows *= dimensions[i];
  dimensions[count - 1] = given_outputs(&p.layer);
  OrtValue *out;
  TRY(api->KernelContext_GetOutput(context, 0, dimensions, count, &out));
  TRY(api->GetTensorMutableData(out, (void **)&p.y));
  return p.rows ? multiply_all(&p, context) : NULL;
}

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                         void **kernel) {
  LinearLayer layer = {.api = api, .is_gated = op == &gated_linear_op};
  TRY(api->KernelInfoGetAttribute_int64(info, "K", &layer.inputs));
  TRY(api->KernelInfoGetAttribute_int64(info, "N", &layer.outputs));
  TRY(api->KernelInfoGetAttribute_int64(info, "bits", &layer.bits));
  TRY(api->KernelInfoGetAttribute_int64(info, "block_size", &layer.block));
  if (!level_in_use()) return api->CreateStatus(ORT_FAIL, "no level of kernels is in use");
  if ((layer.bits != 4 && layer.bits != 8) || layer.block < 16 || layer.block > LINEAR_LARGEST_BLOCK ||
      layer.block & (layer.block - 1) || layer.inputs <= 0 || layer.inputs % layer.block ||
      layer.outputs <= 0)
    return api->CreateStatus(ORT_FAIL, "4 or 8 bits, blocks of 16 to 4096, a power of 2");
  if (layer.is_gated && layer.outputs % 2)
    return api->CreateStatus(ORT_FAIL, "a gated product's outputs are two halves");
  LinearLayer *made = malloc(sizeof layer);
  if (!made) return api->CreateStatus(ORT_FAIL, NO_MEMORY);
  layer.kernel = level_in_use()->linear;
  *made = layer;
  *kernel = made;
  return NULL;
}

static const char *name(const OrtCustomOp *op) { return (void)op, "MatMulNBits"; }
static const char *gated_name(const OrtCustomOp *op) { return (void)op, "GatedMatMulNBits"; }
static int input_type(const OrtCustomOp *op, size_t index) {
  static const int types[] = {ORT_FLOAT, ORT_UINT8, ORT_BFLOAT16};
  return (void)op, types[index];
}
static size_t input_count(const OrtCustomOp *op) { return (void)op, 3; }
static int output_type(const OrtCustomOp *op, size_t index) {
  return (void)op, (void)index, ORT_FLOAT;
}
static size_t output_count(const OrtCustomOp *op) { return (void)op, 1; }

const OrtCustomOp linear_op = CUSTOM_OP(name, free, is_required);
const OrtCustomOp gated_linear_op = CUSTOM_OP(gated_name, free, is_required);
