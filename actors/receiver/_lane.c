/* The lane: objects whose C-STORE request has its association's usual form, from the socket into the file.
 *
 * It does what connection.py, pdu.py, service.py and store.py do with such an object, and nothing else. What it does not
 * know it leaves where it lies and says so; lane.py then hands the object over to them, wherever it stands. So every rule
 * has its one full statement there, and this file may be missing.
 *
 * Its lines follow one rule: nothing is promised before it is done. An answer is sent when the file has its name.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    P_DATA_TF = 4,
    IS_COMMAND = 1,
    IS_LAST = 2,
    PDU_HEADER = 6,                   /* of a P-DATA-TF (PS3.8 section 9.3.5) */
    PDV_HEADER = 6,
    HEADERS = PDU_HEADER + PDV_HEADER,
    GROUP_LENGTH = 12,                /* the first element of a command set (PS3.7 section 9.3.1) */
    LONGEST_UID = 64,                 /* PS3.5 section 9.1 */
    LONGEST_COMMAND = 1024,           /* with its headers; a usual one has some 150 bytes */
    LONGEST_RESPONSE = 1024,
    FIRST_LOOK = 1024,                /* as _FIRST_LOOK_BYTES of service.py */
    BEFORE_FRAGMENTS = 3,             /* pieces of the file meta group */
    MOST_PIECES = 512,                /* of one writev(2); the system takes 1024 */
    BULK = 4 * 1024 * 1024,           /* as _BULK_BYTES of service.py */
    SPLICED = 32 * 1024,              /* as _SPLICED_BYTES of association.py */
};

static const double STALL = 0.025; /* as _STALL_SECONDS of connection.py */

/* What a turn came to, and where an object stands. */
enum outcome { WAITING, STORED, COMPLETE, UNUSUAL, LOST };
enum phase { BETWEEN_OBJECTS, BETWEEN_FRAGMENTS, IN_FRAGMENT, DATASET_ENDED };

/* What depends on the length of the SOP Instance UID's value alone. */
enum pattern { RESPONSE_BEFORE, RESPONSE_AFTER, DATASET_BEFORE, META_BEFORE, META_AFTER, PATTERNS };

typedef struct {
    PyObject_HEAD
    /* Given once. */
    int fd;
    Py_buffer buffer;
    unsigned char context_id;
    Py_ssize_t longest_pdu;
    int sync;
    double idle_seconds, pdu_seconds;
    PyObject *head, *middle;                       /* bytes, see StoreForm */
    PyObject *patterns, *open_part, *reach;        /* called; the last may be None */
    PyObject *pattern[LONGEST_UID / 2 + 1];        /* tuples of bytes, by half the length */
    /* Of the connection. */
    double quick, amid_since, deadline;
    char amid_pdu;
    unsigned char carry[LONGEST_COMMAND];          /* a header, or a request, whose rest must come */
    Py_ssize_t carried;
    /* Of the object. */
    int phase;
    PyObject *part;                                /* None until its file is open */
    int file;
    unsigned short message_id;
    char uid[LONGEST_UID + 1];                     /* as it stands in the request, of even length */
    int uid_length, uid_padded;
    Py_ssize_t fragment_left, fragment_bytes, size;
    char is_last, has_begun;                       /* has_begun: a fragment of its dataset has */
    /* Of the turn. */
    Py_ssize_t at, end, first_at;
    int pdus, has_carried, error;                  /* has_carried: the first of the PDUs had begun before */
    PyObject *stored, *unsent;
    int pieces_count;                              /* of `pieces`, behind those of the file meta group */
} Lane;

/* What a turn is to write: of all lanes, since turns are taken one after the other, in one thread. */
static struct iovec pieces[BEFORE_FRAGMENTS + MOST_PIECES];

