//! Lines that cannot be judged, made of an event's good line.

use super::rng::Rng;

/// Appends what is left of `good`, an object without its newline, after something went wrong with it.
pub fn append(out: &mut Vec<u8>, good: &[u8], rng: &mut Rng) {
    let inside = &good[1..good.len() - 1];
    match rng.below(10) {
        // Malformed.
        0..3 => out.extend_from_slice(&good[..1 + rng.below(good.len() as u64 - 1) as usize]),
        3 => out.extend([good, b"]"].concat()),
        4 => out.extend([b"{".as_slice(), inside, b",}"].concat()),
        5 => out.extend([b"{\"raw\":\"\xff\xfe\",".as_slice(), inside, b"}"].concat()),
        6 => out.extend_from_slice(b"upstream connect error or disconnect/reset before headers"),
        // No id, or none that is one.
        7 => out.extend_from_slice(br#"{"type":"ping","hook":{"id":1},"zen":"Keep it logically awesome."}"#),
        8 => out.extend_from_slice(rng.pick(&[
            br#"{"id":null,"type":"ping"}"#.as_slice(),
            br#"{"id":"","type":"ping"}"#,
            br#"{"id":{"id":"evt_1"},"type":"ping"}"#,
            br#"{"id":"\ud83d","type":"ping"}"#,
        ])),
        // Two of them.
        _ => out.extend([b"{\"id\":\"evt_0\",".as_slice(), inside, b"}"].concat()),
    }
}
