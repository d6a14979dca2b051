//! The tools for a state directory. Goal: verify agrees with open, reading changes nothing and disturbs nobody, a repaired
//! state opens with all that still checks, and each exit code means what it says. Method: make states with the library,
//! damage copies of them, and ask the library and the binary.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dedupd::state::{self, Record, SecretFile, Use, What};
use dedupd::{Builder, Clock as _, Deduplicator, Durability, IdHash, ManualClock, Progress, Timestamp, Verdict};
use serde_json::Value;
use tempfile::TempDir;

const HOUR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(60);
/// Ids of one batch, which is one frame.
const BATCH: u32 = 50;

fn builder(clock: &ManualClock) -> Builder {
    // Children of other tests hold a lock of this process until they have become programs of their own.
    let builder = Deduplicator::builder().window(HOUR).clock(clock.clone()).lock_timeout(PATIENCE);
    builder.durability(Durability::Process).housekeeping(false)
}

fn ids(batch: u32) -> Vec<[u8; 4]> {
    (batch * BATCH..(batch + 1) * BATCH).map(u32::to_le_bytes).collect()
}

fn firsts(dedup: &Deduplicator, ids: &[[u8; 4]]) -> usize {
    let mut verdicts = Vec::new();
    dedup.observe_batch(ids, &mut verdicts);
    verdicts.iter().filter(|verdict| **verdict == Verdict::FirstSeen).count()
}

/// A state of two lives with `batches` batches each, a second apart.
fn sample(batches: u32) -> (TempDir, ManualClock) {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::starting_at(Timestamp::from_secs(1_000_000)));
    for life in 0..2 {
        let dedup = builder(&clock).open(dir.path()).unwrap();
        for batch in life * batches..(life + 1) * batches {
            assert_eq!(firsts(&dedup, &ids(batch)), BATCH as usize);
            clock.advance(Duration::from_secs(1));
        }
        dedup.close().unwrap();
    }
    (dir, clock)
}

type Files = BTreeMap<String, Vec<u8>>;

fn files(path: &Path) -> Files {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

fn directory_of(files: &Files) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, bytes)| fs::write(dir.path().join(name), bytes).unwrap());
    dir
}

/// The names of the segments with frames.
fn logs(files: &Files) -> Vec<String> {
    files.keys().filter(|name| name.ends_with(".log")).cloned().collect()
}

fn dedupd(arguments: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dedupd")).args(arguments).arg(dir).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_sound_state_is_told_as_it_is() {
    let (dir, _clock) = sample(4);
    let before = files(dir.path());
    let found = state::verify(dir.path()).unwrap();
    assert!(found.is_sound() && found.loss.is_none() && found.in_use == Use::Free, "{found:?}");
    assert_eq!((found.ids.seen, found.segments), (u64::from(8 * BATCH), 2));
    assert_eq!(found.bytes, logs(&before).iter().map(|name| before[name].len() as u64).sum::<u64>());
    let output = dedupd(&["verify"], dir.path());
    assert_eq!((output.status.code(), json(&output)["sound"].as_bool()), (Some(0), Some(true)));
    let inspected = state::inspect(dir.path()).unwrap();
    assert_eq!((inspected.hash, inspected.secret), (Some(IdHash::SipHash13), SecretFile::Right));
    let per_id = inspected.bytes_per_id().unwrap();
    assert!(per_id > 16.0 && per_id < 20.0, "{per_id}");
    let times = inspected.times().unwrap();
    assert_eq!(times, (Timestamp::from_secs(1_000_000), Timestamp::from_secs(1_000_007)));
    assert_eq!(files(dir.path()), before, "looking changes nothing");
}

#[test]
fn verify_and_open_agree_on_every_damage() {
    let (dir, clock) = sample(3);
    let sound = files(dir.path());
    let (mut corrupt, mut harmless) = (0, 0);
    for name in logs(&sound) {
        for at in (0..sound[&name].len()).step_by(37) {
            let mut bad = sound.clone();
            bad.get_mut(&name).unwrap()[at] ^= 0x10;
            let dir = directory_of(&bad);
            let found = state::verify(dir.path()).unwrap();
            assert_eq!(files(dir.path()), bad);
            let opened = builder(&clock).open(dir.path());
            let Some(problem) = found.problem else {
                let opened = opened.unwrap();
                assert_eq!((0..6).map(|batch| firsts(&opened, &ids(batch))).sum::<usize>(), 0, "{name}, byte {at}");
                harmless += 1;
                continue;
            };
            assert_eq!(opened.unwrap_err().code(), problem.code, "{name}, byte {at}");
            assert_eq!((problem.code, problem.file.as_deref()), ("state_corrupt", Some(name.as_str())), "byte {at}");
            let offset = problem.offset.unwrap();
            assert!(offset <= at as u64 && at as u64 - offset < 4_096, "byte {at}: {problem:?}");
            corrupt += 1;
        }
    }
    assert!(corrupt > 100 && harmless > 10, "{corrupt}, {harmless}");
}

