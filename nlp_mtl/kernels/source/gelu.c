#include "vectors.h"

/* ---- GELU with the bias before it: a = (x + b) Phi(x + b); Phi by Abramowitz & Stegun (1964), 7.1.26 ---- */

INLINE vf normal_cdf(int rough, vf x, vf bell) { /* bell = exp(-x x / 2); absolute error below 1e-7, rough 3e-5 */
    vf z = (vf)((vi)x & 0x7fffffff);
    vf t = inverse_of(rough, 1.0f + 0.23164189f * z);
    vf tail = 0.5f * bell * t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    return pick(x < all(0), tail, 1.0f - tail);
}

INLINE void gelu_at(int kind, const char *x, const float *bias, char *out, char *slope, int64_t c, int n) {
    vf v = get_some(kind, x, c, n);
    if (bias) v += get_some(0, bias, c, n);
    vf bell = exponential(kind, -0.5f * v * v), share = normal_cdf(kind, v, bell);
    put_some(kind, out, c, v * share, n);
    if (slope) put_some(kind, slope, c, share + v * bell * 0.39894228f, n);
}

INLINE void gelu_row(int kind, const char *x, const float *bias, char *out, char *slope, int64_t width) {
    int64_t c = 0;
    for (; c + W <= width; c += W) gelu_at(kind, x, bias, out, slope, c, W);
    if (c < width) gelu_at(kind, x, bias, out, slope, c, (int)(width - c));
}

/* slope: the derivative at x + b, for the backward pass; 0 if there is none */
void gelu_forward(int64_t kind, int64_t rows, int64_t width, const char *x, const float *bias, char *out, char *slope) {
    int64_t row = width * (kind ? 2 : 4);
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        char *own = slope ? slope + r * row : 0;
        if (kind && bias && slope) gelu_row(1, x + r * row, bias, out + r * row, own, width);
        else if (kind) gelu_row(1, x + r * row, bias, out + r * row, own, width);
        else gelu_row(0, x + r * row, bias, out + r * row, own, width);
    }
}

INLINE void gelu_back_at(int kind, const char *slope, const char *gradient, char *dx, float *sums, int64_t c, int n) {
    vf d = get_some(kind, gradient, c, n) * get_some(kind, slope, c, n);
    put_some(kind, dx, c, d, n);
    if (sums) put_some(0, sums, c, get_some(0, sums, c, n) + d, n);
}

INLINE void gelu_back_row(int kind, const char *slope, const char *gradient, char *dx, float *sums, int64_t width) {
    int64_t c = 0;
    for (; c + W <= width; c += W) gelu_back_at(kind, slope, gradient, dx, sums, c, W);
    if (c < width) gelu_back_at(kind, slope, gradient, dx, sums, c, (int)(width - c));
}

/* sums: [threads, width], 0 on entry; the bias's gradient, by thread; 0 if there is none */
void gelu_backward(int64_t kind, int64_t rows, int64_t width, const char *slope, const char *gradient, char *dx,
                   float *sums) {
    int64_t row = width * (kind ? 2 : 4);
#pragma omp parallel
    {
        float *own = sums ? sums + omp_get_thread_num() * width : 0;
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            if (kind) gelu_back_row(1, slope + r * row, gradient + r * row, dx + r * row, own, width);
            else gelu_back_row(0, slope + r * row, gradient + r * row, dx + r * row, own, width);
        }
    }
}
