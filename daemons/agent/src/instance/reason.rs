//! Why an instance ended or could not start, in one sentence for people.

use super::terms::Exit;

/// A program that could not be run, as the last lines of the output tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its path or name.
    pub program: String,
    /// The system's words for it.
    pub why: String,
}

/// What a process that ran out of its memory is told by.
pub fn out_of_memory(limit_mb: u32) -> String {
    format!("out of memory (limit {limit_mb} MiB)")
}

/// The reason that an exit itself tells.
pub fn of_exit(exit: &Exit, limit_mb: u32) -> String {
    match exit {
        Exit { is_unwatched: true, code, .. } => format!("ended with code {code} while nobody watched it"),
        Exit { out_of_memory: true, code: 137, .. } => out_of_memory(limit_mb),
        Exit { out_of_memory: true, code, .. } => {
            format!("exited with code {code} after a process in it was killed: {}", out_of_memory(limit_mb))
        }
        Exit { error, .. } if !error.is_empty() => of_start_error(error),
        Exit { code, .. } => match meaning(*code) {
            Some(meaning) => format!("exited with code {code} ({meaning})"),
            None => format!("exited with code {code}"),
        },
    }
}

/// What an exit code usually means.
fn meaning(code: i64) -> Option<String> {
    Some(match code {
        0 => "its command ended by itself: it must stay in the foreground".into(),
        126 => "its command is not executable".into(),
        127 => "its command was not found".into(),
        129..=192 => format!("killed by {}", signal(code - 128)?),
        _ => return None,
    })
}

fn signal(number: i64) -> Option<&'static str> {
    Some(match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL: an instruction that this CPU does not know",
        6 => "SIGABRT: it gave up by itself",
        7 => "SIGBUS: memory or a file that is not there",
        8 => "SIGFPE: an arithmetic fault",
        9 => "SIGKILL, from inside or by hand",
        10 => "SIGUSR1",
        11 => "SIGSEGV: invalid memory access",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM, from inside or by hand",
        31 => "SIGSYS: a system call that is not allowed",
        _ => return None,
    })
}

/// The program that could not be run, if an exit and what was written before it say so.
pub fn refused(code: i64, output: &[String]) -> Option<Refused> {
    output.iter().rev().find_map(|line| of_init(line).or_else(|| of_shell(line).filter(|_| matches!(code, 126 | 127))))
}

/// `[FATAL tini (7)] exec ./control failed: Permission denied`
fn of_init(line: &str) -> Option<Refused> {
    let (_, rest) = line.split_once("[FATAL tini")?.1.split_once("] exec ")?;
    let (program, why) = rest.rsplit_once(" failed: ")?;
    Some(Refused { program: program.into(), why: why.into() })
}

/// `/usr/bin/dinp-start: 7: exec: ./control: Permission denied`
fn of_shell(line: &str) -> Option<Refused> {
    let mut parts = line.trim().rsplit(": ");
    let why = parts.next()?;
    const WORDS: [&str; 7] = [
        "Permission denied",
        "not found",
        "command not found",
        "No such file or directory",
        "required file not found",
        "Exec format error",
        "bad interpreter",
    ];
    let program = parts.find(|part| !part.contains("bad interpreter") && !part.contains("cannot execute"))?;
    let is_program = !program.is_empty() && !program.contains(' ') && program.parse::<u32>().is_err();
    (WORDS.contains(&why) && is_program).then(|| Refused { program: program.into(), why: why.into() })
}

