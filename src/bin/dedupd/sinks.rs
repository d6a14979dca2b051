//! `dedupd sinks`: what each ready sink promises.

use dedupd::sink::{Ready, ready};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::{print_document, stdout_failure};

pub fn sinks(json: bool) -> Result<Exit, Failure> {
    let document = if json {
        let report = Report { sinks: ready().iter().map(SinkReport::new).collect() };
        serde_json::to_string(&report).map_err(|error| stdout_failure(&error.into()))? + "\n"
    } else {
        text()
    };
    print_document(document.as_bytes())
}

fn text() -> String {
    let head = ["sink", "idempotency", "order", "durable", "what it is"];
    let rows = ready().iter().map(|sink| {
        let SinkReport { sink, idempotency, order, durable, about } = SinkReport::new(sink);
        let [idempotency, order, durable] = [idempotency, order, durable].map(|word| word.unwrap_or("-"));
        [sink, idempotency, order, durable, about]
    });
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let widths = [0, 1, 2, 3].map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
    let line = |[sink, idempotency, order, durable, about]: [&str; 5]| {
        let [a, b, c, d] = widths;
        format!("{sink:<a$}  {idempotency:<b$}  {order:<c$}  {durable:<d$}  {about}\n")
    };
    rows.into_iter().map(line).collect()
}

/// The names are stable: programs read them.
#[derive(Debug, Serialize)]
struct Report {
    sinks: Vec<SinkReport>,
}

#[derive(Debug, Serialize)]
struct SinkReport {
    sink: &'static str,
    /// Null, as the next two, when it depends on what the sink is made of.
    idempotency: Option<&'static str>,
    order: Option<&'static str>,
    durable: Option<&'static str>,
    about: &'static str,
}

impl SinkReport {
    fn new(sink: &Ready) -> Self {
        Self {
            sink: sink.name,
            idempotency: sink.guarantees.map(|promised| promised.idempotency.as_str()),
            order: sink.guarantees.map(|promised| promised.order.as_str()),
            durable: sink.guarantees.map(|promised| promised.durable.as_str()),
            about: sink.about,
        }
    }
}
