/* The clocks of one process, as its environment sets them in seconds since 1970: SQLite, which is the
   clock of an embedded source, asks gettimeofday; the exporter's own clock is clock_gettime. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t told(const char *name) {
    const char *seconds = getenv(name);
    return seconds ? atoll(seconds) : 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    *now = (struct timeval){.tv_sec = told("TEST_SOURCE_CLOCK")};
    return 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (clock != CLOCK_REALTIME)
        return (int)syscall(SYS_clock_gettime, clock, now);
    *now = (struct timespec){.tv_sec = told("TEST_OWN_CLOCK")};
    return 0;
}
