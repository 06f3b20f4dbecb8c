/* GroupQueryAttention as decoder graphs write it: a node, and one call of it. */
#ifndef ATTENTION_CALL_H
#define ATTENTION_CALL_H
#include "ort_operators.h"

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
  KEY_STEPS = 12,
  VALUE_STEPS,
  INPUTS
};
enum { OUT, PRESENT_KEY, PRESENT_VALUE, OUTPUTS };

typedef struct {
  const OrtApi *api;
  OrtOp *own; /* onnxruntime's */
  int64_t heads, kv_heads;
  float scale;     /* 0: by the head size */
  int is_in_bytes; /* the caches, with a step for each channel */
  int is_known;    /* whether the attributes are those that are computed here */
} Grouped;

/* Values and shapes of one call. */
typedef struct {
  const OrtValue *inputs[INPUTS];
  OrtValue *outputs[OUTPUTS];
  int64_t shapes[INPUTS][CALL_AXES];
  size_t axes[INPUTS];
  void *in[INPUTS], *out[OUTPUTS];
  int64_t rows, size, capacity, total; /* of a call that is computed here: new rows, head size, rows
                                          of caches, and those of them that hold keys by its end */
  float scale;
} Call;

/* Whether a call is one of many rows over caches of float32, and its computation. */
int is_prompt(const Grouped *kernel, const Call *call);
OrtStatus *attend_prompt(const Grouped *kernel, const Call *call, OrtKernelContext *context);

/* Whether a call is one of one row over caches in bytes, and its computation. */
int is_decode(const Grouped *kernel, const Call *call);
OrtStatus *attend_answer(const Grouped *kernel, const Call *call, OrtKernelContext *context);
#endif
