// Node's http and fetch. Arguments: URL of the app, URL of an unknown host, names of cases.
"use strict";

const assert = require("node:assert");
const { randomBytes } = require("node:crypto");
const http = require("node:http");
const { Readable } = require("node:stream");

const [app, unknown, ...names] = process.argv.slice(2);
const megabyte = Buffer.alloc(1 << 20);
for (let number = 0; number < 1 << 18; number++) megabyte.writeUInt32BE(number, 4 * number);
const LARGE = 32 << 20;
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

// A body of this length, or one without end.
function* zeros(length) {
  const part = Buffer.alloc(65536);
  for (let sent = 0; sent < length; sent += part.length) yield part;
}

// Asks; `body` is bytes, or parts of them. The answer says what came before it and with it.
function ask(method, url, { headers = {}, body, waits } = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method, headers, agent, timeout: 30000 });
    const answer = { hints: [], wentOn: false };
    let parts;
    const send = () => {
      if (body === undefined || Buffer.isBuffer(body)) return request.end(body);
      parts = Readable.from(body);
      parts.pipe(request);
    };
    request.on("information", (hint) => answer.hints.push([hint.statusCode, hint.headers.link]));
    request.on("continue", () => {
      answer.wentOn = true;
      send();
    });
    request.on("response", async (response) => {
      try {
        const chunks = [];
        for await (const chunk of response) chunks.push(chunk);
        const { statusCode: status, headers, trailers } = response;
        parts?.unpipe(request);
        if (!request.writableEnded) request.destroy();
        resolve({ ...answer, status, headers, trailers, body: Buffer.concat(chunks) });
      } catch (error) {
        reject(error);
      }
    });
    request.on("timeout", () => request.destroy(new Error("nothing came")));
    request.on("error", reject);
    waits ? request.flushHeaders() : send();
  });
}

function is(answer, status, body) {
  assert.strictEqual(answer.status, status);
  assert.ok(answer.body.equals(Buffer.from(body)), `${answer.body.length} bytes: ${answer.body.subarray(0, 99)}`);
  return answer;
}

async function early(path, length) {
  const headers = length === Infinity ? {} : { "Content-Length": length };
  is(await ask("POST", app + path, { headers, body: zeros(length) }), 413, "too large");
}

async function expectContinue(path) {
  const headers = { Expect: "100-continue", "Content-Length": megabyte.length };
  const answer = await ask("POST", app + path, { headers, body: megabyte, waits: true });
  assert.ok(is(answer, 200, megabyte).wentOn, "nobody said 100");
}

async function fetched(url, options) {
  const answer = await fetch(url, { signal: AbortSignal.timeout(30000), ...options });
  return { status: answer.status, headers: answer.headers, body: Buffer.from(await answer.arrayBuffer()) };
}

