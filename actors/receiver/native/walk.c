/* The walk of a lane: receives, PDUs and requests. What becomes of a dataset is in object.c, direct.c and instance.c. */

#include "lane.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { GROUP_LENGTH = 12 };        /* the first element of a command set (PS3.7 section 9.3.1) */

static const double STALL = 0.025; /* as _STALL_SECONDS of connection.py */

double lane_monotonic(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
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
        if (lane_monotonic() - self->amid_since > STALL)
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
    self->pieces[BEFORE_FRAGMENTS + self->pieces_count++]
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
        int ended = more > 0 && is_dataset_ended(self);
        if (ended || more <= 0 || self->pieces_count == MOST_PIECES) {
            int flushed = lane_flush(self);
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
            if (lane_complete(self, outcome) < 0)
                return -1;
            more = *outcome == WAITING;
        }
    }
    if (*outcome == WAITING) {
        if (self->phase == IN_FRAGMENT && self->size >= BULK && (self->sync || self->fragment_bytes >= SPLICED))
            *outcome = UNUSUAL; /* from here on it goes through the pipe, and to the disk while it comes */
        else if (self->phase == BETWEEN_FRAGMENTS && self->part == Py_None)
            /* The peer has yet to read its file, or to send it: there is time to open ours. */
            return lane_open_file(self);
    }
    return 0;
}

/* Until when the peer has time, and what it may wait for, as Association._settle and Connection.acknowledge. */
static void settle(Lane *self)
{
    int was_amid_pdu = self->amid_pdu;
    self->amid_pdu = self->phase == IN_FRAGMENT || self->carried > 0;
    if (!self->amid_pdu)
        self->deadline = lane_monotonic() + self->idle_seconds;
    else if (!was_amid_pdu || self->pdus > self->has_carried)
        self->deadline = lane_monotonic() + self->pdu_seconds; /* what trickles in does not move it */
    if (!self->amid_pdu && self->phase == BETWEEN_OBJECTS)
        return;
    if (self->quick > 0) {
        int on = 1;
        self->quick -= 1;
        setsockopt(self->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
    } else {
        self->amid_since = lane_monotonic();
    }
}

int lane_take_turn(Lane *self)
{
    struct iovec pieces[BEFORE_FRAGMENTS + MOST_PIECES];
    enum outcome outcome = WAITING;
    self->pieces = pieces;
    self->pdus = self->pieces_count = 0;
    self->waited = 0;
    if (receive(self, &outcome) == 0) {
        int failed = walk(self, &outcome) < 0;
        if (failed || outcome == WAITING || outcome == UNUSUAL)
            settle(self);
        if (failed)
            return -1;
    }
    if (outcome == WAITING && PyList_GET_SIZE(self->stored))
        outcome = STORED;
    return outcome;
}