static double monotonic(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static unsigned char *bytes_at(const Lane *self, Py_ssize_t at)
{
    return (unsigned char *)self->buffer.buf + at;
}

static uint32_t big32(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static uint32_t little32(const unsigned char *at)
{
    return (uint32_t)at[3] << 24 | (uint32_t)at[2] << 16 | (uint32_t)at[1] << 8 | at[0];
}

/* As is_uid_value of protocol/dimse/uids.py, of what is not empty. */
static int is_uid(const char *value, int length)
{
    int after_digit = 0;
    for (int i = 0; i < length; i++) {
        if (value[i] >= '0' && value[i] <= '9')
            after_digit = 1;
        else if (value[i] == '.' && after_digit)
            after_digit = 0;
        else
            return 0;
    }
    return after_digit;
}

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

/* Receive behind what was carried over; 0 when there is something to walk. */
static int receive(Lane *self, enum outcome *outcome)
{
    self->has_carried = self->carried > 0;
    memcpy(bytes_at(self, 0), self->carry, (size_t)self->carried);
    ssize_t count;
    Py_BEGIN_ALLOW_THREADS
    count = recv(self->fd, bytes_at(self, self->carried), (size_t)(self->buffer.len - self->carried), 0);
    Py_END_ALLOW_THREADS
    self->at = self->end = 0;
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
        *outcome = WAITING;
        return -1;
    }
    if (self->amid_since > 0) {
        if (monotonic() - self->amid_since > STALL)
            self->quick = Py_HUGE_VAL;
        self->amid_since = 0;
    }
    self->end = self->carried; /* on a loss, too: the owner's state is that of these bytes */
    self->carried = 0;
    if (count <= 0) {
        self->error = count < 0 ? errno : 0;
        *outcome = LOST;
        return -1;
    }
    self->end += count;
    return 0;
}

/* Keep what is left for the next turn. */
static enum outcome carry(Lane *self)
{
    self->carried = self->end - self->at;
    memcpy(self->carry, bytes_at(self, self->at), (size_t)self->carried);
    self->at = self->end;
    return WAITING;
}

/* The headers at `at`: the PDV's length without its own header, 0 when they are unusual, -1 when they must come. */
static Py_ssize_t headers(const Lane *self, unsigned char *control)
{
    const unsigned char *header = bytes_at(self, self->at);
    if (self->end > self->at && header[0] != P_DATA_TF)
        return 0;
    if (self->end - self->at < PDU_HEADER)
        return -1;
    Py_ssize_t pdu = big32(header + 2);
    if (pdu <= PDV_HEADER || pdu > self->longest_pdu)
        return 0;
    if (self->end - self->at < HEADERS)
        return -1;
    if ((Py_ssize_t)big32(header + 6) != pdu - 4 || header[10] != self->context_id)
        return 0;
    *control = header[11];
    return pdu - PDV_HEADER;
}

/* Take a request of the form, as StoreForm.match; 0 when it is none. */
static int take_request(Lane *self, const unsigned char *data, Py_ssize_t length)
{
    static const unsigned char group_length[] = {0, 0, 0, 0, 4, 0, 0, 0};
    Py_ssize_t head = PyBytes_GET_SIZE(self->head), middle = PyBytes_GET_SIZE(self->middle);
    Py_ssize_t message_id = GROUP_LENGTH + head, rest = message_id + 2, uid = rest + middle + 4;
    Py_ssize_t uid_length = length - uid;
    if (uid_length < 1 || uid_length > LONGEST_UID
        || memcmp(data, group_length, sizeof group_length)
        || memcmp(data + GROUP_LENGTH, PyBytes_AS_STRING(self->head), (size_t)head)
        || memcmp(data + rest, PyBytes_AS_STRING(self->middle), (size_t)middle)
        || little32(data + uid - 4) != (uint32_t)uid_length)
        return 0;
    int unpadded = (int)uid_length;
    while (unpadded && (data[uid + unpadded - 1] == 0 || data[uid + unpadded - 1] == ' '))
        unpadded--;
    if (!is_uid((const char *)data + uid, unpadded))
        return 0;
    memcpy(self->uid, data + uid, (size_t)unpadded);
    self->uid[unpadded] = 0;
    self->uid_length = unpadded;
    self->uid_padded = unpadded + (unpadded & 1);
    self->message_id = (unsigned short)(data[message_id] | data[message_id + 1] << 8);
    self->size = 0;
    self->has_begun = 0;
    return 1;
}

static int open_file(Lane *self)
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
    const struct iovec *first = &pieces[BEFORE_FRAGMENTS];
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
static int flush(Lane *self)
{
    if (!self->pieces_count)
        return 1;
    struct iovec *first = &pieces[BEFORE_FRAGMENTS];
    int count = self->pieces_count;
    if (!self->size) {
        PyObject *patterns = pattern_of(self);
        if (patterns == NULL)
            return -1;
        if (!is_as_expected(self, patterns))
            return 0;
        if (self->part == Py_None && open_file(self) < 0)
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
static int complete(Lane *self, enum outcome *outcome)
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

/* Walk one step: 1 to go on, 0 for the outcome, -1 for an exception. */
static int step_between_objects(Lane *self, enum outcome *outcome)
{
    unsigned char control = 0;
    Py_ssize_t length = headers(self, &control);
    if (length > 0 && (control != (IS_COMMAND | IS_LAST) || HEADERS + length > LONGEST_COMMAND))
        length = 0;
    if (length < 0 || (length && self->end - self->at < HEADERS + length)) {
        *outcome = carry(self);
        return 0;
    }
    if (!length || !take_request(self, bytes_at(self, self->at + HEADERS), length)) {
        *outcome = UNUSUAL;
        return 0;
    }
    self->pdus++;
    self->at += HEADERS + length;
    self->phase = BETWEEN_FRAGMENTS;
    return 1;
}

static int step_between_fragments(Lane *self, enum outcome *outcome)
{
    unsigned char control = 0;
    Py_ssize_t length = headers(self, &control);
    /* The first headers stay beside the first bytes: the owner gets both when these are unusual. */
    if (length < 0 || (length && !self->has_begun && self->end - self->at == HEADERS)) {
        *outcome = carry(self);
        return 0;
    }
    if (!length || control & IS_COMMAND) {
        *outcome = UNUSUAL;
        return 0;
    }
    self->pdus++;
    if (!self->has_begun) {
        self->has_begun = 1;
        self->first_at = self->at;
    }
    self->at += HEADERS;
    self->fragment_left = self->fragment_bytes = length;
    self->is_last = control & IS_LAST;
    self->phase = IN_FRAGMENT;
    return 1;
}

static int step_in_fragment(Lane *self, enum outcome *outcome)
{
    Py_ssize_t left = self->end - self->at, taken = left < self->fragment_left ? left : self->fragment_left;
    if (!taken) {
        *outcome = WAITING;
        return 0;
    }
    pieces[BEFORE_FRAGMENTS + self->pieces_count++]
        = (struct iovec){bytes_at(self, self->at), (size_t)taken};
    self->at += taken;
    self->fragment_left -= taken;
    if (!self->fragment_left)
        self->phase = BETWEEN_FRAGMENTS;
    return 1;
}

static int walk(Lane *self, enum outcome *outcome)
{
    int more = 1;
    while (more > 0) {
        switch (self->phase) {
        case BETWEEN_OBJECTS:
            more = step_between_objects(self, outcome);
            break;
        case BETWEEN_FRAGMENTS:
            more = step_between_fragments(self, outcome);
            break;
        default:
            more = step_in_fragment(self, outcome);
        }
        int ended = more > 0 && self->phase == BETWEEN_FRAGMENTS && self->has_begun && self->is_last;
        if (ended || more <= 0 || self->pieces_count == MOST_PIECES) {
            int flushed = flush(self);
            if (flushed < 0) {
                if (ended)
                    self->phase = DATASET_ENDED;
                return -1;
            }
            if (!flushed) {
                /* Nothing was written: go back to where its dataset begins. */
                self->at = self->first_at;
                self->carried = self->pieces_count = 0;
                self->has_begun = 0;
                self->phase = BETWEEN_FRAGMENTS;
                *outcome = UNUSUAL;
                return 0;
            }
        }
        if (ended) {
            if (complete(self, outcome) < 0)
                return -1;
            more = *outcome == WAITING;
        }
    }
    if (*outcome == WAITING) {
        if (self->phase == IN_FRAGMENT && self->size >= BULK && self->fragment_bytes >= SPLICED)
            *outcome = UNUSUAL; /* it goes through the pipe from here on */
        else if (self->phase == BETWEEN_FRAGMENTS && self->part == Py_None)
            /* The peer has yet to read its file, or to send it: there is time to open ours. */
            return open_file(self);
    }
    return 0;
}

/* Until when the peer has time, and what it may wait for, as Association._settle and Connection.acknowledge. */
static void settle(Lane *self)
{
    int was_amid_pdu = self->amid_pdu;
    self->amid_pdu = self->phase == IN_FRAGMENT || self->carried > 0;
    if (!self->amid_pdu)
        self->deadline = monotonic() + self->idle_seconds;
    else if (!was_amid_pdu || self->pdus > self->has_carried)
        self->deadline = monotonic() + self->pdu_seconds; /* what trickles in does not move it */
    if (!self->amid_pdu && self->phase == BETWEEN_OBJECTS)
        return;
    if (self->quick > 0) {
        int on = 1;
        self->quick -= 1;
        setsockopt(self->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
    } else {
        self->amid_since = monotonic();
    }
}

static PyObject *lane_turn(Lane *self, PyObject *Py_UNUSED(none))
{
    enum outcome outcome = WAITING;
    self->pdus = self->pieces_count = 0;
    if (receive(self, &outcome) == 0) {
        int failed = walk(self, &outcome) < 0;
        if (failed || outcome == WAITING || outcome == UNUSUAL)
            settle(self);
        if (failed)
            return NULL;
    }
    if (outcome == WAITING && PyList_GET_SIZE(self->stored))
        outcome = STORED;
    return PyLong_FromLong(outcome);
}

/* The owner is between two objects: begin there. */
static PyObject *lane_enter(Lane *self, PyObject *arguments)
{
    if (!PyArg_ParseTuple(arguments, "dd", &self->quick, &self->amid_since))
        return NULL;
    self->phase = BETWEEN_OBJECTS;
    Py_SETREF(self->part, Py_NewRef(Py_None));
    Py_CLEAR(self->unsent);
    self->carried = self->at = self->end = 0;
    self->has_begun = self->amid_pdu = 0;
    self->deadline = monotonic() + self->idle_seconds;
    Py_RETURN_NONE;
}

/* The owner has the complete object. */
static PyObject *lane_next_object(Lane *self, PyObject *Py_UNUSED(none))
{
    self->phase = BETWEEN_OBJECTS;
    Py_SETREF(self->part, Py_NewRef(Py_None));
    self->amid_pdu = 0;
    self->deadline = monotonic() + self->idle_seconds;
    Py_RETURN_NONE;
}

static int lane_init(Lane *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"fd", "buffer", "context_id", "longest_pdu", "head", "middle", "sync", "idle_seconds",
                            "pdu_seconds", "patterns", "open_part", "reach", NULL};
    PyObject *head, *middle, *patterns, *open_part, *reach;
    if (self->stored != NULL) {
        PyErr_SetString(PyExc_TypeError, "a lane is made once");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "$iw*bnSSpddOOO", names, &self->fd, &self->buffer,
                                     &self->context_id, &self->longest_pdu, &head, &middle, &self->sync,
                                     &self->idle_seconds, &self->pdu_seconds, &patterns, &open_part, &reach))
        return -1;
    self->head = Py_NewRef(head);
    self->middle = Py_NewRef(middle);
    self->patterns = Py_NewRef(patterns);
    self->open_part = Py_NewRef(open_part);
    self->reach = Py_NewRef(reach);
    self->part = Py_NewRef(Py_None);
    self->file = -1;
    self->stored = PyList_New(0);
    if (self->stored != NULL && self->buffer.len <= LONGEST_COMMAND) {
        PyErr_SetString(PyExc_ValueError, "the buffer is too small");
        return -1;
    }
    return self->stored == NULL ? -1 : 0;
}

static int lane_traverse(Lane *self, visitproc visit, void *arg)
{
    Py_VISIT(self->patterns);
    Py_VISIT(self->open_part);
    Py_VISIT(self->reach);
    Py_VISIT(self->part);
    Py_VISIT(self->stored);
    return 0;
}

static int lane_clear(Lane *self)
{
    Py_CLEAR(self->patterns);
    Py_CLEAR(self->open_part);
    Py_CLEAR(self->reach);
    Py_CLEAR(self->part);
    Py_CLEAR(self->stored);
    return 0;
}

static void lane_dealloc(Lane *self)
{
    PyObject_GC_UnTrack(self);
    lane_clear(self);
    Py_CLEAR(self->head);
    Py_CLEAR(self->middle);
    Py_CLEAR(self->unsent);
    for (size_t i = 0; i < sizeof self->pattern / sizeof *self->pattern; i++)
        Py_CLEAR(self->pattern[i]);
    if (self->buffer.obj != NULL)
        PyBuffer_Release(&self->buffer);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *lane_get_sop_instance(Lane *self, void *Py_UNUSED(closure))
{
    return PyBytes_FromStringAndSize(self->uid, self->uid_length);
}

/* What came, and was not walked. */
static PyObject *lane_get_rest(Lane *self, void *Py_UNUSED(closure))
{
    if (self->carried)
        return PyBytes_FromStringAndSize((const char *)self->carry, self->carried);
    return PyBytes_FromStringAndSize((const char *)bytes_at(self, self->at), self->end - self->at);
}

static PyMemberDef lane_members[] = {
    {"quick", T_DOUBLE, offsetof(Lane, quick), READONLY, NULL},
    {"amid_since", T_DOUBLE, offsetof(Lane, amid_since), READONLY, NULL},
    {"deadline", T_DOUBLE, offsetof(Lane, deadline), READONLY, NULL},
    {"amid_pdu", T_BOOL, offsetof(Lane, amid_pdu), READONLY, NULL},
    {"phase", T_INT, offsetof(Lane, phase), READONLY, NULL},
    {"part", T_OBJECT, offsetof(Lane, part), READONLY, NULL},
    {"size", T_PYSSIZET, offsetof(Lane, size), READONLY, NULL},
    {"message_id", T_USHORT, offsetof(Lane, message_id), READONLY, NULL},
    {"fragment_left", T_PYSSIZET, offsetof(Lane, fragment_left), READONLY, NULL},
    {"fragment_bytes", T_PYSSIZET, offsetof(Lane, fragment_bytes), READONLY, NULL},
    {"is_last", T_BOOL, offsetof(Lane, is_last), READONLY, NULL},
    {"has_begun", T_BOOL, offsetof(Lane, has_begun), READONLY, NULL},
    {"error", T_INT, offsetof(Lane, error), READONLY, NULL},
    {"stored", T_OBJECT, offsetof(Lane, stored), READONLY, NULL},
    {"unsent", T_OBJECT, offsetof(Lane, unsent), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef lane_properties[] = {
    {"sop_instance", (getter)lane_get_sop_instance, NULL, NULL, NULL},
    {"rest", (getter)lane_get_rest, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef lane_methods[] = {
    {"enter", (PyCFunction)lane_enter, METH_VARARGS, NULL},
    {"turn", (PyCFunction)lane_turn, METH_NOARGS, NULL},
    {"next_object", (PyCFunction)lane_next_object, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject lane_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "actors.receiver._lane.Lane",
    .tp_basicsize = sizeof(Lane),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)lane_init,
    .tp_dealloc = (destructor)lane_dealloc,
    .tp_traverse = (traverseproc)lane_traverse,
    .tp_clear = (inquiry)lane_clear,
    .tp_methods = lane_methods,
    .tp_members = lane_members,
    .tp_getset = lane_properties,
};

static struct PyModuleDef lane_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "actors.receiver._lane",
    .m_size = -1,
};

PyMODINIT_FUNC PyInit__lane(void)
{
    PyObject *module = PyModule_Create(&lane_module);
    if (module == NULL)
        return NULL;
    if (PyModule_AddType(module, &lane_type) < 0
        || PyModule_AddIntConstant(module, "WAITING", WAITING) < 0
        || PyModule_AddIntConstant(module, "STORED", STORED) < 0
        || PyModule_AddIntConstant(module, "COMPLETE", COMPLETE) < 0
        || PyModule_AddIntConstant(module, "UNUSUAL", UNUSUAL) < 0
        || PyModule_AddIntConstant(module, "LOST", LOST) < 0
        || PyModule_AddIntConstant(module, "BETWEEN_OBJECTS", BETWEEN_OBJECTS) < 0
        || PyModule_AddIntConstant(module, "BETWEEN_FRAGMENTS", BETWEEN_FRAGMENTS) < 0
        || PyModule_AddIntConstant(module, "IN_FRAGMENT", IN_FRAGMENT) < 0
        || PyModule_AddIntConstant(module, "DATASET_ENDED", DATASET_ENDED) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
