/* The host as a board: a process on a pseudo terminal, which is its serial line. It
 * prints the terminal's name and runs until its standard input ends, so it cannot outlive
 * whoever started it, however that one ended.
 *
 * A reset is an execve of itself: process and terminal stay, everything else is gone, as
 * on a board. SIGHUP is the reset button; what survives a reset travels in the
 * environment. The watchdog counts the time that the process computes: a machine that is
 * busy with other things, or asleep, wedges nothing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "board.h"
#include "link/link.h"
#include "stack.h"

extern char **environ;

/* Of the stack, as much is painted and watched; the kernel maps more when needed. */
enum { STACK_BYTES = 64 * 1024, LOOK_EVERY_MS = 50 };

static struct {
    char **argv;
    uint32_t memory_bytes, payload, window;
    int terminal;       /* our end */
    int far_end;        /* kept open, lest a read fails when nobody has it open */
    uint32_t boots, cause;
    struct timespec start;
    uint32_t looked_at; /* the standard input, ms */
    struct itimerval wedged;
    uintptr_t stack;    /* where its watched part begins; 0: unknown */
    uint8_t out[BOARD_CHUNK]; /* what the terminal had no room for yet */
    size_t out_first, out_end;
} host;

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "host board: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* --- reset: only calls that a signal handler may make --------------------------------- */

static char terminal_text[] = "HWGLE_HOST_TERMINAL=000000";
static char far_end_text[] = "HWGLE_HOST_FAR_END=000000";
static char boots_text[] = "HWGLE_HOST_BOOTS=0000000000";
static char cause_text[] = "HWGLE_HOST_CAUSE=0";

static void put_number(char *text, size_t text_bytes, uint32_t number)
{
    for (char *at = text + text_bytes - 2; *at >= '0' && *at <= '9'; at--) {
        *at = (char)('0' + number % 10);
        number /= 10;
    }
}

/* Between an execve and the handlers' return a signal would end the process. */
static void hold_signals(int how)
{
    sigset_t both;

    sigemptyset(&both);
    sigaddset(&both, SIGHUP);
    sigaddset(&both, SIGPROF);
    sigprocmask(how, &both, NULL);
}

static _Noreturn void restart(uint32_t cause)
{
    char *const environment[] = {terminal_text, far_end_text, boots_text, cause_text, NULL};

    put_number(terminal_text, sizeof terminal_text, (uint32_t)host.terminal);
    put_number(far_end_text, sizeof far_end_text, (uint32_t)host.far_end);
    put_number(boots_text, sizeof boots_text, host.boots);
    put_number(cause_text, sizeof cause_text, cause);
    hold_signals(SIG_BLOCK);
    setitimer(ITIMER_PROF, &(struct itimerval){0}, NULL);
    execve("/proc/self/exe", host.argv, environment);
    _exit(1);
}

static void on_button(int signal_number)
{
    (void)signal_number;
    restart(BOOT_PIN);
}

static void on_watchdog(int signal_number)
{
    (void)signal_number;
    restart(BOOT_WATCHDOG);
}

static void handle(int signal_number, void (*handler)(int))
{
    struct sigaction action = {0};

    action.sa_handler = handler;
    sigaction(signal_number, &action, NULL);
}

_Noreturn void board_reboot(uint32_t how)
{
    if (how == REBOOT_WEDGE) {
        for (;;) {
        }
    }
    restart(BOOT_SOFTWARE);
}

/* --- start ---------------------------------------------------------------------------- */

static void make_raw(int fd)
{
    struct termios settings;

    if (tcgetattr(fd, &settings) != 0) {
        fail("terminal settings");
    }
    cfmakeraw(&settings);
    if (tcsetattr(fd, TCSANOW, &settings) != 0) {
        fail("terminal settings");
    }
}

static int environment_number(const char *name)
{
    const char *const text = getenv(name);
    return text == NULL ? -1 : atoi(text);
}

