#include "vectors.h"

/* ---- rows of very many numbers, a few of them: their products, and a weighted sum ---- */

#define PART 8192 /* columns that are worked on at a time; parts are added up in their order, whoever made them */

INLINE void pairs(int kind, int tall, int broad, const char *const *x, const char *const *y, int64_t begin, int64_t end,
                  float *found, int64_t step) {
    vf sums[4][4] = {{{0}}};
    int64_t c = begin;
    for (; c + W <= end; c += W) {
        vf right[4];
        for (int j = 0; j < broad; j++) right[j] = get(kind, y[j], c);
        for (int i = 0; i < tall; i++) {
            vf left = get(kind, x[i], c);
            for (int j = 0; j < broad; j++) sums[i][j] += left * right[j];
        }
    }
    if (c < end) {
        int n = (int)(end - c);
        for (int i = 0; i < tall; i++) {
            vf left = get_some(kind, x[i], c, n);
            for (int j = 0; j < broad; j++) sums[i][j] += left * get_some(kind, y[j], c, n);
        }
    }
    for (int i = 0; i < tall; i++)
        for (int j = 0; j < broad; j++) found[i * step + j] = sum_of(sums[i][j]);
}

/* products: [rows, rows], 0 on entry; parts: [parts, rows, rows] to work with; rows: at most 256 */
void gramian(int64_t kind, int64_t rows, int64_t count, const char *x, int64_t stride, float *parts, double *products) {
    const char *at[260];
    int64_t size = kind ? 2 : 4, many = (count + PART - 1) / PART;
    for (int64_t i = 0; i < rows; i++) at[i] = x + i * stride * size;
#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < many; p++) {
        int64_t begin = p * PART, end = begin + PART < count ? begin + PART : count;
        float *own = parts + p * rows * rows;
        for (int64_t i = 0; i < rows; i += 4)
            for (int64_t j = 0; j <= i; j += 4) {
                int tall = rows - i < 4 ? (int)(rows - i) : 4, broad = rows - j < 4 ? (int)(rows - j) : 4;
                float *to = own + i * rows + j;
                if (tall == 4 && broad == 4) {
                    if (kind) pairs(1, 4, 4, at + i, at + j, begin, end, to, rows);
                    else pairs(0, 4, 4, at + i, at + j, begin, end, to, rows);
                } else {
                    if (kind) pairs(1, tall, broad, at + i, at + j, begin, end, to, rows);
                    else pairs(0, tall, broad, at + i, at + j, begin, end, to, rows);
                }
            }
    }
    for (int64_t p = 0; p < many; p++)
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j <= i; j++) products[i * rows + j] += parts[(p * rows + i) * rows + j];
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = i + 1; j < rows; j++) products[i * rows + j] = products[j * rows + i];
}

INLINE void weighted(int kind, int64_t rows, const char *x, int64_t step, const float *weights, float *out, int64_t begin,
                     int64_t end) {
    int64_t c = begin;
    for (; c + 2 * W <= end; c += 2 * W) {
        vf left = all(0), right = all(0);
        for (int64_t i = 0; i < rows; i++) {
            left += weights[i] * get(kind, x + i * step, c);
            right += weights[i] * get(kind, x + i * step, c + W);
        }
        put(0, out, c, left);
        put(0, out, c + W, right);
    }
    for (; c < end; c += W) {
        int n = end - c < W ? (int)(end - c) : W;
        vf sum = all(0);
        for (int64_t i = 0; i < rows; i++) sum += weights[i] * get_some(kind, x + i * step, c, n);
        put_some(0, out, c, sum, n);
    }
}

/* out[c] = sum of weights[i] x[i, c] */
void weighted_sum(int64_t kind, int64_t rows, int64_t count, const char *x, int64_t stride, const float *weights,
                  float *out) {
    int64_t size = kind ? 2 : 4, many = (count + PART - 1) / PART;
#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < many; p++) {
        int64_t begin = p * PART, end = begin + PART < count ? begin + PART : count;
        if (kind) weighted(1, rows, x, stride * size, weights, out, begin, end);
        else weighted(0, rows, x, stride * size, weights, out, begin, end);
    }
}
