//! Output of an app's instances: of those that run, and of those that have ended.

use super::app::Head;
use super::frame::Frame;
use super::show;
use super::{Page, Shared, html};
use crate::Caller;
use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Response;
use dinp_common::api::agent::LogLine;
use dinp_common::api::control::{InstanceDigits, LogQuery};
use dinp_common::problem::Problem;
use dinp_common::store::app::AppRow;
use http::StatusCode;
use serde::Deserialize;

/// Lines of log that a page begins with.
const LOG_LINES: u32 = 200;
/// Most bytes of log in a page.
const LOG_BYTES: usize = 4 * 1024 * 1024;

#[derive(Template)]
#[template(path = "app_logs.html")]
struct LogsPage {
    frame: Frame,
    head: Head,
    text: String,
    error: Option<String>,
    previous: bool,
    instance: String,
    query: String,
}

/// Which output is wanted.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    previous: bool,
    instance: String,
}

impl Which {
    /// What the leader is asked. An instance that is no id is none.
    fn query(&self, follow: bool) -> Result<LogQuery, Problem> {
        let instance: Option<InstanceDigits> = match self.instance.as_str() {
            "" => None,
            id => Some(id.parse().map_err(|error| crate::invalid("instance", &error))?),
        };
        Ok(LogQuery { instance, previous: self.previous, tail: Some(LOG_LINES), follow, since: None })
    }

    /// The same in the address of a page.
    fn in_address(&self) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if self.previous {
            query.append_pair("previous", "true");
        }
        if !self.instance.is_empty() {
            query.append_pair("instance", &self.instance);
        }
        query.finish()
    }
}

/// Lines as text, in order of time.
fn as_text(ndjson: &str) -> String {
    let mut lines: Vec<LogLine> = ndjson.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    lines.sort_by_key(|line| line.at);
    let second = |line: &LogLine| show::exact(line.at).get(..19).map(str::to_owned).unwrap_or_default();
    lines.iter().map(|line| format!("{} {}  {}\n", second(line), line.instance.short(), line.text)).collect()
}

/// `GET /apps/{app}/logs`.
pub(super) async fn logs(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(row): Extension<AppRow>,
    Query(which): Query<Which>,
) -> Page {
    let view = dash.app_view(&row).await?;
    let query = which.query(false)?;
    let read = async {
        let response = dash.app_log(&caller, &row, &query).await?;
        let whole = axum::body::to_bytes(response.into_body(), LOG_BYTES);
        match tokio::time::timeout(crate::backend::LIMIT, whole).await {
            Ok(Ok(bytes)) => Ok(as_text(&String::from_utf8_lossy(&bytes))),
            _ => Err(Problem::unavailable("logs-unavailable", "the log could not be read whole; try again shortly")),
        }
    };
    let (text, error) = match read.await {
        Ok(text) => (text, None),
        Err(problem) => (String::new(), Some(problem.detail)),
    };
    let page = LogsPage {
        frame: Frame::new(&dash, &caller, "apps").await,
        head: Head::new(&caller, &view, "logs"),
        text,
        error,
        previous: which.previous,
        query: which.in_address(),
        instance: which.instance,
    };
    Ok(html(StatusCode::OK, &page))
}

/// `GET /apps/{app}/logs/stream`: what the page's script follows.
pub(super) async fn stream(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(row): Extension<AppRow>,
    Query(which): Query<Which>,
) -> Result<Response, Problem> {
    dash.app_log(&caller, &row, &which.query(true)?).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_instances_are_merged_and_blank_ones_stay() {
        let line = |at: i64, id: &str, text: &str| {
            format!(r#"{{"at":{at},"instance":"{id}","stream":"stdout","text":"{text}"}}"#)
        };
        let text = [
            line(1_700_000_002_000, "aaaaaaaa00000001", "second"),
            line(1_700_000_001_000, "bbbbbbbb00000001", "first"),
            line(1_700_000_001_500, "bbbbbbbb00000001", ""),
            "broken".to_owned(),
        ];
        assert_eq!(
            as_text(&text.join("\n")),
            "2023-11-14 22:13:21 bbbbbbbb  first\n2023-11-14 22:13:21 bbbbbbbb  \n2023-11-14 22:13:22 aaaaaaaa  second\n"
        );
    }
}