#[test]
fn a_torn_tail_is_sound_and_told() {
    let (dir, clock) = sample(2);
    let dedup = builder(&clock).open(dir.path()).unwrap();
    assert_eq!(firsts(&dedup, &ids(9)), BATCH as usize);
    // As after a kill: nothing is closed, and the last frame is half there.
    let mut left = files(dir.path());
    let name = logs(&left).pop().unwrap();
    let bytes = left.get_mut(&name).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end - 200..=end].fill(0);
    let dir = directory_of(&left);
    let found = state::verify(dir.path()).unwrap();
    let loss = found.loss.clone().unwrap();
    assert!(found.is_sound() && loss.file == name && loss.frames == 0, "{found:?}");
    let output = dedupd(&["verify"], dir.path());
    let report = json(&output);
    assert_eq!((output.status.code(), report["loss"]["kind"].as_str()), (Some(0), Some("torn_tail")));
    let text = String::from_utf8(dedupd(&["inspect"], dir.path()).stdout).unwrap();
    assert!(text.contains("sound, with a torn tail of"), "{text}");
    let repaired = state::repair(dir.path(), PATIENCE).unwrap();
    assert_eq!(repaired, None, "there is nothing to repair");
}

#[test]
fn each_problem_has_its_exit_code() {
    let (dir, clock) = sample(2);
    let sound = files(dir.path());
    let first = logs(&sound).remove(0);
    let check = |change: &dyn Fn(&mut Files), exit, code: &str| {
        let mut files = sound.clone();
        change(&mut files);
        let dir = directory_of(&files);
        for tool in [&["verify"][..], &["inspect", "--json"]] {
            let output = dedupd(tool, dir.path());
            assert_eq!(output.status.code(), Some(exit), "{tool:?} {output:?}");
            assert_eq!(
                (json(&output)["problem"]["code"].as_str(), json(&output)["sound"].as_bool()),
                (Some(code), Some(false))
            );
            let told = String::from_utf8(output.stderr).unwrap();
            assert!(told.starts_with(&format!("dedupd: error[{code}]: ")), "{told}");
        }
    };
    check(&|files| files.get_mut(&first).unwrap()[4_200] ^= 1, 76, "state_corrupt");
    check(&|files| drop(files.remove("SECRET")), 76, "state_corrupt");
    check(&|files| files.get_mut("SECRET").unwrap().truncate(31), 76, "state_corrupt");
    check(&|files| files.get_mut("SECRET").unwrap()[0] ^= 1, 78, "state_of_other_configuration");
    let newer = |files: &mut Files| {
        let page = files.get_mut(&first).unwrap();
        page[8] = 2;
        let crc = crc32c(&page[..4_092]);
        page[4_092..4_096].copy_from_slice(&crc.to_le_bytes());
    };
    check(&newer, 78, "state_newer");
    for tool in ["verify", "inspect", "export", "repair"] {
        let output = dedupd(&[tool], &dir.path().join("nowhere"));
        assert_eq!(output.status.code(), Some(74), "{tool}");
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(dedupd(&[tool], empty.path()).status.code(), Some(74), "{tool}");
        assert!(files(empty.path()).is_empty(), "{tool}");
    }
    let open = builder(&clock).open(dir.path()).unwrap();
    assert_eq!(dedupd(&["repair"], dir.path()).status.code(), Some(75));
    let report = json(&dedupd(&["verify"], dir.path()));
    assert_eq!(report["pid"].as_u64(), Some(u64::from(std::process::id())));
    drop(open);
}

