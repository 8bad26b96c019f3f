/* Shows a process another wall clock than the machine's: off by the seconds that a file holds as a 64-bit number.
 *
 * Loaded with LD_PRELOAD. The file, named by SET_CLOCK_FILE, is mapped, so that it may be changed while processes run, as
 * when somebody sets the clock. Clocks that count since the boot are not touched, nor are the kernel's own stamps on
 * files: to a process those look like stamps of before the clock was set. Nor does the kernel know of it when somebody
 * sleeps until an instant, as ffmpeg's threads do: they would sleep for as long as the clock is off. So programs whose
 * name begins with "ffmpeg" see the machine's clock.
 */
#include <errno.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset_s;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    const char *path = strncmp(program_invocation_short_name, "ffmpeg", 6) == 0 ? NULL : getenv("SET_CLOCK_FILE");
    int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        void *mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
        if (mapped != MAP_FAILED) {
            offset_s = mapped;
        }
        close(file);
    }
    real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
}

int clock_gettime(clockid_t clock, struct timespec *told) {
    int result = real_clock_gettime(clock, told);
    if (result == 0 && offset_s != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        told->tv_sec += *offset_s;
    }
    return result;
}

int gettimeofday(struct timeval *restrict told, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    told->tv_sec = now.tv_sec;
    told->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *told) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (told != NULL) {
        *told = now.tv_sec;
    }
    return now.tv_sec;
}
