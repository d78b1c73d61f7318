//! One line of the access log.

use crate::codec::fields;
use crate::table::ReleaseStats;
use dinp_common::model::InstanceId;
use jiff::Timestamp;
use std::io::Write as _;
use std::time::Duration;

/// Bytes of a value.
const LONGEST: usize = 2048;

/// What is told of one request.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    /// Address of the client.
    pub(crate) client: &'a str,
    /// What was asked, where it was understood.
    pub(crate) asked: Option<Asked<'a>>,
    pub(crate) served: &'a Served,
}

/// A request that was understood.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The head as the app gets it.
    pub(crate) head: &'a [u8],
    pub(crate) host: &'a str,
    pub(crate) id: &'a str,
    /// Whether it came as HTTP/1.0.
    pub(crate) is_old: bool,
}

/// How it was served.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// The status of the answer; 0 where the client was gone before it.
    pub(crate) status: u16,
    /// Why the router answered itself, as in `x-dinp-error`; or that the answer is not whole, or has reached nobody.
    pub(crate) error: Option<&'static str>,
    /// Attempts, the last one included.
    pub(crate) attempts: u32,
    /// Whom the last attempt went to.
    pub(crate) by: Option<(std::sync::Arc<ReleaseStats>, InstanceId)>,
    /// From the request's head to the answer's last byte.
    pub(crate) took: Duration,
    /// From the head's way to the last instance that was tried to the first byte of its answer: the app's own time.
    pub(crate) app_took: Duration,
    /// Bytes of content of the request that went to the app, and of the answer that went to the client.
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

impl Entry<'_> {
    /// Writes it, with its end of line. Targets are told without their queries: people put secrets there.
    pub(super) fn write(&self, now: Timestamp, out: &mut Vec<u8>) {
        let mut line = Line { out, is_first: true };
        line.out.push(b'{');
        line.text("time", format!("{now:.3}").as_bytes());
        line.text("client", self.client.as_bytes());
        if let Some(asked) = self.asked {
            let mut words = asked.head.split(|byte| matches!(byte, b' ' | b'\r'));
            line.text("method", words.next().unwrap_or_default());
            line.text("host", asked.host.as_bytes());
            let target = words.next().unwrap_or_default();
            line.text("path", target.split(|byte| *byte == b'?').next().unwrap_or_default());
            line.text("protocol", if asked.is_old { b"HTTP/1.0" } else { b"HTTP/1.1" });
        }
        let Served { status, error, attempts, by, took, app_took, received, sent } = self.served;
        line.number("status", u64::from(*status));
        if let Some(error) = error {
            line.text("error", error.as_bytes());
        }
        line.number("received", *received);
        line.number("sent", *sent);
        line.seconds("duration", *took);
        if let Some((stats, instance)) = by {
            line.seconds("app_duration", *app_took);
            line.text("app", stats.app.as_str().as_bytes());
            line.number("release", stats.release);
            line.text("instance", instance.as_str().as_bytes());
            line.number("attempts", u64::from(*attempts));
        }
        if let Some(asked) = self.asked {
            line.text("request_id", asked.id.as_bytes());
            let first = |wanted: &[u8]| fields(asked.head).find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            if let Some((_, agent)) = first(b"user-agent") {
                line.text("user_agent", agent);
            }
            // Version, trace, span and flags: W3C Trace Context, 3.2.
            if let Some(trace) = first(b"traceparent").and_then(|(_, value)| value.split(|byte| *byte == b'-').nth(1)) {
                line.text("trace_id", trace);
            }
        }
        line.out.extend_from_slice(b"}\n");
    }
}

struct Line<'a> {
    out: &'a mut Vec<u8>,
    is_first: bool,
}

impl Line<'_> {
    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.is_first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn number(&mut self, name: &str, number: u64) {
        self.name(name);
        // A vector takes what is written to it.
        write!(self.out, "{number}").ok();
    }

    fn seconds(&mut self, name: &str, time: Duration) {
        self.name(name);
        write!(self.out, "{}.{:06}", time.as_secs(), time.subsec_micros()).ok();
    }

    /// What comes from a client may be any bytes, and many: here it is text, whatever it was, and no more than a line of the
    /// journal can hold.
    fn text(&mut self, name: &str, value: &[u8]) {
        let value = &value[..value.len().min(LONGEST)];
        self.name(name);
        self.out.push(b'"');
        for chunk in value.utf8_chunks() {
            for byte in chunk.valid().bytes() {
                match byte {
                    b'"' | b'\\' => self.out.extend_from_slice(&[b'\\', byte]),
                    0..b' ' | 0x7f => drop(write!(self.out, "\\u{byte:04x}")),
                    _ => self.out.push(byte),
                }
            }
            if !chunk.invalid().is_empty() {
                self.out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
        self.out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(entry: &Entry<'_>) -> String {
        let mut out = Vec::new();
        entry.write("2026-11-26T20:00:00.1Z".parse().unwrap(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_that_was_served() {
        let head = b"GET /a?token=secret HTTP/1.1\r\nHost: a.x\r\nUser-Agent: \"x\" \xff\r\n\
            traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n";
        let served = Served {
            status: 200,
            error: None,
            attempts: 2,
            by: Some((ReleaseStats::new("shop".parse().unwrap(), 7), InstanceId::from_bits(0xab))),
            took: Duration::from_micros(1_002_003),
            app_took: Duration::from_millis(1000),
            received: 0,
            sent: 12,
        };
        let asked = Some(Asked { head, host: "a.x", id: "i", is_old: false });
        let line = written(&Entry { client: "192.0.2.1", asked, served: &served });
        assert_eq!(
            line,
            "{\"time\":\"2026-11-26T20:00:00.100Z\",\"client\":\"192.0.2.1\",\"method\":\"GET\",\"host\":\"a.x\",\
             \"path\":\"/a\",\"protocol\":\"HTTP/1.1\",\"status\":200,\"received\":0,\"sent\":12,\"duration\":1.002003,\
             \"app_duration\":1.000000,\"app\":\"shop\",\"release\":7,\"instance\":\"00000000000000ab\",\"attempts\":2,\
             \"request_id\":\"i\",\"user_agent\":\"\\\"x\\\" \u{fffd}\",\"trace_id\":\"0af7651916cd43dd8448eb211c80319c\"}\n"
        );
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
    }

    #[test]
    fn what_was_not_understood() {
        let served = Served { status: 400, error: Some("bad_request"), ..Served::default() };
        let entry = Entry { client: "::1", asked: None, served: &served };
        assert_eq!(
            written(&entry),
            "{\"time\":\"2026-11-26T20:00:00.100Z\",\"client\":\"::1\",\"status\":400,\"error\":\"bad_request\",\
             \"received\":0,\"sent\":0,\"duration\":0.000000}\n"
        );
    }

    #[test]
    fn any_bytes_become_one_line_of_json() {
        let all: Vec<u8> = (0..=255).collect();
        let mut out = Vec::new();
        Line { out: &mut out, is_first: true }.text("a", &all);
        let text = String::from_utf8(out).unwrap();
        let value: serde_json::Value = serde_json::from_str(&format!("{{{text}}}")).unwrap();
        assert!(!text.contains('\n') && value["a"].as_str().unwrap().starts_with('\0'));
    }
}