static void open_terminal(void)
{
    host.terminal = environment_number("HWGLE_HOST_TERMINAL");
    host.far_end = environment_number("HWGLE_HOST_FAR_END");
    if (host.terminal >= 0) { /* after a reset: what it knew, and who listens, stays */
        host.boots = (uint32_t)environment_number("HWGLE_HOST_BOOTS") + 1;
        host.cause = (uint32_t)environment_number("HWGLE_HOST_CAUSE");
        return;
    }
    host.boots = 1;
    host.cause = BOOT_POWER;
    host.terminal = posix_openpt(O_RDWR | O_NOCTTY);
    if (host.terminal < 0 || grantpt(host.terminal) != 0 || unlockpt(host.terminal) != 0) {
        fail("no pseudo terminal");
    }
    const char *const name = ptsname(host.terminal);
    if (name == NULL || (host.far_end = open(name, O_RDWR | O_NOCTTY)) < 0) {
        fail("no pseudo terminal");
    }
    make_raw(host.far_end);
    if (fcntl(host.terminal, F_SETFL, O_NONBLOCK) != 0) {
        fail("pseudo terminal");
    }
}

static uint32_t random_number(void)
{
    uint32_t number = (uint32_t)getpid() ^ (uint32_t)time(NULL) * UINT32_C(2654435761);
    const int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        uint32_t better;
        if (read(fd, &better, sizeof better) == (ssize_t)sizeof better) {
            number = better;
        }
        close(fd);
    }
    return number;
}

/* The part of the stack below the caller, which nobody has used yet. */
static void find_stack(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur >= 4u * STACK_BYTES) {
        const uintptr_t here = (uintptr_t)__builtin_frame_address(0) & ~(uintptr_t)15;
        host.stack = here - STACK_BYTES;
        stack_paint(host.stack, here - 1024); /* this function and the next are in between */
    }
}

void board_init(board_facts *facts)
{
    open_terminal();
    clock_gettime(CLOCK_MONOTONIC, &host.start);
    host.wedged.it_value.tv_sec = BOARD_WEDGED_MS / 1000;
    host.looked_at = (uint32_t)-LOOK_EVERY_MS;
    handle(SIGHUP, on_button);
    handle(SIGPROF, on_watchdog);
    hold_signals(SIG_UNBLOCK);
    if (host.boots == 1) {
        printf("%s\n", ptsname(host.terminal)); /* who reads it may press the button */
        fflush(stdout);
    }
    board_alive();
    /* Ctrl-C in the terminal is for whoever started this; its end is told by the input. */
    signal(SIGINT, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    void *const memory = mmap(NULL, host.memory_bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        fail("memory");
    }
    find_stack();
    *facts = (board_facts){
        .name = BOARD_NAME,
        .payload = host.payload,
        .window = host.window,
        .memory = memory,
        .memory_bytes = host.memory_bytes,
        .features = FEATURE_WATCHDOG | (host.stack == 0 ? 0u : (uint32_t)FEATURE_STACK),
        .boot_cause = host.cause,
        .boots = host.boots,
        .boot_id = random_number()
    };
}

/* --- the line ------------------------------------------------------------------------- */

uint32_t board_millis(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)((int64_t)(now.tv_sec - host.start.tv_sec) * 1000 +
                      (now.tv_nsec - host.start.tv_nsec) / 1000000);
}

/* Waits for a byte, for room if there is something to send, or `ms`; exits when the
 * standard input has ended. */
static void wait_for(int ms)
{
    const int waiting = host.out_first != host.out_end;
    struct pollfd files[2] = {
        {.fd = host.terminal, .events = (short)(POLLIN | (waiting ? POLLOUT : 0))},
        {.fd = STDIN_FILENO, .events = POLLIN}
    };

    if (poll(files, 2, ms) > 0 && files[1].revents != 0) {
        char ignored[64];
        const ssize_t n = read(STDIN_FILENO, ignored, sizeof ignored);
        if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) {
            exit(0);
        }
    }
}

