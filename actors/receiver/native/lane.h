/* The lane: objects whose C-STORE request has its association's usual form, from the socket into the file.
 *
 * It does what connection.py, pdu.py, service.py and store.py do with such an object, and nothing else. What it does not
 * know it leaves where it lies and says so; lane.py then hands the object over to them, wherever it stands. So every rule
 * has its one full statement there, and all of this may be missing.
 *
 * Its lines follow one rule: nothing is promised before it is done. An answer is sent when the file has its name.
 */
#ifndef LANE_H
#define LANE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <sys/uio.h>

enum {
    P_DATA_TF = 4,
    IS_COMMAND = 1,
    IS_LAST = 2,
    PDU_HEADER = 6,                   /* of a P-DATA-TF (PS3.8 section 9.3.5) */
    PDV_HEADER = 6,
    HEADERS = PDU_HEADER + PDV_HEADER,
    LONGEST_UID = 64,                 /* PS3.5 section 9.1 */
    LONGEST_COMMAND = 1024,           /* with its headers; a usual one has some 150 bytes */
    BEFORE_FRAGMENTS = 3,             /* pieces of the file meta group */
    MOST_PIECES = 512,                /* of one writev(2); the system takes 1024 */
    BULK = 4 * 1024 * 1024,           /* as _BULK_BYTES of service.py */
    SPLICED = 32 * 1024,              /* as _SPLICED_BYTES of association.py */
    STAGE = 1024 * 1024,              /* of an object's bytes, on their way past the page cache */
    LEAST_DIRECT = 64 * 1024,         /* less than that is quicker through it */
};

/* What a turn came to, and where an object stands. */
enum outcome { WAITING, STORED, COMPLETE, UNUSUAL, LOST };
/* What an object that is synced may do, see pace.py: go past the page cache; be synced while all others wait. */
enum way { DIRECT = 1, AT_ONCE = 2 };
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
    char *stage;                                   /* NULL: what comes is written at once */
    size_t staged;
    char is_last, has_begun;                       /* has_begun: a fragment of its dataset has */
    /* Of the turn. */
    Py_ssize_t at, end, first_at;
    int pdus, has_carried, error;                  /* has_carried: the first of the PDUs had begun before */
    int ways;
    double waited;                                 /* for the disk, in seconds */
    PyObject *stored, *unsent;
    struct iovec *pieces;                          /* to be written: of the file meta group, then of the dataset */
    int pieces_count;                              /* of the latter */
} Lane;

/* The bytes of the receive buffer from a position on. */
static inline unsigned char *bytes_at(const Lane *self, Py_ssize_t at)
{
    return (unsigned char *)self->buffer.buf + at;
}

static inline int is_dataset_ended(const Lane *self)
{
    return self->phase == BETWEEN_FRAGMENTS && self->has_begun && self->is_last;
}

static inline struct iovec lane_pattern_piece(PyObject *patterns, enum pattern which)
{
    PyObject *bytes = PyTuple_GET_ITEM(patterns, which);
    return (struct iovec){PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)};
}

/* -1 is with an exception everywhere. walk.c: one receive, and what follows from it; an outcome. */
int lane_take_turn(Lane *self);
double lane_monotonic(void);

/* object.c: on its way. */
PyObject *lane_pattern(Lane *self);                        /* what is the same for all UIDs of such a length */
int lane_open_file(Lane *self);
int lane_flush(Lane *self);                                /* 1 when all is written or staged, 0 when its beginning is unusual */

/* direct.c: past the page cache. */
void lane_take_stage(Lane *self);                          /* there may be none */
void lane_drop_stage(Lane *self);
int lane_stage(Lane *self, const struct iovec *piece, int count);
int lane_write_out(Lane *self);                            /* what is staged is in the file then */

/* instance.c: its end. */
int lane_complete(Lane *self, enum outcome *outcome);

#endif
