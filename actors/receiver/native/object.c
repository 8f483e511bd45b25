/* An object of a lane: its first look, its file, its name and its answer. */

#include "lane.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    LONGEST_RESPONSE = 1024,
    FIRST_LOOK = 1024, /* as _FIRST_LOOK_BYTES of reception.py */
};

/* A killpoint (protocol/killpoints.py). */
static int reach(const Lane *self, const char *point)
{
    if (self->reach == Py_None)
        return 0;
    PyObject *nothing = PyObject_CallFunction(self->reach, "s", point);
    Py_XDECREF(nothing);
    return nothing == NULL ? -1 : 0;
}

static PyObject *pattern_of(Lane *self)
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

static struct iovec pattern_piece(PyObject *patterns, enum pattern which)
{
    PyObject *bytes = PyTuple_GET_ITEM(patterns, which);
    return (struct iovec){PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)};
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
    struct iovec before = pattern_piece(patterns, DATASET_BEFORE);
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

/* Write what came of a dataset: 1 when that is done, 0 when its beginning is unusual, -1 for an exception. */
int lane_flush(Lane *self)
{
    if (!self->pieces_count)
        return 1;
    struct iovec *first = &self->pieces[BEFORE_FRAGMENTS];
    int count = self->pieces_count;
    if (!self->size) {
        PyObject *patterns = pattern_of(self);
        if (patterns == NULL)
            return -1;
        if (!is_as_expected(self, patterns))
            return 0;
        if (self->part == Py_None && lane_open_file(self) < 0)
            return -1;
        first -= BEFORE_FRAGMENTS;
        count += BEFORE_FRAGMENTS;
        first[0] = pattern_piece(patterns, META_BEFORE);
        first[1] = (struct iovec){self->uid, (size_t)self->uid_padded};
        first[2] = pattern_piece(patterns, META_AFTER);
    }
    self->pieces_count = 0;
    return write_pieces(self, first, count) < 0 ? -1 : 1;
}

/* The name of an instance, by that of its file in transit; -1 when it would be too long. */
static int final_name(const char *path, Py_ssize_t length, char *name, size_t size)
{
    static const char in_transit[] = ".part", suffix[] = ".dcm";
    length -= (Py_ssize_t)sizeof in_transit - 1;
    if (length <= 0 || (size_t)length + sizeof suffix > size) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(name, path, (size_t)length);
    memcpy(name + length, suffix, sizeof suffix);
    return 0;
}

/* Close the file and give it its name, as ShardWriter.name. A file system may tell by close(2) that data was lost. */
static int name_file(Lane *self)
{
    char name[PATH_MAX];
    PyObject *closed = PyLong_FromLong(-1), *path = PyObject_GetAttrString(self->part, "path");
    PyObject *encoded = path == NULL ? NULL : PyUnicode_EncodeFSDefault(path);
    int result = -1, file = self->file;
    if (closed != NULL && encoded != NULL && PyObject_SetAttrString(self->part, "fd", closed) == 0) {
        const char *from = PyBytes_AS_STRING(encoded);
        self->file = -1;
        result = final_name(from, PyBytes_GET_SIZE(encoded), name, sizeof name);
        int error = errno;
        Py_BEGIN_ALLOW_THREADS
        if (close(file) < 0 && errno != EINTR && result == 0) {
            result = -1;
            error = errno;
        }
        if (result == 0 && (result = rename(from, name)) < 0)
            error = errno;
        Py_END_ALLOW_THREADS
        if (result < 0) {
            errno = error;
            PyErr_SetFromErrno(PyExc_OSError);
        }
    }
    Py_XDECREF(closed);
    Py_XDECREF(path);
    Py_XDECREF(encoded);
    return result;
}

/* Answer Success, as StoreForm.success; what could not be sent is `unsent`. */
static int answer(Lane *self)
{
    char response[LONGEST_RESPONSE];
    PyObject *patterns = pattern_of(self);
    if (patterns == NULL)
        return -1;
    struct iovec before = pattern_piece(patterns, RESPONSE_BEFORE), after = pattern_piece(patterns, RESPONSE_AFTER);
    size_t length = before.iov_len + 2 + after.iov_len + (size_t)self->uid_padded;
    if (length > sizeof response) {
        PyErr_SetString(PyExc_ValueError, "a response of this form is too long");
        return -1;
    }
    memcpy(response, before.iov_base, before.iov_len);
    response[before.iov_len] = (char)(self->message_id & 0xFF);
    response[before.iov_len + 1] = (char)(self->message_id >> 8);
    memcpy(response + before.iov_len + 2, after.iov_base, after.iov_len);
    memcpy(response + before.iov_len + 2 + after.iov_len, self->uid, (size_t)self->uid_padded);
    ssize_t sent;
    Py_BEGIN_ALLOW_THREADS
    sent = send(self->fd, response, length, MSG_NOSIGNAL);
    Py_END_ALLOW_THREADS
    if (sent < 0)
        sent = 0; /* the owner sends it again, and learns why it cannot */
    if ((size_t)sent < length) {
        PyObject *rest = PyBytes_FromStringAndSize(response + sent, (Py_ssize_t)length - sent);
        if (rest == NULL)
            return -1;
        Py_XSETREF(self->unsent, rest);
    }
    return 0;
}

/* The dataset is whole and written: make it an instance, or leave that to the owner; -1 for an exception. */
int lane_complete(Lane *self, enum outcome *outcome)
{
    self->phase = DATASET_ENDED;
    if (self->sync) {
        *outcome = COMPLETE;
        return 0;
    }
    if (reach(self, "receiver.data-written") < 0 || name_file(self) < 0
        || answer(self) < 0)
        return -1;
    self->phase = BETWEEN_OBJECTS;
    PyObject *entry = Py_BuildValue("(Ony#)", self->part, self->size, self->uid, (Py_ssize_t)self->uid_length);
    if (entry == NULL)
        return -1;
    int appended = PyList_Append(self->stored, entry);
    Py_DECREF(entry);
    Py_SETREF(self->part, Py_NewRef(Py_None));
    if (appended < 0 || reach(self, "receiver.answered") < 0)
        return -1;
    *outcome = self->unsent == NULL ? WAITING : UNUSUAL;
    return 0;
}
