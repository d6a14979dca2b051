//! Another program meddles with the files of an open log.

use super::*;

/// What it does to a file.
type Meddle = fn(&dyn Storage, &str);

fn remove(other: &dyn Storage, name: &str) {
    other.remove(name).unwrap();
}

fn cut(other: &dyn Storage, name: &str) {
    other.cut(name, 4_096).unwrap();
}

fn extend(other: &dyn Storage, name: &str) {
    drop(other.recycle(name, 1 << 20).unwrap());
}

/// The other file has the same size and bytes.
fn rename_over(other: &dyn Storage, name: &str) {
    let bytes = other.read(name, 1 << 20).unwrap();
    let mut copy = other.create("copy", bytes.len() as u64).unwrap();
    copy.pen.write(0, &bytes).unwrap();
    other.rename("copy", name).unwrap();
}

fn rename_away(other: &dyn Storage, name: &str) {
    other.rename(name, "elsewhere").unwrap();
}

const MEDDLING: [(Meddle, &str); 5] = [
    (remove, "was removed by another program"),
    (cut, "was cut or extended by another program: it has 4096 bytes of 8192"),
    (extend, "was cut or extended by another program: it has 1048576 bytes of 8192"),
    (rename_over, "was replaced by another program"),
    (rename_away, "was removed by another program"),
];

/// Every kind of meddling with every kind of storage; `check` has a log with one batch that is not synced, gets the
/// meddling done, and returns what was said then.
fn each(check: impl Fn(&Log, &dyn Fn(&str)) -> String) {
    for (meddle, expected) in MEDDLING {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let disks = [0, 1].map(|index| {
            move |folder: &tempfile::TempDir| {
                let disk = Disk::open(folder.path()).unwrap();
                if index == 0 { disk.mapped() } else { disk.unmapped() }
            }
        });
        let simulated = Simulated::new(512);
        let mut pairs: Vec<(Arc<dyn Storage>, Arc<dyn Storage>)> =
            vec![(Arc::new(simulated.clone()), Arc::new(simulated))];
        for (disk, folder) in disks.iter().zip(&folders) {
            pairs.push((Arc::new(disk(folder)), Arc::new(disk(folder))));
        }
        for (mine, other) in pairs {
            let log = Log::open(mine, tiny(), |_| ()).unwrap().0;
            append(&log, &entry(1, 10)).unwrap();
            let said = check(&log, &|name| meddle(&*other, name));
            assert!(said.contains(expected), "{said}");
            assert_eq!(log.durable(), Position::default());
            assert_eq!(append(&log, &entry(9, 10)).unwrap_err().code(), "log_poisoned");
        }
    }
}

#[test]
fn a_sync_notices_it_before_anybody_is_told() {
    each(|log, meddle| {
        meddle(FIRST);
        log.sync().unwrap_err().to_string()
    });
}

#[test]
fn a_sync_notices_it_at_a_segment_that_is_full_and_not_synced() {
    each(|log, meddle| {
        for time in 2..=4 {
            append(log, &entry(time, 100)).unwrap();
        }
        assert_ne!(lock(&log.writer).active_number(), 1);
        meddle(FIRST);
        log.sync().unwrap_err().to_string()
    });
}

#[test]
fn an_upkeep_notices_it() {
    each(|log, meddle| {
        log.maintain().unwrap();
        meddle(FIRST);
        log.maintain().unwrap_err().to_string()
    });
}

#[test]
fn a_prepared_segment_that_is_gone_is_noticed_before_it_is_used() {
    let simulated = Simulated::new(512);
    let log = open(simulated.clone(), tiny()).unwrap().0;
    log.maintain().unwrap();
    simulated.remove("0000000000000002.log").unwrap();
    let said = log.maintain().unwrap_err().to_string();
    assert!(said.contains("0000000000000002.log was removed"), "{said}");
}

#[test]
fn a_file_that_cannot_be_looked_at_is_not_said_to_be_durable() {
    let simulated = Simulated::new(512);
    let log = open(simulated.clone(), tiny()).unwrap().0;
    append(&log, &entry(1, 10)).unwrap();
    // After the sync itself.
    let kind = std::io::ErrorKind::PermissionDenied;
    simulated.fail_at(2, super::super::storage::simulated::Fault::Error { kind, is_sticky: false });
    let said = log.sync().unwrap_err().to_string();
    assert!(said.contains("cannot look at 0000000000000001.log"), "{said}");
}

#[test]
fn what_the_log_itself_does_with_its_files_is_no_meddling() {
    let simulated = Simulated::new(512);
    // One batch fills a segment, and leaves a page to be cut.
    let log = Arc::new(open(simulated.clone(), Config { segment_bytes_min: 16_384, ..tiny() }).unwrap().0);
    append(&log, &entry(1, 500)).unwrap();
    log.maintain().unwrap();
    let other = Arc::clone(&log);
    simulated.meanwhile(move || {
        append(&other, &entry(2, 500)).unwrap();
        other.sync().unwrap();
        if other.upkeep.try_lock().is_ok() {
            other.cut_sealed();
        }
    });
    log.maintain().unwrap();
    log.maintain().unwrap();
    assert_eq!(simulated.files()[FIRST].len(), 12_288);
}

const FIRST: &str = "0000000000000001.log";