const cases = {
  async "keep-alive"() {
    for (let number = 0; number < 20; number++) is(await ask("GET", `${app}/keep?${number}`), 200, "kept");
  },
  async length() {
    const headers = { "Content-Length": megabyte.length };
    is(await ask("POST", `${app}/echo`, { headers, body: megabyte }), 200, megabyte);
  },
  async chunked() {
    const parts = [];
    for (let begin = 0; begin < megabyte.length; begin += 7777) parts.push(megabyte.subarray(begin, begin + 7777));
    is(await ask("POST", `${app}/echo`, { body: parts }), 200, megabyte);
  },
  async trailers() {
    assert.strictEqual(is(await ask("GET", `${app}/trailers`), 200, "with trailers").trailers["x-sum"], "13");
  },
  async head() {
    assert.strictEqual(is(await ask("HEAD", `${app}/head`), 200, "").headers["content-length"], "1000");
  },
  async "no-content"() {
    const { headers } = is(await ask("GET", `${app}/empty`), 204, "");
    assert.deepStrictEqual([headers["x-empty"], headers["content-length"]], ["yes", undefined]);
  },
  async "not-modified"() {
    const answer = await ask("GET", `${app}/same`, { headers: { "If-None-Match": '"1"' } });
    assert.strictEqual(is(answer, 304, "").headers.etag, '"1"');
  },
  "early-answer": () => early("/large", LARGE),
  "early-answer-gone": () => early("/large/gone", LARGE),
  endless: () => early("/large", Infinity),
  "endless-gone": () => early("/large/gone", Infinity),
  async duplex() {
    const sixteen = Array(16).fill(megabyte);
    is(await ask("POST", `${app}/duplex`, { body: sixteen }), 200, Buffer.concat(sixteen));
  },
  expect: () => expectContinue("/echo"),
  "expect-silent": () => expectContinue("/silent"),
  async "expect-refused"() {
    const headers = { Expect: "100-continue", "Content-Length": megabyte.length };
    const answer = await ask("POST", `${app}/large`, { headers, body: megabyte, waits: true });
    assert.ok(!is(answer, 413, "too large").wentOn, "it was told to go on");
  },
  async hints() {
    const answer = is(await ask("GET", `${app}/hints`), 200, "hinted");
    assert.deepStrictEqual(answer.hints, [[103, "</style.css>; rel=preload"]]);
  },
  async "unknown-host"() {
    const answer = await ask("GET", unknown, { headers: { Accept: "application/json" } });
    assert.deepStrictEqual([answer.status, answer.headers["content-type"]], [404, "application/problem+json"]);
    assert.strictEqual(JSON.parse(answer.body).type, "urn:dinp:unknown-host");
  },
  async "fetch-keep-alive"() {
    for (let number = 0; number < 20; number++) is(await fetched(`${app}/keep?${number}`), 200, "kept");
  },
  async "fetch-length"() {
    is(await fetched(`${app}/echo`, { method: "POST", body: megabyte }), 200, megabyte);
  },
  async "fetch-chunked"() {
    const body = new Blob([megabyte]).stream();
    is(await fetched(`${app}/echo`, { method: "POST", body, duplex: "half" }), 200, megabyte);
  },
  async "fetch-events"() {
    const stop = new AbortController();
    const answer = await fetch(`${app}/events`, { signal: stop.signal });
    const { value } = await answer.body.getReader().read();
    assert.strictEqual(Buffer.from(value).toString(), "data: one\n\n");
    stop.abort();
  },
  async "fetch-trailers"() {
    is(await fetched(`${app}/trailers`), 200, "with trailers");
  },
  async "fetch-no-content"() {
    is(await fetched(`${app}/empty`), 204, "");
  },
  async "fetch-hints"() {
    is(await fetched(`${app}/hints`), 200, "hinted");
  },
  async "fetch-early-answer"() {
    is(await fetched(`${app}/large`, { method: "POST", body: Buffer.alloc(LARGE) }), 413, "too large");
  },
  async "fetch-unknown-host"() {
    const answer = await fetched(unknown);
    assert.deepStrictEqual([answer.status, answer.headers.get("content-type")], [404, "text/plain; charset=utf-8"]);
  },
  websocket: () =>
    new Promise((resolve, reject) => {
      const headers = {
        Connection: "Upgrade",
        Upgrade: "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
      };
      const request = http.get(`${app}/websocket`, { headers, timeout: 30000 });
      request.on("timeout", () => request.destroy(new Error("nothing came")));
      request.on("error", reject);
      request.on("response", (response) => reject(new Error(`no websocket: ${response.statusCode}`)));
      request.on("upgrade", (response, stream, first) => {
        stream.on("error", reject);
        talk(response, stream, first).then(resolve, reject);
      });
    }),
};

async function talk(response, stream, first) {
  assert.strictEqual(response.headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
  let read = first;
  const chunks = stream[Symbol.asyncIterator]();
  const hears = async (kind, content) => {
    const wanted = Buffer.concat([sized(kind, content.length, 0), content]);
    while (read.length < wanted.length) {
      const { value, done } = await chunks.next();
      assert.ok(!done, "it has ended");
      read = Buffer.concat([read, value]);
    }
    assert.ok(read.subarray(0, wanted.length).equals(wanted), "another message");
    read = read.subarray(wanted.length);
  };
  await hears(0x81, Buffer.from("welcome"));
  for (const [kind, content] of [
    [0x81, Buffer.from("hello")],
    [0x82, megabyte],
    [0x89, Buffer.from("ping")],
    [0x88, Buffer.from([3, 0xe8])],
  ]) {
    const mask = randomBytes(4);
    const masked = content.map((byte, place) => byte ^ mask[place % 4]);
    stream.write(Buffer.concat([sized(kind, content.length, 0x80), mask, masked]));
    await hears(kind, content);
  }
  assert.ok((await chunks.next()).done, "the end");
}

// The head of a frame, up to its mask.
function sized(kind, length, masked) {
  if (length < 126) return Buffer.from([kind, masked | length]);
  const head = Buffer.from([kind, masked | 127, 0, 0, 0, 0, 0, 0, 0, 0]);
  head.writeUInt32BE(length, 6);
  return head;
}

(async () => {
  let failed = false;
  for (const name of names) {
    try {
      await cases[name]();
      console.log(`ok ${name}`);
    } catch (error) {
      failed = true;
      console.log(`bad ${name}: ${error}${error.cause ? `, ${error.cause}` : ""}`);
    }
  }
  process.exit(failed ? 1 : 0);
})();
