//! As much of HTTP/1.1 as a test application needs: keep-alive, bodies with a length.

use crate::{pages, stop};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Requests under way.
pub static ACTIVE: Active = Active { count: Mutex::new(0), changed: Condvar::new() };

const LONGEST_HEAD: u64 = 64 << 10;
const LONGEST_BODY: u64 = 64 << 20;

/// A request that has arrived whole.
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    keep_alive: bool,
}

/// An answer.
pub struct Response {
    pub status: u16,
    pub kind: &'static str,
    pub body: Vec<u8>,
}

/// Counts requests, so that stopping can wait for them.
pub struct Active {
    count: Mutex<usize>,
    changed: Condvar,
}

impl Active {
    fn change(&self, by: isize) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_add_signed(by);
        self.changed.notify_all();
    }

    /// Waits until none is left, or so long; returns how many are.
    pub fn drain(&self, limit: Duration) -> usize {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(count, limit, |count| *count > 0);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        ACTIVE.change(-1);
    }
}

impl Request {
    /// The value of a parameter of the query.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Serves one connection to its end.
pub fn connection(stream: &TcpStream) {
    if let Err(error) = requests(stream)
        && error.kind() != io::ErrorKind::UnexpectedEof
    {
        eprintln!("web: connection: {error}");
    }
}

fn requests(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        // Waits for the next request without counting as one.
        if reader.fill_buf()?.is_empty() {
            return Ok(());
        }
        ACTIVE.change(1);
        let guard = Guard;
        let request = read(&mut reader, stream)?;
        if request.path == "/tunnel" && request.header("upgrade") == Some("lines") {
            return tunnel(reader, stream);
        }
        let response = pages::answer(&request);
        let keep_alive = request.keep_alive && !stop::STOPPING.load(Ordering::SeqCst);
        write(stream, &request, &response, keep_alive)?;
        println!("{} {} {}", request.method, request.path, response.status);
        drop(guard);
        if !keep_alive {
            return Ok(());
        }
    }
}

/// Gives each line back, until the other side or this process ends.
fn tunnel(mut reader: BufReader<&TcpStream>, mut stream: &TcpStream) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\n")?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut line = String::new();
    while !stop::STOPPING.load(Ordering::SeqCst) {
        match reader.read_line(&mut line) {
            Ok(0) => break,
            Ok(_) => {
                stream.write_all(format!("{} {line}", pages::version()).as_bytes())?;
                line.clear();
            }
            // What has come of the line so far stays.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn read(reader: &mut BufReader<&TcpStream>, mut stream: &TcpStream) -> io::Result<Request> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut head = reader.by_ref().take(LONGEST_HEAD);
    let mut line = String::new();
    head.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
        return Err(invalid("request line"));
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: parse_query(query),
        headers: Vec::new(),
        body: Vec::new(),
        keep_alive: version == "HTTP/1.1",
    };
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Err(invalid("head"));
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid("header"))?;
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if let Some(connection) = request.header("connection") {
        request.keep_alive = connection.eq_ignore_ascii_case("keep-alive")
            || (request.keep_alive && !connection.eq_ignore_ascii_case("close"));
    }
    if request.header("expect").is_some_and(|expect| expect.eq_ignore_ascii_case("100-continue")) {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    request.body = if request.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        read_chunks(reader)?
    } else {
        let length =
            request.header("content-length").map_or(Ok(0), str::parse::<u64>).map_err(|_| invalid("length"))?;
        read_exactly(reader, length)?
    };
    Ok(request)
}

fn read_exactly(reader: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if length > LONGEST_BODY || reader.take(length).read_to_end(&mut body)? as u64 != length {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "body"));
    }
    Ok(body)
}

fn read_chunks(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "chunk");
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let digits = line.trim_end().split(';').next().unwrap_or_default();
        let length = u64::from_str_radix(digits, 16).map_err(|_| invalid())?;
        if body.len() as u64 + length > LONGEST_BODY {
            return Err(invalid());
        }
        body.extend(read_exactly(reader, length)?);
        reader.read_line(&mut String::new())?;
        if length == 0 {
            return Ok(body);
        }
    }
}

fn write(mut stream: &TcpStream, request: &Request, response: &Response, keep_alive: bool) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: {}\r\n\r\n",
        response.status,
        if response.status < 400 { "OK" } else { "Error" },
        response.kind,
        response.body.len(),
        if keep_alive { "keep-alive" } else { "close" },
    );
    let mut bytes = head.into_bytes();
    if request.method != "HEAD" {
        bytes.extend_from_slice(&response.body);
    }
    stream.write_all(&bytes)
}

fn parse_query(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                std::str::from_utf8(&digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