#[test]
fn a_secret_that_is_lost_or_another_is_told_by_its_name_and_no_repair_is_advised() {
    let (dir, clock) = sample(1);
    let sound = files(dir.path());
    type Change = fn(&mut Files);
    let lost: Change = |files| drop(files.remove("SECRET"));
    let half: Change = |files| files.get_mut("SECRET").unwrap().truncate(31);
    let other: Change = |files| files.get_mut("SECRET").unwrap()[0] ^= 1;
    let cases = [
        (lost, 76, "/SECRET is gone, the secret of the log beside it: "),
        (half, 76, "/SECRET is not a secret, which is a file of 32 bytes: "),
        (other, 78, "/SECRET is not the secret that the log beside it was written with: "),
    ];
    for (change, code, what) in cases {
        let mut files = sound.clone();
        change(&mut files);
        let dir = directory_of(&files);
        for tool in [
            &["verify"][..],
            &["inspect"],
            &["repair"],
            &["forget"],
            &["explain", "--state"],
            &["--state"],
            &["--on-corrupt", "salvage", "--state"],
        ] {
            let output = dedupd(tool, dir.path());
            let told = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(code), "{tool:?}: {told}");
            assert!(
                told.contains(what) && told.contains("restore it from a backup; no repair can replace it"),
                "{told}"
            );
            assert!(!told.contains("dedupd repair") && !told.contains("--key") && told.lines().count() == 1, "{told}");
        }
        files.remove("LOCK");
        assert_eq!(files_of(&dir), files, "nothing was changed");
    }
    // One segment of another state among those that fit: then it is not the secret that is wrong.
    let mut mixed = sound.clone();
    let (stranger, _clock) = sample(1);
    let last = logs(&sound).pop().unwrap();
    mixed.insert(last.clone(), files_of(&stranger)[&last].clone());
    let told = builder(&clock).open(directory_of(&mixed).path()).unwrap_err().to_string();
    assert!(told.contains(&format!("{last} belongs to a state of another configuration")), "{told}");
}

/// Its files, without the lock that a look may have made.
fn files_of(dir: &TempDir) -> Files {
    files(dir.path()).into_iter().filter(|(name, _)| name != "LOCK").collect()
}

#[test]
fn a_newest_segment_that_is_gone_or_cut_has_no_witness_and_makes_ids_unknown_and_none_known() {
    let (dir, clock) = sample(3);
    let sound = files(dir.path());
    let newest = logs(&sound).pop().unwrap();
    let gone: &dyn Fn(&mut Files) = &|files| drop(files.remove(&newest));
    let cut: &dyn Fn(&mut Files) = &|files| files.get_mut(&newest).unwrap().truncate(4_096 + 100);
    for change in [gone, cut] {
        let mut files = sound.clone();
        change(&mut files);
        let dir = directory_of(&files);
        assert!(state::verify(dir.path()).unwrap().is_sound());
        let dedup = builder(&clock).open(dir.path()).unwrap();
        let known: Vec<usize> = (0..6).map(|batch| firsts(&dedup, &ids(batch))).collect();
        let all = BATCH as usize;
        assert_eq!(known, [0, 0, 0, all, all, all], "those of the life before are known, the others first-seen");
    }
}

/// CRC32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn a_repaired_state_knows_all_but_what_was_hit() {
    let (dir, clock) = sample(4);
    let sound = files(dir.path());
    let mut repairs = 0;
    for name in logs(&sound) {
        for at in (0..sound[&name].len()).step_by(61) {
            let what = format!("{name}, byte {at}");
            let mut bad = sound.clone();
            bad.get_mut(&name).unwrap()[at] ^= 0x10;
            let dir = directory_of(&bad);
            let Some(repair) = state::repair(dir.path(), PATIENCE).unwrap() else { continue };
            let after = files(dir.path());
            for (old, bytes) in &bad {
                let stem = old.trim_end_matches(".log");
                assert!(
                    after.iter().any(|(new, kept)| new.starts_with(stem) && kept == bytes),
                    "{what}: {old} is gone"
                );
            }
            assert!(state::verify(dir.path()).unwrap().is_sound(), "{what}");
            assert_eq!(state::repair(dir.path(), PATIENCE).unwrap(), None, "{what}");
            let dedup = builder(&clock).open(dir.path()).unwrap();
            let lost: usize = (0..8).map(|batch| firsts(&dedup, &ids(batch))).sum();
            assert!(lost == 0 || at >= 4_096 && lost == BATCH as usize, "{what}: {lost}");
            assert!(repair.ids_unknown_max.is_none_or(|max| max >= lost as u64 && max < 400), "{what}: {repair:?}");
            let until = repair.unknown_until(HOUR, clock.now());
            assert!(until <= clock.now().saturating_add(HOUR + HOUR / 64), "{what}: {until:?}");
            repairs += 1;
        }
    }
    assert!(repairs > 50, "{repairs}");
}

