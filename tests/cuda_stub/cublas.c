/* cuBLAS without a GPU: handles exist, products do nothing. */
#include <stddef.h>

static int handle(void **made) {
    static char anything;
    *made = &anything;
    return 0;
}
int cublasCreate_v2(void **made) { return handle(made); }
int cublasGetMathMode(void *of, int *mode) { return *mode = 0; }
const char *cublasGetStatusName(int status) { return "a status of the hollow cuBLAS"; }
const char *cublasGetStatusString(int status) { return cublasGetStatusName(status); }
