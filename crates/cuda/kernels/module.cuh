// All kernels as one module: the translation unit of the committed binary (see build.sh).
// Instructions of compute capability 9.0 that no later one has.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#include "gemm_sm90.cu"
#endif
#include "norm.cu"
#include "rows.cu"
#include "gemm_f32.cu"
#include "attention_f32.cu"
#include "gemm_mma.cu"
#include "attention_mma.cu"
