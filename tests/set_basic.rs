use dedupd::*;
use std::time::Duration;
#[test]
fn million() {
    let d = Deduplicator::builder().hash(IdHash::Xxh3).build().unwrap();
    let n = 2_000_000u64;
    for i in 0..n {
        assert_eq!(d.observe(i.to_le_bytes()), Verdict::FirstSeen, "{i}");
    }
    for i in 0..n {
        assert_eq!(d.observe(i.to_le_bytes()), Verdict::Duplicate, "{i}");
    }
    let s = d.stats();
    println!("{s:?} {}", s.memory_bytes as f64 / s.live_ids as f64);
    assert_eq!(s.live_ids, n);
    let mut v = vec![];
    let ids: Vec<_> = (n / 2..n * 2).map(|i| i.to_le_bytes()).collect();
    d.observe_batch(&ids, &mut v);
    for (i, v) in v.iter().enumerate() {
        assert_eq!(*v, if (i as u64) < n / 2 { Verdict::Duplicate } else { Verdict::FirstSeen });
    }
    let c = ManualClock::new();
    let d = Deduplicator::builder().window(Duration::from_secs(64)).clock(c.clone()).build().unwrap();
    for r in 0..1000 {
        for i in 0..1000u32 {
            let id = (i, r / 32);
            let b = format!("{id:?}");
            let v = d.observe(&b);
            if r % 32 == 0 {
                assert_eq!(v, Verdict::FirstSeen);
            } else {
                assert_eq!(v, Verdict::Duplicate, "{b} {r}");
            }
        }
        c.advance(Duration::from_secs(2));
    }
    println!("{:?}", d.stats());
}
