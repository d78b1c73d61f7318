// Java's java.net.http and HttpURLConnection. Arguments: URL of the app, URL of an unknown host, names of cases.

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.URL;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.net.http.WebSocket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

class Client {
    static final int LARGE = 32 << 20;
    static final int TIMEOUT = 30;
    static final byte[] MEGABYTE = new byte[1 << 20];
    static final HttpClient CLIENT = HttpClient.newHttpClient();
    static String app;
    static String unknown;

    interface Case {
        void run() throws Exception;
    }

    public static void main(String[] arguments) {
        app = arguments[0];
        unknown = arguments[1];
        ByteBuffer numbers = ByteBuffer.wrap(MEGABYTE);
        for (int number = 0; number < 1 << 18; number++) {
            numbers.putInt(number);
        }
        Map<String, Case> cases = cases();
        boolean failed = false;
        for (String name : Arrays.asList(arguments).subList(2, arguments.length)) {
            try {
                cases.get(name).run();
                System.out.println("ok " + name);
            } catch (Exception | AssertionError error) {
                failed = true;
                System.out.println("bad " + name + ": " + error);
            }
        }
        System.exit(failed ? 1 : 0);
    }

    static Map<String, Case> cases() {
        Map<String, Case> cases = new LinkedHashMap<>();
        cases.put("keep-alive", Client::keepAlive);
        cases.put("length", () -> is(ask(post("/echo", BodyPublishers.ofByteArray(MEGABYTE))), 200, MEGABYTE));
        cases.put("chunked", () -> is(ask(post("/echo", ofUnknownLength(MEGABYTE))), 200, MEGABYTE));
        // It reads trailers and tells nothing of them.
        cases.put("trailers", () -> is(ask(get("/trailers")), 200, "with trailers"));
        cases.put("head", Client::head);
        cases.put("no-content", () -> is(ask(get("/empty")), 204, ""));
        cases.put("not-modified", () -> is(ask(get("/same", "If-None-Match", "\"1\"")), 304, ""));
        cases.put("early-answer", () -> is(ask(post("/large", zeros())), 413, "too large"));
        cases.put("early-answer-gone", () -> is(ask(post("/large/gone", zeros())), 413, "too large"));
        cases.put("endless", Client::endless);
        cases.put("duplex", Client::duplex);
        cases.put("expect", () -> expect("/echo"));
        cases.put("expect-silent", () -> expect("/silent"));
        cases.put("expect-refused", Client::expectRefused);
        cases.put("hints", () -> is(ask(get("/hints")), 200, "hinted"));
        cases.put("unknown-host", Client::unknownHost);
        cases.put("websocket", Client::websocket);
        cases.put("url-keep-alive", Client::urlKeepAlive);
        cases.put("url-length", () -> url("/echo", MEGABYTE.length, MEGABYTE, 200, MEGABYTE));
        cases.put("url-chunked", () -> url("/echo", -1, MEGABYTE, 200, MEGABYTE));
        cases.put("url-head", Client::urlHead);
        cases.put("url-early-answer", () -> url("/large", LARGE, new byte[LARGE], 413, bytes("too large")));
        cases.put("url-early-answer-gone", () -> url("/large/gone", LARGE, new byte[LARGE], 413, bytes("too large")));
        cases.put("url-endless", Client::urlEndless);
        cases.put("url-hints", Client::urlHints);
        cases.put("url-unknown-host", Client::urlUnknownHost);
        return cases;
    }

    static void check(boolean holds, Object found) {
        if (!holds) {
            throw new AssertionError(found);
        }
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static HttpRequest.Builder to(String url, String... headers) {
        HttpRequest.Builder builder = HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(TIMEOUT));
        return headers.length == 0 ? builder : builder.headers(headers);
    }

    static HttpRequest get(String path, String... headers) {
        return to(app + path, headers).build();
    }

    static HttpRequest post(String path, BodyPublisher body) {
        return to(app + path).POST(body).build();
    }

    static BodyPublisher ofUnknownLength(byte[] body) {
        return BodyPublishers.fromPublisher(BodyPublishers.ofByteArray(body));
    }

