//! The object around an ID.

use std::io::Write as _;

use super::rng::Rng;
use super::{IdPlace, Options, Shape, id};

/// Appends event `number` as one line without its newline. `retry` seeds what differs from the first delivery.
pub fn append(out: &mut Vec<u8>, options: &Options, number: u64, retry: Option<u64>) {
    let mut rng = Rng::of(options.seed, number);
    let mut retry = retry.map(|seed| Rng::of(seed, number));
    let unusual = rng.chance(options.unusual);
    let target = options.bytes * (75 + rng.below(51) as usize) / 100;
    let members = members(shape(options.shape, number));
    let place = match options.id {
        IdPlace::First => 0,
        IdPlace::Middle => members.len() / 2,
        IdPlace::Last => members.len(),
        IdPlace::Mixed => rng.below(members.len() as u64 + 1) as usize,
    };
    // Some encoders keep no order: a retry may start elsewhere.
    let turn = retry.as_mut().map_or(0, |r| if r.below(4) == 0 { r.below(members.len() as u64) as usize } else { 0 });

    let start = out.len();
    let spaced = retry.as_mut().map_or(number.is_multiple_of(5), |r| r.below(2) == 0);
    let mut object = Object { out, spaced, unusual, filler_at: None };
    object.out.push(b'{');
    for step in 0..members.len() {
        if step == place {
            event_id(&mut object, options, number, retry.as_mut());
        }
        let index = (step + turn) % members.len();
        // Each member draws from a stream of its own, so that the order changes nothing else.
        let mut values = Rng::of(options.seed ^ (index as u64 + 1), number);
        object.member(members[index], &mut values, number, retry.as_mut());
    }
    if place == members.len() {
        event_id(&mut object, options, number, retry.as_mut());
    }
    let filler_at = object.filler_at;
    finish(out);
    if let Some(at) = filler_at {
        let missing = (start + target).saturating_sub(out.len() + 1);
        let filler = filler(&mut rng, missing, if unusual { UNUSUAL } else { WORDS });
        out.splice(at..at, filler);
    }
}

/// The event's own member. Of the unusual producers one in eight escapes the name as well.
fn event_id(object: &mut Object<'_>, options: &Options, number: u64, retry: Option<&mut Rng>) {
    let unusual = object.unusual;
    object.name(if unusual && number.is_multiple_of(8) { "\\u0069d" } else { "id" });
    match unusual {
        true => id::append_unusual(object.out, options.seed, number, retry),
        false => id::append(object.out, options.seed, number),
    }
    object.comma();
}

/// Turns the last comma into the closing brace.
fn finish(out: &mut Vec<u8>) {
    while matches!(out.last(), Some(b',' | b' ')) {
        out.pop();
    }
    out.push(b'}');
}

struct Object<'a> {
    out: &'a mut Vec<u8>,
    spaced: bool,
    unusual: bool,
    /// Where the filler goes once the length of the rest is known.
    filler_at: Option<usize>,
}

