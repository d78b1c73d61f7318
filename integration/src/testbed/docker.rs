//! The engine's command line, and other programs of this machine.

use std::ffi::OsStr;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::error::{Error, Result};

/// The label that everything of the testbed bears; its value is the cluster's name.
pub const LABEL: &str = "dinp.testbed";

/// Runs a program of this machine and returns what it printed.
pub async fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<String> {
    run_with(program, args, "this machine", None).await
}

/// Runs `docker` with these arguments.
pub async fn docker<S: AsRef<OsStr>>(args: &[S]) -> Result<String> {
    run("docker", args).await
}

/// Runs a program with text on its standard input; `place` is named in the error.
pub async fn run_with<S: AsRef<OsStr>>(program: &str, args: &[S], place: &str, input: Option<&str>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args);
    run_command(command, place, input).await
}

/// Runs a prepared command to its end; the same, for those that need an environment.
pub async fn run_command(mut command: Command, place: &str, input: Option<&str>) -> Result<String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let spawn_error = |source| Error::Spawn { program: program.clone(), source };
    command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(spawn_error)?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        let text = text.to_owned();
        // A program that ends before it has read its input says why by its status.
        tokio::spawn(async move { stdin.write_all(text.as_bytes()).await.is_ok() });
    }
    let output = child.wait_with_output().await.map_err(spawn_error)?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    Err(Error::Command {
        command: spoken(&command),
        place: place.to_owned(),
        status: output.status.to_string(),
        output: format!("{stdout}{}", String::from_utf8_lossy(&output.stderr)),
    })
}

/// A command as a person would type it, cut where it gets long.
fn spoken(command: &Command) -> String {
    let command = command.as_std();
    let words: Vec<_> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(OsStr::to_string_lossy).collect();
    let mut text = words.join(" ");
    if let Some((end, _)) = text.char_indices().nth(300) {
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}

/// Ids or names of what bears the label of a cluster: `docker <kind> ls`, in its order (images: newest first, so that
/// they can be removed before those that they were made from).
pub async fn labelled(list: &[&str], label: &str) -> Result<Vec<String>> {
    let filter = format!("label={label}");
    let mut args = list.to_vec();
    args.extend(["--quiet", "--filter", &filter]);
    let text = docker(&args).await?;
    let mut ids: Vec<String> = Vec::new();
    for line in text.lines() {
        if !ids.iter().any(|id| id == line) {
            ids.push(line.to_owned());
        }
    }
    Ok(ids)
}

/// Removes all of these with one command; nothing to remove is no command.
pub async fn remove(command: &[&str], ids: &[String]) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut args: Vec<&str> = command.to_vec();
    args.extend(ids.iter().map(String::as_str));
    docker(&args).await.map(drop)
}
