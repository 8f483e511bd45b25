/* An object of a lane at its end: it becomes an instance, and is answered. */

#include "lane.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LONGEST_RESPONSE = 1024 };

/* A killpoint (protocol/killpoints.py). */
static int reach(const Lane *self, const char *point)
{
    if (self->reach == Py_None)
        return 0;
    PyObject *nothing = PyObject_CallFunction(self->reach, "s", point);
    Py_XDECREF(nothing);
    return nothing == NULL ? -1 : 0;
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

/* The directory of a file, opened; -1 as open(2). */
static int open_directory(const char *path)
{
    char name[PATH_MAX];
    const char *end = strrchr(path, '/');
    if (end == NULL || (size_t)(end - path) >= sizeof name) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(name, path, (size_t)(end - path));
    name[end - path] = 0;
    int directory;
    do
        directory = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (directory < 0 && errno == EINTR);
    return directory;
}

/* Close the file and give it its name, as ShardWriter.name. A file system may tell by close(2) that data was lost. */
static int name_file(Lane *self, const char *path)
{
    char name[PATH_MAX];
    PyObject *closed = PyLong_FromLong(-1);
    int file = self->file, result = closed == NULL ? -1 : PyObject_SetAttrString(self->part, "fd", closed);
    Py_XDECREF(closed);
    if (result < 0)
        return -1;
    self->file = -1;
    result = final_name(path, (Py_ssize_t)strlen(path), name, sizeof name);
    int error = errno;
    Py_BEGIN_ALLOW_THREADS
    if (close(file) < 0 && errno != EINTR && result == 0) {
        result = -1;
        error = errno;
    }
    if (result == 0 && (result = rename(path, name)) < 0)
        error = errno;
    Py_END_ALLOW_THREADS
    if (result < 0) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return result;
}

/* Sync, and tell how long that took. */
static int sync_now(Lane *self, int fd, int (*how)(int))
{
    double start = lane_monotonic();
    int result, error;
    Py_BEGIN_ALLOW_THREADS
    do
        result = how(fd);
    while (result < 0 && errno == EINTR);
    error = errno;
    Py_END_ALLOW_THREADS
    self->waited += lane_monotonic() - start;
    if (result < 0) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return result;
}

/* As Store does it with one object: its file is synced, it gets its name, its directory is synced. */
static int name_durably(Lane *self, const char *path)
{
    if (sync_now(self, self->file, fdatasync) < 0 || reach(self, "receiver.data-synced") < 0)
        return -1;
    int directory = open_directory(path);
    if (directory < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    int result = -1;
    if (name_file(self, path) == 0 && reach(self, "receiver.renamed") == 0)
        result = sync_now(self, directory, fsync);
    close(directory);
    return result < 0 ? -1 : reach(self, "receiver.directory-synced");
}

static int make_instance(Lane *self)
{
    PyObject *path = PyObject_GetAttrString(self->part, "path");
    PyObject *encoded = path == NULL ? NULL : PyUnicode_EncodeFSDefault(path);
    int result = -1;
    if (encoded != NULL)
        result = self->sync ? name_durably(self, PyBytes_AS_STRING(encoded))
                            : name_file(self, PyBytes_AS_STRING(encoded));
    Py_XDECREF(path);
    Py_XDECREF(encoded);
    return result;
}

/* Answer Success, as StoreForm.success; what could not be sent is `unsent`. */
static int answer(Lane *self)
{
    char response[LONGEST_RESPONSE];
    PyObject *patterns = lane_pattern(self);
    if (patterns == NULL)
        return -1;
    struct iovec before = lane_pattern_piece(patterns, RESPONSE_BEFORE), after = lane_pattern_piece(patterns, RESPONSE_AFTER);
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
    if (lane_write_out(self) < 0)
        return -1;
    /* A sender whose next object is here already does not wait: syncs of several go beside each other. */
    if (self->sync && !(self->ways & AT_ONCE && self->at == self->end)) {
        *outcome = COMPLETE;
        return 0;
    }
    if (reach(self, "receiver.data-written") < 0 || make_instance(self) < 0
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
