/* An object of a lane on its way: its first look, and its file. */

#include "lane.h"

#include <errno.h>
#include <string.h>

enum {
    FIRST_LOOK = 1024, /* as _FIRST_LOOK_BYTES of reception.py */
};

PyObject *lane_pattern(Lane *self)
{
    PyObject **place = &self->pattern[self->uid_padded / 2];
    if (*place == NULL) {
        PyObject *found = PyObject_CallFunction(self->patterns, "i", self->uid_padded);
        if (found == NULL)
            return NULL;
        int good = PyTuple_Check(found) && PyTuple_GET_SIZE(found) == PATTERNS;
        for (int i = 0; good && i < PATTERNS; i++)
            good = PyBytes_Check(PyTuple_GET_ITEM(found, i));
        if (!good) {
            Py_DECREF(found);
            PyErr_SetString(PyExc_TypeError, "patterns are tuples of five bytes objects");
            return NULL;
        }
        *place = found;
    }
    return *place;
}

int lane_open_file(Lane *self)
{
    PyObject *part = PyObject_CallNoArgs(self->open_part);
    if (part == NULL)
        return -1;
    PyObject *fd = PyObject_GetAttrString(part, "fd");
    if (fd == NULL) {
        Py_DECREF(part);
        return -1;
    }
    self->file = (int)PyLong_AsLong(fd);
    Py_DECREF(fd);
    Py_SETREF(self->part, part);
    return PyErr_Occurred() ? -1 : 0;
}

/* Whether the first bytes have both UIDs, as ExpectedUids.stand_in. */
static int is_as_expected(const Lane *self, PyObject *patterns)
{
    const struct iovec *first = &self->pieces[BEFORE_FRAGMENTS];
    size_t most = first->iov_len < FIRST_LOOK ? first->iov_len : FIRST_LOOK;
    struct iovec before = lane_pattern_piece(patterns, DATASET_BEFORE);
    const unsigned char *found = memmem(first->iov_base, most, before.iov_base, before.iov_len);
    if (found == NULL)
        return 0;
    size_t left = most - (size_t)(found + before.iov_len - (const unsigned char *)first->iov_base);
    return left >= (size_t)self->uid_padded && !memcmp(found + before.iov_len, self->uid, (size_t)self->uid_padded);
}

static int write_pieces(Lane *self, struct iovec *piece, int count)
{
    while (count) {
        ssize_t written;
        Py_BEGIN_ALLOW_THREADS
        written = writev(self->file, piece, count);
        Py_END_ALLOW_THREADS
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0) {
            if (written == 0)
                errno = EIO;
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        self->size += written;
        for (; count && (size_t)written >= piece->iov_len; piece++, count--)
            written -= (ssize_t)piece->iov_len;
        if (count) {
            piece->iov_base = (char *)piece->iov_base + written;
            piece->iov_len -= (size_t)written;
        }
    }
    return 0;
}

/* Whether an object that begins with these pieces goes past the page cache: all do but small ones that are complete. */
static int is_worth_a_stage(const Lane *self, const struct iovec *piece, int count)
{
    size_t size = 0;
    if (!(self->ways & DIRECT))
        return 0;
    if (!is_dataset_ended(self))
        return 1;
    for (; count; piece++, count--)
        size += piece->iov_len;
    return size >= LEAST_DIRECT;
}

/* Write, or stage, what came of a dataset: 1 when that is done, 0 when its beginning is unusual, -1 for an exception. */
int lane_flush(Lane *self)
{
    if (!self->pieces_count)
        return 1;
    struct iovec *first = &self->pieces[BEFORE_FRAGMENTS];
    int count = self->pieces_count;
    if (!self->size) {
        PyObject *patterns = lane_pattern(self);
        if (patterns == NULL)
            return -1;
        if (!is_as_expected(self, patterns))
            return 0;
        if (self->part == Py_None && lane_open_file(self) < 0)
            return -1;
        first -= BEFORE_FRAGMENTS;
        count += BEFORE_FRAGMENTS;
        first[0] = lane_pattern_piece(patterns, META_BEFORE);
        first[1] = (struct iovec){self->uid, (size_t)self->uid_padded};
        first[2] = lane_pattern_piece(patterns, META_AFTER);
    }
    if (!self->size && is_worth_a_stage(self, first, count))
        lane_take_stage(self);
    self->pieces_count = 0;
    return (self->stage == NULL ? write_pieces(self, first, count) : lane_stage(self, first, count)) < 0 ? -1 : 1;
}
