#include "vectors.h"

/* ---- AdamW and the norm of gradients, over all tensors in one pass ---- */

#define PART 16384 /* numbers in a part; a thread takes the next one */

/* A tensor [rows, width], or the rows of one that `list` names; addresses come as integers. */
typedef struct {
    int64_t at, gradient, mean, square, list, rows, width;
} Tensor;

typedef struct {
    double rate, keep, beta1, beta2, deviation, eps; /* rate: lr / (1 - beta1^t); keep: 1 - lr * decay */
} Pace;

static int64_t rows_in_a_part(Tensor t) { return t.width < PART ? PART / t.width : 1; }

static int64_t parts_of(Tensor t) {
    if (!t.rows || !t.width) return 0;
    int64_t many = rows_in_a_part(t), wide = t.width < PART ? 1 : (t.width + PART - 1) / PART;
    return (t.rows + many - 1) / many * wide;
}

/* [begin, end) of row `r` in part `part`; a tensor without a list is one row */
INLINE void piece(Tensor t, int64_t part, int64_t r, int64_t *begin, int64_t *end) {
    int64_t wide = t.width < PART ? 1 : (t.width + PART - 1) / PART, left = part % wide * PART;
    int64_t row = t.list ? ((const int64_t *)t.list)[r] : r;
    int64_t right = left + PART < t.width ? left + PART : t.width;
    *begin = row * t.width + left, *end = row * t.width + right;
}

INLINE void rows_of(Tensor t, int64_t part, int64_t *first, int64_t *last) {
    int64_t wide = t.width < PART ? 1 : (t.width + PART - 1) / PART, many = rows_in_a_part(t);
    *first = part / wide * many;
    *last = *first + many < t.rows ? *first + many : t.rows;
}

/* A tensor's first part that is this thread's, when `before` came before it: many small tensors are shared out too. */
static int64_t first_of_mine(int64_t before) {
    int64_t threads = omp_get_num_threads();
    return ((omp_get_thread_num() - before) % threads + threads) % threads;
}

INLINE void adamw_at(Tensor t, Pace p, float factor, int64_t i, int n) {
    float *at = (float *)t.at, *mean = (float *)t.mean, *square = (float *)t.square;
    vf g = get_some(0, (const float *)t.gradient, i, n) * factor;
    vf m = get_some(0, mean, i, n), v = get_some(0, square, i, n);
    m += (g - m) * (float)(1 - p.beta1);
    v = v * (float)p.beta2 + g * g * (float)(1 - p.beta2);
    vf root;
#ifdef __AVX512F__
    root = (vf)_mm512_sqrt_ps((__m512)v);
#else
    for (int k = 0; k < W; k++) root[k] = sqrtf(v[k]);
#endif
    vf x = get_some(0, at, i, n) * (float)p.keep - (float)p.rate * m / (root * (float)p.deviation + (float)p.eps);
    put_some(0, mean, i, m, n);
    put_some(0, square, i, v, n);
    put_some(0, at, i, x, n);
}

/* One step of `count` tensors. deviation: 1 / sqrt(1 - beta2^t). Gradients are multiplied by `factor`. */
void adamw(int64_t count, const Tensor *tensors, const Pace *paces, double factor) {
#pragma omp parallel
    {
        int64_t before = 0;
        for (int64_t k = 0; k < count; k++) {
            Tensor t = tensors[k];
            int64_t parts = parts_of(t);
            for (int64_t part = first_of_mine(before); part < parts; part += omp_get_num_threads()) {
                int64_t first, last, i, end;
                rows_of(t, part, &first, &last);
                for (int64_t r = first; r < last; r++) {
                    piece(t, part, r, &i, &end);
                    for (; i + W <= end; i += W) adamw_at(t, paces[k], (float)factor, i, W);
                    if (i < end) adamw_at(t, paces[k], (float)factor, i, (int)(end - i));
                }
            }
            before += parts;
        }
    }
}

/* The sum of squares of the tensors' gradients; added up in one order, whatever the number of threads. */
double squares(int64_t count, const Tensor *tensors) {
    int64_t all_parts = 0;
    for (int64_t k = 0; k < count; k++) all_parts += parts_of(tensors[k]);
    double *sums = malloc(sizeof(double) * (all_parts + 1)), total = 0;
    if (!sums) return -1;
#pragma omp parallel
    {
        int64_t before = 0;
        for (int64_t k = 0; k < count; k++) {
            Tensor t = tensors[k];
            int64_t parts = parts_of(t);
            const float *g = (const float *)t.gradient;
            for (int64_t part = first_of_mine(before); part < parts; part += omp_get_num_threads()) {
                int64_t first, last, i, end;
                vf sum = all(0), rest = all(0);
                rows_of(t, part, &first, &last);
                for (int64_t r = first; r < last; r++) {
                    piece(t, part, r, &i, &end);
                    for (; i + 2 * W <= end; i += 2 * W) {
                        vf a = get(0, g, i), b = get(0, g, i + W);
                        sum += a * a, rest += b * b;
                    }
                    for (; i < end; i += W) {
                        vf a = get_some(0, g, i, end - i < W ? (int)(end - i) : W);
                        sum += a * a;
                    }
                }
                sums[before + part] = (double)sum_of(sum) + (double)sum_of(rest);
            }
            before += parts;
        }
    }
    for (int64_t i = 0; i < all_parts; i++) total += sums[i];
    free(sums);
    return total;
}
