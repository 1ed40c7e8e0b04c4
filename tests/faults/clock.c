/* A wall clock that is wrong by SKEW_SECONDS, or by the number (a long of the machine's own
   make) in the file SKEW_FILE, which may change at any time: LD_PRELOAD this. Nothing else is
   touched, so that sleeps and time-outs go by the monotonic clock as they do on a real machine. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long given;
static volatile const long *wrong_by;

__attribute__((constructor)) static void find(void) {
    const char *seconds = getenv("SKEW_SECONDS"), *path = getenv("SKEW_FILE");
    given = seconds ? atol(seconds) : 0;
    wrong_by = &given;
    if (path) {
        int file = open(path, O_RDONLY);
        void *there = mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
        close(file);
        if (there == MAP_FAILED) abort();
        wrong_by = there;
    }
}

static long skew(void) {
    return wrong_by ? *wrong_by : 0;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int status = (int)syscall(SYS_clock_gettime, id, now);
    if (status == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += skew();
    return status;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec real;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &real);
    now->tv_sec = real.tv_sec;
    now->tv_usec = real.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *to) {
    struct timespec real;
    clock_gettime(CLOCK_REALTIME, &real);
    if (to) *to = real.tv_sec;
    return real.tv_sec;
}
