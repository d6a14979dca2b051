//! All engines say the same, wherever a line lies in the blocks of the fast path and whatever is wrong with it.
//!
//! Method: lines that have one of everything, moved byte by byte through two blocks and over the seam of two groups, cut at
//! every byte, and with every byte exchanged; `records` compares the engines, bad reasons and offsets included. What the
//! exact checker itself says is tested elsewhere.

mod decode_oracle;

use decode_oracle::{Answer, ENGINES, decode, keys, records};
use dedupd::decode::{Decoder, KeySpec, TimeSpec, TimeUnit};

const LINE: &str = r#"{"a":{"id":[1.5,-2e+9,{"b":"x\"\\"}]},"t" : 12,"n":true,"id":"é\u0061","o":[],"p":{ },"z":null,"data":{"id":10}}"#;

fn keys_of_all_kinds() -> Vec<KeySpec> {
    [
        &["id"][..],
        &["data.id"],
        &["x|a.id|data.id"],
        &["id", "n", "data.id"],
        &["a", "o", "p", "t", "z", "data"],
        &["/a/id/0"],
    ]
    .map(keys)
    .to_vec()
}

#[test]
fn engines_agree_wherever_a_line_lies() {
    for key in keys_of_all_kinds() {
        // Two blocks of 64 bytes, and the seam of two groups of 512.
        for shift in (0..130).chain(380..520) {
            let spaces = " ".repeat(shift);
            records(&key, format!("{spaces}{LINE}\n{spaces}{LINE}{spaces}\r\n\n{LINE}").as_bytes());
            records(&key, format!("\"{spaces}\"\n{LINE}\n").as_bytes());
        }
    }
}

#[test]
fn engines_agree_wherever_a_line_is_cut() {
    for key in keys_of_all_kinds() {
        for cut in 0..=LINE.len() {
            let cut = &LINE.as_bytes()[..cut];
            records(&key, cut);
            records(&key, &[cut, b"\n", LINE.as_bytes(), b"\n", cut, b"\r\n"].concat());
        }
    }
}

#[test]
fn engines_agree_whichever_byte_is_exchanged() {
    let key = keys(&["data.id|id"]);
    let sound = [LINE.as_bytes(), b"\n"].concat();
    for at in 0..LINE.len() {
        for byte in b"\"\\{}[],: \t\r\n0-.e9tnux\x01\x7f\x80\xc3\xff/" {
            let mut line = LINE.as_bytes().to_vec();
            line[at] = *byte;
            records(&key, &[&sound, &line[..], b"\n", &sound].concat());
            line.insert(at, LINE.as_bytes()[at]);
            records(&KeySpec::default(), &line);
        }
    }
}

#[test]
fn engines_agree_at_every_depth() {
    for depth in (1..140).chain(500..520) {
        for (open, close) in [("[", "]"), ("{\"id\":", "}")] {
            let (open, close) = (open.repeat(depth), close.repeat(depth));
            for line in [
                format!("{open}1{close}"),
                format!("{open}1{close}]"),
                format!("{open}1{close}\n{open}1"),
                format!("{open}{{]{close}"),
            ] {
                records(&KeySpec::default(), format!("{line}\n{LINE}\n").as_bytes());
            }
        }
    }
}

#[test]
fn engines_agree_on_what_masks_can_get_wrong() {
    let lines: &[&[u8]] = &[
        b"{},0 ",
        b"1,2",
        b"1,[2]",
        b"1,\"a\":2",
        b"\"a\":1",
        b"{}{}",
        b"[]]",
        b"]",
        b"}",
        b"{]",
        b"[}",
        b"[1,]",
        b"{\"a\":1,}",
        b"{\"a\"}",
        b"{1}",
        b"{1:2}",
        b"{[]:1}",
        b"{\"a\":}",
        b"{\"a\"::1}",
        b"{\"a\":1:2}",
        b"[\"a\":1]",
        b"[1,\"a\":1]",
        b"{\"a\":1,2}",
        b"{\"a\":1,\"b\"}",
        b"{,}",
        b"[,]",
        b"{:}",
        b"[ ]",
        b"{ }",
        b"{\t\r}",
        b"\"\\",
        b"\"\\\"",
        b"\\\"\"",
        b"\"a\\\nb\"",
        b"00",
        b"-",
        b"-0",
        b"-00",
        b"0.0",
        b"0e0",
        b"1e",
        b"truefalse",
        b"true false",
        b"truex",
        b"nul",
        b"nulll",
        b"\"a\"b",
        b"1\"a\"",
        b"\"a\"\"b\"",
        b"\xff",
        b"\"\xff\"",
        b"{\"id\" \t:1}",
        b"{\"\\u0069d\" :1}",
        b"{ \"id\"x:1}",
        b" : ",
        b":",
        b"{\"id\":\"a\\u12",
        b"{\"id\":\"\\ud800\"}",
        b"12345678901234567890123456789012345678901234567890123456789012345678901234567890",
        b"{\"id\":1}\x00",
        b"\x00",
        b"",
        b" ",
        b"\r",
        b"{\"x\":\"\\\\\",\"\\\\\":\"\\\"id\\\":\",\"id\":1}",
    ];
    for line in lines {
        for shift in (0..70).chain(430..515) {
            let spaces = " ".repeat(shift);
            let bytes =
                [spaces.as_bytes(), line, b"\n", line, spaces.as_bytes(), b"\n", LINE.as_bytes(), b"\n", line].concat();
            records(&KeySpec::default(), &bytes);
        }
    }
}

#[test]
fn engines_agree_however_often_bad_lines_come() {
    for period in 1..200 {
        let line =
            |number: usize| if number.is_multiple_of(period) { "{\"id\":\"\n".to_owned() } else { format!("{LINE}\n") };
        let bytes: String = (0..400).map(line).collect();
        let lines = records(&KeySpec::default(), bytes.as_bytes());
        let bad = lines.iter().filter(|line| matches!(line.content, Answer::Bad(_))).count();
        assert_eq!(bad, 400_usize.div_ceil(period));
    }
}

#[test]
fn a_decoder_remembers_nothing_from_one_buffer_to_the_next() {
    let spec = TimeSpec::parse("t|data.id", TimeUnit::Seconds).unwrap();
    for engine in ENGINES {
        let new = || Decoder::new(KeySpec::default()).with_time(spec.clone()).with_engine(engine);
        let mut used = new();
        for bytes in [LINE, "{\"id\":\"", "{\"id\":[1", "{\"id\":\"\\", "\n", LINE, "", "{\"id\":1,\"id\":2}", LINE] {
            assert_eq!(decode(&mut used, bytes.as_bytes()), decode(&mut new(), bytes.as_bytes()));
        }
    }
}
