//! What is asked of each proxy.

/// What a connection asks for again and again.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) connections: usize,
    pub(crate) requests: usize,
    /// Bytes of the request's body.
    pub(crate) sent: usize,
    /// Bytes of the answer's.
    pub(crate) received: usize,
}

pub(crate) const CASES: [Case; 6] = [
    Case { name: "43 B, 1 connection", connections: 1, requests: 6_000, sent: 0, received: 43 },
    Case { name: "43 B, 32 connections", connections: 32, requests: 40_000, sent: 0, received: 43 },
    Case { name: "43 B, 256 connections", connections: 256, requests: 40_000, sent: 0, received: 43 },
    Case { name: "16 KiB, 32 connections", connections: 32, requests: 20_000, sent: 0, received: 16_384 },
    Case { name: "1 MiB, 32 connections", connections: 32, requests: 1_000, sent: 0, received: 1_048_576 },
    Case { name: "POST 64 KiB, 32 connections", connections: 32, requests: 8_000, sent: 65_536, received: 43 },
];

/// What most requests of most apps are like: the sections that compare something else ask this.
pub(crate) const USUAL: Case = CASES[1];

/// As many connections as a busy router has: latencies are measured over them.
pub(crate) const CROWD: Case = CASES[2];

/// One request, to see whether a proxy passes it on.
pub(crate) const ONE: Case = Case { name: "one", connections: 1, requests: 1, sent: 0, received: 43 };

const GIBIBYTE: usize = 1 << 30;
pub(crate) const DOWN: Case = Case { name: "1 GiB down", connections: 1, requests: 1, sent: 0, received: GIBIBYTE };
pub(crate) const UP: Case = Case { name: "1 GiB up", connections: 1, requests: 1, sent: GIBIBYTE, received: 43 };

/// Bodies above this are neither kept in memory nor sent from it in one piece, by the client, the instance or a proxy.
pub(crate) const LARGEST_KEPT: usize = 1_048_576;

impl Case {
    /// How many are really asked: each connection asks as many as the others.
    pub(crate) fn asked(&self) -> usize {
        self.of_each() * self.connections
    }

    pub(crate) fn of_each(&self) -> usize {
        self.requests.div_ceil(self.connections)
    }

    pub(crate) fn is_streamed(&self) -> bool {
        self.sent.max(self.received) > LARGEST_KEPT
    }

    /// A request up to its body's end, or to its head's where the body is streamed.
    pub(crate) fn request(&self, host: &str) -> Vec<u8> {
        let method = if self.sent > 0 { "POST" } else { "GET" };
        let path = if self.is_streamed() { "/stream" } else { "" };
        let length = if self.sent > 0 { format!("Content-Length: {}\r\n", self.sent) } else { String::new() };
        let head = format!(
            "{method} {path}/{} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAccept: */*\r\n{length}\r\n",
            self.received
        );
        let mut request = head.into_bytes();
        if !self.is_streamed() {
            request.resize(request.len() + self.sent, b'x');
        }
        request
    }
}