/// Why a program could not be run, with what stands at the beginning of its file, where there is one.
pub fn of_refused(refused: &Refused, file: Option<&[u8]>) -> String {
    let Refused { program, why } = refused;
    if why == "Permission denied" {
        return format!("`{program}` is not executable");
    }
    match file.map(content) {
        None => format!("`{program}` was not found"),
        Some(Content::Foreign(what)) => format!("`{program}` is an executable for {what}, this node is {}", node()),
        Some(Content::Script(interpreter)) => match interpreter.strip_suffix('\r') {
            Some(plain) => {
                format!("`{program}` has the line ends of Windows: no such interpreter: \"{plain}\\r\"")
            }
            None => format!("`{program}`: no such interpreter: {interpreter}"),
        },
        Some(Content::Native) => format!("`{program}` needs a dynamic loader that its image does not have"),
        Some(Content::Other) => {
            format!("`{program}` is neither an executable for Linux nor a script that begins with #!")
        }
    }
}

/// The reason of a program that another one tried to run as a script because its file is for another machine.
pub fn of_foreign(program: &str, file: &[u8]) -> Option<String> {
    match content(file) {
        Content::Foreign(what) => Some(format!("`{program}` is an executable for {what}, this node is {}", node())),
        _ => None,
    }
}

enum Content {
    /// An executable for something else.
    Foreign(String),
    /// A script, with its interpreter.
    Script(String),
    /// An executable for this machine.
    Native,
    Other,
}

fn content(file: &[u8]) -> Content {
    if let Some(line) = file.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let interpreter = line.trim_start_matches([' ', '\t']);
        // Of `#!/usr/bin/env node` the first word is what the system looks for, with all that sticks to it.
        return Content::Script(interpreter.split([' ', '\t']).next().unwrap_or_default().to_owned());
    }
    match file {
        [0x7f, b'E', b'L', b'F', ..] => match file.get(18..20).map(|pair| u16::from_le_bytes([pair[0], pair[1]])) {
            Some(machine) if architecture(machine) != Some(node()) => {
                Content::Foreign(architecture(machine).map_or_else(|| format!("machine {machine}"), str::to_owned))
            }
            _ => Content::Native,
        },
        [0xfe, 0xed, 0xfa, 0xce | 0xcf, ..] | [0xce | 0xcf, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] => {
            Content::Foreign("macOS".into())
        }
        [b'M', b'Z', ..] => Content::Foreign("Windows".into()),
        _ => Content::Other,
    }
}

fn architecture(machine: u16) -> Option<&'static str> {
    Some(match machine {
        3 => "386",
        40 => "arm",
        62 => "amd64",
        183 => "arm64",
        243 => "riscv64",
        _ => return None,
    })
}

/// This machine, in the words that images are named by.
fn node() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Why the engine could not start a container: of what the engine says, what matters.
pub fn of_start_error(error: &str) -> String {
    let Some((_, rest)) = error.split_once("exec: \"") else { return error.to_owned() };
    let Some((program, rest)) = rest.split_once('"') else { return error.to_owned() };
    let lower = rest.to_ascii_lowercase();
    if lower.contains("permission denied") {
        return format!("`{program}` is not executable");
    }
    if lower.contains("not found") || lower.contains("no such file or directory") {
        return format!("`{program}` was not found, or its interpreter");
    }
    if lower.contains("exec format error") {
        return format!("`{program}` is no executable for this node ({})", node());
    }
    error.to_owned()
}

