//! The output of a container, line by line, as the engine keeps it.
//!
//! This works for containers that run and for those that have ended, with every log driver that can be read. The output of
//! a container that is started again goes on.

use crate::docker::{Engine, EngineError, failed};
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use dinp_common::api::UnixMillis;
use dinp_common::api::agent::{LogLine, LogStream, OUTPUT_LINE_CHARS, OUTPUT_LINES};
use dinp_common::model::InstanceId;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use std::collections::VecDeque;
use std::time::Duration;

/// Longest line that is kept whole.
const LONGEST: usize = 64 * 1024;

/// Time to read what is quoted: the next start of the instance waits for it.
const QUOTE: Duration = Duration::from_secs(2);

/// From where on output is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// So many of the last lines.
    Last(u32),
    /// What was written after that moment.
    After(UnixMillis),
}

/// Lines of one container.
pub struct Lines {
    instance: InstanceId,
    output: BoxStream<'static, Result<LogOutput, bollard::errors::Error>>,
    after: Option<UnixMillis>,
    /// What has come of a line, on each of the two ways.
    pieces: [Vec<u8>; 2],
    last: UnixMillis,
    whole: VecDeque<LogLine>,
}

impl Lines {
    /// Begins to read; with `follow` it goes on until the container ends.
    pub async fn open(
        engine: &Engine,
        container: &str,
        instance: &InstanceId,
        from: ReadFrom,
        follow: bool,
    ) -> Result<Self, EngineError> {
        let (since, tail, after) = match from {
            ReadFrom::Last(lines) => (0, lines.to_string(), None),
            // Whole seconds are all that the engine takes; what was read already is left out.
            ReadFrom::After(at) => (i32::try_from(at / 1000).unwrap_or_default(), "all".into(), Some(at)),
        };
        let options =
            LogsOptions { follow, stdout: true, stderr: true, timestamps: true, since, tail, ..LogsOptions::default() };
        let docker = engine.docker().await?;
        let output = docker.logs(container, Some(options)).boxed();
        Ok(Self {
            instance: instance.clone(),
            output,
            after,
            pieces: Default::default(),
            last: 0,
            whole: VecDeque::new(),
        })
    }

    /// The next line; none at the end.
    pub async fn next(&mut self) -> Option<Result<LogLine, EngineError>> {
        loop {
            if let Some(line) = self.whole.pop_front() {
                return Some(Ok(line));
            }
            match self.output.next().await {
                Some(Ok(output)) => self.take(output),
                Some(Err(error)) => return Some(Err(failed("read logs", error))),
                None if self.pieces.iter().all(Vec::is_empty) => return None,
                None => self.end(),
            }
        }
    }

    fn take(&mut self, output: LogOutput) {
        let (stream, message) = match output {
            LogOutput::StdErr { message } => (LogStream::Stderr, message),
            LogOutput::StdOut { message } | LogOutput::Console { message } => (LogStream::Stdout, message),
            LogOutput::StdIn { .. } => return,
        };
        let piece = &mut self.pieces[usize::from(stream == LogStream::Stderr)];
        // Each part of a long line comes with a time of its own.
        let rest = if piece.is_empty() { &message[..] } else { after_time(&message) };
        piece.extend_from_slice(rest);
        for line in whole_lines(piece) {
            self.push(stream, &line);
        }
    }

    /// What came last has no line's end.
    fn end(&mut self) {
        for (stream, piece) in [LogStream::Stdout, LogStream::Stderr].into_iter().zip(std::mem::take(&mut self.pieces))
        {
            if !piece.is_empty() {
                self.push(stream, &piece);
            }
        }
    }

    fn push(&mut self, stream: LogStream, line: &[u8]) {
        let (at, text) = split(line);
        self.last = at.unwrap_or(self.last);
        if self.after.is_none_or(|after| self.last > after) {
            self.whole.push_back(LogLine { at: self.last, instance: self.instance.clone(), stream, text });
        }
    }
}