#[test]
fn a_repair_tells_how_many_ids_are_unknown_and_until_when() {
    let (dir, _clock) = sample(3);
    let mut bad = files(dir.path());
    let first = logs(&bad).remove(0);
    bad.get_mut(&first).unwrap()[4_096 + 300] ^= 1;
    let told = |arguments: &[&str]| {
        let output = dedupd(arguments, directory_of(&bad).path());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = told(&["repair"]);
    let gap = format!("1 frame missing in {first} after byte 4096, with 50 ids at the most\n");
    assert!(text.contains(&gap), "{text}");
    assert!(text.contains("until the window has passed since 1970-01-12T13:46:41.000000000Z"), "{text}");
    let text = told(&["repair", "--window", "64h"]);
    assert!(text.contains("unknown: 50 ids at the most, until 1970-01-15T06:46:41.000000000Z at the latest"), "{text}");
    fs::remove_file(dir.path().join("SECRET")).unwrap();
    assert_eq!(dedupd(&["repair"], dir.path()).status.code(), Some(76), "there is no repair for this");
    let (dir, _clock) = sample(1);
    let sound = dedupd(&["repair"], dir.path());
    assert!(String::from_utf8(sound.stdout).unwrap().ends_with("is sound: nothing was changed\n"));
}

#[test]
fn an_export_is_what_was_seen_and_not_forgotten() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::starting_at(Timestamp::from_secs(1_000_000)));
    let dedup = builder(&clock).extend_on_duplicate(true).open(dir.path()).unwrap();
    assert_eq!(firsts(&dedup, &ids(0)), BATCH as usize);
    clock.advance(HOUR / 2);
    assert_eq!(firsts(&dedup, &ids(0)[..10]), 0, "their windows start again");
    assert!(dedup.forget(ids(0)[0]).unwrap() && dedup.forget(ids(0)[20]).unwrap());
    assert_eq!(firsts(&dedup, &ids(0)[20..21]), 1);
    let mut progress = Progress::new();
    progress.set_source("orders.ndjson", "4711");
    progress.set_sink("out", [0, 1]);
    let mut reserved = dedup.reserve_batch(&["last"]).unwrap();
    reserved.try_commit(&progress).unwrap();
    drop(reserved);
    dedup.close().unwrap();
    let (mut seen, mut refreshed, mut last) = (0, 0, 0);
    state::export(dir.path(), |record| {
        assert!(record.sequence >= last);
        last = record.sequence;
        match record.what {
            What::Seen(_) => seen += 1,
            What::Refresh(_) => refreshed += 1,
            _ => panic!("{record:?}"),
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    // Of fifty, nine refreshed ones are left; two were forgotten, of which one came back; and the last one.
    assert_eq!((seen, refreshed), (BATCH - 10 - 1 + 1 + 1, 9));
    let lines = |arguments: &[&str]| {
        let output = dedupd(arguments, dir.path());
        assert_eq!(output.status.code(), Some(0));
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    let exported = lines(&["export"]);
    assert_eq!(exported.len(), (seen + refreshed) as usize);
    let fingerprint = exported[0]["fingerprint"].as_str().unwrap();
    assert!(fingerprint.len() == 32 && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit()), "{fingerprint}");
    assert_eq!(
        (exported[0]["kind"].as_str(), exported[0]["time"].as_str()),
        (Some("seen"), Some("1970-01-12T13:46:40.000000000Z"))
    );
    let all = lines(&["export", "--all"]);
    let of = |kind: &str| all.iter().filter(|line| line["kind"] == kind).collect::<Vec<_>>();
    assert_eq!((of("seen").len(), of("refresh").len(), of("forget").len()), (BATCH as usize + 2, 10, 2));
    assert_eq!(
        (of("source")[0]["name"].as_str(), of("source")[0]["position"].as_str()),
        (Some("orders.ndjson"), Some("4711"))
    );
    assert_eq!(of("sink")[0]["position"].as_str(), Some("0x0001"));
    assert_eq!(of("sink")[0]["sequence"], all.last().unwrap()["sequence"], "committed with the last ID");
    let inspected = state::inspect(dir.path()).unwrap();
    assert_eq!(
        (inspected.sources[0].name.as_slice(), inspected.sinks[0].position.as_slice()),
        (&b"orders.ndjson"[..], &[0, 1][..])
    );
}

#[test]
fn a_state_may_be_looked_at_while_it_is_used() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::starting_at(Timestamp::from_secs(1_000_000)));
    let dedup = builder(&clock).window(Duration::from_secs(100)).housekeeping(true).open(dir.path()).unwrap();
    let is_over = AtomicBool::new(false);
    let looks = std::thread::scope(|scope| {
        scope.spawn(|| {
            for batch in 0..10_000 {
                firsts(&dedup, &ids(batch));
                clock.advance(Duration::from_millis(100));
            }
            is_over.store(true, Ordering::Release);
        });
        let (mut looks, mut before) = (0, 0);
        while !is_over.load(Ordering::Acquire) {
            let found = state::verify(dir.path()).unwrap();
            assert!(found.is_sound() && found.loss.is_none(), "{found:?}");
            assert_eq!(found.in_use, Use::By(std::process::id()));
            let mut last = 0;
            let each = |record: Record<'_>| {
                assert!(record.sequence >= last);
                last = record.sequence;
                ControlFlow::Continue(())
            };
            state::export(dir.path(), each).unwrap();
            assert!(last >= before, "{last} after {before}");
            before = last;
            looks += u64::from(last > 0);
        }
        looks
    });
    assert!(looks > 1, "{looks}");
    dedup.close().unwrap();
}