    static BodyPublisher zeros() {
        return BodyPublishers.ofByteArray(new byte[LARGE]);
    }

    static HttpResponse<byte[]> ask(HttpRequest request) throws Exception {
        return CLIENT.send(request, BodyHandlers.ofByteArray());
    }

    static void is(HttpResponse<byte[]> answer, int status, String body) {
        is(answer, status, bytes(body));
    }

    static void is(HttpResponse<byte[]> answer, int status, byte[] body) {
        check(answer.statusCode() == status, answer);
        check(Arrays.equals(answer.body(), body), answer.body().length + " bytes");
    }

    static void keepAlive() throws Exception {
        for (int number = 0; number < 20; number++) {
            is(ask(get("/keep?" + number)), 200, "kept");
        }
    }

    static void head() throws Exception {
        HttpRequest request = to(app + "/head").method("HEAD", BodyPublishers.noBody()).build();
        HttpResponse<byte[]> answer = ask(request);
        is(answer, 200, "");
        check(answer.headers().firstValueAsLong("Content-Length").orElse(0) == 1000, answer.headers());
    }

    static void endless() throws Exception {
        // It reads the answer when it can send no more, not before.
        BodyPublisher body = BodyPublishers.ofInputStream(() -> new InputStream() {
            @Override
            public int read() {
                return 0;
            }

            @Override
            public int read(byte[] part, int offset, int length) {
                return length;
            }
        });
        is(ask(post("/large", body)), 413, "too large");
    }

    static void duplex() throws Exception {
        byte[] sixteen = new byte[16 << 20];
        for (int place = 0; place < 16; place++) {
            System.arraycopy(MEGABYTE, 0, sixteen, place << 20, 1 << 20);
        }
        is(ask(post("/duplex", ofUnknownLength(sixteen))), 200, sixteen);
    }

    static void expect(String path) throws Exception {
        BodyPublisher body = BodyPublishers.ofByteArray(MEGABYTE);
        is(ask(to(app + path).expectContinue(true).POST(body).build()), 200, MEGABYTE);
    }

    static void expectRefused() throws Exception {
        BodyPublisher body = BodyPublishers.ofByteArray(MEGABYTE);
        HttpRequest request = to(app + "/large").expectContinue(true).POST(body).build();
        try {
            is(CLIENT.sendAsync(request, BodyHandlers.ofByteArray()).get(2, TimeUnit.SECONDS), 413, "too large");
        } catch (TimeoutException error) {
            // Before Java 20 it waits for ever for what is not 100, whatever server it asks (JDK-8286171).
            check(Runtime.version().feature() < 20, error);
        }
    }

    static void unknownHost() throws Exception {
        HttpResponse<byte[]> answer = ask(to(unknown, "Accept", "application/json").build());
        check(answer.statusCode() == 404, answer);
        List<String> kind = answer.headers().allValues("Content-Type");
        check(kind.equals(List.of("application/problem+json")), kind);
        String body = new String(answer.body(), StandardCharsets.UTF_8);
        check(body.contains("\"urn:dinp:unknown-host\""), body);
    }

