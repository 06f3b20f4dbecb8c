/* GroupQueryAttention as decoder graphs write it: a node, and one call of it. */
#ifndef ATTENTION_OP_H
#define ATTENTION_OP_H
#include "level.h"
#include "ort_ops.h"

#define CALL_AXES 4

enum {
  QUERY,
  KEY,
  VALUE,
  PAST_KEY,
  PAST_VALUE,
  LAST_ROW,
  TOTAL,
  POSITIONS = 9,
  MASK,
  KEY_SCALES = 12,
  VALUE_SCALES,
  INPUTS
};
enum { OUT, PRESENT_KEY, PRESENT_VALUE, OUTPUTS };

typedef struct {
  const OrtApi *api;
  const Level *level;
  OrtOp *fallback_op; /* onnxruntime's, for calls that are not computed here */
  int64_t heads, kv_heads;
  float scale;     /* 0: by the head size */
  int is_int8;      /* the caches */
  int is_per_channel[2]; /* keys and values: a scale for each channel, not one for all */
  int is_supported; /* whether the attributes are those that are computed here */
} AttentionOp;

/* Values and shapes of one call. */
typedef struct {
  const OrtValue *inputs[INPUTS];
  OrtValue *outputs[OUTPUTS];
  int64_t shapes[INPUTS][CALL_AXES];
  size_t axes[INPUTS], counts[INPUTS]; /* of numbers */
  void *in[INPUTS], *out[OUTPUTS];
  int64_t rows, size, capacity, total; /* of a call that is computed here: new rows, head size, rows
                                          of caches, and those of them that hold keys by its end */
  float scale;
} Call;

/* Whether a call is prefill, many rows over caches of float32, and its computation. */
int is_prefill(const AttentionOp *kernel, const Call *call);
OrtStatus *prefill_attention(const AttentionOp *kernel, const Call *call,
                             OrtKernelContext *context);

/* Whether a call is decode, one row, and its computation. */
int is_decode(const Call *call);
OrtStatus *decode_attention(const AttentionOp *kernel, const Call *call, OrtKernelContext *context);
#endif
