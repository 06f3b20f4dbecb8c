/* What an operator of ours needs of onnxruntime's C interface, laid out as in its
 * onnxruntime_c_api.h: slots of OrtApi never move, version 17 is the first with ParallelFor.
 */
#ifndef ONNXRUNTIME_ABI_H
#define ONNXRUNTIME_ABI_H
#include <stddef.h>
#include <stdint.h>

#define ORT_VERSION 17
#define ORT_FAIL 1

typedef struct OrtStatus OrtStatus;
typedef struct OrtValue OrtValue;
typedef struct OrtShape OrtShape; /* OrtTensorTypeAndShapeInfo */
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtCustomOp OrtCustomOp;
typedef struct OrtOp OrtOp;
typedef struct OrtOpAttr OrtOpAttr;

/* ONNXTensorElementDataType */
enum { ORT_FLOAT = 1, ORT_UINT8 = 2, ORT_INT8 = 3, ORT_INT32 = 6, ORT_INT64 = 7, ORT_BFLOAT16 = 16 };
enum { ORT_ATTR_INT = 1, ORT_ATTR_FLOAT = 3, ORT_ATTR_STRING = 5 }; /* OrtOpAttrType */
enum { ORT_REQUIRED = 0, ORT_OPTIONAL = 1 }; /* OrtCustomOpInputOutputCharacteristic */

typedef struct OrtApi {
  OrtStatus *(*CreateStatus)(int code, const char *message);
  void *before_26[25];
  OrtStatus *(*CreateCustomOpDomain)(const char *name, OrtCustomOpDomain **out);
  OrtStatus *(*CustomOpDomain_Add)(OrtCustomOpDomain *domain, const OrtCustomOp *op);
  OrtStatus *(*AddCustomOpDomain)(OrtSessionOptions *options, OrtCustomOpDomain *domain);
  void *before_51[22];
  OrtStatus *(*GetTensorMutableData)(OrtValue *value, void **out);
  void *before_61[9];
  OrtStatus *(*GetDimensionsCount)(const OrtShape *shape, size_t *out);
  OrtStatus *(*GetDimensions)(const OrtShape *shape, int64_t *out, size_t count);
  void *before_64[1];
  OrtStatus *(*GetTensorShapeElementCount)(const OrtShape *shape, size_t *out);
  OrtStatus *(*GetTensorTypeAndShape)(const OrtValue *value, OrtShape **out);
  void *before_85[19];
  OrtStatus *(*KernelInfoGetAttribute_float)(const OrtKernelInfo *info, const char *name,
                                             float *out);
  OrtStatus *(*KernelInfoGetAttribute_int64)(const OrtKernelInfo *info, const char *name,
                                             int64_t *out);
  OrtStatus *(*KernelInfoGetAttribute_string)(const OrtKernelInfo *info, const char *name,
                                              char *out, size_t *size);
  OrtStatus *(*KernelContext_GetInputCount)(const OrtKernelContext *context, size_t *out);
  void *before_90[1];
  OrtStatus *(*KernelContext_GetInput)(const OrtKernelContext *context, size_t index,
                                       const OrtValue **out);
  OrtStatus *(*KernelContext_GetOutput)(OrtKernelContext *context, size_t index,
                                        const int64_t *dimensions, size_t count, OrtValue **out);
  void *before_93[1];
  void (*ReleaseStatus)(OrtStatus *status);
  void *before_99[5];
  void (*ReleaseTensorTypeAndShapeInfo)(OrtShape *shape);
  void *before_211[111];
  OrtStatus *(*CreateOpAttr)(const char *name, const void *data, int count, int type,
                             OrtOpAttr **out);
  void (*ReleaseOpAttr)(OrtOpAttr *attribute);
  OrtStatus *(*CreateOp)(const OrtKernelInfo *info, const char *name, const char *domain,
                         int version, const char **types, const int *type_values, int type_count,
                         const OrtOpAttr *const *attributes, int attribute_count, int input_count,
                         int output_count, OrtOp **out);
  OrtStatus *(*InvokeOp)(const OrtKernelContext *context, const OrtOp *op,
                         const OrtValue *const *inputs, int input_count, OrtValue *const *outputs,
                         int output_count);
  void (*ReleaseOp)(OrtOp *op);
  void *before_274[58];
  OrtStatus *(*KernelContext_ParallelFor)(const OrtKernelContext *context,
                                          void (*part)(void *data, size_t index), size_t count,
                                          size_t batches, void *data);
} OrtApi;

_Static_assert(offsetof(OrtApi, AddCustomOpDomain) == 28 * sizeof(void *), "OrtApi");
_Static_assert(offsetof(OrtApi, GetTensorShapeElementCount) == 64 * sizeof(void *), "OrtApi");
_Static_assert(offsetof(OrtApi, GetTensorTypeAndShape) == 65 * sizeof(void *), "OrtApi");
_Static_assert(offsetof(OrtApi, ReleaseStatus) == 93 * sizeof(void *), "OrtApi");
_Static_assert(offsetof(OrtApi, CreateOp) == 213 * sizeof(void *), "OrtApi");
_Static_assert(offsetof(OrtApi, KernelContext_ParallelFor) == 274 * sizeof(void *), "OrtApi");

typedef struct {
  const OrtApi *(*GetApi)(uint32_t version);
  const char *(*GetVersionString)(void);
} OrtApiBase;

struct OrtCustomOp {
  uint32_t version;
  void *(*CreateKernel)(const OrtCustomOp *, const OrtApi *, const OrtKernelInfo *);
  const char *(*GetName)(const OrtCustomOp *);
  const char *(*GetExecutionProviderType)(const OrtCustomOp *);
  int (*GetInputType)(const OrtCustomOp *, size_t);
  size_t (*GetInputTypeCount)(const OrtCustomOp *);
  int (*GetOutputType)(const OrtCustomOp *, size_t);
  size_t (*GetOutputTypeCount)(const OrtCustomOp *);
  void (*KernelCompute)(void *, OrtKernelContext *);
  void (*KernelDestroy)(void *);
  int (*GetInputCharacteristic)(const OrtCustomOp *, size_t);
  int (*GetOutputCharacteristic)(const OrtCustomOp *, size_t);
  int (*GetInputMemoryType)(const OrtCustomOp *, size_t);
  int (*GetVariadicInputMinArity)(const OrtCustomOp *);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp *);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp *);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp *);
  OrtStatus *(*CreateKernelV2)(const OrtCustomOp *, const OrtApi *, const OrtKernelInfo *, void **);
  OrtStatus *(*KernelComputeV2)(void *, OrtKernelContext *);
  OrtStatus *(*InferOutputShapeFn)(const OrtCustomOp *, void *);
  int (*GetStartVersion)(const OrtCustomOp *);
  int (*GetEndVersion)(const OrtCustomOp *);
  size_t (*GetMayInplace)(int **, int **);
  void (*ReleaseMayInplace)(int *, int *);
  size_t (*GetAliasMap)(int **, int **);
  void (*ReleaseAliasMap)(int *, int *);
};
#endif