size_t board_read(uint8_t *to, size_t capacity)
{
    const ssize_t n = read(host.terminal, to, capacity);
    return n > 0 ? (size_t)n : 0;
}

static void push_out(void)
{
    const ssize_t sent =
        write(host.terminal, host.out + host.out_first, host.out_end - host.out_first);

    if (sent > 0) {
        host.out_first += (size_t)sent;
    }
}

size_t board_room(void)
{
    if (host.out_first != host.out_end) {
        push_out();
    }
    return host.out_first == host.out_end ? sizeof host.out : 0;
}

void board_write(const uint8_t *from, size_t n)
{
    memcpy(host.out, from, n);
    host.out_first = 0;
    host.out_end = n;
    push_out();
}

void board_idle(uint32_t ms)
{
    wait_for(ms < BOARD_WEDGED_MS ? (int)ms : (int)BOARD_WEDGED_MS);
}

void board_alive(void)
{
    const uint32_t now = board_millis();

    if (now - host.looked_at >= LOOK_EVERY_MS) {
        host.looked_at = now;
        wait_for(0);
        setitimer(ITIMER_PROF, &host.wedged, NULL);
    }
}

void board_stack(uint32_t *size, uint32_t *used)
{
    *size = host.stack == 0 ? 0 : STACK_BYTES;
    *used = host.stack == 0 ? 0 : STACK_BYTES - stack_untouched(host.stack, STACK_BYTES);
}

uint32_t board_lost(void)
{
    return 0; /* the kernel holds the writer back */
}

/* --- the command line ------------------------------------------------------------------ */

static uint32_t number_option(const char *text, uint32_t least, uint32_t most)
{
    char *end;

    errno = 0;
    const unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != 0 || value < least || value > most) {
        fprintf(stderr, "host board: %s is not a number from %u to %u\n", text, least, most);
        exit(2);
    }
    return (uint32_t)value;
}

/* Of the link's buffers, both ways, and what goes with them. */
static uint32_t link_takes(uint32_t payload, uint32_t window)
{
    return (2 * window + 1) * (payload + 24) + 3072;
}

/* Without a word about the link it takes no more than a quarter of a small memory. */
static void choose_link(void)
{
    const int payload_given = host.payload != 0;
    const int window_given = host.window != 0;
    uint32_t payload = payload_given ? host.payload : BOARD_PAYLOAD;
    uint32_t window = window_given ? host.window : BOARD_WINDOW;

    while (link_takes(payload, window) > host.memory_bytes / 4) {
        if (!window_given && window > 4) {
            window /= 2;
        } else if (!payload_given && payload > LINK_MIN_PAYLOAD) {
            payload /= 2;
        } else if (!window_given && window > 2) {
            window /= 2;
        } else {
            break;
        }
    }
    if (link_takes(payload, window) > host.memory_bytes) {
        fprintf(stderr,
                "host board: %u bytes of memory do not hold a link of %u messages of %u bytes: "
                "that takes about %u\n",
                host.memory_bytes, window, payload, link_takes(payload, window));
        exit(2);
    }
    host.payload = payload;
    host.window = window;
}

int main(int argc, char **argv)
{
    host.argv = argv;
    host.memory_bytes = BOARD_MEMORY;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 < argc && strcmp(argv[i], "--memory") == 0) {
            host.memory_bytes = number_option(argv[i + 1], 4096, 0x7fffffff);
        } else if (i + 1 < argc && strcmp(argv[i], "--payload") == 0) {
            host.payload = number_option(argv[i + 1], LINK_MIN_PAYLOAD, LINK_MAX_PAYLOAD);
        } else if (i + 1 < argc && strcmp(argv[i], "--window") == 0) {
            host.window = number_option(argv[i + 1], 1, LINK_MAX_WINDOW);
        } else {
            fprintf(stderr, "usage: %s [--memory BYTES] [--payload BYTES] [--window N]\n", argv[0]);
            return 2;
        }
    }
    choose_link();
    firmware_run();
}
