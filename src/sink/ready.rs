//! [`ready`]: the sinks that are there, and what each promises.

use super::{ChannelSink, Guarantees, NdjsonSink};

/// A sink that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Ready {
    /// The stable name.
    pub name: &'static str,
    /// What it promises; none when that depends on what it is made of.
    pub guarantees: Option<Guarantees>,
    /// How it is made, and what to know of it.
    pub about: &'static str,
}

/// The sinks that this crate brings along, in the order in which people look for them.
///
/// ```
/// let file = dedupd::sink::ready().iter().find(|sink| sink.name == "file").unwrap();
/// assert_eq!(file.guarantees.unwrap().idempotency.as_str(), "cut-back");
/// ```
#[must_use]
pub fn ready() -> &'static [Ready] {
    const {
        &[
            Ready {
                name: "stdout",
                guarantees: Some(NdjsonSink::STREAM),
                about: "NdjsonSink::stdout; as a regular file it is durable after-flush",
            },
            Ready {
                name: "file",
                guarantees: Some(NdjsonSink::FILE),
                about: "NdjsonSink::file, a regular file; a named pipe is as stdout",
            },
            Ready {
                name: "channel",
                guarantees: Some(ChannelSink::GUARANTEES),
                about: "ChannelSink, to another thread of the process",
            },
            Ready { name: "closure", guarantees: None, about: "ClosureSink; what its author states, else nothing" },
            Ready { name: "tee", guarantees: None, about: "Tee; the weakest of its branches" },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Sink;

    #[test]
    fn what_is_listed_is_what_the_sinks_say() {
        let listed = |name| ready().iter().find(|sink| sink.name == name).unwrap().guarantees.unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(NdjsonSink::file(file.path()).unwrap().guarantees(), listed("file"));
        let (_reader, writer) = std::io::pipe().unwrap();
        assert_eq!(NdjsonSink::from(std::os::fd::OwnedFd::from(writer)).guarantees(), listed("stdout"));
        let (sender, _receiver) = crossbeam::channel::bounded(1);
        assert_eq!(ChannelSink::new(sender).guarantees(), listed("channel"));
    }
}