    static void websocket() throws Exception {
        BlockingQueue<String> heard = new LinkedBlockingQueue<>();
        WebSocket socket = CLIENT.newWebSocketBuilder()
            .buildAsync(URI.create(app.replace("http:", "ws:") + "/websocket"), new WebSocket.Listener() {
                final StringBuilder text = new StringBuilder();
                final ByteArrayOutputStream binary = new ByteArrayOutputStream();

                @Override
                public CompletionStage<?> onText(WebSocket socket, CharSequence part, boolean last) {
                    text.append(part);
                    if (last) {
                        heard.add(text.toString());
                        text.setLength(0);
                    }
                    socket.request(1);
                    return null;
                }

                @Override
                public CompletionStage<?> onBinary(WebSocket socket, ByteBuffer part, boolean last) {
                    byte[] copy = new byte[part.remaining()];
                    part.get(copy);
                    binary.writeBytes(copy);
                    if (last) {
                        heard.add(Arrays.equals(binary.toByteArray(), MEGABYTE) ? "megabyte" : binary.size() + " bytes");
                        binary.reset();
                    }
                    socket.request(1);
                    return null;
                }

                @Override
                public CompletionStage<?> onClose(WebSocket socket, int status, String reason) {
                    heard.add("close " + status);
                    return null;
                }

                @Override
                public void onError(WebSocket socket, Throwable error) {
                    heard.add(error.toString());
                }
            })
            .get(TIMEOUT, TimeUnit.SECONDS);
        hears(heard, "welcome");
        socket.sendText("hello", true).get(TIMEOUT, TimeUnit.SECONDS);
        hears(heard, "hello");
        socket.sendBinary(ByteBuffer.wrap(MEGABYTE), true).get(TIMEOUT, TimeUnit.SECONDS);
        hears(heard, "megabyte");
        socket.sendClose(WebSocket.NORMAL_CLOSURE, "").get(TIMEOUT, TimeUnit.SECONDS);
        hears(heard, "close 1000");
    }

    static void hears(BlockingQueue<String> heard, String wanted) throws InterruptedException {
        String found = heard.poll(TIMEOUT, TimeUnit.SECONDS);
        check(wanted.equals(found), found);
    }

    static HttpURLConnection open(String url) throws IOException {
        HttpURLConnection connection = (HttpURLConnection) new URL(url).openConnection();
        connection.setReadTimeout(1000 * TIMEOUT);
        return connection;
    }

    static byte[] read(HttpURLConnection connection) throws IOException {
        boolean isGood = connection.getResponseCode() < 400;
        try (InputStream body = isGood ? connection.getInputStream() : connection.getErrorStream()) {
            return body == null ? new byte[0] : body.readAllBytes();
        }
    }

    /** Posts over HttpURLConnection; with a length, or chunked where that is negative. */
    static void url(String path, int length, byte[] sent, int status, byte[] wanted) throws IOException {
        HttpURLConnection connection = open(app + path);
        connection.setDoOutput(true);
        if (length < 0) {
            connection.setChunkedStreamingMode(7777);
        } else {
            connection.setFixedLengthStreamingMode(length);
        }
        connection.getOutputStream().write(sent);
        check(connection.getResponseCode() == status, connection.getResponseCode());
        byte[] body = read(connection);
        check(Arrays.equals(body, wanted), body.length + " bytes");
    }

    static void urlKeepAlive() throws IOException {
        for (int number = 0; number < 20; number++) {
            HttpURLConnection connection = open(app + "/keep?" + number);
            check(Arrays.equals(read(connection), bytes("kept")), connection.getResponseCode());
        }
    }

    static void urlHead() throws IOException {
        HttpURLConnection connection = open(app + "/head");
        connection.setRequestMethod("HEAD");
        check(connection.getResponseCode() == 200 && connection.getContentLength() == 1000, connection.getHeaderFields());
    }

    static void urlEndless() throws IOException {
        HttpURLConnection connection = open(app + "/large");
        connection.setDoOutput(true);
        connection.setChunkedStreamingMode(65536);
        byte[] part = new byte[65536];
        try {
            while (true) {
                connection.getOutputStream().write(part);
            }
        } catch (IOException error) {
            // It reads nothing before all is sent, but does see that its connection ends.
        }
    }

    static void urlHints() throws IOException {
        // It passes over 100 alone: 103 is its answer, of which it would wait for the body.
        HttpURLConnection connection = open(app + "/hints");
        check(connection.getResponseCode() == 103, connection.getResponseCode());
        connection.disconnect();
    }

    static void urlUnknownHost() throws IOException {
        // Its own Accept names HTML first.
        HttpURLConnection connection = open(unknown);
        byte[] body = read(connection);
        check(connection.getResponseCode() == 404, connection.getResponseCode());
        check(connection.getContentType().equals("text/html; charset=utf-8"), connection.getContentType());
        check(new String(body, StandardCharsets.UTF_8).contains("<h1>404 Not Found</h1>"), body.length + " bytes");
    }
}
