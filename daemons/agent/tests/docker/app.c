/* The application of these tests: an HTTP server whose answers can be switched.
 *   /health  200, or 500 after /sick, until /well      /crash  ends with code 3
 *   /eat     takes memory without end                  /env    its environment
 *   /worker  a process of it takes memory without end  /blank  writes a blank line
 *   /flood   writes 20,000 lines
 * DELAY_MS: time before it listens. DIE_MS: time after which it ends with code 5. END_MS: time that it needs to end when
 * it is told to. LISTEN: where it listens instead of on PORT, as address:port. SICK: it is sick from the start. DAEMON:
 * it goes into the background. Every request but / and /health is a line on standard output. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static unsigned end_ms;

static void terminate(int signal) {
    (void)signal;
    usleep(end_ms * 1000);
    static const char text[] = "bye\n";
    if (write(1, text, sizeof text - 1) < 0) _exit(1);
    _exit(0);
}

static void die(int signal) {
    (void)signal;
    static const char text[] = "ImportError: no module named shop\n";
    if (write(2, text, sizeof text - 1) < 0) _exit(1);
    _exit(5);
}

static void answer(int client, int status, const char *body) {
    char head[256];
    int size = snprintf(head, sizeof head, "HTTP/1.1 %d X\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", status, strlen(body));
    if (write(client, head, size) < 0 || write(client, body, strlen(body)) < 0) return;
}

static void eat(void) {
    for (;;) {
        void *piece = malloc(1 << 20);
        if (piece) memset(piece, 1, 1 << 20);
    }
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGTERM, terminate);
    signal(SIGALRM, die);
    signal(SIGPIPE, SIG_IGN);
    const char *delay = getenv("DELAY_MS"), *port = getenv("PORT"), *deadline = getenv("DIE_MS"), *end = getenv("END_MS");
    if (getenv("DAEMON") && fork()) return 0;
    if (end) end_ms = atoi(end);
    if (deadline) ualarm(atoi(deadline) * 1000, 0);
    if (delay) usleep(atoi(delay) * 1000);
    int yes = 1, sick = getenv("SICK") != NULL, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 8080)};
    char *elsewhere = getenv("LISTEN"), *colon = elsewhere ? strchr(elsewhere, ':') : NULL;
    if (colon) {
        *colon = 0;
        address.sin_addr.s_addr = inet_addr(elsewhere);
        address.sin_port = htons(atoi(colon + 1));
    }
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) return 4;
    fprintf(stderr, "listening\n");
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0) continue;
        char request[4096] = {0}, path[256] = {0};
        if (read(client, request, sizeof request - 1) > 0 && sscanf(request, "GET %255s", path) == 1) {
            if (strcmp(path, "/health") && strcmp(path, "/")) printf("GET %s\n", path);
            if (!strcmp(path, "/crash")) exit(3);
            if (!strcmp(path, "/sick")) sick = 1;
            if (!strcmp(path, "/well")) sick = 0;
            if (!strcmp(path, "/blank")) printf("\n");
            if (!strcmp(path, "/eat")) eat();
            if (!strcmp(path, "/flood"))
                for (int line = 1; line <= 20000; line++) printf("line %d of a flood\n", line);
            if (!strcmp(path, "/worker")) {
                int child = fork();
                if (!child) eat();
                waitpid(child, NULL, 0);
            }
            if (!strcmp(path, "/env")) {
                char body[8192] = {0};
                for (char **entry = environ; *entry; entry++) {
                    strncat(body, *entry, sizeof body - strlen(body) - 2);
                    strcat(body, "\n");
                }
                answer(client, 200, body);
            } else if (sick && !strcmp(path, "/health"))
                answer(client, 500, "no database: connection refused\nTraceback\n");
            else
                answer(client, 200, "ok\n");
        }
        close(client);
    }
}