#[test]
fn a_copy_of_a_state_in_use_goes_on_when_verify_says_that_it_is_sound() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::starting_at(Timestamp::from_secs(1_000_000)));
    let dedup = builder(&clock).open(dir.path()).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for batch in 0..20_000 {
                firsts(&dedup, &ids(batch));
                if is_over.load(Ordering::Acquire) {
                    break;
                }
            }
        });
        let mut sound = 0;
        for _ in 0..TRIES_MAX {
            let copy = tempfile::tempdir().unwrap();
            let names = names(dir.path());
            // As the guide says: those with the highest number first.
            for name in names.iter().rev().filter(|name| name.ends_with(".log") || *name == "SECRET") {
                fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
            }
            let found = state::verify(copy.path()).unwrap();
            let opened = builder(&clock).open(copy.path());
            assert_eq!(opened.is_ok(), found.is_sound(), "{found:?}");
            let Ok(opened) = opened else { continue };
            let batches = u32::try_from(found.ids.seen).unwrap() / BATCH;
            assert_eq!((0..batches).map(|batch| firsts(&opened, &ids(batch))).sum::<usize>(), 0);
            sound += 1;
            if sound == 2 {
                break;
            }
        }
        is_over.store(true, Ordering::Release);
        assert_eq!(sound, 2, "of {TRIES_MAX} copies");
    });
}

const TRIES_MAX: usize = 50;

/// What the state in `tests/cmd` was made with. Runs only when asked for, as the fixture is to stay as it is: it is of the
/// first version of the format.
#[test]
fn fixture() {
    let Ok(path) = std::env::var("DEDUPD_TEST_FIXTURE") else { return };
    let clock = ManualClock::starting_at(Timestamp::from_secs(1_000_000_000));
    let dedup = fixture_builder(&clock).open(&path).unwrap();
    assert_eq!(firsts(&dedup, &ids(0)), BATCH as usize);
    clock.advance(Duration::from_secs(60));
    assert!(dedup.forget(ids(0)[7]).unwrap());
    let mut progress = Progress::new();
    progress.set_source("orders.ndjson", "4711");
    progress.set_sink("out.ndjson", [0, 1, 2]);
    dedup.record_progress(&progress).unwrap();
    dedup.close().unwrap();
    clock.advance(Duration::from_secs(60));
    let dedup = fixture_builder(&clock).open(&path).unwrap();
    assert_eq!(firsts(&dedup, &ids(1)), BATCH as usize);
    clock.advance(Duration::from_secs(1_740));
    assert_eq!(firsts(&dedup, &ids(1)[..5]), 0);
    dedup.close().unwrap();
}

fn fixture_builder(clock: &ManualClock) -> Builder {
    builder(clock).extend_on_duplicate(true).secret([7; 32]).id_paths("id")
}

#[test]
fn a_state_of_the_first_version_is_read() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cmd/state.in/sound");
    let dir = directory_of(&files(&fixture));
    let clock = ManualClock::starting_at(Timestamp::from_secs(1_000_002_000));
    let dedup = fixture_builder(&clock).open(dir.path()).unwrap();
    let known = |batch| ids(batch).iter().filter(|id| dedup.contains(id)).count();
    assert_eq!((known(0), known(1)), (BATCH as usize - 1, BATCH as usize), "one was forgotten");
    assert_eq!(dedup.progress().source("orders.ndjson"), Some(&b"4711"[..]));
    assert_eq!(dedup.progress().sink("out.ndjson"), Some(&[0, 1, 2][..]));
    clock.set(Timestamp::from_secs(1_000_004_000));
    assert_eq!(firsts(&dedup, &ids(1)), BATCH as usize - 5, "the windows of five were started again");
}
