/* The application of these tests: an HTTP server whose answers can be switched.
 *   /health  200, or 500 after /sick, until /well      /crash  ends with code 3
 *   /eat     takes memory without end                  /env    its environment
 * DELAY_MS: time before it listens. Every request is a line on standard output. */
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

extern char **environ;

static void terminate(int signal) {
    (void)signal;
    static const char text[] = "bye\n";
    if (write(1, text, sizeof text - 1) < 0) _exit(1);
    _exit(0);
}

static void answer(int client, int status, const char *body) {
    char head[256];
    int size = snprintf(head, sizeof head, "HTTP/1.1 %d X\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", status, strlen(body));
    if (write(client, head, size) < 0 || write(client, body, strlen(body)) < 0) return;
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGTERM, terminate);
    signal(SIGPIPE, SIG_IGN);
    const char *delay = getenv("DELAY_MS"), *port = getenv("PORT");
    if (delay) usleep(atoi(delay) * 1000);
    int yes = 1, sick = 0, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 8080)};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) return 4;
    fprintf(stderr, "listening\n");
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0) continue;
        char request[4096] = {0}, path[256] = {0};
        if (read(client, request, sizeof request - 1) > 0 && sscanf(request, "GET %255s", path) == 1) {
            if (strcmp(path, "/health")) printf("GET %s\n", path);
            if (!strcmp(path, "/crash")) exit(3);
            if (!strcmp(path, "/sick")) sick = 1;
            if (!strcmp(path, "/well")) sick = 0;
            if (!strcmp(path, "/eat"))
                for (;;) {
                    void *piece = malloc(1 << 20);
                    if (piece) memset(piece, 1, 1 << 20);
                }
            if (!strcmp(path, "/env")) {
                char body[8192] = {0};
                for (char **entry = environ; *entry; entry++) {
                    strncat(body, *entry, sizeof body - strlen(body) - 2);
                    strcat(body, "\n");
                }
                answer(client, 200, body);
            } else
                answer(client, sick && !strcmp(path, "/health") ? 500 : 200, "ok\n");
        }
        close(client);
    }
}