impl Object<'_> {
    fn name(&mut self, name: &str) {
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(if self.spaced { b"\": " } else { b"\":" });
    }

    fn comma(&mut self) {
        self.out.extend_from_slice(if self.spaced { b", " } else { b"," });
    }

    fn member(&mut self, member: Member, rng: &mut Rng, number: u64, retry: Option<&mut Rng>) {
        let (name, value) = member;
        self.name(name);
        let out = &mut *self.out;
        let _ = match value {
            Value::Kind(kinds) => write!(out, "\"{}\"", rng.pick(kinds)),
            Value::Literal(literals) => write!(out, "{}", rng.pick(literals)),
            Value::Created => write!(out, "{}", created(number)),
            Value::CreatedText => write!(out, "\"{}\"", Rfc3339(created(number))),
            Value::Attempt => write!(out, "{}", retry.map_or(1, |r| 2 + r.below(4))),
            Value::DeliveredAt => {
                let wait = retry.map_or(0, |r| 1 + r.below(3_600));
                write!(out, "\"{}\"", Rfc3339(created(number) + wait))
            }
            Value::Actor => {
                let id = rng.below(90_000_000);
                write!(out, r#"{{"id":{id},"login":"user-{id}","site_admin":false}}"#)
            }
            Value::Charge => write!(
                out,
                r#"{{"object":{{"id":"ch_{:016x}","amount":{},"currency":"eur","paid":true,"items":[{{"id":"li_1"}},{{"id":2}}]}}}}"#,
                rng.next(),
                rng.below(1_000_000)
            ),
            Value::Request => write!(out, r#"{{"id":"req_{:012x}","idempotency_key":null}}"#, rng.next() >> 16),
            Value::Neighbour => {
                // The ID of another event as a nested member, and as text inside of a string.
                let other = number / 2;
                let note = if self.unusual { r#"retry of {\"id\": \"evt_0\"}\\"# } else { "retry of another one" };
                write!(out, r#"{{"id":"evt_{other}","note":"{note}"}}"#)
            }
            Value::Visit => {
                let depth = if self.unusual { r#","ids":[],"depth":[[[{"id":[1,-2.5e-3]}]]]"# } else { "" };
                let created = Rfc3339(created(number));
                write!(out, r#"{{"attributes":{{"mfa":"true","created":"{created}"}},"issuer":{{}}{depth}}}"#)
            }
            Value::Filler => {
                out.push(b'"');
                self.filler_at = Some(out.len());
                out.write_all(b"\"")
            }
        };
        self.comma();
    }
}

type Member = (&'static str, Value);

#[derive(Clone, Copy)]
enum Value {
    Kind(&'static [&'static str]),
    Literal(&'static [&'static str]),
    Created,
    CreatedText,
    Attempt,
    DeliveredAt,
    Actor,
    Charge,
    Request,
    Neighbour,
    Visit,
    Filler,
}

fn shape(shape: Shape, number: u64) -> Shape {
    match shape {
        Shape::Mixed => [Shape::Payment, Shape::Repository, Shape::Audit][(number % 3) as usize],
        one => one,
    }
}

fn members(shape: Shape) -> &'static [Member] {
    match shape {
        Shape::Repository => &[
            ("type", Value::Kind(&["PushEvent", "CreateEvent", "DeleteEvent", "WatchEvent"])),
            ("actor", Value::Actor),
            ("parent", Value::Neighbour),
            ("public", Value::Literal(&["true", "false", "null"])),
            ("message", Value::Filler),
            ("created_at", Value::CreatedText),
            ("attempt", Value::Attempt),
        ],
        Shape::Audit => &[
            ("eventVersion", Value::Kind(&["1.05", "1.08"])),
            ("userIdentity", Value::Visit),
            ("errorCode", Value::Literal(&["null", "\"AccessDenied\"", "\"\""])),
            ("requestParameters", Value::Filler),
            ("resources", Value::Neighbour),
            ("delivered_at", Value::DeliveredAt),
        ],
        Shape::Payment | Shape::Mixed => &[
            ("object", Value::Kind(&["event"])),
            ("type", Value::Kind(&["charge.succeeded", "charge.refunded", "invoice.paid"])),
            ("created", Value::Created),
            ("data", Value::Charge),
            ("livemode", Value::Literal(&["true", "false"])),
            ("description", Value::Filler),
            ("pending_webhooks", Value::Attempt),
            ("request", Value::Request),
        ],
    }
}

/// Text of exactly `bytes` bytes.
fn filler(rng: &mut Rng, bytes: usize, words: &[&str]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 16);
    while text.len() < bytes {
        let before = text.len();
        text.extend_from_slice(rng.pick(words).as_bytes());
        if text.len() > bytes {
            text.truncate(before);
            text.resize(bytes, b'.');
        }
    }
    text
}

const WORDS: &[&str] = &[
    "the ",
    "order ",
    "was ",
    "sent ",
    "again ",
    "because ",
    "no ",
    "answer ",
    "came ",
    "in ",
    "time; ",
    "please ",
    "see ",
    "ticket ",
    "4711 ",
    "https://example.test/a?b=c ",
];

const UNUSUAL: &[&str] = &[
    "the ",
    "order ",
    "was ",
    "sent ",
    "again ",
    "because ",
    "no ",
    "answer ",
    "came ",
    "in ",
    "time; ",
    "please ",
    "see ",
    "ticket ",
    "4711 ",
    "Grüße ",
    "naïve ",
    "日本 ",
    "\\n",
    "\\\"id\\\": ",
    "\\u00e9t\\u00e9 ",
    "\\ud83d\\ude80 ",
    "{} ",
    "[0] ",
    "a\\\\b ",
    "https://example.test/a?b=c ",
];

/// Seconds since the Unix epoch: seven events to a second, from 2026-03-01 on.
fn created(number: u64) -> u64 {
    1_772_323_200 + number / 7
}

struct Rfc3339(u64);

impl std::fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (day, second) = ((self.0 - 1_772_323_200) / 86_400, self.0 % 86_400);
        let (month, day) = (3 + day / 30 % 10, 1 + day % 30);
        write!(f, "2026-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
    }
}