/// Whether a start failed because of what was to be started, and not because of the node.
pub fn is_own_fault(error: &str) -> bool {
    error.contains("exec: \"") || error.contains("exec format error") || error.contains("unable to find user")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i64) -> Exit {
        Exit { code, ..Exit::default() }
    }

    fn explained(code: i64, output: &[&str], file: Option<&[u8]>) -> Option<String> {
        let output: Vec<String> = output.iter().map(|line| (*line).to_owned()).collect();
        refused(code, &output).map(|refused| of_refused(&refused, file))
    }

    #[test]
    fn exit_codes_have_their_usual_meaning() {
        for (code, reason) in [
            (0, "exited with code 0 (its command ended by itself: it must stay in the foreground)"),
            (1, "exited with code 1"),
            (126, "exited with code 126 (its command is not executable)"),
            (127, "exited with code 127 (its command was not found)"),
            (139, "exited with code 139 (killed by SIGSEGV: invalid memory access)"),
            (143, "exited with code 143 (killed by SIGTERM, from inside or by hand)"),
            (255, "exited with code 255"),
        ] {
            assert_eq!(of_exit(&exit(code), 256), reason);
        }
    }

    /// `docker kill` was recorded as out of memory.
    #[test]
    fn only_what_the_kernel_killed_for_memory_is_out_of_memory() {
        assert_eq!(of_exit(&exit(137), 256), "exited with code 137 (killed by SIGKILL, from inside or by hand)");
        let killed = |code| Exit { out_of_memory: true, ..exit(code) };
        assert_eq!(of_exit(&killed(137), 256), "out of memory (limit 256 MiB)");
        assert_eq!(
            of_exit(&killed(1), 256),
            "exited with code 1 after a process in it was killed: out of memory (limit 256 MiB)"
        );
    }

    #[test]
    fn a_program_that_cannot_be_run_is_named() {
        let init = |why: &str| format!("[FATAL tini (7)] exec ./control failed: {why}");
        let denied = "`./control` is not executable";
        assert_eq!(explained(126, &[&init("Permission denied")], None).unwrap(), denied);
        let shell = "/usr/bin/dinp-start: 7: exec: ./control: Permission denied";
        assert_eq!(explained(126, &["hello", shell], None).unwrap(), denied);
        assert_eq!(explained(1, &[shell], None), None, "an app may say such things and go on");
        let missing = init("No such file or directory");
        assert_eq!(explained(127, &[&missing], None).unwrap(), "`./control` was not found");
        assert_eq!(explained(127, &["sh: 1: exec: gunicron: not found"], None).unwrap(), "`gunicron` was not found");
        assert_eq!(
            explained(127, &[&missing], Some(b"#!/usr/bin/nodejs --harmony\nx")).unwrap(),
            "`./control`: no such interpreter: /usr/bin/nodejs"
        );
        assert_eq!(
            explained(127, &[&missing], Some(b"#!/bin/sh\r\necho\r\n")).unwrap(),
            "`./control` has the line ends of Windows: no such interpreter: \"/bin/sh\\r\""
        );
    }

    #[test]
    fn executables_for_other_machines_are_told() {
        let elf = |machine: u8| [&b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0"[..], &[machine, 0]].concat();
        let (own, other, name) = match node() {
            "arm64" => (183, 62, "amd64"),
            _ => (62, 183, "arm64"),
        };
        let expected = format!("`./app` is an executable for {name}, this node is {}", node());
        assert_eq!(of_foreign("./app", &elf(other)), Some(expected));
        assert_eq!(of_foreign("./app", &elf(own)), None);
        assert!(of_foreign("./app", b"\xcf\xfa\xed\xfe\x0c").unwrap().contains("for macOS"));
        let line = "[FATAL tini (7)] exec ./app failed: No such file or directory";
        assert!(explained(127, &[line], Some(&elf(own))).unwrap().contains("needs a dynamic loader"));
    }

    #[test]
    fn what_the_engine_says_of_a_start_becomes_a_sentence() {
        let runc = |why: &str| {
            format!(
                "start container x: OCI runtime create failed: runc create failed: unable to start container process: exec: \"./control\": {why}: unknown"
            )
        };
        assert_eq!(of_start_error(&runc("permission denied")), "`./control` is not executable");
        assert_eq!(
            of_start_error(&runc("stat ./control: no such file or directory")),
            "`./control` was not found, or its interpreter"
        );
        assert!(of_start_error(&runc("exec format error")).starts_with("`./control` is no executable for this node"));
        assert!(is_own_fault(&runc("permission denied")));
        let network = "driver failed programming external connectivity on endpoint x: iptables failed";
        assert_eq!(of_start_error(network), network);
        assert!(!is_own_fault(network) && !is_own_fault("no space left on device"));
    }
}
