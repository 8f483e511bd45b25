/* Past the page cache: an object that is synced before it is answered goes to the disk in whole blocks from here.
 *
 * The page cache would take a page from the system for every 4 kB, copy into it, and have it written a moment later, while
 * the sender waits. Where the file system does not take O_DIRECT, the same bytes go the usual way.
 */

#include "lane.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    BLOCK = 4096,            /* a multiple of what any disk asks for */
    HUGE_PAGE = 2 * STAGE,
    MOST_STAGES = 16,        /* of a process; further objects go the usual way */
};

_Static_assert(STAGE % BLOCK == 0 && MOST_STAGES % (HUGE_PAGE / STAGE) == 0, "whole stages are whole blocks");

static char *idle[MOST_STAGES];
static int idle_count, made, is_refused;

/* Two stages are one huge page, where the system has them. */
static void make_stages(void)
{
    void *memory;
    if (posix_memalign(&memory, HUGE_PAGE, HUGE_PAGE)) {
        made = MOST_STAGES;
        return;
    }
    madvise(memory, HUGE_PAGE, MADV_HUGEPAGE);
    for (int i = 0; i < HUGE_PAGE / STAGE; i++, made++)
        idle[idle_count++] = (char *)memory + i * STAGE;
}

void lane_take_stage(Lane *self)
{
    if (is_refused)
        return;
    if (!idle_count && made < MOST_STAGES)
        make_stages();
    if (idle_count)
        self->stage = idle[--idle_count];
    self->staged = 0;
}

void lane_drop_stage(Lane *self)
{
    if (self->stage != NULL)
        idle[idle_count++] = self->stage;
    self->stage = NULL;
    self->staged = 0;
}

/* Write so much of what is staged; the number of bytes, which direct writes may leave to others, or -1. */
static ssize_t write_bytes(const Lane *self, size_t from, size_t to, int is_direct)
{
    size_t at = from;
    while (at < to) {
        ssize_t written = write(self->file, self->stage + at, to - at);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0 && errno == EINVAL && is_direct) {
            is_refused = 1;
            break;
        }
        if (written <= 0) {
            if (written == 0)
                errno = EIO;
            return -1;
        }
        at += (size_t)written;
        if (is_direct && written % BLOCK)
            break;
    }
    return (ssize_t)(at - from);
}

/* All that is staged, its whole blocks past the cache. It begins with a block, since no stage but the last is written half. */
static int write_stage(Lane *self)
{
    size_t blocks = self->staged / BLOCK * BLOCK;
    ssize_t written = 0, more = 0;
    int error = 0;
    double start = lane_monotonic();
    Py_BEGIN_ALLOW_THREADS
    int flags = fcntl(self->file, F_GETFL);
    if (!is_refused && blocks >= LEAST_DIRECT && flags >= 0) {
        if (fcntl(self->file, F_SETFL, flags | O_DIRECT) < 0) {
            is_refused = 1;
        } else {
            written = write_bytes(self, 0, blocks, 1);
            error = errno;
            if (fcntl(self->file, F_SETFL, flags) < 0 && written >= 0) {
                written = -1;
                error = errno;
            }
        }
    }
    if (written >= 0) {
        more = write_bytes(self, (size_t)written, self->staged, 0);
        error = errno;
    }
    Py_END_ALLOW_THREADS
    self->waited += lane_monotonic() - start;
    if (written < 0 || more < 0) {
        lane_drop_stage(self);
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    self->staged = 0;
    return 0;
}

int lane_stage(Lane *self, const struct iovec *piece, int count)
{
    for (; count; piece++, count--) {
        const char *from = piece->iov_base;
        for (size_t left = piece->iov_len; left;) {
            size_t room = STAGE - self->staged, taken = left < room ? left : room;
            memcpy(self->stage + self->staged, from, taken);
            self->staged += taken;
            self->size += (Py_ssize_t)taken;
            from += taken;
            left -= taken;
            if (self->staged == STAGE && write_stage(self) < 0)
                return -1;
        }
    }
    return 0;
}

int lane_write_out(Lane *self)
{
    if (self->stage == NULL)
        return 0;
    if (write_stage(self) < 0)
        return -1;
    lane_drop_stage(self);
    return 0;
}
