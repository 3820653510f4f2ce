/* Our own prototypes of the few OpenBLAS calls we make: the same on every distribution, and no header to search for. */
#ifndef USAE_BLAS_H
#define USAE_BLAS_H

#ifdef USAE_BLAS_SCIPY /* the scipy-openblas32 wheel prefixes every symbol */
#define USAE_BLAS(name) __asm__("scipy_" #name)
#else
#define USAE_BLAS(name)
#endif

void cblas_sgemm(int order, int transA, int transB, int M, int N, int K, float alpha, const float *A, int lda,
                 const float *B, int ldb, float beta, float *C, int ldc) USAE_BLAS(cblas_sgemm);
void openblas_set_num_threads(int n) USAE_BLAS(openblas_set_num_threads);
int openblas_get_num_threads(void) USAE_BLAS(openblas_get_num_threads);
char *openblas_get_config(void) USAE_BLAS(openblas_get_config);
char *openblas_get_corename(void) USAE_BLAS(openblas_get_corename);

#endif
