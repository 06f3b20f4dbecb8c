/* Custom operators that onnxruntime takes before its own of the same name. */
#ifndef ORT_OPS_H
#define ORT_OPS_H
#include "onnxruntime_abi.h"

#define DOMAIN "com.microsoft"
#define NO_MEMORY "there is no memory for an operator"
#define TRY(call)                       \
  do {                                  \
    OrtStatus *status = (call);         \
    if (status) return status;          \
  } while (0)

/* MatMulNBits of float32 rows and weights of 4 or 8 bits. */
extern const OrtCustomOp linear_op;

/* GatedMatMulNBits, of ours alone: GELU by tanh of the first half of the outputs, times the other. */
extern const OrtCustomOp gated_linear_op;

/* GroupQueryAttention over caches of float32 and over caches in int8. */
extern const OrtCustomOp attention_op, attention_int8_op;

/* Norms of ours alone. ResidualNormalization of (residual, product, weight, next weight) gives their sum,
 * the product normed, and that normed; RotaryHeadNormalization of (product, query weight, key weight,
 * cosines, sines) gives queries and keys, whose heads are normed and then rotated.
 */
extern const OrtCustomOp residual_norm_op, head_norm_op;

#define LARGEST_AXES 8

/* The shape of a tensor, of at most LARGEST_AXES axes. */
static inline OrtStatus *tensor_shape(const OrtApi *api, const OrtValue *value,
                                      int64_t shape[LARGEST_AXES], size_t *axes) {
  OrtShape *info;
  TRY(api->GetTensorTypeAndShape(value, &info));
  OrtStatus *status = api->GetDimensionsCount(info, axes);
  if (!status && *axes > LARGEST_AXES) status = api->CreateStatus(ORT_FAIL, "at most 8 axes");
  if (!status) status = api->GetDimensions(info, shape, *axes);
  api->ReleaseTensorTypeAndShapeInfo(info);
  return status;
}

/* Numbers in a tensor. */
static inline OrtStatus *element_count(const OrtApi *api, const OrtValue *value, size_t *count) {
  OrtShape *shape;
  TRY(api->GetTensorTypeAndShape(value, &shape));
  OrtStatus *status = api->GetTensorShapeElementCount(shape, count);
  api->ReleaseTensorTypeAndShapeInfo(shape);
  return status;
}

/* What onnxruntime asks of each of them. */
static inline const char *on_cpu(const OrtCustomOp *op) { return (void)op, "CPUExecutionProvider"; }
static inline int in_memory(const OrtCustomOp *op, size_t index) {
  return (void)op, (void)index, 0;
}
static inline int is_required(const OrtCustomOp *op, size_t index) {
  return (void)op, (void)index, ORT_REQUIRED;
}
static inline int one(const OrtCustomOp *op) { return (void)op, 1; }

/* An operator of the file that uses it: its types, counts, `create` and `compute` have these names there. */
#define CUSTOM_OP(name_, destroy_, input_kind_) \
  {.version = ORT_VERSION,                      \
   .GetName = name_,                            \
   .GetExecutionProviderType = on_cpu,          \
   .GetInputType = input_type,                  \
   .GetInputTypeCount = input_count,            \
   .GetOutputType = output_type,                \
   .GetOutputTypeCount = output_count,          \
   .KernelDestroy = destroy_,                   \
   .GetInputCharacteristic = input_kind_,       \
   .GetOutputCharacteristic = is_required,      \
   .GetInputMemoryType = in_memory,             \
   .GetVariadicInputMinArity = one,             \
   .GetVariadicInputHomogeneity = one,          \
   .GetVariadicOutputMinArity = one,            \
   .GetVariadicOutputHomogeneity = one,         \
   .CreateKernelV2 = create,                    \
   .KernelComputeV2 = compute,                  \
   .GetStartVersion = one,                      \
   .GetEndVersion = one}

#endif
