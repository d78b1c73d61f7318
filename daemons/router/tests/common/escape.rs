//! Bytes as they stand in the table of raw requests: one line of ASCII, what is repeated often as `\(times*character)`.

/// What a line stands for.
pub fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(one) = rest.bytes().next() {
        rest = &rest[1..];
        if one != b'\\' {
            out.push(one);
            continue;
        }
        let (kind, behind) = rest.split_at(1);
        rest = behind;
        match kind {
            "r" => out.push(b'\r'),
            "n" => out.push(b'\n'),
            "t" => out.push(b'\t'),
            "\\" => out.push(b'\\'),
            "x" => {
                out.push(u8::from_str_radix(&rest[..2], 16).unwrap());
                rest = &rest[2..];
            }
            "(" => {
                let (run, behind) = rest.split_once(')').unwrap();
                let (times, byte) = run.split_once('*').unwrap();
                out.extend(byte.bytes().cycle().take(times.parse().unwrap()));
                rest = behind;
            }
            _ => panic!("\\{kind} in {text}"),
        }
    }
    out
}
