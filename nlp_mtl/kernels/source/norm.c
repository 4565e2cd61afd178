#include "vectors.h"

/* ---- y = LayerNorm(residual + dropout(x + bias)); the sum is written to `sum`, mean and 1/deviation to `facts` ---- */

void norm_forward(int64_t kind, int64_t rows, int64_t width, const void *x, const float *bias, const float *residual,
                  const float *weight, const float *shift, double eps, int64_t cut, double scale, uint64_t seed,
                  float *sum, float *facts, float *y, void *half) {
    Drop d = {(uint32_t)cut, (float)scale, seed};
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        ptrdiff_t at = r * width;
        vf total = all(0), squares = all(0);
        for (int64_t c = 0; c < width; c += W) {
            int n = (int)(width - c);
            vf v = get_some(kind, x, at + c, n);
            if (bias) v += get_some(0, bias, c, n);
            if (cut) v *= kept(d, at + c);
            v += get_some(0, residual, at + c, n);
            put_some(0, sum, at + c, v, n);
            if (n < W) v = pick((vi)(LANES < (uint32_t)n), v, all(0));
            total += v;
        }
        float mean = sum_of(total) / width;
        for (int64_t c = 0; c < width; c += W) {
            int n = (int)(width - c);
            vf v = get_some(0, sum, at + c, n) - mean;
            if (n < W) v = pick((vi)(LANES < (uint32_t)n), v, all(0));
            squares += v * v;
        }
        float inverse = 1 / sqrtf(sum_of(squares) / width + (float)eps);
        facts[2 * r] = mean, facts[2 * r + 1] = inverse;
        for (int64_t c = 0; c < width; c += W) {
            int n = (int)(width - c);
            vf v = (get_some(0, sum, at + c, n) - mean) * inverse;
            v = v * get_some(0, weight, c, n) + get_some(0, shift, c, n);
            put_some(0, y, at + c, v, n);
            if (half) put_some(1, half, at + c, v, n);
        }
    }
}

/* sums: [threads, 3, width], 0 on entry: gradients of weight, shift and bias; gradient or half (of y's copy) may be 0.
   first: the number of the first of these rows, which the dropout of the forward pass went by */
void norm_backward(int64_t kind, int64_t rows, int64_t width, const float *gradient, const void *half,
                   const float *sum, const float *facts, const float *weight, int64_t cut, double scale,
                   uint64_t seed, void *dx, float *dresidual, float *sums, int64_t first) {
    Drop d = {(uint32_t)cut, (float)scale, seed};
#pragma omp parallel
    {
        float *dweight = sums + omp_get_thread_num() * 3 * width, *dshift = dweight + width, *dbias = dshift + width;
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            ptrdiff_t at = r * width;
            float mean = facts[2 * r], inverse = facts[2 * r + 1];
            vf plain = all(0), along = all(0);
            for (int64_t c = 0; c < width; c += W) {
                int n = (int)(width - c);
                vf g = gradient ? get_some(0, gradient, at + c, n) : all(0);
                if (half) g += get_some(1, half, at + c, n);
                vf norm = (get_some(0, sum, at + c, n) - mean) * inverse;
                put_some(0, dweight, c, get_some(0, dweight, c, n) + g * norm, n);
                put_some(0, dshift, c, get_some(0, dshift, c, n) + g, n);
                g *= get_some(0, weight, c, n);
                plain += g;
                along += g * norm; /* beyond the end g is 0 */
            }
            float average = sum_of(plain) / width, slope = sum_of(along) / width;
            for (int64_t c = 0; c < width; c += W) {
                int n = (int)(width - c);
                vf g = gradient ? get_some(0, gradient, at + c, n) : all(0);
                if (half) g += get_some(1, half, at + c, n);
                vf norm = (get_some(0, sum, at + c, n) - mean) * inverse;
                vf v = (g * get_some(0, weight, c, n) - average - norm * slope) * inverse;
                put_some(0, dresidual, at + c, v, n);
                if (cut) v *= kept(d, first * width + at + c);
                put_some(kind, dx, at + c, v, n);
                put_some(0, dbias, c, get_some(0, dbias, c, n) + v, n);
            }
        }
    }
}

INLINE void add_row(int kind, const char *x, int64_t width, float *sums) {
    int64_t c = 0;
    for (; c + W <= width; c += W) put(0, sums, c, get(0, sums, c) + get(kind, x, c));
    if (c < width) put_some(0, sums, c, get_some(0, sums, c, (int)(width - c)) + get_some(kind, x, c, (int)(width - c)), (int)(width - c));
}

/* sums: [threads, width], 0 on entry */
void column_sums(int64_t kind, int64_t rows, int64_t width, const char *x, float *sums) {
#pragma omp parallel
    {
        float *own = sums + omp_get_thread_num() * width;
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            if (kind) add_row(1, x + r * width * 2, width, own);
            else add_row(0, x + r * width * 4, width, own);
        }
    }
}

int64_t threads(void) { return omp_get_max_threads(); }