/// The last lines of a container that has ended, fit to be quoted; none where its log driver cannot be read.
pub async fn quote(engine: &Engine, container: &str, instance: &InstanceId) -> Result<Vec<String>, EngineError> {
    let last = u32::try_from(OUTPUT_LINES).unwrap_or(u32::MAX);
    let reading = async {
        let mut lines = Lines::open(engine, container, instance, ReadFrom::Last(last), false).await?;
        let mut quoted = Vec::new();
        while let Some(line) = lines.next().await.transpose()? {
            quoted.push(quotable(&line.text));
        }
        Ok(quoted)
    };
    let limit = engine.limit().min(QUOTE);
    match tokio::time::timeout(limit, reading).await {
        Ok(Err(EngineError::Refused { .. })) => Ok(Vec::new()),
        Ok(read) => read,
        Err(_) => Err(EngineError::Hangs { act: format!("read the last lines of container {container}"), limit }),
    }
}

fn quotable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\t').take(OUTPUT_LINE_CHARS).collect()
}

/// Takes the whole lines out of what has arrived; a line that is too long is cut.
fn whole_lines(piece: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
        let mut line: Vec<u8> = piece.drain(..=end).collect();
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        lines.push(line);
    }
    if piece.len() > LONGEST {
        lines.push(std::mem::take(piece));
    }
    lines
}

/// A line as the engine gives it: its time, a space, the text.
fn split(line: &[u8]) -> (Option<UnixMillis>, String) {
    let text = String::from_utf8_lossy(line);
    if let Some((time, rest)) = text.split_once(' ').or(Some((text.as_ref(), "")))
        && let Ok(time) = time.parse::<jiff::Timestamp>()
    {
        return (Some(time.as_millisecond()), rest.to_owned());
    }
    (None, text.into_owned())
}

/// What follows the time at the beginning, if there is one.
fn after_time(part: &[u8]) -> &[u8] {
    let end = part.iter().take(64).position(|byte| *byte == b' ');
    let is_time = |end: &usize| std::str::from_utf8(&part[..*end]).is_ok_and(|t| t.parse::<jiff::Timestamp>().is_ok());
    end.filter(is_time).map_or(part, |end| &part[end + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(messages: &[&'static str], after: Option<UnixMillis>) -> Vec<String> {
        let output = messages.iter().map(|message| Ok(LogOutput::StdOut { message: (*message).into() }));
        let mut lines = Lines {
            instance: InstanceId::from_bits(1),
            output: futures_util::stream::iter(output.collect::<Vec<_>>()).boxed(),
            after,
            pieces: Default::default(),
            last: 0,
            whole: VecDeque::new(),
        };
        let mut texts = Vec::new();
        while let Some(line) = lines.next().await {
            texts.push(line.unwrap().text);
        }
        texts
    }

    #[tokio::test]
    async fn blank_lines_stay_and_the_last_one_needs_no_end() {
        let messages = ["1970-01-01T00:00:01Z a\n", "1970-01-01T00:00:01Z \n", "1970-01-01T00:00:02Z Traceback"];
        assert_eq!(read(&messages, None).await, ["a", "", "Traceback"]);
        assert_eq!(read(&messages, Some(1000)).await, ["Traceback"]);
    }

    #[tokio::test]
    async fn the_parts_of_a_long_line_are_one_line() {
        let messages = ["1970-01-01T00:00:01Z one ", "1970-01-01T00:00:01.000000001Z line\n"];
        assert_eq!(read(&messages, None).await, ["one line"]);
    }

    #[test]
    fn lines_and_their_times() {
        assert_eq!(split(b"1970-01-01T00:00:01.500000001Z hello  world"), (Some(1500), "hello  world".into()));
        assert_eq!(split(b"1970-01-01T00:00:02Z "), (Some(2000), String::new()));
        assert_eq!(split(b"1970-01-01T00:00:02Z"), (Some(2000), String::new()));
        assert_eq!(split(b"no time \xff"), (None, "no time \u{fffd}".into()));
    }

    #[test]
    fn pieces_become_lines() {
        let mut piece = b"a\r\nb\nc".to_vec();
        assert_eq!(whole_lines(&mut piece), [b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(piece, b"c");
        let mut long = vec![b'x'; LONGEST + 1];
        assert_eq!(whole_lines(&mut long).len(), 1);
        assert!(long.is_empty());
    }

    #[test]
    fn quotes_are_bounded_and_printable() {
        assert_eq!(quotable("\u{1b}[31mred\tfish"), "[31mred\tfish");
        assert_eq!(quotable(&"x".repeat(1000)).len(), OUTPUT_LINE_CHARS);
    }
}
