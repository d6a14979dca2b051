//! What it costs to find the ID of a line: this decoder, two JSON libraries with a borrowed struct, and the machine's limit.
//!
//! All subjects get the same buffer of lines of about 432 bytes and must find the same IDs, which is asserted first. The
//! libraries are given lines that `memchr` cut, which is included in what they cost, and so is what they leave out: they
//! do not refuse invalid UTF-8 in other members, nor a second `id` (sonic-rs). One number per subject: time per line.
//!
//! ```sh
//! cargo bench --bench decode
//! ```

use std::borrow::Cow;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dedupd::decode::{Content, Decoder, Engine, KeySpec};
use serde::Deserialize;

const LINES: usize = 20_000;

criterion_group!(benches, decode);
criterion_main!(benches);

fn decode(criterion: &mut Criterion) {
    for (name, layout) in LAYOUTS {
        let (buffer, ids) = lines(*layout);
        let mut group = criterion.benchmark_group(format!("decode/{name}"));
        group.throughput(Throughput::Elements(LINES as u64));
        group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2)).sample_size(30);
        for (subject, find) in SUBJECTS {
            let mut found = Vec::new();
            find(&buffer, &mut |id| found.push(String::from_utf8_lossy(id).into_owned()));
            assert_eq!(found, ids, "{subject} finds the ids");
            group.bench_function(*subject, |bencher| {
                bencher.iter(|| {
                    let mut bytes = 0;
                    find(black_box(&buffer), &mut |id| bytes += id.len());
                    bytes
                });
            });
        }
        group.finish();
    }
}

type Find = fn(&[u8], &mut dyn FnMut(&[u8]));

const SUBJECTS: &[(&str, Find)] = &[
    ("dedupd", |buffer, found| dedupd_with(Engine::Auto, buffer, found)),
    ("dedupd_scalar", |buffer, found| dedupd_with(Engine::Scalar, buffer, found)),
    ("sonic_rs", |buffer, found| {
        split(buffer, |line| found(sonic_rs::from_slice::<Line<'_>>(line).unwrap().id.as_bytes()));
    }),
    ("serde_json", |buffer, found| {
        split(buffer, |line| found(serde_json::from_slice::<Line<'_>>(line).unwrap().id.as_bytes()));
    }),
    // The limit: the lines are cut and the ID's place is known.
    ("newlines_only", |buffer, found| {
        split(buffer, |line| {
            let at = memchr::memmem::find(line, b"\"evt_").unwrap();
            found(&line[at + 1..at + 1 + ID_BYTES]);
        });
    }),
];

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

fn dedupd_with(engine: Engine, buffer: &[u8], found: &mut dyn FnMut(&[u8])) {
    let mut decoder = Decoder::new(KeySpec::default()).with_engine(engine);
    decoder.decode(buffer, &mut |record| {
        if let Content::Id([b'"', id @ ..]) = record.content {
            found(id);
        }
    });
}

fn split(buffer: &[u8], mut line: impl FnMut(&[u8])) {
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', buffer) {
        line(&buffer[start..end]);
        start = end + 1;
    }
}

/// Writes one line around an ID.
type Layout = fn(&mut Random, &str) -> String;

const LAYOUTS: &[(&str, Layout)] = &[
    ("id_first", |random, id| {
        let (head, object, tail) = (head(random), object(random), tail(random));
        format!(r#"{{"id":"{id}",{head},"data":{object},{tail}}}"#)
    }),
    ("id_middle", |random, id| {
        let (head, object, tail) = (head(random), object(random), tail(random));
        format!(r#"{{{head},"id":"{id}","data":{object},{tail}}}"#)
    }),
    ("id_last", |random, id| {
        let (head, object, tail) = (head(random), object(random), tail(random));
        format!(r#"{{{head},"data":{object},{tail},"id":"{id}"}}"#)
    }),
    ("nested_ids", |random, id| {
        let (head, object, number) = (head(random), object(random), random.below(1_000_000_000));
        format!(
            r#"{{"actor":{{"id":{number},"login":"user{number}"}},{head},"data":{object},"id":"{id}","org":{{"id":{number}}},"refs":[{{"id":1}},{{"id":2}}]}}"#
        )
    }),
    ("escapes", |random, id| {
        let (head, object, number) = (head(random), object(random), random.below(1000));
        format!(
            r#"{{{head},"body":"He said \"{number}\"\nand \u00e9t\u00e9 \\ C:\\tmp\\{number}","id":"{id}","data":{object}}}"#
        )
    }),
    ("beyond_ascii", |random, id| {
        let (head, object, number) = (head(random), object(random), random.below(1000));
        format!(r#"{{{head},"name":"Zoë Müller, Łódź {number} 東京","id":"{id}","data":{object}}}"#)
    }),
];

fn head(random: &mut Random) -> String {
    let (millis, kind) =
        (random.below(1_000_000_000), ["charge.succeeded", "invoice.paid", "customer.updated"][random.below(3)]);
    format!(
        r#""object":"event","api_version":"2024-06-20","created":{},"livemode":true,"type":"{kind}""#,
        1_700_000_000 + millis
    )
}

fn object(random: &mut Random) -> String {
    let (amount, customer) = (random.below(100_000), random.below(1_000_000_000));
    format!(
        r#"{{"amount":{amount},"currency":"eur","customer":"cus_{customer:012}","paid":true,"refunded":false,"fee":{}.{:02},"failure":null,"items":[{{"sku":"sku-{amount}","qty":{}}},{{"sku":"b","qty":1}}]}}"#,
        amount / 100,
        amount % 100,
        1 + amount % 9
    )
}

fn tail(random: &mut Random) -> String {
    format!(r#""pending_webhooks":{},"request":{{"idempotency_key":"{:032x}"}}"#, random.below(4), random.next())
}

/// The buffer, and the IDs in it.
fn lines(layout: Layout) -> (Vec<u8>, Vec<String>) {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut buffer = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..LINES {
        let id = format!("evt_{:016x}{:04x}", random.next(), random.below(0x1_0000));
        let line = layout(&mut random, &id);
        buffer.extend_from_slice(line.as_bytes());
        buffer.push(b'\n');
        assert!((330..480).contains(&line.len()), "{} bytes", line.len());
        ids.push(id);
    }
    (buffer, ids)
}

/// xorshift64*: the same lines on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

const ID_BYTES: usize = 24;
